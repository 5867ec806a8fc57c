"""The simulator written a second time, from the design's text alone: slow, naive, easy to check.

Nothing here is shared with ``research.engine`` or ``research.risk``: candles are dicts by open
time, positions are small records, lots are exact fractions. Money is float64 in the order of
operations that the design fixes, so that the two can be compared with ``==``. Prices in quote
currency, times in UTC milliseconds. Trust in the engine rests on this file being obviously right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

from research.account import WEEKDAYS, Account, Filters, Limits
from research.tape import Intervention, Move

DAY = timedelta(days=1)
MINUTE_MS = 60_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
REDUCING = (Move.REDUCE, Move.RESUME)
STOP_INTENTS = ("stop_loss", "trailing_stop", "take_profit", "time_stop")


@dataclass(frozen=True)
class Bar:
    """One closed candle and the exposure that the strategy wants after it (NaN: no opinion).

    ``volume`` is in base asset. ``volatility`` is the symbol's at its close, a year, where the
    account sizes by it.
    """

    open: float
    high: float
    low: float
    close: float
    target: float
    volume: float = 1.0
    volatility: float = math.nan


@dataclass(frozen=True)
class Order:
    """Signed lots (a sale is negative) that wait for the symbol's next open."""

    lots: int
    since: int
    intent: str


@dataclass
class Position:
    """What is held of one symbol, and what the run remembers about it."""

    filters: Filters
    lots: int = 0
    entry: float = 0.0
    high: float = 0.0
    last_close: float = math.nan
    last_volume: float = 0.0
    acted: float = 0.0
    since: int = 0
    flow: float = 0.0
    ended_badly: bool = False
    cool_until: int = 0
    fresh: int = 0
    traded_today: list[float] = field(default_factory=list)
    waiting: Order | None = None

    def quantity(self, lots: int) -> float:
        return float(lots * Fraction(self.filters.lot_step))

    @property
    def lots_once_filled(self) -> int:
        return self.lots + (self.waiting.lots if self.waiting else 0)


@dataclass(frozen=True)
class Fill:
    t: int
    s: int
    lots: int
    price: float
    fee: float
    intent: str
    code: str = "OK"
    since: int = 0
    left: int = 0


@dataclass(frozen=True)
class Decision:
    t: int
    s: int
    action: int
    code: str


@dataclass(frozen=True)
class Placed:
    """An order placed, or one that waited and was cancelled for a reason."""

    t: int
    s: int
    order: Order
    code: str = "OK"


@dataclass(frozen=True)
class Mark:
    cash: float
    equity: float
    peak: float
    day_base: float
    tripped: bool


@dataclass
class Story:
    """Everything that happened, in order."""

    fills: list[Fill] = field(default_factory=list)
    stops: list[Fill] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    orders: list[Placed] = field(default_factory=list)
    cancelled: list[Placed] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)


@dataclass
class Book:
    """The account while it runs."""

    account: Account
    positions: list[Position]
    cash: float
    peak: float
    equity: float
    symbols: tuple[str, ...] = ()
    date: date | None = None
    day_base: float = 0.0
    lossy_date: date | None = None
    tripped: bool = False
    expired: bool = False
    reducing: bool = False
    story: Story = field(default_factory=Story)

    @property
    def limits(self) -> Limits | None:
        return self.account.limits

    @property
    def slippage(self) -> float:
        return self.account.slippage_bps / 10_000


Series = Mapping[int, Bar]


def simulate(
    account: Account,
    series: Mapping[str, Series],
    bar_ms: int,
    interventions: Sequence[Intervention] = (),
    trade_from: int | None = None,
) -> tuple[Story, Book]:
    """Run the account over every bar of ``series`` (by symbol, then by open time)."""
    positions = [Position(account.filters_for(symbol)) for symbol in series]
    book = Book(
        account, positions, account.initial_cash, account.initial_cash, account.initial_cash
    )
    book.day_base = account.initial_cash
    book.symbols = tuple(series)
    opens = sorted({ts for one in series.values() for ts in one})
    closes = [ts + bar_ms for ts in opens if trade_from is None or ts + bar_ms >= trade_from]
    acts = sorted(interventions, key=lambda act: act.at)
    for t, close_time in enumerate(closes):
        bars = {
            s: one[close_time - bar_ms]
            for s, one in enumerate(series.values())
            if close_time - bar_ms in one
        }
        since = closes[t - 1] if t else -math.inf
        book.expired = any(act.move is Move.EXPIRE and act.at <= close_time for act in acts)
        held_back = [act.move for act in acts if act.at <= close_time and act.move in REDUCING]
        book.reducing = held_back[-1:] == [Move.REDUCE]
        kills = [act for act in acts if act.move in (Move.KILL, Move.RESET)]
        for position, one in zip(positions, series.values(), strict=True):
            position.fresh = 0
            while close_time - (position.fresh + 1) * bar_ms in one:
                position.fresh += 1
        now = [act.move for act in kills if since < act.at <= close_time]
        run_bar(book, t, close_time, bars, now)
    return book.story, book


def run_bar(book: Book, t: int, close_time: int, bars: dict[int, Bar], acts: list[Move]) -> None:
    fill_waiting_orders(book, t, bars)
    if (EPOCH + timedelta(milliseconds=close_time)).date() != book.date:
        for position in book.positions:
            position.traded_today.clear()
    for s, bar in bars.items():
        protect(book, t, s, bar)
    mark(book, close_time, bars)

    for act in acts:
        if act is Move.KILL:
            cancel_entries(book, t)
            book.tripped = True
        else:
            book.tripped = False
            book.peak = book.equity
    trips_now = book.tripped and Move.KILL in acts
    if book.limits is not None and daily_loss_found(book):
        book.lossy_date = book.date
    refusal = account_refusal(book, close_time)
    if refusal == "OK" and book.expired:
        refusal = "EXPIRED"
    if refusal == "OK" and book.reducing:
        refusal = "REDUCE_ONLY"
    for position in book.positions:
        if position.ended_badly:
            pause = (book.limits and book.limits.cooldown_minutes) or 0
            position.cool_until = close_time + pause * MINUTE_MS
            position.ended_badly = False

    decided = {s: decide_exit(book, t, s, bar, close_time) for s, bar in bars.items()}
    for s, bar in bars.items():
        if bar.target > book.positions[s].acted:
            decided[s] = (1, decide_entry(book, t, s, bar, close_time, refusal))
        if not math.isnan(bar.target):
            book.positions[s].acted = bar.target

    limits = book.limits
    if (
        limits is not None
        and limits.kill_switch_armed
        and not book.tripped
        and drawdown_found(book)
    ):
        book.tripped = trips_now = True
        cancel_entries(book, t)
    goes_on = book.tripped and account_shares_volume(book)
    if (trips_now or goes_on) and limits is not None and limits.on_trip == "flatten":
        for s in range(len(book.positions)):
            flatten(book, t, s, close_time)

    for s, (action, code) in decided.items():
        book.story.decisions.append(Decision(t, s, action, code))
    book.story.marks.append(Mark(book.cash, book.equity, book.peak, book.day_base, book.tripped))


# --- the open


def fill_waiting_orders(book: Book, t: int, bars: dict[int, Bar]) -> None:
    for selling in (True, False):
        for s, bar in bars.items():
            position = book.positions[s]
            order = position.waiting
            if order is None or (order.lots < 0) != selling:
                continue
            part = part_for_volume(book, s, abs(order.lots), position.last_volume)
            waits = book.account.unfilled == "wait"
            if part == 0 and waits:
                continue  # not even one lot: nothing happens
            now = replace(order, lots=-part if selling else part)
            if selling:
                price = bar.open * (1 - book.slippage)
                fee = sell(book, s, part, price, order.intent)
                fill = Fill(t, s, now.lots, price, fee, order.intent, "OK", order.since)
            else:
                fill = buy_what_cash_pays(book, t, s, now, bar.open)
            position.waiting = None
            rest = order.lots - now.lots
            if rest != 0 and fill.code == "OK":
                fill = replace(fill, code="VOLUME", left=rest if waits else 0)
                position.waiting = replace(order, lots=rest) if waits else None
            book.story.fills.append(fill)


def account_shares_volume(book: Book) -> bool:
    return book.account.volume_share_pct is not None


def part_for_volume(book: Book, s: int, lots: int, volume: float) -> int:
    """How many of the lots a share of the volume has room for."""
    if book.account.volume_share_pct is None:
        return lots
    room = floor_to_lots(book.positions[s], book.account.volume_share_pct / 100 * volume)
    return room if room < lots else lots


def sell(book: Book, s: int, lots: int, price: float, intent: str) -> float:
    position = book.positions[s]
    notional = position.quantity(lots) * price
    fee = notional * book.account.fee_rate
    book.cash = book.cash + (notional - fee)
    position.lots -= lots
    position.flow = position.flow + (notional - fee)
    if position.lots == 0:
        position.ended_badly = position.flow < 0 or intent in STOP_INTENTS
        position.entry = position.high = position.flow = 0.0
        position.since = 0
    return fee


def buy_what_cash_pays(book: Book, t: int, s: int, order: Order, open_price: float) -> Fill:
    position = book.positions[s]
    price = open_price * (1 + book.slippage)
    if book.limits is not None and book.limits.price_collar_pct is not None:
        reach = book.limits.price_collar_pct / 100 * position.last_close
        if abs(open_price - position.last_close) > reach:
            return Fill(t, s, 0, price, 0.0, order.intent, "PRICE_COLLAR", order.since)
    if order.lots == 0:
        return Fill(t, s, 0, price, 0.0, order.intent, "OK", order.since)
    lots = lots_that_cash_pays(book, s, order.lots, price)
    code = "OK" if lots == order.lots else "CASH"
    if lots < order.lots and exchange_refuses(position, lots, price):
        return Fill(t, s, 0, price, 0.0, order.intent, "CASH", order.since)
    notional = position.quantity(lots) * price
    fee = notional * book.account.fee_rate
    book.cash = book.cash - (notional + fee)
    position.flow = position.flow - (notional + fee)
    if position.lots == 0:
        position.since = order.since
        position.entry = position.high = price
    else:
        weighted = position.entry * position.lots + price * lots
        position.entry = weighted / (position.lots + lots)
        position.high = max(position.high, price)
    position.lots += lots
    return Fill(t, s, lots, price, fee, order.intent, code, order.since)


def lots_that_cash_pays(book: Book, s: int, ordered: int, price: float) -> int:
    """The most lots, up to ``ordered``, whose notional and fee together cash covers."""

    def affordable(lots: int) -> bool:
        notional = book.positions[s].quantity(lots) * price
        return notional + notional * book.account.fee_rate <= book.cash

    enough, too_many = 0, ordered + 1
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        if affordable(middle):
            enough = middle
        else:
            too_many = middle
    return enough


# --- within the bar


def protect(book: Book, t: int, s: int, bar: Bar) -> None:
    position, stops = book.positions[s], book.account.stops
    if position.lots == 0:
        return
    stop, stop_intent = 0.0, ""
    if stops.stop_loss_pct is not None:
        stop, stop_intent = position.entry * (1 - stops.stop_loss_pct / 100), "stop_loss"
    if stops.trailing_stop_pct is not None:
        trailing = position.high * (1 - stops.trailing_stop_pct / 100)
        if trailing > stop:
            stop, stop_intent = trailing, "trailing_stop"
    goal = math.inf
    if stops.take_profit_pct is not None:
        goal = position.entry * (1 + stops.take_profit_pct / 100)

    if bar.open <= stop:
        price, intent = bar.open * (1 - book.slippage), stop_intent
    elif bar.open >= goal:
        price, intent = bar.open, "take_profit"
    elif bar.low <= stop:
        price, intent = stop * (1 - book.slippage), stop_intent
    elif bar.high >= goal:
        price, intent = goal, "take_profit"
    else:
        price, intent = 0.0, ""
    position.high = max(position.high, bar.high)
    if not intent or exchange_refuses(position, position.lots, price):
        return
    lots = part_for_volume(book, s, position.lots, bar.volume)
    if lots == 0:
        return
    cancel(book, t, s, "VOLUME")
    position.traded_today.append(position.quantity(lots) * price)
    fee = sell(book, s, lots, price, intent)
    book.story.stops.append(Fill(t, s, -lots, price, fee, intent))


# --- the close: mark, switch, gate


def mark(book: Book, close_time: int, bars: dict[int, Bar]) -> None:
    for s, bar in bars.items():
        book.positions[s].last_close = bar.close
        book.positions[s].last_volume = bar.volume
    previous, equity = book.equity, book.cash
    for position in book.positions:
        if position.lots:
            equity = equity + position.quantity(position.lots) * position.last_close
    book.equity = equity
    book.peak = max(book.peak, equity)
    moment = EPOCH + timedelta(milliseconds=close_time)
    if moment.date() != book.date:
        book.date = moment.date()
        at_midnight = (moment - EPOCH) % DAY == timedelta(0)
        book.day_base = equity if at_midnight else previous


def drawdown_found(book: Book) -> bool:
    assert book.limits is not None
    return book.peak - book.equity >= book.limits.max_drawdown_pct / 100 * book.peak


def daily_loss_found(book: Book) -> bool:
    assert book.limits is not None
    loss, limits = book.day_base - book.equity, book.limits
    if limits.max_daily_loss_usd is not None and loss >= limits.max_daily_loss_usd:
        return True
    return loss >= limits.max_daily_loss_pct / 100 * book.day_base


def outside_hours(limits: Limits, close_time: int) -> bool:
    moment = EPOCH + timedelta(milliseconds=close_time)
    if WEEKDAYS[moment.weekday()] not in limits.trading_hours.days:
        return True
    of_day = (moment - EPOCH) % DAY
    start, end = (
        timedelta(hours=int(text[:2]), minutes=int(text[3:]))
        for text in (limits.trading_hours.start, limits.trading_hours.end)
    )
    return not (start <= of_day < end if start < end else of_day >= start or of_day < end)


def account_refusal(book: Book, close_time: int) -> str:
    if book.tripped:
        return "KILL_SWITCH"
    if book.limits is None:
        return "OK"
    if outside_hours(book.limits, close_time):
        return "TRADING_HOURS"
    if book.lossy_date == book.date:  # refused until the next UTC day, whatever it earns back
        return "DAILY_LOSS"
    return "DRAWDOWN" if drawdown_found(book) else "OK"


def cancel_entries(book: Book, t: int) -> None:
    for s, position in enumerate(book.positions):
        if position.waiting is not None and position.waiting.lots > 0:
            cancel(book, t, s, "KILL_SWITCH")


def cancel(book: Book, t: int, s: int, code: str) -> None:
    """What waits of a symbol, if something does, is cancelled."""
    waiting = book.positions[s].waiting
    if waiting is not None:
        book.story.cancelled.append(Placed(t, s, waiting, code))
    book.positions[s].waiting = None


def flatten(book: Book, t: int, s: int, close_time: int) -> None:
    position = book.positions[s]
    if position.lots_once_filled == 0:
        return
    if exchange_refuses(position, position.lots, position.last_close):
        return
    if position.waiting is not None and position.waiting.since == close_time:
        book.story.orders.remove(Placed(t, s, position.waiting))  # one order per symbol and bar
    else:
        cancel(book, t, s, "KILL_SWITCH")
    place(book, t, s, Order(-position.lots, close_time, "flatten"))


def place(book: Book, t: int, s: int, order: Order) -> None:
    position = book.positions[s]
    position.traded_today.append(position.quantity(abs(order.lots)) * position.last_close)
    position.waiting = order
    book.story.orders.append(Placed(t, s, order))


# --- the close: targets become orders


def wanted_lots(book: Book, s: int, bar: Bar, leaves: float = math.inf) -> int:
    if book.limits is None:
        room = book.equity
    else:
        part = book.limits.max_position_pct / 100
        if book.limits.risk_per_trade_pct is not None:
            stops = book.account.stops
            distances = [d for d in (stops.stop_loss_pct, stops.trailing_stop_pct) if d is not None]
            part = min(part, book.limits.risk_per_trade_pct / min(distances))
        room = part * book.equity
        if book.limits.max_position_usd is not None:
            room = min(room, book.limits.max_position_usd)
        room = max(0.0, min(room, leaves))
    quantity = bar.target * room / bar.close
    return floor_to_lots(book.positions[s], quantity)


def what_limits_leave(book: Book, s: int, bar: Bar) -> tuple[float, str]:
    """What exposure and volatility leave for a symbol, in money, and the code of the strictest."""
    limits = book.limits
    if limits is None:
        return math.inf, "OK"
    rooms = [(math.inf, "OK")]
    symbol = list(book.symbols)[s]
    own = (limits.max_exposure_pct_by_symbol or {}).get(symbol)
    if own is not None:
        rooms.append((own / 100 * book.equity, "SYMBOL_EXPOSURE"))
    if limits.max_exposure_pct is not None:
        others = 0.0
        for number, one in enumerate(book.positions):
            if number != s and one.lots_once_filled > 0:
                others = others + one.quantity(one.lots_once_filled) * one.last_close
        rooms.append((limits.max_exposure_pct / 100 * book.equity - others, "GROSS_EXPOSURE"))
    if limits.target_volatility_pct is not None:
        if math.isnan(bar.volatility):
            return 0.0, "VOLATILITY"
        if bar.volatility > 0:
            part = limits.target_volatility_pct / 100 / bar.volatility
            rooms.append((part * book.equity, "VOLATILITY"))
    return min(rooms, key=lambda room: room[0])  # of equals the first


def waiting_refusal(book: Book, s: int, close_time: int) -> str:
    limits, position = book.limits, book.positions[s]
    if limits is not None and position.fresh < (limits.min_fresh_bars or 0):
        return "STALE_DATA"
    if limits is not None and close_time < position.cool_until:
        return "COOLDOWN"
    return "OK"


def pace_refusal(book: Book, notional: float) -> str:
    limits = book.limits
    if limits is None:
        return "OK"
    orders, traded = 0, 0.0
    for position in book.positions:
        value = 0.0
        for one in position.traded_today:
            value = value + one
            orders += 1
        traded = traded + value
    if limits.max_orders_per_day is not None and orders >= limits.max_orders_per_day:
        return "ORDER_RATE"
    turnover = limits.max_daily_turnover_pct
    if turnover is not None and traded + notional > turnover / 100 * book.day_base:
        return "TURNOVER"
    return "OK"


def time_is_over(book: Book, s: int, close_time: int) -> bool:
    minutes, position = book.account.stops.time_stop_minutes, book.positions[s]
    if minutes is None or position.lots == 0:
        return False
    return close_time - position.since >= minutes * MINUTE_MS


def floor_to_lots(position: Position, quantity: float) -> int:
    step = Fraction(position.filters.lot_step)
    most = math.floor(Fraction(position.filters.max_quantity) / step)
    if math.isinf(quantity):
        return most
    lots = math.floor(Fraction(quantity) / step)
    while position.quantity(lots + 1) <= quantity:  # 3 lots of 0.1 are the float 0.3
        lots += 1
    while position.quantity(lots) > quantity:
        lots -= 1
    return min(lots, most)


def exchange_refuses(position: Position, lots: int, price: float) -> str | None:
    if lots == 0 or lots * Fraction(position.filters.lot_step) < position.filters.min_quantity:
        return "MIN_QUANTITY"
    if position.quantity(lots) * price < float(position.filters.min_notional):
        return "MIN_NOTIONAL"
    return None


def decide_exit(book: Book, t: int, s: int, bar: Bar, close_time: int) -> tuple[int, str]:
    position = book.positions[s]
    falls = bar.target < position.acted
    action = -1 if falls else 0
    if time_is_over(book, s, close_time):
        surplus, intent = position.lots, "time_stop"
    elif falls or (bar.target == 0 and position.acted == 0):
        leaves, _ = what_limits_leave(book, s, bar)
        surplus, intent = position.lots - wanted_lots(book, s, bar, leaves), "exit"
    else:
        return 0, "OK"
    is_buying = position.waiting is not None and position.waiting.lots > 0
    if position.waiting is not None and position.lots_once_filled == 0 and not is_buying:
        return action, "OK"  # all of it is being sold already
    if surplus <= 0:
        cancel(book, t, s, "VOLUME")
        return action, "OK"
    refusal = exchange_refuses(position, surplus, bar.close)
    if refusal is None or is_buying:
        cancel(book, t, s, "VOLUME")
    if refusal is not None:
        return action, refusal
    place(book, t, s, Order(-surplus, close_time, intent))
    return action, "OK"


def decide_entry(book: Book, t: int, s: int, bar: Bar, close_time: int, refusal: str) -> str:
    if refusal != "OK":
        return refusal
    position = book.positions[s]
    is_selling = position.waiting is not None and position.waiting.lots < 0
    if is_selling and time_is_over(book, s, close_time):
        return "TIME_STOP_DUE"
    held = [one for one in book.positions if one.lots_once_filled > 0]
    if (
        book.limits is not None
        and position.lots_once_filled == 0
        and len(held) >= book.limits.max_positions
    ):
        return "POSITION_COUNT"
    refusal = size_refusal(position, wanted_lots(book, s, bar) - position.lots, bar)
    if refusal != "OK":
        return refusal
    refusal = waiting_refusal(book, s, close_time)
    if refusal != "OK":
        return refusal
    leaves, limit = what_limits_leave(book, s, bar)
    lots = wanted_lots(book, s, bar, leaves) - position.lots
    if size_refusal(position, lots, bar) != "OK":
        return limit
    refusal = pace_refusal(book, position.quantity(lots) * bar.close)
    if refusal == "OK":
        cancel(book, t, s, "VOLUME")
        place(book, t, s, Order(lots, close_time, "entry"))
    return refusal


def size_refusal(position: Position, lots: int, bar: Bar) -> str:
    if lots <= 0 and position.lots_once_filled > 0:
        return "POSITION_SIZE"
    code = exchange_refuses(position, lots, bar.close)
    if code is not None:
        return code
    if lots * Fraction(position.filters.lot_step) < position.filters.min_trade_size:
        return "MIN_TRADE_SIZE"
    return "OK"
