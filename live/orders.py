"""The order state machine: which status may follow which.

    CREATED ── SUBMITTED ── PENDING ──┬── PARTIALLY_FILLED ──┐
       │           │           │      └──────────────────────┴── FILLED
       └───────────┴───────────┴── CANCELLED or REJECTED

FILLED, CANCELLED and REJECTED are final. A partly filled order can still be cancelled; it can no
longer be rejected.
"""

from __future__ import annotations

from research.blotter import OrderStatus
from research.errors import IllegalTransition

__all__ = ["FINAL", "TRANSITIONS", "require_transition"]

_S = OrderStatus

TRANSITIONS: dict[OrderStatus, frozenset[OrderStatus]] = {
    _S.CREATED: frozenset({_S.SUBMITTED, _S.CANCELLED, _S.REJECTED}),
    _S.SUBMITTED: frozenset({_S.PENDING, _S.CANCELLED, _S.REJECTED}),
    _S.PENDING: frozenset({_S.PARTIALLY_FILLED, _S.FILLED, _S.CANCELLED, _S.REJECTED}),
    _S.PARTIALLY_FILLED: frozenset({_S.PARTIALLY_FILLED, _S.FILLED, _S.CANCELLED}),
    _S.FILLED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.REJECTED: frozenset(),
}
FINAL = frozenset(status for status, after in TRANSITIONS.items() if not after)


def require_transition(order_id: str, before: OrderStatus | None, after: OrderStatus) -> None:
    """Raises IllegalTransition unless ``after`` may follow ``before`` (None: a new order)."""
    allowed = frozenset({_S.CREATED}) if before is None else TRANSITIONS[before]
    if after not in allowed:
        choices = ", ".join(sorted(allowed)) or "nothing: it is final"
        raise IllegalTransition(
            f"cannot follow {before.value if before else 'a new order'}",
            field=f"order {order_id}",
            value=after.value,
            expected=choices,
        )
