"""Tiny tables of candles with everything that must happen written beside each bar.

A row is one bar: ``open high low close target`` for each symbol (A, B, ...) between bars ``|``, a
sixth number being its volume,
``-`` where a symbol is absent and ``.`` for a target of NaN; after ``=>`` everything that the bar
brings about, in full: fills at its open and stops within it, then orders and refusals at its close
(a long list goes on below, after another ``=>``). Sizes are whole lots of one unit, so any row can
be checked with a pencil. Unless a table says otherwise the account starts with 1,000, trades for
free and may put all of it into a symbol.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from research.account import Account, Filters, Limits
from research.candles import timeframe_ms, utc_ms
from research.engine import fold
from research.risk import CODES
from research.state import INTENTS, Log, opening_state
from research.tape import Intervention, Move
from tests.backtest.oracle import Bar
from tests.backtest.worlds import World

WHOLE = Filters(lot_step=Decimal(1))
HUNDRED = {"max_position_pct": 100, "max_daily_loss_pct": 100, "max_drawdown_pct": 100}
WIDE = Limits(**HUNDRED, max_positions=9)


def account(*, filters: Filters = WHOLE, limits: Limits | None = WIDE, **changes: Any) -> Account:
    """A free account over symbols A, B and C that only the given rules hold back."""
    values: dict[str, Any] = {"initial_cash": 1_000, "fee_rate": 0, "slippage_bps": 0}
    per_symbol = dict.fromkeys("ABC", filters)
    return Account(**values | {"filters": per_symbol, "limits": limits} | changes)


def limits(**changes: Any) -> Limits:
    """Limits that hold nothing back but by what is given."""
    return Limits(**HUNDRED | {"max_positions": 9} | changes)


@dataclass(frozen=True)
class Table:
    """A parsed table: bars by symbol and row, and the events expected of each row."""

    rows: list[list[Bar | None]]
    expected: list[str]


def parsed(text: str) -> Table:
    rows: list[list[Bar | None]] = []
    expected: list[str] = []
    for line in text.strip().splitlines():
        bars, _, events = line.partition("=>")
        if not bars.strip():
            expected[-1] = f"{expected[-1]} {events.strip()}"
            continue
        rows.append([_bar(cell) for cell in bars.split("|")])
        expected.append(events.strip())
    return Table(rows, expected)


def _bar(cell: str) -> Bar | None:
    if cell.strip() == "-":
        return None
    return Bar(*(math.nan if word == "." else float(word) for word in cell.split()))


def world_of_table(
    account: Account,
    table: Table,
    acts: Sequence[tuple[int, int, Move]] = (),
    *,
    start: str = "2024-01-01T00:00",
    timeframe: str = "1h",
) -> World:
    """The world of a table; an act is at so many milliseconds into its row."""
    bar_ms, first = timeframe_ms(timeframe), utc_ms(start)
    series: dict[str, dict[int, Bar]] = {}
    for s, symbol in enumerate("ABC"[: len(table.rows[0])]):
        bars = [row[s] for row in table.rows]
        series[symbol] = {first + t * bar_ms: bar for t, bar in enumerate(bars) if bar is not None}
    moves = tuple(Intervention(first + t * bar_ms + after, move) for t, after, move in acts)
    return World(account, series, timeframe, moves).with_volatility()


def check(
    account: Account,
    text: str,
    *,
    start: str = "2024-01-01T00:00",
    timeframe: str = "1h",
    kill: Sequence[int] = (),
    reset: Sequence[int] = (),
    moves: Mapping[int, Move] = MappingProxyType({}),
) -> Log:
    """Run a table, interpreted and compiled, and compare; ``kill`` and ``reset`` name rows.

    ``moves`` are further acts, each just after the beginning of its row.
    """
    table = parsed(text)
    # A kill comes in the middle of its bar, a reset just before the close.
    bar_ms = timeframe_ms(timeframe)
    acts = [(t, bar_ms // 2, Move.KILL) for t in kill]
    acts += [(t, bar_ms - 1, Move.RESET) for t in reset]
    acts += [(t, 1, move) for t, move in moves.items()]
    world = world_of_table(account, table, acts, start=start, timeframe=timeframe)
    series = world.series
    logs = [
        fold(
            opening_state(account.initial_cash, len(series)),
            world.tape(),
            world.rules(),
            compiled=compiled,
        )[1]
        for compiled in (False, True)
    ]
    for log in logs:
        happened = [_events(log, t, list(series)) for t in range(len(table.rows))]
        for t, (got, wanted) in enumerate(zip(happened, table.expected, strict=True)):
            assert got == wanted, f"row {t}: expected [{wanted}], got [{got}]"
    return logs[0]


def _events(log: Log, t: int, symbols: Sequence[str]) -> str:
    """Everything in one row of the log, in words."""
    words = []
    for s, symbol in enumerate(symbols):
        if log.fill_since[t, s]:
            code = CODES[int(log.fill_code[t, s])][0]
            words.append(
                f"{symbol} {INTENTS[int(log.fill_intent[t, s])]} {log.fill_lots[t, s]:+d}"
                f" @{log.fill_price[t, s]:.10g}"
                + (f" fee {log.fill_fee[t, s]:.10g}" if log.fill_fee[t, s] else "")
                + (f" {code}" if code != "OK" else "")
                + (f" left {log.fill_left[t, s]:+d}" if log.fill_left[t, s] else "")
            )
        if log.stop_lots[t, s]:
            words.append(
                f"{symbol} {INTENTS[int(log.stop_intent[t, s])]} {log.stop_lots[t, s]:+d}"
                f" @{log.stop_price[t, s]:.10g}"
                + (f" fee {log.stop_fee[t, s]:.10g}" if log.stop_fee[t, s] else "")
            )
    for s, symbol in enumerate(symbols):
        if log.cancel_lots[t, s]:
            words.append(f"{symbol} cancels {log.cancel_lots[t, s]:+d}")
        if log.order_lots[t, s]:
            intent = INTENTS[int(log.order_intent[t, s])]
            words.append(f"{symbol} orders {intent} {log.order_lots[t, s]:+d}")
        if log.code[t, s]:
            words.append(f"{symbol} {CODES[int(log.code[t, s])][0]}")
    return ", ".join(words)
