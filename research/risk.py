"""The risk gate: pure functions that say how many lots may be traded, or why none may.

An entry passes the checks in this order, and the first refusal wins: kill switch, trading hours,
daily loss, drawdown, expiry and reduce-only, position count, position size, stale data, cooldown,
exposure, order rate, turnover; at its fill the price collar. Exits never pass through it: only what
the exchange itself would reject can hold an exit back.

Sizes are whole lots, integers; a lot is ``lot_numerator / lot_denominator`` of base asset, so the
quantity of a lot count is one correctly rounded division and no step is ever lost to binary
floats. A limit is reached at equality: a loss of exactly 2 % is refused by a limit of 2 %.

Everything below ``Rules`` is written in the subset of Python that numba compiles; the sweep
compiles this source, paper trading interprets it, and both give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final, NamedTuple

from research.account import WEEKDAYS, Account, Filters, Limits, Stops, TradingHours
from research.candles import DAY, MINUTE

__all__ = [
    "CODES",
    "Account",
    "Filters",
    "Limits",
    "Rules",
    "Stops",
    "TradingHours",
    "account_refusal",
    "affordable_lots",
    "collar_refusal",
    "daily_loss_reached",
    "entry_refusal",
    "exchange_refusal",
    "fillable_lots",
    "floor_lots",
    "pace_refusal",
    "quantity_of",
    "room_for",
    "rules_for",
    "waiting_refusal",
    "wanted_lots",
]

OK: Final = 0
KILL_SWITCH: Final = 1
TRADING_HOURS: Final = 2
DAILY_LOSS: Final = 3
DRAWDOWN: Final = 4
POSITION_COUNT: Final = 5
POSITION_SIZE: Final = 6
MIN_QUANTITY: Final = 7
MIN_NOTIONAL: Final = 8
MIN_TRADE_SIZE: Final = 9
CASH: Final = 10
EXPIRED: Final = 11
REDUCE_ONLY: Final = 12
STALE_DATA: Final = 13
COOLDOWN: Final = 14
SYMBOL_EXPOSURE: Final = 15
GROSS_EXPOSURE: Final = 16
VOLATILITY: Final = 17
ORDER_RATE: Final = 18
TURNOVER: Final = 19
PRICE_COLLAR: Final = 20
TIME_STOP_DUE: Final = 21
VOLUME: Final = 22

# The stable reason codes: number in the engine's log -> (name in the ledger, meaning).
CODES: Final[dict[int, tuple[str, str]]] = {
    OK: ("OK", "nothing stood in the way"),
    KILL_SWITCH: ("KILL_SWITCH", "the kill switch is tripped; exits and stops go on"),
    TRADING_HOURS: ("TRADING_HOURS", "the bar closed outside the hours in which entries may start"),
    DAILY_LOSS: ("DAILY_LOSS", "the loss since 00:00 UTC has reached its limit"),
    DRAWDOWN: ("DRAWDOWN", "the fall from the highest equity has reached its limit"),
    EXPIRED: ("EXPIRED", "the artefact's time is over: only exits are decided"),
    REDUCE_ONLY: ("REDUCE_ONLY", "a person has ordered that only exits are decided"),
    TIME_STOP_DUE: (
        "TIME_STOP_DUE",
        "no addition to a position whose time is over: it is sold",
    ),
    POSITION_COUNT: ("POSITION_COUNT", "as many positions are open as the limit allows"),
    POSITION_SIZE: ("POSITION_SIZE", "the position is as large as its limit already"),
    MIN_QUANTITY: ("MIN_QUANTITY", "below the exchange's smallest quantity"),
    MIN_NOTIONAL: ("MIN_NOTIONAL", "below the exchange's smallest order value"),
    MIN_TRADE_SIZE: ("MIN_TRADE_SIZE", "below our own smallest trade, params/symbols.yaml"),
    STALE_DATA: ("STALE_DATA", "too few candles have closed since a hole in the symbol's candles"),
    COOLDOWN: ("COOLDOWN", "a trade of the symbol lost, or a stop ended it, too short a time ago"),
    SYMBOL_EXPOSURE: ("SYMBOL_EXPOSURE", "the symbol's own exposure limit leaves no room for it"),
    GROSS_EXPOSURE: ("GROSS_EXPOSURE", "all positions together leave no room for it"),
    VOLATILITY: ("VOLATILITY", "its volatility leaves no room for it, or is not known yet"),
    ORDER_RATE: ("ORDER_RATE", "as many orders since 00:00 UTC as the limit allows"),
    TURNOVER: ("TURNOVER", "with it more would be traded since 00:00 UTC than the limit allows"),
    PRICE_COLLAR: ("PRICE_COLLAR", "the open is further from the last close than the limit allows"),
    CASH: ("CASH", "cash pays for less than was ordered, fee and slippage included"),
    VOLUME: ("VOLUME", "the volume of the last candle filled only a part"),
}


class Rules(NamedTuple):
    """An account's rules as plain numbers for the engine: fractions, minutes, lots.

    An absent limit or share is infinite, an absent stop, pause or count of bars 0; pauses are in
    milliseconds. ``unfilled_waits``: what a share of the volume leaves of an order waits for the
    next open, instead of being cancelled. Fixed-fractional sizing is a part of ``max_position``.
    The last seven hold one value a symbol.
    """

    fee_rate: float
    slippage: float
    volume_share: float
    unfilled_waits: bool
    gated: bool
    max_position: float
    max_position_usd: float
    max_daily_loss: float
    max_daily_loss_usd: float
    max_drawdown: float
    max_positions: int
    hours_start: int
    hours_end: int
    day_mask: int
    armed: bool
    flatten: bool
    stop_loss: float
    take_profit: float
    trailing_stop: float
    time_stop: int
    min_fresh: int
    cooldown: int
    max_exposure: float
    max_day_orders: float
    max_day_turnover: float
    collar: float
    target_volatility: float
    max_symbol_exposure: Any
    lot_numerator: Any
    lot_denominator: Any
    min_lots: Any
    min_trade_lots: Any
    max_lots: Any
    min_notional: Any


def rules_for(account: Account, symbols: Sequence[str]) -> Rules:
    """The rules of an account for these symbols, in this order; per-symbol fields are lists.

    Raises UnknownNameError for a symbol that the account's filters lack.
    """
    limits, stops = account.limits or Limits(), account.stops
    start, end = limits.trading_hours.minutes()
    filters = [account.filters_for(symbol) for symbol in symbols]
    ratios = [one.lot_ratio() for one in filters]
    gated = account.limits is not None
    by_symbol = (limits.max_exposure_pct_by_symbol or {}) if gated else {}
    return Rules(
        fee_rate=account.fee_rate,
        slippage=account.slippage_bps / 10_000,
        volume_share=_or(account.volume_share_pct, math.inf) / 100,
        unfilled_waits=account.unfilled == "wait",
        gated=gated,
        max_position=min(limits.max_position_pct / 100, _risked(limits, stops)) if gated else 1.0,
        max_position_usd=_or(limits.max_position_usd if gated else None, math.inf),
        max_daily_loss=limits.max_daily_loss_pct / 100,
        max_daily_loss_usd=_or(limits.max_daily_loss_usd, math.inf),
        max_drawdown=limits.max_drawdown_pct / 100,
        max_positions=limits.max_positions,
        hours_start=start,
        hours_end=end,
        day_mask=sum(1 << WEEKDAYS.index(day) for day in limits.trading_hours.days),
        armed=limits.kill_switch_armed,
        flatten=limits.on_trip == "flatten",
        stop_loss=_or(stops.stop_loss_pct, 0.0) / 100,
        take_profit=_or(stops.take_profit_pct, 0.0) / 100,
        trailing_stop=_or(stops.trailing_stop_pct, 0.0) / 100,
        time_stop=(stops.time_stop_minutes or 0) * MINUTE,
        min_fresh=limits.min_fresh_bars or 0,
        cooldown=(limits.cooldown_minutes or 0) * MINUTE,
        max_exposure=_or(limits.max_exposure_pct, math.inf) / 100,
        max_day_orders=float(_or(limits.max_orders_per_day, math.inf)),
        max_day_turnover=_or(limits.max_daily_turnover_pct, math.inf) / 100,
        collar=_or(limits.price_collar_pct, math.inf) / 100,
        target_volatility=_or(limits.target_volatility_pct, math.inf) / 100,
        max_symbol_exposure=[_or(by_symbol.get(one), math.inf) / 100 for one in symbols],
        lot_numerator=[numerator for numerator, _ in ratios],
        lot_denominator=[denominator for _, denominator in ratios],
        min_lots=[max(1, _lots_up(one.min_quantity, one.lot_step)) for one in filters],
        min_trade_lots=[_lots_up(one.min_trade_size, one.lot_step) for one in filters],
        max_lots=[int(one.max_quantity / one.lot_step) for one in filters],
        min_notional=[float(one.min_notional) for one in filters],
    )


def _risked(limits: Limits, stops: Stops) -> float:
    """The part of equity that loses ``risk_per_trade_pct`` of it when the nearest stop is met.

    Fixed fractional sizing: Vince (1990), "Portfolio Management Formulas", chapter 1.
    """
    distances = [one for one in (stops.stop_loss_pct, stops.trailing_stop_pct) if one is not None]
    if limits.risk_per_trade_pct is None or not distances:
        return math.inf
    return limits.risk_per_trade_pct / min(distances)


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _lots_up(quantity: Decimal, lot_step: Decimal) -> int:
    return int((quantity / lot_step).to_integral_value(rounding=ROUND_CEILING))


def quantity_of(lots: int, rules: Rules, s: int) -> float:
    """Base asset in ``lots`` of symbol ``s``: exact integers, one rounding."""
    quantity: float = lots * rules.lot_numerator[s] / rules.lot_denominator[s]
    return quantity


def floor_lots(quantity: float, rules: Rules, s: int) -> int:
    """The most lots whose quantity does not exceed ``quantity``, and at most ``max_lots``.

    0.3 of a step of 0.1 is three lots, where ``0.3 // 0.1`` says two.
    """
    if quantity >= quantity_of(rules.max_lots[s], rules, s):
        return int(rules.max_lots[s])
    lots: int = math.floor(quantity * rules.lot_denominator[s] / rules.lot_numerator[s])
    while quantity_of(lots, rules, s) > quantity:
        lots -= 1
    while quantity_of(lots + 1, rules, s) <= quantity:
        lots += 1
    return lots


def fillable_lots(lots: int, volume: float, rules: Rules, s: int) -> int:
    """As many of ``lots`` as the account's share of a candle's ``volume`` (base asset) fills."""
    if rules.volume_share == math.inf:
        return lots
    return min(lots, floor_lots(rules.volume_share * volume, rules, s))


def affordable_lots(cash: float, lots: int, price: float, rules: Rules, s: int) -> int:
    """As many of ``lots`` as ``cash`` pays at ``price``, fee included; never below zero."""
    if _cost(lots, price, rules, s) <= cash:
        return lots
    fewer = min(lots, floor_lots(max(cash, 0.0) / (price * (1.0 + rules.fee_rate)), rules, s))
    while fewer > 0 and _cost(fewer, price, rules, s) > cash:
        fewer -= 1
    while fewer < lots and _cost(fewer + 1, price, rules, s) <= cash:
        fewer += 1
    return fewer


def _cost(lots: int, price: float, rules: Rules, s: int) -> float:
    notional = quantity_of(lots, rules, s) * price
    return notional + notional * rules.fee_rate


def wanted_lots(
    target: float, equity: float, room: float, price: float, rules: Rules, s: int
) -> int:
    """Lots of symbol ``s`` that a target exposure means now; caps reduce, they don't refuse.

    ``room`` is the money that exposure and volatility leave for the symbol (infinite: all of it).
    """
    cap = min(rules.max_position * equity, rules.max_position_usd, room)
    return floor_lots(max(target * cap, 0.0) / price, rules, s)


def room_for(
    equity: float, others: float, volatility: float, rules: Rules, s: int
) -> tuple[float, int]:
    """The money that exposure and volatility leave for symbol ``s``, and the code of that limit.

    ``others`` is the value of all other positions, ``volatility`` the symbol's own, a year (NaN:
    not known yet). A position of ``target_volatility`` over ``volatility`` of equity moves as much
    as that target: Moskowitz, Ooi and Pedersen (2012), "Time series momentum", section 2.4.
    """
    room, code = math.inf, OK
    if not rules.gated:
        return room, code
    if rules.max_symbol_exposure[s] < math.inf:
        room, code = rules.max_symbol_exposure[s] * equity, SYMBOL_EXPOSURE
    if rules.max_exposure < math.inf and rules.max_exposure * equity - others < room:
        room, code = rules.max_exposure * equity - others, GROSS_EXPOSURE
    if rules.target_volatility < math.inf and volatility != 0.0:
        # No comparison with NaN is true: a volatility that is not known leaves nothing.
        calm = rules.target_volatility / volatility * equity
        if not calm >= room:
            room, code = 0.0 if math.isnan(calm) else calm, VOLATILITY
    return room, code


def within_hours(close_time: int, rules: Rules) -> bool:
    """Whether entries may be decided at this bar's close (UTC milliseconds)."""
    weekday = (close_time // DAY + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    if rules.day_mask >> weekday & 1 == 0:
        return False
    minute = close_time % DAY // MINUTE
    if rules.hours_start < rules.hours_end:
        return bool(rules.hours_start <= minute < rules.hours_end)
    return bool(minute >= rules.hours_start or minute < rules.hours_end)


def drawdown_reached(equity: float, peak: float, rules: Rules) -> bool:
    """Whether equity has fallen from its peak by the limit or more."""
    return rules.gated and peak - equity >= rules.max_drawdown * peak


def daily_loss_reached(equity: float, day_base: float, rules: Rules) -> bool:
    """Whether the loss since 00:00 UTC is the limit or more, in percent or in money."""
    loss = day_base - equity
    return rules.gated and (
        loss >= rules.max_daily_loss * day_base or loss >= rules.max_daily_loss_usd
    )


def account_refusal(
    tripped: bool, close_time: int, day_lost: bool, equity: float, peak: float, rules: Rules
) -> int:
    """The first of the account-wide checks that refuses every entry at this close, else OK.

    The kill switch holds even where ``limits=None`` has switched the other checks off.
    ``day_lost`` stays true until the next UTC day, whatever is earned back.
    """
    if tripped:
        return KILL_SWITCH
    if not rules.gated:
        return OK
    if not within_hours(close_time, rules):
        return TRADING_HOURS
    if day_lost:
        return DAILY_LOSS
    if drawdown_reached(equity, peak, rules):
        return DRAWDOWN
    return OK


def entry_refusal(
    order_lots: int, price: float, is_new: bool, positions: int, rules: Rules, s: int
) -> int:
    """The checks of one entry after the account-wide ones: position count, then size.

    ``positions`` counts the symbols that will still be held after the orders now pending;
    ``is_new`` says that this symbol is not among them.
    """
    if rules.gated and is_new and positions >= rules.max_positions:
        return POSITION_COUNT
    if order_lots <= 0 and not is_new:
        return POSITION_SIZE
    code = exchange_refusal(order_lots, price, rules, s)
    if code == OK and order_lots < rules.min_trade_lots[s]:
        return MIN_TRADE_SIZE
    return code


def exchange_refusal(order_lots: int, price: float, rules: Rules, s: int) -> int:
    """What the exchange itself would reject; of an exit, nothing else can be refused."""
    if order_lots < rules.min_lots[s]:
        return MIN_QUANTITY
    if quantity_of(order_lots, rules, s) * price < rules.min_notional[s]:
        return MIN_NOTIONAL
    return OK


def waiting_refusal(close_time: int, cool_until: int, fresh: int, rules: Rules) -> int:
    """What time alone mends: too few candles since a hole, a pause after a loss or a stop."""
    if not rules.gated:
        return OK
    if fresh < rules.min_fresh:
        return STALE_DATA
    if close_time < cool_until:
        return COOLDOWN
    return OK


def pace_refusal(orders: int, traded: float, notional: float, day_base: float, rules: Rules) -> int:
    """Whether one more order of ``notional`` would be too many, or too much, for this UTC day."""
    if not rules.gated:
        return OK
    if orders + 1 > rules.max_day_orders:
        return ORDER_RATE
    if rules.max_day_turnover < math.inf and traded + notional > rules.max_day_turnover * day_base:
        return TURNOVER
    return OK


def collar_refusal(price: float, last: float, rules: Rules) -> int:
    """Whether an open is too far from the last close for an entry to be filled at it."""
    if rules.gated and rules.collar < math.inf and abs(price - last) > rules.collar * last:
        return PRICE_COLLAR
    return OK
