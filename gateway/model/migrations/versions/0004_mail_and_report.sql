-- A receipt names the envelope of what it tells of; a mail that came twice is known by its bytes.
CREATE INDEX ix_message_envelope ON message ((details ->> 'envelope_id')) WHERE direction = 'out';
CREATE INDEX ix_message_sha256 ON message (sha256) WHERE direction = 'in';
-- The national directory: what is gone stays, dated; a name is searched without accents; one file is staged at a time.
ALTER TABLE practitioner ADD COLUMN gone_on date, ADD COLUMN asked_at timestamptz, ADD COLUMN folded text COLLATE "C" NOT NULL
  GENERATED ALWAYS AS (lower(translate(family || '|' || given, 'ÀÁÂÃÄÅÇÈÉÊËÌÍÎÏÑÒÓÔÕÖÙÚÛÜÝŸàáâãäåçèéêëìíîïñòóôõöùúûüýÿ’-', 'AAAAAACEEEEIIIINOOOOOUUUUYYaaaaaaceeeeiiiinooooouuuuyy'' ') COLLATE "C")) STORED;
CREATE INDEX ix_practitioner_folded ON practitioner (folded);
ALTER TABLE organisation ADD COLUMN gone_on date;
ALTER TABLE practice_role ADD COLUMN gone_on date,
  DROP CONSTRAINT uq_practice_role_practitioner_id_organisation_id_speciality,
  ADD CONSTRAINT uq_practice_role_practitioner_id_organisation_id_speciality
    UNIQUE NULLS NOT DISTINCT (practitioner_id, organisation_id, speciality);
ALTER TABLE mailbox ADD COLUMN gone_on date;
CREATE UNIQUE INDEX uq_mailbox_organisation ON mailbox (organisation_id, address) WHERE practitioner_id IS NULL;
CREATE TABLE directory_import (id uuid NOT NULL CONSTRAINT pk_directory_import PRIMARY KEY, source text NOT NULL,
  file_name text NOT NULL, sha256 text NOT NULL, size_bytes bigint NOT NULL, rows bigint NOT NULL, rejected bigint NOT NULL,
  skipped bigint NOT NULL, flagged bigint NOT NULL, gone bigint NOT NULL, state text NOT NULL, reason text, as_of date NOT NULL,
  started_at timestamptz NOT NULL, ended_at timestamptz,
  CONSTRAINT ck_directory_import_state CHECK (state IN ('charge','applique','refuse')));
CREATE INDEX ix_directory_import_source ON directory_import (source, as_of);
CREATE UNLOGGED TABLE staged_practice (idnps text, family text, given text, title text, profession text, speciality_kind text,
  speciality text, idnst text, structure text, street text, postal_code text, city text, phone text);
CREATE UNLOGGED TABLE staged_mailbox (kind text, address text, idnps text, family text, given text, title text, profession text,
  speciality text, idnst text, structure text, postal_code text);
-- Whoever waits for news of a mail that left is found by when it is missed.
ALTER TABLE message ADD COLUMN receipt_due_at timestamptz;
CREATE INDEX ix_message_receipt_due ON message (receipt_due_at) WHERE receipt_due_at IS NOT NULL;
-- When a report was withdrawn, and why in the words of who did.
ALTER TABLE report ADD COLUMN withdrawn_at timestamptz, ADD COLUMN withdrawn_because text;
-- What an RCP asks of a fiche: its mandatory fields and its labels.
ALTER TABLE rcp ADD COLUMN fiche jsonb NOT NULL DEFAULT '{}';
-- A document that somebody sends about a patient: its header, whose it is, and why a person must look when that is not sure.
CREATE TABLE received_document (id uuid NOT NULL CONSTRAINT pk_received_document PRIMARY KEY,
  message_id uuid CONSTRAINT fk_received_document_message_id REFERENCES message (id), channel text NOT NULL, sender text,
  unique_id text NOT NULL, set_id text, version integer, replaces text, format text NOT NULL, sha256 text, size_bytes bigint NOT NULL,
  title text, type_code text, type_label text, author text, written_at timestamptz,
  record_id uuid CONSTRAINT fk_received_document_record_id REFERENCES patient_record (id),
  dossier_id uuid CONSTRAINT fk_received_document_dossier_id REFERENCES dossier (id),
  state text NOT NULL, reason text, received_at timestamptz NOT NULL,
  CONSTRAINT ck_received_document_state CHECK (state IN ('attache', 'quarantaine', 'remplace', 'retire')),
  CONSTRAINT ck_received_document_format CHECK (format IN ('n1', 'structure')));
CREATE UNIQUE INDEX uq_received_document ON received_document (unique_id, sha256) NULLS NOT DISTINCT;
CREATE INDEX ix_received_document_set ON received_document (set_id);
CREATE INDEX ix_received_document_record_id ON received_document (record_id);
CREATE INDEX ix_received_document_dossier_id ON received_document (dossier_id);
