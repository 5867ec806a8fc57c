"""Everything a run reads, bar by bar: candles, targets and what people did to the kill switch.

The clock is the union of the symbols' opens. A symbol that has no candle at a bar is *absent*
there: NaN, ``present`` False, no target; no bar is ever invented for it. Times are UTC
milliseconds, arrays are ``[bar][symbol]`` in the run's fixed order of symbols.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

import numpy as np

from research.candles import DAY, Candles, CandleSet, Floats, Ints, utc_ms
from research.errors import InputError
from research.strategy import Targets

__all__ = [
    "Intervention",
    "Move",
    "Place",
    "Tape",
    "blank_tape",
    "candle_positions",
    "event_between",
    "first_bar",
    "opening_row",
    "row_of",
    "tape_of",
    "yearly_volatility",
]

# What holds at a close beside the market, as bits: what people did to the kill switch since the
# close before, and whether only exits are decided.
KILLED: Final = 1
RESET: Final = 2
TRIPPED_AFTER: Final = 4
EXPIRED_THEN: Final = 8
REDUCING: Final = 16


class Move(StrEnum):
    """What is done to a run from outside, by a person or, when its time is over, by the clock."""

    KILL = "kill"
    RESET = "reset"
    REDUCE = "reduce"
    RESUME = "resume"
    EXPIRE = "expire"


@dataclass(frozen=True, slots=True)
class Intervention:
    """An act from outside: effective from the first bar close at or after ``at``.

    A kill or a reset takes effect once; a reduce holds until a resume, an expiry for good: entries
    are refused.

    ``at`` is a UTC time as ``research.candles.utc_ms`` takes it and is kept in milliseconds; the
    move may be given as text. Raises InputError for any other.
    """

    at: int
    move: Move
    reason: str = ""
    who: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", utc_ms(self.at))
        try:
            object.__setattr__(self, "move", Move(self.move))
        except ValueError:
            raise InputError(
                field="intervention.move", value=self.move, expected=f"one of {', '.join(Move)}"
            ) from None


class Tape(NamedTuple):
    """The columns of a run; ``close_time`` and ``events`` hold one value a bar.

    ``events`` are the bits above; ``fresh`` counts the symbol's candles without a hole up to this
    one; ``volatility`` is that of its returns, a year (NaN: not known, or not asked for);
    ``volume`` is in base asset. Columns are numpy arrays for the compiled engine or nested lists
    for the interpreted one.
    """

    close_time: Any
    open: Any
    high: Any
    low: Any
    close: Any
    volume: Any
    present: Any
    target: Any
    fresh: Any
    volatility: Any
    events: Any


def first_bar(clock: Ints, bar_ms: int, trade_from: int | None) -> int:
    """Position of the first bar whose close is at or after ``trade_from``."""
    return 0 if trade_from is None else int(np.searchsorted(clock + bar_ms, trade_from))


def tape_of(
    candles: CandleSet,
    targets: Sequence[Targets],
    interventions: Sequence[Intervention] = (),
    trade_from: int | None = None,
    volatility_bars: int = 0,
) -> Tape:
    """The tape of a run that starts flat at ``trade_from`` (milliseconds; None: the first bar).

    ``volatility_bars`` is over how many bars volatility is taken, 0 where nobody asks for it.
    ``targets`` in the order of ``candles``, each as long as its symbol's series. Bars before
    ``trade_from`` are left out: they have done their work in the indicators.
    """
    tape, places = blank_tape(candles, interventions, trade_from, volatility_bars)
    for s, (one, wanted, place) in enumerate(zip(candles, targets, places, strict=True)):
        if len(wanted.target) != len(one):
            raise InputError(
                field=f"targets of {one.symbol}",
                value=len(wanted.target),
                expected=f"{len(one)} values, one a candle",
            )
        tape.target[place.rows, s] = wanted.target[place.first :]
    return tape


class Place(NamedTuple):
    """Where a symbol's candles lie on a tape: from candle ``first`` on, at the bars ``rows``."""

    first: int
    rows: Any


def blank_tape(
    candles: CandleSet,
    interventions: Sequence[Intervention] = (),
    trade_from: int | None = None,
    volatility_bars: int = 0,
) -> tuple[Tape, list[Place]]:
    """The tape of a run without its targets, which are NaN, and where each symbol's go."""
    clock = candles.clock()
    clock = clock[first_bar(clock, candles.bar_ms, trade_from) :]
    shape = (len(clock), len(candles))
    names = ("open", "high", "low", "close", "volume", "target", "volatility")
    prices = {name: np.full(shape, np.nan) for name in names}
    present, fresh = np.zeros(shape, bool), np.zeros(shape, np.int64)
    places = []
    for s, one in enumerate(candles):
        first = int(np.searchsorted(one.ts, clock[0])) if len(clock) else len(one)
        rows = np.searchsorted(clock, one.ts[first:])
        present[rows, s] = True
        fresh[rows, s] = _fresh(one)[first:]
        if volatility_bars:
            prices["volatility"][rows, s] = yearly_volatility(one, volatility_bars)[first:]
        for name in ("open", "high", "low", "close", "volume"):
            prices[name][rows, s] = getattr(one, name)[first:]
        # Most symbols are at every bar, and a slice is quicker than as many positions.
        everywhere = len(rows) == len(clock)
        places.append(Place(first, slice(None) if everywhere else rows))
    close_time: Ints = clock + candles.bar_ms
    events = _events(interventions, close_time)
    return Tape(close_time, **prices, present=present, fresh=fresh, events=events), places


def _fresh(one: Candles) -> Ints:
    """How many candles in a row, without a hole, end with each candle."""
    position = np.arange(len(one))
    starts = np.diff(one.ts, prepend=np.iinfo(np.int64).min // 2) != one.bar_ms
    fresh: Ints = position - np.maximum.accumulate(np.where(starts, position, 0)) + 1
    return fresh


def yearly_volatility(one: Candles, bars: int) -> Floats:
    """The standard deviation of the last ``bars`` log returns of the closes, a year of 365 days.

    NaN before there are as many. Needs no more than the candles up to each one.
    """
    import pandas as pd

    returns = pd.Series(np.diff(np.log(one.close), prepend=np.nan))
    yearly: Floats = (returns.rolling(bars).std() * math.sqrt(365 * DAY / one.bar_ms)).to_numpy()
    return yearly


def candle_positions(candles: CandleSet, tape: Tape) -> Ints:
    """Which candle of each symbol a bar shows, ``[bar][symbol]``; -1 where it is absent."""
    opens = tape.close_time - candles.bar_ms
    position = np.full(tape.present.shape, -1, np.int64)
    for s, one in enumerate(candles):
        here = tape.present[:, s]
        position[here, s] = np.searchsorted(one.ts, opens[here])
    return position


def opening_row(close_time: int, opens: Sequence[float | None]) -> Tape:
    """All that is known of a bar as it opens: one open a symbol, None where there is none yet."""
    known = dict.fromkeys(Tape._fields)
    known["close_time"] = [close_time]
    known["open"] = [[math.nan if price is None else price for price in opens]]
    known["present"] = [[price is not None for price in opens]]
    return Tape(**known)


def row_of(tape: Tape, t: int) -> Tape:
    """Bar ``t`` alone, as nested lists: a tape of length one."""
    return Tape(*(column[t : t + 1].tolist() for column in tape))


def _events(interventions: Sequence[Intervention], close_time: Ints) -> Ints:
    events = np.zeros(len(close_time), np.int64)
    for act in sorted(interventions, key=lambda one: one.at):
        t = int(np.searchsorted(close_time, act.at))
        if act.move is Move.EXPIRE:
            events[t:] |= EXPIRED_THEN
        elif act.move is Move.REDUCE:
            events[t:] |= REDUCING
        elif act.move is Move.RESUME:
            events[t:] &= ~REDUCING
        elif t < len(close_time):
            previous = int(close_time[t - 1]) if t else None
            events[t] |= event_between(interventions, previous, int(close_time[t]))
    return events


def event_between(
    interventions: Sequence[Intervention], previous_close: int | None, close: int
) -> int:
    """What the interventions mean for the decision at ``close``, as bits; 0 for nothing.

    Kill-switch moves are the ones later than the previous bar's close (None: all earlier ones
    too); those at the same millisecond count in the order given.
    """
    event = 0
    for act in sorted(interventions, key=lambda one: one.at):
        if act.at > close:
            break
        is_new = previous_close is None or act.at > previous_close
        if act.move is Move.EXPIRE:
            event = event | EXPIRED_THEN
        elif act.move is Move.REDUCE:
            event = event | REDUCING
        elif act.move is Move.RESUME:
            event = event & ~REDUCING
        elif act.move is Move.KILL and is_new:
            event = event | KILLED | TRIPPED_AFTER
        elif is_new:
            event = (event | RESET) & ~TRIPPED_AFTER
    return event
