-- What a mailbox takes, and which one a person chose for a physician at a place: every message to him goes there first.
ALTER TABLE mailbox ADD COLUMN paperless boolean;
ALTER TABLE staged_mailbox ADD COLUMN paperless text;
CREATE TABLE mailbox_choice (
    id uuid NOT NULL,
    practitioner_id uuid NOT NULL,
    organisation_id uuid,
    mailbox_id uuid NOT NULL,
    chosen_by text NOT NULL,
    chosen_at timestamptz NOT NULL,
    CONSTRAINT pk_mailbox_choice PRIMARY KEY (id),
    CONSTRAINT uq_mailbox_choice_practitioner_id_organisation_id UNIQUE NULLS NOT DISTINCT (practitioner_id, organisation_id),
    CONSTRAINT fk_mailbox_choice_practitioner_id FOREIGN KEY(practitioner_id) REFERENCES practitioner (id),
    CONSTRAINT fk_mailbox_choice_organisation_id FOREIGN KEY(organisation_id) REFERENCES organisation (id),
    CONSTRAINT fk_mailbox_choice_mailbox_id FOREIGN KEY(mailbox_id) REFERENCES mailbox (id)
);
