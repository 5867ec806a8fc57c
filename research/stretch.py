"""Bars on which nothing can happen: what ``step`` and ``tally_bar`` would do there, without them.

A bar is *busy* where some symbol's target changes or somebody moved the kill switch, and after a
full step for as long as an order is pending or a position waits for its exit. Every other bar only
marks the account, unless a stop or the drawdown limit is met, and then it is handed back untouched.
While nothing is held not even the mark changes: the run jumps to the next busy bar.

The same operations in the same order as in ``engine.step`` and ``metrics.tally_bar``, so that state
and tally are equal to the bit (tested bar by bar). Times are UTC milliseconds.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np

from research.candles import DAY, Ints
from research.engine import begin_day, time_is_over
from research.metrics import Tally
from research.risk import Rules, daily_loss_reached, drawdown_reached, quantity_of
from research.state import State
from research.tape import Tape

__all__ = ["Scratch", "find_busy", "is_invested", "is_restless", "new_scratch", "quiet_stretch"]

# Bars whose divisions are done together: long enough for vector instructions, short enough that
# little is done in vain where a stretch ends, and that all of it stays in the nearest cache.
BLOCK: Final = 128
# Bars that are looked at together for a change of the target: few, for most hold none.
GLANCE: Final = 16


class Scratch(NamedTuple):
    """Room for a kernel, which may make no array: positions of busy bars, one block's marks, and
    what it is to note.

    ``day_equity`` takes the equity at each of the bars ``day_ends``, which rise: all ends of days,
    some of them, or none.
    """

    busy: Any
    equity: Any
    change: Any
    share: Any
    day_ends: Any
    day_equity: Any


def new_scratch(bars: int, day_ends: Ints | None = None) -> Scratch:
    """Room for runs of this many bars, one after the other; what it holds before means nothing."""
    ends = np.empty(0, np.int64) if day_ends is None else day_ends
    return Scratch(
        busy=np.empty(bars, np.int64),
        equity=np.empty(BLOCK + 1),
        change=np.empty(BLOCK),
        share=np.empty(BLOCK),
        day_ends=ends,
        day_equity=np.empty(len(ends)),
    )


def find_busy(tape: Tape, busy: Ints) -> int:
    """Write the positions of the bars that are busy by the tape alone into ``busy``, in order.

    Returns how many, or -1 where a target lies outside 0 to 1; ``busy`` has room for every bar. A
    target is *changed* where it is not the last one before it that was there, or 0 at first.
    """
    if tape.target.shape[1] == 1:
        return _find_busy_alone(tape, busy)
    count = 0
    for t in range(len(tape.close_time)):
        is_busy = tape.events[t] != 0
        for s in range(tape.target.shape[1]):
            target = tape.target[t][s]
            if tape.present[t][s] and not math.isnan(target):
                before = t - 1
                while before >= 0 and (
                    not tape.present[before][s] or math.isnan(tape.target[before][s])
                ):
                    before = before - 1
                last = tape.target[before][s] if before >= 0 else 0.0
                is_busy = is_busy or target != last
                if not 0.0 <= target <= 1.0:
                    return -1
        if is_busy:
            busy[count] = t
            count = count + 1
    return count


def _find_busy_alone(tape: Tape, busy: Ints) -> int:
    """The same for one symbol, which is present at every bar of its own clock."""
    count, last, t, bars = 0, 0.0, 0, len(tape.close_time)
    targets, events = tape.target.reshape(bars), tape.events
    while t < bars:
        end = min(t + GLANCE, bars)
        if t > 0 and _is_still(targets[t - 1 : end], events[t:end]):
            t = end
        while t < end:
            target = targets[t]
            if (target != last and not math.isnan(target)) or events[t] != 0:
                busy[count] = t
                count = count + 1
                if not math.isnan(target):
                    last = target
                    if not 0.0 <= target <= 1.0:
                        return -1
            t = t + 1
    return count


def _is_still(targets: Any, events: Any) -> bool:
    """Whether there is no event, and each target is the number before it (the first is that).

    Nothing is left early, so that a compiler compares several bars at a time.
    """
    moved = 0
    for i in range(len(events)):
        moved += (0 if targets[i + 1] == targets[i] else 1) | (events[i] != 0)
    return moved == 0


def is_restless(state: State, rules: Rules) -> bool:
    """Whether the next bar needs a full step whatever it brings."""
    flattens = rules.volume_share < math.inf and rules.flatten and state.tripped
    for s in range(len(state.lots)):
        leaving = flattens or state.acted[s] == 0.0
        if state.pending[s] != 0 or (state.lots[s] != 0 and leaving):
            return True
    return False


def is_invested(state: State) -> bool:
    """Whether anything is held."""
    held = False
    for s in range(len(state.lots)):
        held = held or state.lots[s] != 0
    return held


def quiet_stretch(
    state: State, tape: Tape, t: int, stop: int, rules: Rules, tally: Tally, scratch: Scratch
) -> tuple[int, State, Tally]:
    """Live through quiet bars from ``t`` up to ``stop``; returns the first bar that was not.

    ``stop`` is the next busy bar. The sequences of ``state`` are changed in place.
    """
    if not is_invested(state):
        return _flat_stretch(state, tape, t, stop, rules, tally)
    if len(state.lots) == 1:
        return _held_alone(state, tape, t, stop, rules, tally, scratch)
    return _held_stretch(state, tape, t, stop, rules, tally)


def _flat_stretch(
    state: State, tape: Tape, t: int, stop: int, rules: Rules, tally: Tally
) -> tuple[int, State, Tally]:
    """Nothing held: equity is cash, every bar adds nothing but itself."""
    if t >= stop:
        return t, state, tally
    equity = state.cash
    if state.equity != equity or tally.equity != equity:
        return t, state, tally
    if rules.armed and not state.tripped and drawdown_reached(equity, state.peak, rules):
        return t, state, tally
    day = tape.close_time[stop - 1] // DAY
    day_base, day_lost = state.day_base, state.day_lost
    if day != state.day:
        begin_day(state)
        day_base, day_lost = equity, False
    day_lost = day_lost or daily_loss_reached(equity, day_base, rules)
    for s in range(len(state.lots)):
        for before in range(stop - 1, t - 1, -1):
            if tape.present[before][s]:
                state.last[s] = tape.close[before][s]
                state.volume[s] = tape.volume[before][s]
                break
    return stop, _marked(state, equity, state.peak, day, day_base, day_lost), _idle(tally, stop - t)


def _held_stretch(
    state: State, tape: Tape, t: int, stop: int, rules: Rules, tally: Tally
) -> tuple[int, State, Tally]:
    """Something held: each bar is marked and counted, up to one on which more than that happens."""
    cash, equity, peak = state.cash, state.equity, state.peak
    day, day_base, day_lost = state.day, state.day_base, state.day_lost
    watched = rules.stop_loss > 0.0 or rules.take_profit > 0.0 or rules.trailing_stop > 0.0
    may_trip = rules.armed and not state.tripped
    counted, top, deepest = tally.equity, tally.peak, tally.max_drawdown
    returns, squares, downsides = tally.sum_return, tally.sum_square, tally.sum_downside
    exposure, in_market, first = tally.exposure, tally.bars_in_market, t
    while t < stop:
        if watched and _stop_is_met(state, tape, t, rules):
            break
        close_time = tape.close_time[t]
        if rules.time_stop > 0 and _time_is_over_somewhere(state, tape, t, rules):
            break
        marked = cash
        for s in range(len(state.lots)):
            if state.lots[s] > 0:
                last = tape.close[t][s] if tape.present[t][s] else state.last[s]
                marked = marked + quantity_of(state.lots[s], rules, s) * last
        higher = max(peak, marked)
        if may_trip and drawdown_reached(marked, higher, rules):
            break
        if close_time // DAY != day:
            begin_day(state)
            day = close_time // DAY
            day_base = marked if close_time % DAY == 0 else equity
            day_lost = False
        day_lost = day_lost or daily_loss_reached(marked, day_base, rules)
        equity, peak = marked, higher
        for s in range(len(state.lots)):
            if tape.present[t][s]:
                state.last[s] = tape.close[t][s]
                if state.lots[s] != 0:
                    state.high[s] = max(state.high[s], tape.high[t][s])
        change = equity / counted - 1.0
        downside = min(change, 0.0)
        returns = returns + change
        squares = squares + change * change
        downsides = downsides + downside * downside
        invested = equity - cash
        exposure = exposure + invested / equity
        in_market = in_market + (1 if invested > 0.0 else 0)
        top = max(top, equity)
        deepest = max(deepest, 1.0 - equity / top)
        counted = equity
        t = t + 1
    for s in range(len(state.lots)):
        for before in range(t - 1, first - 1, -1):
            if tape.present[before][s]:
                state.volume[s] = tape.volume[before][s]
                break
    after = Tally(
        tally.bars + (t - first),
        counted,
        top,
        deepest,
        returns,
        squares,
        downsides,
        exposure,
        in_market,
        tally.turnover,
        tally.fees,
        tally.trades,
        tally.wins,
        tally.gross_profit,
        tally.gross_loss,
        tally.flow,
        tally.held,
    )
    return t, _marked(state, equity, peak, day, day_base, day_lost), after


def _held_alone(
    state: State, tape: Tape, t: int, stop: int, rules: Rules, tally: Tally, scratch: Scratch
) -> tuple[int, State, Tally]:
    """The same for an account of one symbol, which is present at every bar of its own clock.

    A block of bars at a time. A limit that the block's lowest equity does not reach from its
    highest is reached at no bar of it; only where it may be are the bars looked at one by one.
    """
    equity, peak, quantity = state.equity, state.peak, quantity_of(state.lots[0], rules, 0)
    daily = (state.day, state.day_base, state.day_lost)
    watched = rules.stop_loss > 0.0 or rules.take_profit > 0.0 or rules.trailing_stop > 0.0
    may_trip = rules.gated and rules.armed and not state.tripped
    if rules.time_stop > 0:
        stop = _first_closing_at(tape.close_time, t, stop, state.since[0] + rules.time_stop)
    while t < stop:
        bars = min(stop - t, BLOCK)
        if watched:
            calm = _bars_before_stop(state, tape, t, bars, rules)
            if calm < bars:
                stop = t + calm
                continue
        _mark_block(tape.close[t : t + bars], state.cash, quantity, equity, scratch)
        after, lowest, highest, high = _counted(tally, scratch, tape.high[t : t + bars], state)
        if may_trip and _may_fall(rules.max_drawdown, max(peak, highest), lowest):
            calm = _bars_before_drawdown(scratch, bars, peak, rules)
            if calm < bars:
                stop = t + calm
                continue
        today = daily[0]
        daily = _lived_days(daily, tape.close_time[t : t + bars], scratch, lowest, highest, rules)
        if daily[0] != today:
            begin_day(state)
        state.high[0], state.last[0] = high, tape.close[t + bars - 1][0]
        state.volume[0] = tape.volume[t + bars - 1][0]
        tally, equity, peak = after, after.equity, max(peak, highest)
        t = t + bars
    day, day_base, day_lost = daily
    return t, _marked(state, equity, peak, day, day_base, day_lost), tally


def _first_closing_at(close_times: Ints, first: int, stop: int, due: int) -> int:
    """The first bar from ``first`` on that closes at ``due`` or later; ``stop`` where none does."""
    while first < stop:
        middle = (first + stop) // 2
        if close_times[middle] < due:
            first = middle + 1
        else:
            stop = middle
    return stop


def _mark_block(
    closes: Any, cash: float, quantity: float, equity_before: float, scratch: Scratch
) -> None:
    """Equity, its change and its invested share at each of ``closes`` (a column), to ``scratch``.

    Each loop does one thing to every bar, so that a compiler divides several bars at a time.
    """
    bars = len(closes)
    scratch.equity[0] = equity_before
    equity, before, price = scratch.equity[1 : bars + 1], scratch.equity[:bars], closes[:, 0]
    change, share = scratch.change, scratch.share
    for i in range(bars):
        equity[i] = cash + quantity * price[i]
    for i in range(bars):
        change[i] = equity[i] / before[i] - 1.0
    for i in range(bars):
        share[i] = (equity[i] - cash) / equity[i]


def _counted(
    tally: Tally, scratch: Scratch, highs: Any, state: State
) -> tuple[Tally, float, float, float]:
    """The tally after a block; its lowest and its highest equity; the highest price since entry.

    ``highs`` is a column of the block's high prices.
    """
    cash, high, bars, price = state.cash, state.high[0], len(highs), highs[:, 0]
    returns, squares, downsides = tally.sum_return, tally.sum_square, tally.sum_downside
    exposure, lowest, highest = tally.exposure, math.inf, 0.0
    for i in range(bars):
        change = scratch.change[i]
        downside = min(change, 0.0)
        returns = returns + change
        squares = squares + change * change
        downsides = downsides + downside * downside
        exposure = exposure + scratch.share[i]
        lowest = min(lowest, scratch.equity[i + 1])
        highest = max(highest, scratch.equity[i + 1])
        high = max(high, price[i])
    in_market, top, deepest = tally.bars_in_market + bars, tally.peak, tally.max_drawdown
    if lowest - cash <= 0.0:  # so little is held that the float of equity is that of cash
        for i in range(bars):
            in_market = in_market - (0 if scratch.equity[i + 1] - cash > 0.0 else 1)
    if highest <= top:
        deepest = max(deepest, 1.0 - lowest / top)
    else:
        for i in range(bars):
            top = max(top, scratch.equity[i + 1])
            deepest = max(deepest, 1.0 - scratch.equity[i + 1] / top)
    counted = Tally(
        tally.bars + bars,
        scratch.equity[bars],
        top,
        deepest,
        returns,
        squares,
        downsides,
        exposure,
        in_market,
        tally.turnover,
        tally.fees,
        tally.trades,
        tally.wins,
        tally.gross_profit,
        tally.gross_loss,
        tally.flow,
        tally.held,
    )
    return counted, lowest, highest, high


def _lived_days(
    daily: tuple[int, float, bool],
    close_times: Any,
    scratch: Scratch,
    lowest: float,
    highest: float,
    rules: Rules,
) -> tuple[int, float, bool]:
    """The day, its base and whether it is lost, after the bars of a block."""
    day, day_base, day_lost = daily
    base = max(max(day_base, scratch.equity[0]), highest)
    careful = rules.gated and (
        _may_fall(rules.max_daily_loss, base, lowest) or base - lowest >= rules.max_daily_loss_usd
    )
    next_day = (day + 1) * DAY
    if not careful and close_times[len(close_times) - 1] < next_day:
        return daily
    for i in range(len(close_times)):
        if close_times[i] >= next_day:
            day = close_times[i] // DAY
            next_day = (day + 1) * DAY
            day_base = scratch.equity[i + 1] if close_times[i] % DAY == 0 else scratch.equity[i]
            day_lost = False
        if careful:
            day_lost = day_lost or daily_loss_reached(scratch.equity[i + 1], day_base, rules)
    return day, day_base, day_lost


def _may_fall(limit: float, highest: float, lowest: float) -> bool:
    """Whether some fall between two values of this range may be ``limit`` of the first, or more.

    Never False where the gate's own rounded comparison of two such values would be True.
    """
    return highest - lowest >= limit * highest * (1.0 - 1e-9)


def _bars_before_drawdown(scratch: Scratch, bars: int, peak: float, rules: Rules) -> int:
    """How many bars of a block pass before the drawdown limit is reached."""
    for i in range(bars):
        peak = max(peak, scratch.equity[i + 1])
        if drawdown_reached(scratch.equity[i + 1], peak, rules):
            return i
    return bars


def _bars_before_stop(state: State, tape: Tape, t: int, bars: int, rules: Rules) -> int:
    """How many of ``bars`` bars pass before a protective exit of the one position may act."""
    loss = state.entry[0] * (1.0 - rules.stop_loss) if rules.stop_loss > 0.0 else 0.0
    goal = state.entry[0] * (1.0 + rules.take_profit) if rules.take_profit > 0.0 else math.inf
    kept, high = 1.0 - rules.trailing_stop if rules.trailing_stop > 0.0 else 0.0, state.high[0]
    for i in range(t, t + bars):
        if min(tape.open[i][0], tape.low[i][0]) <= max(loss, high * kept):
            return i - t
        if max(tape.open[i][0], tape.high[i][0]) >= goal:
            return i - t
        high = max(high, tape.high[i][0])
    return bars


def _time_is_over_somewhere(state: State, tape: Tape, t: int, rules: Rules) -> bool:
    """Whether some position, whose symbol is there to be sold, has been held for too long."""
    for s in range(len(state.lots)):
        if tape.present[t][s] and time_is_over(state, s, tape.close_time[t], rules):
            return True
    return False


def _stop_is_met(state: State, tape: Tape, t: int, rules: Rules) -> bool:
    """Whether a protective exit may act within bar ``t``."""
    for s in range(len(state.lots)):
        if state.lots[s] == 0 or not tape.present[t][s]:
            continue
        loss = state.entry[s] * (1.0 - rules.stop_loss) if rules.stop_loss > 0.0 else 0.0
        trail = state.high[s] * (1.0 - rules.trailing_stop) if rules.trailing_stop > 0.0 else 0.0
        goal = state.entry[s] * (1.0 + rules.take_profit) if rules.take_profit > 0.0 else math.inf
        if min(tape.open[t][s], tape.low[t][s]) <= max(loss, trail):
            return True
        if max(tape.open[t][s], tape.high[t][s]) >= goal:
            return True
    return False


def _idle(tally: Tally, bars: int) -> Tally:
    """The tally after ``bars`` more that added nothing."""
    return Tally(
        tally.bars + bars,
        tally.equity,
        tally.peak,
        tally.max_drawdown,
        tally.sum_return,
        tally.sum_square,
        tally.sum_downside,
        tally.exposure,
        tally.bars_in_market,
        tally.turnover,
        tally.fees,
        tally.trades,
        tally.wins,
        tally.gross_profit,
        tally.gross_loss,
        tally.flow,
        tally.held,
    )


def _marked(
    state: State, equity: float, peak: float, day: int, day_base: float, day_lost: bool
) -> State:
    """The state with another mark and the same sequences."""
    return State(
        state.cash,
        equity,
        peak,
        day,
        day_base,
        day_lost,
        state.tripped,
        state.lots,
        state.pending,
        state.pending_since,
        state.pending_intent,
        state.acted,
        state.last,
        state.volume,
        state.entry,
        state.high,
        state.since,
        state.flow,
        state.cool_until,
        state.day_orders,
        state.day_value,
    )
