"""What a representation is searched by stands in few columns; the old ones go, `align` adds the new, `reindex` fills them.

Revision 0002 (docs/adr/0010). Types that revision 0001 did not know, search columns and their indexes are not in any
revision: `gateway.model.representation.align` brings them to the table of parameters after each upgrade.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
