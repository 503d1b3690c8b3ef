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
    author text,
    at timestamptz NOT NULL,
    CONSTRAINT pk_awaited_study PRIMARY KEY (id),
    CONSTRAINT uq_awaited_study_partner_id_source UNIQUE (partner_id, source),
    CONSTRAINT fk_awaited_study_record_id FOREIGN KEY(record_id) REFERENCES patient_record (id),
    CONSTRAINT fk_awaited_study_dossier_id FOREIGN KEY(dossier_id) REFERENCES dossier (id),
    CONSTRAINT fk_awaited_study_partner_id FOREIGN KEY(partner_id) REFERENCES partner (id)
);
CREATE INDEX ix_awaited_study_record_id ON awaited_study (record_id);
CREATE INDEX ix_awaited_study_dossier_id ON awaited_study (dossier_id);
CREATE INDEX ix_awaited_study_keys ON awaited_study USING gin (keys);
-- Pictures and PDFs that a person lays beside a dossier.
ALTER TABLE received_document DROP CONSTRAINT ck_received_document_format,
  ADD CONSTRAINT ck_received_document_format CHECK (format IN ('n1', 'structure', 'pdf', 'png', 'jpeg', 'gif'));
-- What DICOM searches compare, byte by byte whatever the server's language; of studies that came before, what their rows
-- and their first object say.
ALTER TABLE study
  ALTER COLUMN patient_id TYPE text COLLATE "C",
  ALTER COLUMN accession_number TYPE text COLLATE "C",
  ADD COLUMN issuer_of_patient_id text COLLATE "C",
  ADD COLUMN patient_name text COLLATE "C",
  ADD COLUMN patient_birth_date text COLLATE "C",
  ADD COLUMN patient_sex text COLLATE "C",
  ADD COLUMN study_id text COLLATE "C",
  ADD COLUMN study_date text COLLATE "C",
  ADD COLUMN study_time text COLLATE "C",
  ADD COLUMN referring_physician_name text COLLATE "C";
ALTER TABLE series
  ADD COLUMN series_date text COLLATE "C",
  ADD COLUMN series_time text COLLATE "C",
  ADD COLUMN performed_procedure_step_start_date text COLLATE "C",
  ADD COLUMN performed_procedure_step_start_time text COLLATE "C",
  ADD COLUMN scheduled_procedure_step_id text COLLATE "C",
  ADD COLUMN requested_procedure_id text COLLATE "C";
UPDATE study SET
  patient_birth_date = replace(traits ->> 'birth_date', '-', ''),
  patient_name = nullif(rtrim(translate(lower(concat(traits ->> 'family', '^', traits ->> 'given')),
    'ÀÂÄÇÉÈÊËÎÏÔÖÙÛÜàâäçéèêëîïôöùûü', 'aaaceeeeiioouuuaaaceeeeiioouuu'), '^'), ''),
  patient_sex = CASE WHEN traits ->> 'sex' IN ('F', 'M') THEN traits ->> 'sex' END,
  referring_physician_name = lower(referring_physician),
  study_date = to_char(coalesce(started_at AT TIME ZONE 'Europe/Paris', started_on), 'YYYYMMDD'),
  study_time = to_char(started_at AT TIME ZONE 'Europe/Paris', 'HH24MISS');
UPDATE series SET
  series_date = to_char(started_at AT TIME ZONE 'Europe/Paris', 'YYYYMMDD'),
  series_time = to_char(started_at AT TIME ZONE 'Europe/Paris', 'HH24MISS');
CREATE INDEX ix_study_patient_name ON study (patient_name);
CREATE INDEX ix_study_patient_birth_date ON study (patient_birth_date);
CREATE INDEX ix_study_study_date ON study (study_date);
DROP INDEX ix_instance_series_id;
CREATE INDEX ix_instance_of_series ON instance (series_id, instance_number, id);
