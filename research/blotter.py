"""The blotter: the engine's log in the words of a trading desk - signals, orders, fills, trades.

Both backtest and paper read their rows here, so a difference between the two can only come from
the engine or the data. Times are UTC milliseconds; quantities in base asset, money in quote
currency; every number is the engine's own, unrounded.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from research.risk import CODES, OK, VOLUME, Rules, quantity_of
from research.state import ENTRY, EXIT, FLATTEN, INTENTS, Log, State
from research.strategy import Action, Signal, Strategy, Targets

__all__ = [
    "Decision",
    "Desk",
    "Ending",
    "Fill",
    "Order",
    "OrderStatus",
    "Position",
    "Rows",
    "Said",
    "Trade",
    "close_rows",
    "ended",
    "open_rows",
    "order_id",
    "positions_of",
    "round_trips",
    "said_at",
    "settled",
]

_ACTIONS = {1: Action.BUY, -1: Action.SELL, 0: Action.HOLD}


class OrderStatus(StrEnum):
    """An order's states; which may follow which is live/orders.py's business."""

    CREATED = "CREATED"
    SUBMITTED = "SUBMITTED"
    PENDING = "PENDING"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class Decision:
    """A signal and what the gate made of it: ``target`` asked for, ``code`` of the refusal."""

    signal: Signal
    target: float
    code: str


@dataclass(frozen=True, slots=True)
class Order:
    """One order from decision to end. ``code`` says why less than all of it was filled.

    ``ended_at`` is 0 while it waits; ``price`` and ``fee`` are 0 until something was filled. Of an
    order that was filled in parts they are the average over quantity and the sum.
    """

    order_id: str
    symbol: str
    side: Action
    intent: str
    quantity: float
    decided_at: int
    reason: str
    status: OrderStatus = OrderStatus.PENDING
    filled_quantity: float = 0.0
    price: float = 0.0
    fee: float = 0.0
    ended_at: int = 0
    code: str = "OK"


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution. ``at`` is the bar's open, or its close for a stop that acted within it.

    ``lots`` is the quantity in whole lots: the integer that the engine counted.
    """

    order_id: str
    symbol: str
    side: Action
    at: int
    lots: int
    price: float
    quantity: float
    notional: float
    fee: float


@dataclass(frozen=True, slots=True)
class Position:
    """What is held of one symbol, at its last close; ``last_price`` is None before the first."""

    symbol: str
    lots: int
    quantity: float
    entry_price: float
    last_price: float | None
    value: float


@dataclass(frozen=True, slots=True)
class Trade:
    """A round trip from flat to flat; ``pnl`` after fees, ``pnl_pct`` of what was paid in."""

    symbol: str
    opened_at: int
    closed_at: int
    quantity: float
    entry_price: float
    exit_price: float
    fees: float
    pnl: float
    pnl_pct: float
    exit_intent: str


@dataclass(frozen=True, slots=True)
class Said:
    """What a strategy said at one bar about one symbol; None where the symbol is absent."""

    target: float
    confidence: float
    reason: str


def said_at(
    strategy: Strategy, targets: Sequence[Targets], positions: Sequence[int]
) -> list[Said | None]:
    """What the strategy said at one bar, in words: one entry a symbol, None where it is absent.

    ``positions`` are the bar's candles, as ``research.tape.candle_positions`` gives them.
    """
    return [
        Said(float(one.target[i]), float(one.confidence[i]), strategy.reasons[int(one.reason[i])])
        if i >= 0
        else None
        for one, i in zip(targets, positions, strict=True)
    ]


def order_id(account: str, symbol: str, decided_at: int, intent: str) -> str:
    """The same for the same decision, always: a hash of account, symbol, bar and intent.

    31 characters of the alphabet that exchanges allow for a client order id.
    """
    key = f"{account}|{symbol}|{decided_at}|{intent}"
    return "cb-" + hashlib.sha256(key.encode()).hexdigest()[:28]


@dataclass(frozen=True, slots=True)
class Ending:
    """How an order ended, or that a part of it was filled and the rest waits (PARTIALLY_FILLED).

    Quantity, price and fee are those of this fill. ``code`` says why less than all was filled.
    """

    order_id: str
    status: OrderStatus
    at: int
    filled_quantity: float = 0.0
    price: float = 0.0
    fee: float = 0.0
    code: str = CODES[OK][0]


@dataclass(frozen=True, slots=True)
class Rows:
    """What one phase of one bar left behind."""

    decisions: tuple[Decision, ...] = ()
    orders: tuple[Order, ...] = ()
    fills: tuple[Fill, ...] = ()
    endings: tuple[Ending, ...] = ()


@dataclass(frozen=True, slots=True)
class Desk:
    """Whose rows these are: the account's name, its symbols in order and its rules."""

    account: str
    strategy: str
    symbols: Sequence[str]
    rules: Rules

    def order_id(self, s: int, decided_at: int, intent: str) -> str:
        return order_id(self.account, self.symbols[s], decided_at, intent)


def open_rows(desk: Desk, log: Log, row: int, at: int) -> Rows:
    """What row ``row`` of the log did at its bar's open, ``at``."""
    fills, endings = [], []
    for s in range(len(desk.symbols)):
        since = int(log.fill_since[row][s])
        if since == 0:
            continue
        identity = desk.order_id(s, since, INTENTS[int(log.fill_intent[row][s])])
        code, lots = int(log.fill_code[row][s]), int(log.fill_lots[row][s])
        # What cash or the collar ends is rejected, or filled as far as it goes; what the volume
        # leaves waits, or its rest is cancelled.
        by_volume = code == VOLUME
        if lots == 0:
            status = OrderStatus.CANCELLED if by_volume else OrderStatus.REJECTED
            endings.append(Ending(identity, status, at, code=CODES[code][0]))
            continue
        waits = int(log.fill_left[row][s]) != 0
        status = OrderStatus.CANCELLED if by_volume else OrderStatus.FILLED
        status = OrderStatus.PARTIALLY_FILLED if waits else status
        price, fee = float(log.fill_price[row][s]), float(log.fill_fee[row][s])
        fills.append(_fill(desk, s, identity, at, lots, price, fee))
        endings.append(_filled(fills[-1], status, code))
    return Rows(fills=tuple(fills), endings=tuple(endings))


def close_rows(desk: Desk, log: Log, row: int, at: int, said: Sequence[Said | None]) -> Rows:
    """What row ``row`` of the log did up to its bar's close, ``at``: stops, cancels, decisions.

    ``said`` holds what the strategy said, one entry a symbol, None where a symbol is absent.
    """
    decisions, orders, fills, endings = [], [], [], []
    for s, symbol in enumerate(desk.symbols):
        words = said[s]
        lots = int(log.stop_lots[row][s])
        if lots:
            intent = INTENTS[int(log.stop_intent[row][s])]
            orders.append(_order(desk, s, lots, at, intent, intent.replace("_", " ")))
            price, fee = float(log.stop_price[row][s]), float(log.stop_fee[row][s])
            fills.append(_fill(desk, s, orders[-1].order_id, at, lots, price, fee))
            endings.append(_filled(fills[-1], OrderStatus.FILLED, OK))
        if log.cancel_lots[row][s]:
            intent = INTENTS[int(log.cancel_intent[row][s])]
            identity = desk.order_id(s, int(log.cancel_since[row][s]), intent)
            code = CODES[int(log.cancel_code[row][s])][0]
            endings.append(Ending(identity, OrderStatus.CANCELLED, at, code=code))
        lots = int(log.order_lots[row][s])
        if lots:
            intent = INTENTS[int(log.order_intent[row][s])]
            reason = "kill switch" if intent == INTENTS[FLATTEN] else intent.replace("_", " ")
            if words is not None and intent in (INTENTS[ENTRY], INTENTS[EXIT]):
                reason = words.reason
            orders.append(_order(desk, s, lots, at, intent, reason))
        if words is not None:
            action = _ACTIONS[int(log.action[row][s])]
            signal = Signal(symbol, action, words.confidence, desk.strategy, at, words.reason)
            code = CODES[int(log.code[row][s])][0]
            decisions.append(Decision(signal, words.target, code))
    return Rows(tuple(decisions), tuple(orders), tuple(fills), tuple(endings))


def _order(desk: Desk, s: int, lots: int, at: int, intent: str, reason: str) -> Order:
    return Order(
        order_id=desk.order_id(s, at, intent),
        symbol=desk.symbols[s],
        side=Action.BUY if lots > 0 else Action.SELL,
        intent=intent,
        quantity=quantity_of(abs(lots), desk.rules, s),
        decided_at=at,
        reason=reason,
    )


def _fill(desk: Desk, s: int, identity: str, at: int, lots: int, price: float, fee: float) -> Fill:
    quantity = quantity_of(abs(lots), desk.rules, s)
    side = Action.BUY if lots > 0 else Action.SELL
    return Fill(
        identity, desk.symbols[s], side, at, abs(lots), price, quantity, quantity * price, fee
    )


def _filled(fill: Fill, status: OrderStatus, code: int) -> Ending:
    return Ending(
        fill.order_id,
        status,
        fill.at,
        fill.quantity,
        fill.price,
        fill.fee,
        CODES[code][0],
    )


def positions_of(desk: Desk, state: State) -> list[Position]:
    """One position a symbol, also where nothing is held."""
    positions = []
    for s, symbol in enumerate(desk.symbols):
        quantity, last = quantity_of(state.lots[s], desk.rules, s), state.last[s]
        known = not math.isnan(last)
        positions.append(
            Position(
                symbol,
                state.lots[s],
                quantity,
                state.entry[s],
                last if known else None,
                quantity * last if known else 0.0,
            )
        )
    return positions


def ended(order: Order, ending: Ending) -> Order:
    """``order`` with its ending, or with one more part filled.

    What was filled before stays: an order of which a part was filled is cancelled, not rejected.
    """
    status, before, part = ending.status, order.filled_quantity, ending.filled_quantity
    if status is OrderStatus.REJECTED and before > 0.0:
        status = OrderStatus.CANCELLED
    price = ending.price if before == 0.0 else order.price
    if before > 0.0 and part > 0.0:
        price = (order.price * before + ending.price * part) / (before + part)
    # Parts of 0.1 and 0.2 make more than 0.3.
    is_whole = status is OrderStatus.FILLED and ending.code == CODES[OK][0]
    filled = order.quantity if is_whole else min(before + part, order.quantity)
    return replace(
        order,
        status=status,
        filled_quantity=filled,
        price=price,
        fee=order.fee + ending.fee,
        ended_at=0 if status is OrderStatus.PARTIALLY_FILLED else ending.at,
        code=ending.code,
    )


def settled(rows: Iterable[Rows]) -> list[Order]:
    """Every order of these rows in order of decision, each with its ending where it has one."""
    orders: dict[str, Order] = {}
    for one in rows:
        orders.update((order.order_id, order) for order in one.orders)
        orders.update((e.order_id, ended(orders[e.order_id], e)) for e in one.endings)
    return list(orders.values())


def round_trips(fills: Iterable[Fill], intents: Mapping[str, str]) -> list[Trade]:
    """Trades that have ended, from flat to flat, in order of their end.

    ``intents`` maps order ids to intents. Entry and exit price are averages over quantity.
    """
    legs: dict[str, list[Fill]] = {}
    trades = []
    for fill in fills:
        legs.setdefault(fill.symbol, []).append(fill)
        if _flat(legs[fill.symbol]):
            trades.append(_trade(legs.pop(fill.symbol), intents[fill.order_id]))
    return trades


def _flat(legs: Sequence[Fill]) -> bool:
    return sum(one.lots if one.side is Action.BUY else -one.lots for one in legs) == 0


def _trade(legs: Sequence[Fill], exit_intent: str) -> Trade:
    bought = [one for one in legs if one.side is Action.BUY]
    sold = [one for one in legs if one.side is Action.SELL]
    paid = sum(one.notional + one.fee for one in bought)
    pnl = 0.0
    for one in legs:  # in the order of the metrics' own sum, so that both agree to the bit
        pnl = pnl + (-one.notional if one.side is Action.BUY else one.notional) - one.fee
    return Trade(
        symbol=legs[0].symbol,
        opened_at=legs[0].at,
        closed_at=legs[-1].at,
        quantity=sum(one.quantity for one in bought),
        entry_price=sum(one.notional for one in bought) / sum(one.quantity for one in bought),
        exit_price=sum(one.notional for one in sold) / sum(one.quantity for one in sold),
        fees=sum(one.fee for one in legs),
        pnl=pnl,
        pnl_pct=pnl / paid * 100,
        exit_intent=exit_intent,
    )
