-- What a person decided about a study, and the orders that it answers: looked for when an order comes after it.
ALTER TABLE study ADD COLUMN decisions jsonb;
ALTER TABLE study ADD COLUMN order_keys text[] DEFAULT '{}' NOT NULL;
CREATE INDEX ix_study_order_keys ON study USING gin (order_keys);
-- What became of an object that was kept aside; of which study it said to be.
ALTER TABLE quarantined_object ADD COLUMN study_id uuid CONSTRAINT fk_quarantined_object_study_id REFERENCES study (id);
ALTER TABLE quarantined_object ADD COLUMN judged_at timestamptz;
ALTER TABLE quarantined_object ADD COLUMN judged_by text;
ALTER TABLE quarantined_object ADD COLUMN decision text;
CREATE INDEX ix_quarantined_object_study_id ON quarantined_object (study_id);
-- Images that are awaited for a patient: ordered by a software, or declared by a person.
CREATE TABLE awaited_study (
    id uuid NOT NULL,
    record_id uuid NOT NULL,
    dossier_id uuid,
    partner_id uuid,
    source text NOT NULL,
    keys text[] NOT NULL,
    label text,
    modality text,
    planned_on date,
    state text NOT NULL,
    study_id uuid,
    author text,
    at timestamptz NOT NULL,
    CONSTRAINT pk_awaited_study PRIMARY KEY (id),
    CONSTRAINT uq_awaited_study_partner_id_source UNIQUE (partner_id, source),
    CONSTRAINT ck_awaited_study_state CHECK (state IN ('attendue', 'annulee')),
    CONSTRAINT fk_awaited_study_record_id FOREIGN KEY(record_id) REFERENCES patient_record (id),
    CONSTRAINT fk_awaited_study_dossier_id FOREIGN KEY(dossier_id) REFERENCES dossier (id),
    CONSTRAINT fk_awaited_study_partner_id FOREIGN KEY(partner_id) REFERENCES partner (id),
    CONSTRAINT fk_awaited_study_study_id FOREIGN KEY(study_id) REFERENCES study (id)
);
CREATE INDEX ix_awaited_study_record_id ON awaited_study (record_id);
CREATE INDEX ix_awaited_study_dossier_id ON awaited_study (dossier_id);
CREATE INDEX ix_awaited_study_study_id ON awaited_study (study_id);
CREATE INDEX ix_awaited_study_keys ON awaited_study USING gin (keys);
-- Pictures and PDFs that a person lays beside a dossier.
ALTER TABLE received_document DROP CONSTRAINT ck_received_document_format,
  ADD CONSTRAINT ck_received_document_format CHECK (format IN ('n1', 'structure', 'pdf', 'png', 'jpeg', 'gif'));
