"""The only simulator: a fold of one ``step`` over bars.

The state after bar ``t`` is ``step(state, bar t)``, whoever calls it: a backtest and a sweep run
this source compiled by numba, paper trading runs it as plain Python, and both give the same bits.
A step has two phases, and paper trading commits each on its own:

1. open:  orders decided at the last close fill at this bar's open, sells before buys, with
          slippage and fee; a buy shrinks to what cash can pay, and ends at a price too far off.
          Under a share of volume a part fills, and the rest waits on or is cancelled.
2. close: stops act within the bar (a gap through the stop fills at the open); the account is
          marked; the kill switch and the gate have their say; targets that *changed* become
          orders for the next open, sells before buys.

Units: times in UTC milliseconds, money in quote currency, positions in whole lots. Symbols keep
the run's order throughout. Arrays are ``[bar][symbol]``; lists serve as well as numpy arrays.
"""

from __future__ import annotations

import math
import sys
from functools import cache
from typing import Any, Final

import numpy as np

from research import candles, risk
from research import state as state_module
from research import tape as tape_module
from research.candles import DAY
from research.compiled import compile_kernel
from research.risk import (
    CASH,
    EXPIRED,
    KILL_SWITCH,
    OK,
    REDUCE_ONLY,
    TIME_STOP_DUE,
    VOLUME,
    Rules,
    account_refusal,
    affordable_lots,
    collar_refusal,
    daily_loss_reached,
    drawdown_reached,
    entry_refusal,
    exchange_refusal,
    fillable_lots,
    pace_refusal,
    quantity_of,
    room_for,
    waiting_refusal,
    wanted_lots,
)
from research.state import (
    ENTRY,
    EXIT,
    FLATTEN,
    STOP_LOSS,
    TAKE_PROFIT,
    TIME_STOP,
    TRAILING_STOP,
    Log,
    State,
    as_arrays,
    copied,
    new_log,
)
from research.tape import EXPIRED_THEN, KILLED, REDUCING, RESET, TRIPPED_AFTER, Tape

__all__ = ["INTERPRETED_BARS", "KERNEL_MODULES", "close_phase", "fold", "open_phase", "step"]

# The modules whose functions and constants a kernel is made of.
KERNEL_MODULES: Final = (candles, tape_module, risk, state_module, sys.modules[__name__])


def step(state: State, tape: Tape, t: int, rules: Rules, log: Log, row: int) -> State:
    """One whole bar: the state after bar ``t`` from the state before it.

    Writes row ``row`` of the log, which must be clear; the sequences of ``state`` are changed in
    place, so pass a copy where that matters.
    """
    opened = open_phase(state, tape, t, rules, log, row)
    return close_phase(opened, tape, t, rules, log, row)


def open_phase(state: State, tape: Tape, t: int, rules: Rules, log: Log, row: int) -> State:
    """Fill pending orders at the open of bar ``t``; writes row ``row`` of the log.

    The sequences of ``state`` are changed in place: pass a copy where that matters.
    """
    cash = state.cash
    for selling in (True, False):
        for s in range(len(state.lots)):
            pending = state.pending[s]
            if pending == 0 or (pending < 0) != selling or not tape.present[t][s]:
                continue
            # The volume that an open can know of is that of the last candle that has closed.
            most = fillable_lots(abs(pending), state.volume[s], rules, s)
            if most == 0 and rules.unfilled_waits:
                continue
            code = OK
            if selling:
                price = tape.open[t][s] * (1.0 - rules.slippage)
                lots = most
            else:
                price = tape.open[t][s] * (1.0 + rules.slippage)
                code = collar_refusal(tape.open[t][s], state.last[s], rules)
                lots = affordable_lots(cash, most, price, rules, s) if code == OK else 0
                if code == OK and lots < most:
                    code = CASH
                    if exchange_refusal(lots, price, rules, s) != OK:
                        lots = 0
            if code == OK and most < abs(pending):
                code = VOLUME
            notional = quantity_of(lots, rules, s) * price
            fee = notional * rules.fee_rate
            if selling:
                cash = cash + (notional - fee)
                _reduce(state, s, lots, notional - fee, False)
            elif lots > 0:
                cash = cash - (notional + fee)
                _enlarge(state, s, lots, price, notional + fee)
            log.fill_lots[row][s] = -lots if selling else lots
            log.fill_price[row][s] = price
            log.fill_fee[row][s] = fee
            log.fill_code[row][s] = code
            log.fill_since[row][s] = state.pending_since[s]
            log.fill_intent[row][s] = state.pending_intent[s]
            if code == VOLUME and rules.unfilled_waits:
                state.pending[s] = pending + lots if selling else pending - lots
            else:
                _forget_pending(state, s)
            log.fill_left[row][s] = state.pending[s]
    account = (state.equity, state.peak, state.day, state.day_base, state.day_lost)
    return _handed_on(state, cash, *account, state.tripped)


def close_phase(state: State, tape: Tape, t: int, rules: Rules, log: Log, row: int) -> State:
    """Stops, mark, kill switch, gate and orders at the close of bar ``t``.

    Writes row ``row`` of the log; the sequences of ``state`` are changed in place.
    """
    close_time = tape.close_time[t]
    if close_time // DAY != state.day:
        begin_day(state)
    cash = _run_stops(state, tape, t, rules, log, row)
    equity = _mark(state, cash, tape, t, rules)
    peak = max(state.peak, equity)
    day, day_base, day_lost = state.day, state.day_base, state.day_lost
    if close_time // DAY != day:
        # The base is the mark at 00:00: this one, or the last before it where no bar closed then.
        day = close_time // DAY
        day_base = equity if close_time % DAY == 0 else state.equity
        day_lost = False
    day_lost = day_lost or daily_loss_reached(equity, day_base, rules)

    tripped, killed, event = state.tripped, False, tape.events[t]
    if event & (KILLED | RESET) != 0:
        tripped = event & TRIPPED_AFTER != 0
        killed = event & KILLED != 0
        if event & RESET != 0:
            peak = equity
    if killed:
        _cancel_entries(state, log, row)

    refusal = OK
    if _more_is_wanted(state, tape, t):
        refusal = account_refusal(tripped, close_time, day_lost, equity, peak, rules)
    if refusal == OK and event & (EXPIRED_THEN | REDUCING) != 0:
        refusal = EXPIRED if event & EXPIRED_THEN != 0 else REDUCE_ONLY
    for s in range(len(state.lots)):
        if state.cool_until[s] < 0:
            state.cool_until[s] = close_time + rules.cooldown
    _decide_exits(state, equity, tape, t, rules, log, row)
    _decide_entries(state, equity, day_base, refusal, tape, t, rules, log, row)

    trips_itself = rules.armed and not tripped and drawdown_reached(equity, peak, rules)
    if trips_itself:
        tripped = True
        _cancel_entries(state, log, row)
    # Volume may leave a part of it unsold: then what is held is sold at every close until flat.
    unsold = rules.volume_share < math.inf
    if rules.flatten and tripped and (killed or trips_itself or unsold):
        _flatten(state, close_time, rules, log, row)

    log.cash[row] = cash
    log.equity[row] = equity
    log.peak[row] = peak
    log.day_base[row] = day_base
    log.tripped[row] = tripped
    return _handed_on(state, cash, equity, peak, day, day_base, day_lost, tripped)


def _run_stops(state: State, tape: Tape, t: int, rules: Rules, log: Log, row: int) -> float:
    """Protective exits inside bar ``t``; returns cash. What the open decides comes first, and of
    a stop and a target inside one bar the stop does."""
    cash = state.cash
    for s in range(len(state.lots)):
        if state.lots[s] == 0 or not tape.present[t][s]:
            continue
        opened = tape.open[t][s]
        loss = state.entry[s] * (1.0 - rules.stop_loss) if rules.stop_loss > 0.0 else 0.0
        trail = state.high[s] * (1.0 - rules.trailing_stop) if rules.trailing_stop > 0.0 else 0.0
        stop = max(loss, trail)
        goal = state.entry[s] * (1.0 + rules.take_profit) if rules.take_profit > 0.0 else math.inf
        price, intent = 0.0, 0
        if opened <= stop or (tape.low[t][s] <= stop and opened < goal):
            price = min(opened, stop) * (1.0 - rules.slippage)
            intent = STOP_LOSS if loss >= trail else TRAILING_STOP
        elif tape.high[t][s] >= goal:
            price = max(opened, goal)
            intent = TAKE_PROFIT
        state.high[s] = max(state.high[s], tape.high[t][s])
        if intent == 0 or exchange_refusal(state.lots[s], price, rules, s) != OK:
            continue
        lots = fillable_lots(state.lots[s], tape.volume[t][s], rules, s)
        if lots == 0:
            continue
        if state.pending[s] != 0:
            _cancel(state, s, VOLUME, log, row)
        notional = quantity_of(lots, rules, s) * price
        fee = notional * rules.fee_rate
        cash = cash + (notional - fee)
        _reduce(state, s, lots, notional - fee, True)
        state.day_orders[s] = state.day_orders[s] + 1
        state.day_value[s] = state.day_value[s] + notional
        log.stop_lots[row][s] = -lots
        log.stop_price[row][s] = price
        log.stop_fee[row][s] = fee
        log.stop_intent[row][s] = intent
    return cash


def _mark(state: State, cash: float, tape: Tape, t: int, rules: Rules) -> float:
    """Equity at the close of bar ``t``: cash plus each position at its last close, in order."""
    equity = cash
    for s in range(len(state.lots)):
        if tape.present[t][s]:
            state.last[s] = tape.close[t][s]
            state.volume[s] = tape.volume[t][s]
        if state.lots[s] > 0:
            equity = equity + quantity_of(state.lots[s], rules, s) * state.last[s]
    return equity


def _decide_exits(
    state: State, equity: float, tape: Tape, t: int, rules: Rules, log: Log, row: int
) -> None:
    """A target that fell sells down to it; a target of zero sells whatever is still held, and so
    does a position whose time is over. What still waits of an older order is cancelled then, unless
    it is a sale of everything held, or a sale that the exchange would not take again."""
    for s in range(len(state.lots)):
        target, price = tape.target[t][s], tape.close[t][s]
        if not tape.present[t][s]:
            continue
        falls = not math.isnan(target) and target < state.acted[s]
        if falls:
            log.action[row][s] = -1
            state.acted[s] = target
        kept, intent = state.lots[s], EXIT
        if time_is_over(state, s, tape.close_time[t], rules):
            kept, intent = 0, TIME_STOP
        elif target == 0.0 and state.acted[s] == 0.0:
            kept = 0
        elif falls:
            others = _value_of_others(state, s, rules)
            room, _ = room_for(equity, others, tape.volatility[t][s], rules, s)
            kept = wanted_lots(target, equity, room, price, rules, s)
        else:
            continue
        pending = state.pending[s]
        if pending < 0 and pending == -state.lots[s]:
            continue
        lots, code = state.lots[s] - kept, OK
        if lots > 0:
            code = exchange_refusal(lots, price, rules, s)
            log.code[row][s] = code
        if pending > 0 or (pending < 0 and code == OK):
            _cancel(state, s, VOLUME, log, row)
        if lots > 0 and code == OK:
            _order(state, s, -lots, intent, tape.close_time[t], rules, log, row)


def _more_is_wanted(state: State, tape: Tape, t: int) -> bool:
    """Whether some target rises at this bar; at most bars the gate has nothing to say."""
    wanted = False
    for s in range(len(state.lots)):
        wanted = wanted or tape.target[t][s] > state.acted[s]
    return wanted


def _decide_entries(
    state: State,
    equity: float,
    day_base: float,
    refusal: int,
    tape: Tape,
    t: int,
    rules: Rules,
    log: Log,
    row: int,
) -> None:
    """A target that rose buys up to it, unless refused; either way it is used up. Its order takes
    the place of what still waits of an older one."""
    for s in range(len(state.lots)):
        target = tape.target[t][s]
        if not tape.present[t][s] or math.isnan(target) or target <= state.acted[s]:
            continue
        log.action[row][s] = 1
        state.acted[s] = target
        code = refusal
        if code == OK:
            code, lots = _entry(state, equity, day_base, tape, t, rules, s)
            if code == OK:
                if state.pending[s] != 0:
                    _cancel(state, s, VOLUME, log, row)
                _order(state, s, lots, ENTRY, tape.close_time[t], rules, log, row)
        log.code[row][s] = code


def _entry(
    state: State, equity: float, day_base: float, tape: Tape, t: int, rules: Rules, s: int
) -> tuple[int, int]:
    """The gate for one entry whose target has risen: the first refusal, or OK and its lots."""
    if state.pending[s] < 0 and time_is_over(state, s, tape.close_time[t], rules):
        return TIME_STOP_DUE, 0
    target, price, held = tape.target[t][s], tape.close[t][s], state.lots[s]
    is_new, positions = held + state.pending[s] == 0, _positions(state)
    lots = wanted_lots(target, equity, math.inf, price, rules, s) - held
    code = entry_refusal(lots, price, is_new, positions, rules, s)
    if code == OK:
        fresh = tape.fresh[t][s]
        code = waiting_refusal(tape.close_time[t], state.cool_until[s], fresh, rules)
    if code == OK:
        others = _value_of_others(state, s, rules)
        room, limit = room_for(equity, others, tape.volatility[t][s], rules, s)
        lots = wanted_lots(target, equity, room, price, rules, s) - held
        if entry_refusal(lots, price, is_new, positions, rules, s) != OK:
            code = limit
    if code == OK:
        orders, traded = 0, 0.0
        for one in range(len(state.lots)):
            orders = orders + state.day_orders[one]
            traded = traded + state.day_value[one]
        code = pace_refusal(orders, traded, quantity_of(lots, rules, s) * price, day_base, rules)
    return code, lots


def _value_of_others(state: State, s: int, rules: Rules) -> float:
    """What the other positions are worth at their last closes, once pending orders are filled."""
    value = 0.0
    for other in range(len(state.lots)):
        lots = state.lots[other] + state.pending[other]
        if other != s and lots > 0:
            value = value + quantity_of(lots, rules, other) * state.last[other]
    return value


def time_is_over(state: State, s: int, close_time: int, rules: Rules) -> bool:
    """Whether a position has been held for as long as the time stop allows."""
    held = close_time - state.since[s]
    return rules.time_stop > 0 and state.lots[s] > 0 and held >= rules.time_stop


def _positions(state: State) -> int:
    """Symbols that will be held once the pending orders are filled."""
    count = 0
    for s in range(len(state.lots)):
        if state.lots[s] + state.pending[s] > 0:
            count += 1
    return count


def _order(
    state: State, s: int, lots: int, intent: int, close_time: int, rules: Rules, log: Log, row: int
) -> None:
    state.day_orders[s] = state.day_orders[s] + 1
    state.day_value[s] = state.day_value[s] + quantity_of(abs(lots), rules, s) * state.last[s]
    state.pending[s] = lots
    state.pending_since[s] = close_time
    state.pending_intent[s] = intent
    log.order_lots[row][s] = lots
    log.order_intent[row][s] = intent


def _cancel(state: State, s: int, code: int, log: Log, row: int) -> None:
    log.cancel_lots[row][s] = state.pending[s]
    log.cancel_since[row][s] = state.pending_since[s]
    log.cancel_intent[row][s] = state.pending_intent[s]
    log.cancel_code[row][s] = code
    _forget_pending(state, s)


def _cancel_entries(state: State, log: Log, row: int) -> None:
    """Entries still waiting for an open, or for volume, go when the switch trips."""
    for s in range(len(state.lots)):
        if state.pending[s] > 0:
            _cancel(state, s, KILL_SWITCH, log, row)


def _flatten(state: State, close_time: int, rules: Rules, log: Log, row: int) -> None:
    """Sell everything at the next open; a smaller sale that waits is replaced."""
    for s in range(len(state.lots)):
        lots = state.lots[s]
        if lots == 0 or state.pending[s] == -lots:
            continue
        if exchange_refusal(lots, state.last[s], rules, s) == OK:
            if state.pending[s] != 0 and state.pending_since[s] != close_time:
                _cancel(state, s, KILL_SWITCH, log, row)
            _order(state, s, -lots, FLATTEN, close_time, rules, log, row)


def begin_day(state: State) -> None:
    """A new UTC day: no order and no stop has been counted yet."""
    for s in range(len(state.lots)):
        state.day_orders[s] = 0
        state.day_value[s] = 0.0


def _enlarge(state: State, s: int, lots: int, price: float, paid: float) -> None:
    held = state.lots[s]
    state.flow[s] = state.flow[s] - paid
    if held == 0:
        state.since[s] = state.pending_since[s]
        # (price * lots) / lots can miss price by an ulp, and the stop that follows from it.
        state.entry[s] = price
    else:
        state.entry[s] = (state.entry[s] * held + price * lots) / (held + lots)
    state.high[s] = max(state.high[s], price)
    state.lots[s] = held + lots


def _reduce(state: State, s: int, lots: int, gained: float, is_stop: bool) -> None:
    state.lots[s] = state.lots[s] - lots
    state.flow[s] = state.flow[s] + gained
    if state.lots[s] == 0:
        if is_stop or state.pending_intent[s] == TIME_STOP or state.flow[s] < 0.0:
            state.cool_until[s] = -1
        state.entry[s] = 0.0
        state.high[s] = 0.0
        state.since[s] = 0
        state.flow[s] = 0.0


def _forget_pending(state: State, s: int) -> None:
    state.pending[s] = 0
    state.pending_since[s] = 0
    state.pending_intent[s] = 0


def _handed_on(
    state: State,
    cash: float,
    equity: float,
    peak: float,
    day: int,
    day_base: float,
    day_lost: bool,
    tripped: bool,
) -> State:
    """The state with another account and the same sequences; numba knows no ``_replace``."""
    return State(
        cash,
        equity,
        peak,
        day,
        day_base,
        day_lost,
        tripped,
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


# Below this many bars, starting the compiler takes longer than interpreting them.
INTERPRETED_BARS: Final = 2_000


def fold(
    state: State, tape: Tape, rules: Rules, *, compiled: bool | None = None
) -> tuple[State, Log]:
    """Run every bar of ``tape``; returns the last state and the log of numpy arrays.

    Compiled or interpreted gives the same bits; None takes whichever is sooner done. ``state`` is
    not touched.
    """
    bars, symbols = len(tape.close_time), len(state.lots)
    blank = new_log(bars, symbols)
    if compiled or (compiled is None and bars > INTERPRETED_BARS):
        last = _compiled_fold()(as_arrays(state), tape, as_arrays(rules), blank)
        return copied(last), blank
    lists = Log(*(column.tolist() for column in blank))
    last = _fold(copied(state), Tape(*(np.asarray(c).tolist() for c in tape)), rules, lists)
    columns = zip(lists, blank, strict=True)
    return last, Log(*(np.array(c, kin.dtype).reshape(kin.shape) for c, kin in columns))


def _fold(state: State, tape: Tape, rules: Rules, log: Log) -> State:
    for t in range(len(tape.close_time)):
        state = step(state, tape, t, rules, log, t)
    return state


@cache
def _compiled_fold() -> Any:
    return compile_kernel(_fold, KERNEL_MODULES)
