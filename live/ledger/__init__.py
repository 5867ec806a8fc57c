"""The paper ledger: what was decided, ordered, filled and held, in one database.

``tables`` say what is kept, ``store`` opens it, ``write`` puts one phase of one bar into it, and
``read`` answers questions.
"""

from live.ledger.store import Ledger, open_ledger

__all__ = ["Ledger", "open_ledger"]
