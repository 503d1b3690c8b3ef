-- Copies of studies without identity: what was asked for, which UIDs became which, what became of each object.
CREATE TABLE study_copy (
    study_id uuid NOT NULL,
    dossier_id uuid NOT NULL,
    asked_by text NOT NULL,
    asked_at timestamptz NOT NULL,
    done_at timestamptz,
    state text NOT NULL,
    pseudonym text NOT NULL,
    options text[] NOT NULL,
    secret bytea,
    id uuid NOT NULL,
    CONSTRAINT pk_study_copy PRIMARY KEY (id),
    CONSTRAINT ck_study_copy_state CHECK (state IN ('demandee', 'faite', 'vide')),
    CONSTRAINT fk_study_copy_study_id FOREIGN KEY(study_id) REFERENCES study (id),
    CONSTRAINT fk_study_copy_dossier_id FOREIGN KEY(dossier_id) REFERENCES dossier (id),
    CONSTRAINT uq_study_copy_pseudonym UNIQUE (pseudonym)
);
CREATE INDEX ix_study_copy_dossier_id ON study_copy (dossier_id);
CREATE INDEX ix_study_copy_due ON study_copy (asked_at) WHERE state = 'demandee';
CREATE INDEX ix_study_copy_study_id ON study_copy (study_id);
CREATE TABLE study_copy_uid (
    copy_id uuid NOT NULL,
    original text NOT NULL,
    replacement text NOT NULL,
    CONSTRAINT pk_study_copy_uid PRIMARY KEY (copy_id, original),
    CONSTRAINT uq_study_copy_uid_copy_id_replacement UNIQUE (copy_id, replacement),
    CONSTRAINT fk_study_copy_uid_copy_id FOREIGN KEY(copy_id) REFERENCES study_copy (id)
);
CREATE TABLE study_copy_object (
    copy_id uuid NOT NULL,
    instance_id uuid NOT NULL,
    series_id uuid NOT NULL,
    left_out text,
    sop_class_uid text,
    sop_instance_uid text,
    transfer_syntax_uid text,
    sha256 text,
    size_bytes bigint,
    burned_in text,
    CONSTRAINT pk_study_copy_object PRIMARY KEY (copy_id, instance_id),
    CONSTRAINT fk_study_copy_object_copy_id FOREIGN KEY(copy_id) REFERENCES study_copy (id),
    CONSTRAINT fk_study_copy_object_instance_id FOREIGN KEY(instance_id) REFERENCES instance (id),
    CONSTRAINT fk_study_copy_object_series_id FOREIGN KEY(series_id) REFERENCES series (id)
);
