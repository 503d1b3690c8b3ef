"""The house: every table of the first release, and the triggers that keep the trail and validated reports as they are.

Revision 0001.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_APPEND_ONLY = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'append-only table %', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER audit_line_append_only BEFORE UPDATE OR DELETE ON audit_line
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_line_no_truncate BEFORE TRUNCATE ON audit_line
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_seal_append_only BEFORE UPDATE OR DELETE ON audit_seal
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""

_FROZEN_REPORT = """
CREATE FUNCTION keep_validated_report() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.state <> 'brouillon' THEN
      RAISE EXCEPTION 'a validated report is never removed' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
  END IF;
  IF OLD.state <> 'brouillon' AND (
       NEW.content IS DISTINCT FROM OLD.content OR NEW.draft IS DISTINCT FROM OLD.draft
    OR NEW.version <> OLD.version OR NEW.set_id <> OLD.set_id OR NEW.dossier_id <> OLD.dossier_id
    OR NEW.validated_at IS DISTINCT FROM OLD.validated_at OR NEW.state = 'brouillon') THEN
    RAISE EXCEPTION 'a validated report never changes' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER report_keep_validated BEFORE UPDATE OR DELETE ON report
  FOR EACH ROW EXECUTE FUNCTION keep_validated_report();
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
    op.execute(_APPEND_ONLY)
    op.execute(_FROZEN_REPORT)
