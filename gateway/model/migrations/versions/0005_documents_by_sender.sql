-- Two establishments may bring the same document of their own patients: neither learns that the other did.
DROP INDEX uq_received_document;
CREATE UNIQUE INDEX uq_received_document ON received_document (unique_id, sha256, sender) NULLS NOT DISTINCT;
-- The personalised care plan that follows a report, version by version; what was validated never changes.
CREATE TABLE care_plan (id uuid NOT NULL CONSTRAINT pk_care_plan PRIMARY KEY,
  dossier_id uuid NOT NULL CONSTRAINT fk_care_plan_dossier_id REFERENCES dossier (id),
  set_id uuid NOT NULL, version integer NOT NULL, state text NOT NULL, draft jsonb NOT NULL, content bytea, sha256 text, size_bytes bigint,
  replaces_id uuid CONSTRAINT fk_care_plan_replaces_id REFERENCES care_plan (id),
  author_id uuid NOT NULL CONSTRAINT fk_care_plan_author_id REFERENCES practitioner (id),
  created_at timestamptz NOT NULL, validated_at timestamptz,
  CONSTRAINT uq_care_plan_dossier_id_version UNIQUE (dossier_id, version),
  CONSTRAINT ck_care_plan_state CHECK (state IN ('brouillon', 'valide', 'remplace')),
  CONSTRAINT ck_care_plan_frozen CHECK ((state = 'brouillon') = (content IS NULL)),
  CONSTRAINT ck_care_plan_kept CHECK ((content IS NULL) = (sha256 IS NULL)));
CREATE UNIQUE INDEX uq_care_plan_draft ON care_plan (dossier_id) WHERE state = 'brouillon';
CREATE FUNCTION keep_validated_plan() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.state <> 'brouillon' THEN
      RAISE EXCEPTION 'a validated plan is never removed' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
  END IF;
  IF OLD.state <> 'brouillon' AND (
       NEW.content IS DISTINCT FROM OLD.content OR NEW.draft IS DISTINCT FROM OLD.draft OR NEW.sha256 IS DISTINCT FROM OLD.sha256
    OR NEW.version <> OLD.version OR NEW.set_id <> OLD.set_id OR NEW.dossier_id <> OLD.dossier_id
    OR NEW.validated_at IS DISTINCT FROM OLD.validated_at OR NEW.state = 'brouillon') THEN
    RAISE EXCEPTION 'a validated plan never changes' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER care_plan_keep_validated BEFORE UPDATE OR DELETE ON care_plan
  FOR EACH ROW EXECUTE FUNCTION keep_validated_plan();
-- A PDF beside a CDA is a document of its own.
ALTER TABLE received_document DROP CONSTRAINT ck_received_document_format,
  ADD CONSTRAINT ck_received_document_format CHECK (format IN ('n1', 'structure', 'pdf'));
