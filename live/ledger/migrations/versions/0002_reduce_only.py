"""People may hold entries back without tripping the kill switch."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _allow("move IN ('kill', 'reset', 'reduce', 'resume')")


def downgrade() -> None:
    # Without the words for it the earlier version could not say what was ordered: a kill can.
    op.execute("UPDATE interventions SET move = 'kill' WHERE move = 'reduce'")
    op.execute("UPDATE interventions SET move = 'reset' WHERE move = 'resume'")
    _allow("move IN ('kill', 'reset')")


def _allow(moves: str) -> None:
    with op.batch_alter_table("interventions") as table:
        table.drop_constraint(op.f("ck_interventions_move"), type_="check")
        table.create_check_constraint(op.f("ck_interventions_move"), moves)
