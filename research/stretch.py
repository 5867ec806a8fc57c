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
from typing import Final

from research.candles import DAY, Ints
from research.engine import begin_day, time_is_over
from research.metrics import Tally
from research.risk import Rules, daily_loss_reached, drawdown_reached, quantity_of
from research.state import State
from research.tape import Tape

__all__ = ["find_busy", "is_restless", "quiet_stretch"]

NEVER: Final = 2**62


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
    count, last = 0, 0.0
    for t in range(len(tape.close_time)):
        target = tape.target[t][0]
        if (target != last and not math.isnan(target)) or tape.events[t] != 0:
            busy[count] = t
            count = count + 1
            if not math.isnan(target):
                last = target
                if not 0.0 <= target <= 1.0:
                    return -1
    return count


def is_restless(state: State, rules: Rules) -> bool:
    """Whether the next bar needs a full step whatever it brings."""
    flattens = rules.volume_share < math.inf and rules.flatten and state.tripped
    for s in range(len(state.lots)):
        leaving = flattens or state.acted[s] == 0.0
        if state.pending[s] != 0 or (state.lots[s] != 0 and leaving):
            return True
    return False


def quiet_stretch(
    state: State, tape: Tape, t: int, stop: int, rules: Rules, tally: Tally
) -> tuple[int, State, Tally]:
    """Live through quiet bars from ``t`` up to ``stop``; returns the first bar that was not.

    ``stop`` is the next busy bar. The sequences of ``state`` are changed in place.
    """
    held = False
    for s in range(len(state.lots)):
        held = held or state.lots[s] != 0
    if not held:
        return _flat_stretch(state, tape, t, stop, rules, tally)
    if len(state.lots) == 1:
        return _held_alone(state, tape, t, stop, rules, tally)
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
    state: State, tape: Tape, t: int, stop: int, rules: Rules, tally: Tally
) -> tuple[int, State, Tally]:
    """The same for an account of one symbol, which is present at every bar of its own clock."""
    cash, equity, peak = state.cash, state.equity, state.peak
    day, day_base, day_lost = state.day, state.day_base, state.day_lost
    next_day, quantity, high = (day + 1) * DAY, quantity_of(state.lots[0], rules, 0), state.high[0]
    loss = state.entry[0] * (1.0 - rules.stop_loss) if rules.stop_loss > 0.0 else 0.0
    goal = state.entry[0] * (1.0 + rules.take_profit) if rules.take_profit > 0.0 else math.inf
    kept = 1.0 - rules.trailing_stop if rules.trailing_stop > 0.0 else 0.0
    may_trip = rules.armed and not state.tripped
    due = state.since[0] + rules.time_stop if rules.time_stop > 0 else NEVER
    counted, top, deepest, lowest = tally.equity, tally.peak, tally.max_drawdown, math.inf
    returns, squares, downsides = tally.sum_return, tally.sum_square, tally.sum_downside
    exposure, in_market, first = tally.exposure, tally.bars_in_market, t
    while t < stop:
        floor = max(loss, high * kept)
        if min(tape.open[t][0], tape.low[t][0]) <= floor or tape.high[t][0] >= goal:
            break
        if tape.open[t][0] >= goal or tape.close_time[t] >= due:
            break
        marked = cash + quantity * tape.close[t][0]
        higher = max(peak, marked)
        if may_trip and drawdown_reached(marked, higher, rules):
            break
        close_time = tape.close_time[t]
        if close_time >= next_day:
            begin_day(state)
            day = close_time // DAY
            next_day = (day + 1) * DAY
            day_base = marked if close_time % DAY == 0 else equity
            day_lost = False
        day_lost = day_lost or daily_loss_reached(marked, day_base, rules)
        equity, peak = marked, higher
        high = max(high, tape.high[t][0])
        change = equity / counted - 1.0
        downside = min(change, 0.0)
        returns = returns + change
        squares = squares + change * change
        downsides = downsides + downside * downside
        invested = equity - cash
        exposure = exposure + invested / equity
        in_market = in_market + (1 if invested > 0.0 else 0)
        if equity > top:
            top, lowest = equity, equity
        elif equity < lowest:  # else the quotient, rounded as it is, cannot be smaller
            lowest = equity
            deepest = max(deepest, 1.0 - equity / top)
        counted = equity
        t = t + 1
    if t > first:
        state.last[0] = tape.close[t - 1][0]
        state.volume[0] = tape.volume[t - 1][0]
        state.high[0] = high
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
