"""What an organisation sees of representations is a function of the database; a patient's dossiers have an index.

Revision 0003 (`gateway.rcp.access.representations`).
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
