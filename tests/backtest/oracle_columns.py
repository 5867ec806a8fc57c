"""The oracle's story in the engine's columns and state, for a comparison of every cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from research.risk import CODES
from research.state import INTENTS, Log
from tests.backtest.oracle import EPOCH, Book, Mark, Story


def as_columns(story: Story, closes: Sequence[int], symbols: int) -> dict[str, np.ndarray]:
    """The same names, shapes and types as ``research.engine.Log``, zero where nothing happened."""
    code_number = {name: number for number, (name, _) in CODES.items()}
    intent_number = {name: number for number, name in INTENTS.items()}
    floats = {"fill_price", "fill_fee", "stop_price", "stop_fee"}
    shape = (len(closes), symbols)
    columns = {
        name: np.zeros(shape, np.float64 if name in floats else np.int64)
        for name in Log._fields
        if name not in Mark.__dataclass_fields__
    }

    def put(t: int, s: int, **values: float) -> None:
        for name, value in values.items():
            columns[name][t, s] = value

    for fill in story.fills:
        put(
            fill.t,
            fill.s,
            fill_lots=fill.lots,
            fill_price=fill.price,
            fill_fee=fill.fee,
            fill_code=code_number[fill.code],
            fill_since=fill.since,
            fill_intent=intent_number[fill.intent],
            fill_left=fill.left,
        )
    for stop in story.stops:
        put(
            stop.t,
            stop.s,
            stop_lots=stop.lots,
            stop_price=stop.price,
            stop_fee=stop.fee,
            stop_intent=intent_number[stop.intent],
        )
    for one in story.decisions:
        put(one.t, one.s, action=one.action, code=code_number[one.code])
    for placed in story.orders:
        intent = intent_number[placed.order.intent]
        put(placed.t, placed.s, order_lots=placed.order.lots, order_intent=intent)
    for placed in story.cancelled:
        put(
            placed.t,
            placed.s,
            cancel_lots=placed.order.lots,
            cancel_since=placed.order.since,
            cancel_intent=intent_number[placed.order.intent],
            cancel_code=code_number[placed.code],
        )
    for name in Mark.__dataclass_fields__:
        kind = bool if name == "tripped" else np.float64
        columns[name] = np.array([getattr(one, name) for one in story.marks], kind)
    return columns


def as_state(book: Book) -> dict[str, object]:
    """What the engine's ``State`` should say at the end."""
    waiting = [one.waiting for one in book.positions]
    intent_number = {name: number for number, name in INTENTS.items()}
    return {
        "cash": book.cash,
        "equity": book.equity,
        "peak": book.peak,
        "day": -1 if book.date is None else (book.date - EPOCH.date()).days,
        "day_base": book.day_base,
        "day_lost": book.lossy_date is not None and book.lossy_date == book.date,
        "tripped": book.tripped,
        "lots": [one.lots for one in book.positions],
        "pending": [one.lots if one else 0 for one in waiting],
        "pending_since": [one.since if one else 0 for one in waiting],
        "pending_intent": [intent_number[one.intent] if one else 0 for one in waiting],
        "acted": [one.acted for one in book.positions],
        "last": [one.last_close for one in book.positions],
        "volume": [one.last_volume for one in book.positions],
        "entry": [one.entry for one in book.positions],
        "high": [one.high for one in book.positions],
        "since": [one.since for one in book.positions],
        "flow": [one.flow for one in book.positions],
        "cool_until": [-1 if one.ended_badly else one.cool_until for one in book.positions],
        "day_orders": [len(one.traded_today) for one in book.positions],
        "day_value": [_running_sum(one.traded_today) for one in book.positions],
    }


def _running_sum(values: Sequence[float]) -> float:
    total = 0.0  # sum() of newer Pythons compensates for rounding
    for one in values:
        total = total + one
    return total
