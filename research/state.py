"""What a run knows and what it did: the engine's State and Log, as plain numbers.

Sequences hold one value a symbol, in the run's order; the log's columns are ``[bar][symbol]``. They
are lists for the interpreted engine and numpy arrays for the compiled one; the code is the same.
Units: UTC milliseconds, quote currency, whole lots.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np

__all__ = [
    "INTENTS",
    "STOPS",
    "Log",
    "State",
    "as_arrays",
    "clear_row",
    "copied",
    "new_log",
    "opening_state",
]

# Why an order exists; the number is what the log holds, the name what the ledger stores.
ENTRY: Final = 1
EXIT: Final = 2
FLATTEN: Final = 3
STOP_LOSS: Final = 4
TRAILING_STOP: Final = 5
TAKE_PROFIT: Final = 6
TIME_STOP: Final = 7
INTENTS: Final = {
    ENTRY: "entry",
    EXIT: "exit",
    FLATTEN: "flatten",
    STOP_LOSS: "stop_loss",
    TRAILING_STOP: "trailing_stop",
    TAKE_PROFIT: "take_profit",
    TIME_STOP: "time_stop",
}
# The stops that act within a bar, at a price; a time stop is decided at a close.
STOPS: Final = frozenset(INTENTS[n] for n in (STOP_LOSS, TRAILING_STOP, TAKE_PROFIT))


class State(NamedTuple):
    """Everything that one bar hands to the next. The sequences hold one value a symbol.

    ``pending`` are signed lots waiting for the next open, decided at ``pending_since`` (close time)
    for the reason ``pending_intent``; ``acted`` is the target last acted on; ``last`` the last
    close and ``volume`` (base asset) that of the same candle; ``entry`` the average entry price and
    ``high`` the highest price since entry; ``since`` when the position's first order was decided,
    ``flow`` the money it took and gave so far. No entry before ``cool_until`` (-1: a loss or a stop
    at this bar, from its close on). ``day_orders`` and ``day_value`` count the orders and stops of
    this UTC day and their value. ``day_lost``: the daily loss was reached at some close of this UTC
    day.
    """

    cash: float
    equity: float
    peak: float
    day: int
    day_base: float
    day_lost: bool
    tripped: bool
    lots: Any
    pending: Any
    pending_since: Any
    pending_intent: Any
    acted: Any
    last: Any
    volume: Any
    entry: Any
    high: Any
    since: Any
    flow: Any
    cool_until: Any
    day_orders: Any
    day_value: Any


class Log(NamedTuple):
    """Everything a run did, ``[bar][symbol]``; the last five hold one value a bar.

    A fill has ``fill_since`` (its order's close time) set, also where cash paid for nothing and
    ``fill_lots`` is 0; ``fill_left`` are the signed lots that still wait after it, 0 where the
    order has ended. ``cancel_code`` says why a waiting order was cancelled. ``action`` is 1 buy, -1
    sell, 0 hold; ``code`` why nothing came of it.
    """

    fill_lots: Any
    fill_price: Any
    fill_fee: Any
    fill_code: Any
    fill_since: Any
    fill_intent: Any
    fill_left: Any
    stop_lots: Any
    stop_price: Any
    stop_fee: Any
    stop_intent: Any
    action: Any
    code: Any
    order_lots: Any
    order_intent: Any
    cancel_lots: Any
    cancel_since: Any
    cancel_intent: Any
    cancel_code: Any
    cash: Any
    equity: Any
    peak: Any
    day_base: Any
    tripped: Any


_LOG_FLOATS = {"fill_price", "fill_fee", "stop_price", "stop_fee"}
_LOG_BAR = {"cash", "equity", "peak", "day_base", "tripped"}


def new_log(bars: int, symbols: int) -> Log:
    """An empty log of numpy arrays for this many bars and symbols."""

    def column(name: str) -> Any:
        if name in _LOG_BAR:
            return np.zeros(bars, bool if name == "tripped" else np.float64)
        return np.zeros((bars, symbols), np.float64 if name in _LOG_FLOATS else np.int64)

    return Log(*(column(name) for name in Log._fields))


def opening_state(cash: float, symbols: int) -> State:
    """Flat, untripped, with nothing decided yet; sequences are lists."""
    zeros, nothing = [0] * symbols, [0.0] * symbols
    return State(
        cash=cash,
        equity=cash,
        peak=cash,
        day=-1,
        day_base=cash,
        day_lost=False,
        tripped=False,
        lots=zeros,
        pending=list(zeros),
        pending_since=list(zeros),
        pending_intent=list(zeros),
        acted=nothing,
        last=[math.nan] * symbols,
        volume=list(nothing),
        entry=list(nothing),
        high=list(nothing),
        since=list(zeros),
        flow=list(nothing),
        cool_until=list(zeros),
        day_orders=list(zeros),
        day_value=list(nothing),
    )


def copied(state: State) -> State:
    """The same state with lists of its own, so that a step cannot touch the caller's."""
    return State._make(
        v.tolist() if isinstance(v, np.ndarray) else list(v) if isinstance(v, list) else v
        for v in state
    )


def as_arrays(values: Any) -> Any:
    """A State or Rules whose sequences are fresh numpy arrays, as the compiled engine takes it."""
    return type(values)(*(np.array(v) if isinstance(v, (list, np.ndarray)) else v for v in values))


def clear_row(log: Log, row: int) -> None:
    """Forget what a row of the log holds, so that it can be written again."""
    for s in range(len(log.fill_lots[row])):
        log.fill_lots[row][s] = 0
        log.fill_since[row][s] = 0
        log.stop_lots[row][s] = 0
        log.action[row][s] = 0
        log.code[row][s] = 0
        log.order_lots[row][s] = 0
        log.cancel_lots[row][s] = 0
