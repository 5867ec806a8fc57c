"""The broker: takes orders, and fills what waits when a bar opens."""

from __future__ import annotations

from typing import Protocol

from research.blotter import Order, OrderStatus
from research.engine import open_phase
from research.risk import Rules
from research.state import Log, State
from research.tape import Tape

__all__ = ["Broker", "PaperBroker"]


class Broker(Protocol):
    """What a session asks of a broker."""

    @property
    def name(self) -> str:
        """For logs and the ledger."""
        ...

    def place(self, order: Order) -> tuple[OrderStatus, ...]:
        """Take an order; returns the statuses it went through, oldest first."""
        ...

    def fill(self, state: State, tape: Tape, rules: Rules, log: Log) -> State:
        """Fill waiting orders at the open of a tape of one bar; writes row 0 of the log."""
        ...


class PaperBroker:
    """Fills orders as the backtest does, because it is the backtest: the engine's own open phase.

    It shows that paper equals replay. It knows nothing of queues, latency or our own impact.
    """

    name = "paper"

    def place(self, order: Order) -> tuple[OrderStatus, ...]:  # noqa: ARG002 - takes every order
        return (OrderStatus.CREATED, OrderStatus.SUBMITTED, OrderStatus.PENDING)

    def fill(self, state: State, tape: Tape, rules: Rules, log: Log) -> State:
        return open_phase(state, tape, 0, rules, log, 0)
