"""One trade of a run, its stops replayed on other candles: the engine itself, from the same fills.

A *holding* is a trade as the engine's log has it: the fills at bar opens that made it, the bars in
which it was held, and how the run ended it. ``replay`` hands the engine a position made by those
very fills and lets it step through candles without targets, so that nothing but stops can act: the
stop rule is not written a second time. Units: UTC milliseconds, quote currency, whole lots; rows
are bars of the run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from research.backtesting import Backtest
from research.candles import Candles, CandleSet, Ints
from research.engine import fold, open_phase
from research.risk import Rules, rules_for
from research.state import INTENTS, TAKE_PROFIT, Log, State, new_log, opening_state
from research.tape import Tape, blank_tape, row_of

__all__ = [
    "Exit",
    "Holding",
    "Laid",
    "Leg",
    "has_both_inside",
    "holdings_of",
    "laid_beside",
    "replay",
    "stop_rules",
    "symbol_tape",
]

Flags = npt.NDArray[np.bool_]

# Candles that the engine is handed at a time: its log takes 200 bytes for each.
_CANDLES_AT_A_TIME: Final = 20_000


class Leg(NamedTuple):
    """A fill at the open of bar ``row``; ``lots`` is negative for a sale."""

    row: int
    lots: int
    price: float
    fee: float


class Exit(NamedTuple):
    """The sale that ended a trade, in bar ``row``: ``at`` its time, ``lots`` what was sold.

    A stop is timed at the close of its candle, an order at the open of its bar.
    """

    row: int
    at: int
    intent: str
    lots: int
    price: float
    fee: float


@dataclass(frozen=True)
class Holding:
    """A trade, from its first fill to its end or the run's.

    ``legs`` are its fills at opens, without the sale that ended it; ``rows`` the bars in which
    stops could act, sorted; ``exit`` is None where it was held to the end of the run.
    """

    s: int
    legs: tuple[Leg, ...]
    rows: Ints
    exit: Exit | None


def holdings_of(run: Backtest) -> list[Holding]:
    """Every trade of a run, in order of its entry, then of symbols; also one that is still held."""
    found = [one for s in range(len(run.symbols)) for one in _of_symbol(run, s)]
    return sorted(found, key=lambda one: (one.legs[0].row, one.s))


def _of_symbol(run: Backtest, s: int) -> Iterator[Holding]:
    log, bar_ms, closes = run.log, run.candles.bar_ms, run.tape.close_time
    present = np.flatnonzero(run.tape.present[:, s])

    def held(first: int, stop: int) -> Ints:
        rows: Ints = present[np.searchsorted(present, first) : np.searchsorted(present, stop)]
        return rows

    legs: list[Leg] = []
    lots = 0
    for t in np.flatnonzero((log.fill_lots[:, s] != 0) | (log.stop_lots[:, s] != 0)).tolist():
        filled, stopped = int(log.fill_lots[t, s]), int(log.stop_lots[t, s])
        price, fee = float(log.fill_price[t, s]), float(log.fill_fee[t, s])
        if filled and lots + filled == 0:
            intent = INTENTS[int(log.fill_intent[t, s])]
            sold = Exit(t, int(closes[t]) - bar_ms, intent, -filled, price, fee)
            yield Holding(s, tuple(legs), held(legs[0].row, t), sold)
            legs, lots = [], 0
        elif filled:
            legs.append(Leg(t, filled, price, fee))
            lots += filled
        if stopped:
            sold = _stopped(log, t, s, t, int(closes[t]))
            yield Holding(s, tuple(legs), held(legs[0].row, t + 1), sold)
            legs, lots = [], 0
    if lots:
        yield Holding(s, tuple(legs), held(legs[0].row, len(closes)), None)


def _stopped(log: Log, t: int, s: int, row: int, at: int) -> Exit:
    intent = INTENTS[int(log.stop_intent[t, s])]
    price, fee = float(log.stop_price[t, s]), float(log.stop_fee[t, s])
    return Exit(row, at, intent, -int(log.stop_lots[t, s]), price, fee)


def stop_rules(run: Backtest, s: int) -> Rules:
    """The rules of the run for symbol ``s`` alone, with nothing but costs, lots and price stops.

    A time stop is decided at a bar's close and filled at an open: an order of the run, that finer
    candles know nothing about.
    """
    ungated = run.account.model_copy(update={"limits": None})
    return rules_for(ungated, (run.symbols[s],))._replace(time_stop=0)


def symbol_tape(run: Backtest, s: int) -> Tape:
    """The run's own bars of symbol ``s``, without targets and without what people did."""
    alone = Tape(*(one if one.ndim == 1 else one[:, s : s + 1] for one in run.tape))
    nothing = np.full(alone.target.shape, np.nan)
    return alone._replace(target=nothing, events=np.zeros_like(alone.events))


@dataclass(frozen=True)
class Laid:
    """Candles of one symbol laid beside the bars of a run.

    Bar ``row`` is made of the candles ``first[row]`` up to ``first[row] + count`` of ``tape``, if
    ``covered[row]``: all of them are there. ``adds_up[row]``: covered, and they have the bar's
    open, highest high, lowest low and close, to the bit.
    """

    tape: Tape
    first: Ints
    count: int
    covered: Flags
    adds_up: Flags

    def candles(self, rows: Ints) -> Ints:
        """Positions of the candles that make up covered bars, in order of time."""
        positions: Ints = (self.first[rows][:, None] + np.arange(self.count)).ravel()
        return positions


def laid_beside(bars: Tape, bar_ms: int, candles: Candles) -> Laid:
    """Sound candles laid beside one symbol's bars, as long or a whole multiple as long as they."""
    opens = bars.close_time - bar_ms
    count = bar_ms // candles.bar_ms
    first = np.searchsorted(candles.ts, opens)
    last = first + count - 1
    # A stand-in after the last candle, so that a position past the end is no special case. Opens
    # are sorted, unique and on the grid: if the last one stands where it should, none is missing.
    ts = np.append(candles.ts, np.iinfo(np.int64).max)
    closing = bars.close_time - candles.bar_ms
    covered: Flags = (ts[np.minimum(last, len(candles))] == closing) & bars.present[:, 0]
    tape, _ = blank_tape(CandleSet((candles,)))
    laid = Laid(tape, first, count, covered, np.zeros_like(covered))
    rows = np.flatnonzero(covered)
    positions = laid.candles(rows).reshape(-1, count)
    made = (
        candles.open[positions[:, 0]],
        candles.high[positions].max(axis=1, initial=-math.inf),
        candles.low[positions].min(axis=1, initial=math.inf),
        candles.close[positions[:, -1]],
    )
    theirs = (getattr(bars, name)[rows, 0] for name in ("open", "high", "low", "close"))
    equal = [mine == other for mine, other in zip(made, theirs, strict=True)]
    laid.adds_up[rows] = np.logical_and.reduce(equal)
    return laid


def replay(
    held: Holding, rows: Ints, bars: Tape, laid: Laid, rules: Rules, compiled: bool
) -> tuple[State, Exit | None]:
    """Hold a trade through the candles of ``rows``, all covered; where a stop ends it, and how.

    Its fills are those of the run, at the opens of ``bars``; ``rules`` as ``stop_rules`` has them.
    Returns the state at the end, too.
    """
    state = opening_state(math.inf, 1)
    cuts = np.searchsorted(rows, [leg.row for leg in held.legs[1:]])
    for leg, part in zip(held.legs, np.split(rows, cuts), strict=True):
        state = _filled(state, leg, bars, rules)
        at_a_time = max(1, _CANDLES_AT_A_TIME // laid.count)
        for start in range(0, len(part), at_a_time):
            some = part[start : start + at_a_time]
            tape = _at(laid.tape, laid.candles(some))
            state, log = fold(state, tape, rules, compiled=compiled)
            hits = np.flatnonzero(log.stop_lots[:, 0])
            if len(hits):
                i = int(hits[0])
                row, at = int(some[i // laid.count]), int(tape.close_time[i])
                return state, _stopped(log, i, 0, row, at)
    return state, None


def _filled(state: State, leg: Leg, bars: Tape, rules: Rules) -> State:
    """The state after the fill of a leg, by the engine's own hand; the cash never runs out."""
    state.pending[0] = leg.lots
    return open_phase(state, row_of(bars, leg.row), 0, rules, new_log(1, 1), 0)


def has_both_inside(held: Holding, bars: Tape, own: Laid, rules: Rules) -> bool:
    """Whether the bar in which the run's stop acted held the target as well, neither at its open.

    ``own`` are the run's bars laid beside themselves. The engine is asked: with the target as the
    only stop the bar ends at the target, and cut down to its open it ends nothing.
    """
    before, last = held.rows[:-1], _at(bars, held.rows[-1:])
    state, _ = replay(held, before, bars, own, rules, compiled=False)
    target_only = rules._replace(stop_loss=0.0, trailing_stop=0.0)
    cut = last._replace(high=last.open, low=last.open, close=last.open)
    _, whole_bar = fold(state, last, target_only, compiled=False)
    _, its_open = fold(state, cut, rules, compiled=False)
    return bool(whole_bar.stop_intent[0, 0] == TAKE_PROFIT and its_open.stop_lots[0, 0] == 0)


def _at(tape: Tape, positions: Ints) -> Tape:
    return Tape(*(column[positions] for column in tape))
