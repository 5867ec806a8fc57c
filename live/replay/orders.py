"""The replay exchange's one account: balances, orders, and Binance's real rule for client ids.

A client id is unique among *open* orders only: a second order with the id of one that has been
filled or cancelled is a new order. So a POST that is sent again because its answer was lost can
trade twice. Orders fill whole, at once at the book or when the price walks through their limit; the
fee is 0.1 % of what is received. What comes of a resting order does not depend on how often one
looks. Amounts are exact decimals, times UTC milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from live.replay.market import ApiError, Market, text

__all__ = ["API_KEY", "API_SECRET", "Book", "OrderRow"]

# No secrets: a toy account on loopback that anybody may use.
API_KEY = "candlebook-replay"
API_SECRET = "candlebook-replay"  # noqa: S105
FEE = Decimal("0.001")
OPENING = {"USDT": Decimal(10_000)}
CLIENT_ID = re.compile(r"[a-zA-Z0-9_-]{1,36}")
DECIMAL = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?")
TYPES = ("MARKET", "LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT")
ZERO = Decimal(0)


@dataclass(frozen=True)
class OrderRow:
    """One order. ``locked`` is what it holds back, of quote for a buy, of base for a sell."""

    order_id: int
    client_id: str
    symbol: str
    side: str
    type: str
    time_in_force: str
    quantity: Decimal
    price: Decimal
    stop_price: Decimal
    time: int
    status: str = "NEW"
    executed: Decimal = ZERO
    spent: Decimal = ZERO
    locked: Decimal = ZERO
    update_time: int = 0
    # From when on it waits for its limit: a stop's, its trigger; -1 until then.
    working_time: int = -1

    @property
    def is_open(self) -> bool:
        return self.status == "NEW"

    @property
    def buys(self) -> bool:
        return self.side == "BUY"

    @property
    def is_working(self) -> bool:
        return self.working_time >= 0

    def crosses(self, bid: Decimal, ask: Decimal) -> bool:
        """Whether its limit can be had at once."""
        return self.price >= ask if self.buys else self.price <= bid


class Book:
    """The account; every method takes the time, settles what has traded since, and may raise
    ApiError. Not for several threads at once."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._free: dict[str, Decimal] = dict(OPENING)
        self._orders: list[OrderRow] = []
        self._fills: list[dict[str, Any]] = []
        self._settled = 0

    # What may be asked

    def place(self, query: Mapping[str, str], now: int) -> dict[str, Any]:
        """A new order; the answer is Binance's FULL one."""
        self._settle(now)
        order = self._wanted(query, now)
        if any(one.is_open and one.client_id == order.client_id for one in self._orders):
            raise ApiError(-2010, "Duplicate order sent.")
        bid, ask = self._require_book(order.symbol, now)
        market_price = ask if order.buys else bid
        order = self._sized(order, query, market_price)
        self._require_filters(order, market_price)
        crosses = order.crosses(bid, ask)
        if order.type == "LIMIT_MAKER" and crosses:
            raise ApiError(-2010, "Order would immediately match and take.")
        waits = order.type == "STOP_LOSS_LIMIT"
        stop = order.stop_price
        if waits and (stop <= market_price if order.buys else stop >= market_price):
            raise ApiError(-2010, "Stop price would trigger immediately.")
        order = replace(order, working_time=-1 if waits else now)
        takes = order.type == "MARKET" or (crosses and not waits)
        paid = order.quantity * (market_price if takes else order.price)
        order = replace(order, locked=paid if order.buys else order.quantity)
        self._hold(order, -order.locked)
        self._orders.append(order)
        fills: list[dict[str, Any]] = []
        if takes:
            order, fills = self._fill(order, market_price, now, maker=False)
        elif order.time_in_force in ("IOC", "FOK") and not waits:
            order = self._close(order, "EXPIRED", now)
        return _answer(order) | {
            **{"transactTime": now, "workingTime": order.working_time},
            "fills": [
                {key: one[key] for key in ("price", "qty", "commission", "commissionAsset")}
                | {"tradeId": one["id"]}
                for one in fills
            ],
        }

    def find(self, query: Mapping[str, str], now: int) -> dict[str, Any]:
        """The order of an id; of a client id that was used again, the latest."""
        self._settle(now)
        return _full(self._named(query, -2013, "Order does not exist."))

    def cancel(self, query: Mapping[str, str], now: int) -> dict[str, Any]:
        """Take an open order back."""
        self._settle(now)
        order = self._named(query, -2011, "Unknown order sent.")
        if not order.is_open:
            raise ApiError(-2011, "Unknown order sent.")
        given = query.get("newClientOrderId") or f"cancel{order.order_id}"
        ended = self._close(order, "CANCELED", now)
        return _answer(ended) | {
            **{"origClientOrderId": order.client_id, "clientOrderId": given, "transactTime": now}
        }

    def open_orders(self, symbol: str | None, now: int) -> list[dict[str, Any]]:
        self._settle(now)
        if symbol is not None:
            self._market.require(symbol)
        wanted = [one for one in self._orders if one.is_open and symbol in (None, one.symbol)]
        return [_full(one) for one in wanted]

    def fills(self, query: Mapping[str, str], now: int) -> list[dict[str, Any]]:
        """The trades of a symbol, or of one of its orders, oldest first."""
        self._settle(now)
        symbol, order_id = self._market.require(query.get("symbol")), query.get("orderId")
        mine = [one for one in self._fills if one["symbol"] == symbol]
        return [one for one in mine if order_id in (None, str(one["orderId"]))]

    def account(self, now: int) -> dict[str, Any]:
        """Balances, free and locked."""
        self._settle(now)
        locked: dict[str, Decimal] = {}
        for one in self._orders:
            if one.is_open:
                asset = self._asset(one)
                locked[asset] = locked.get(asset, ZERO) + one.locked
        assets = dict.fromkeys(
            [*self._free, *(a for two in self._market.assets.values() for a in two)]
        )
        rates = {"maker": text(FEE), "taker": text(FEE), "buyer": text(ZERO), "seller": text(ZERO)}
        return {
            **{"makerCommission": 10, "takerCommission": 10},
            **{"buyerCommission": 0, "sellerCommission": 0, "commissionRates": rates},
            **{"canTrade": True, "canWithdraw": False, "canDeposit": False},
            **{"updateTime": now, "accountType": "SPOT", "permissions": ["SPOT"]},
            "balances": [
                {
                    **{"asset": asset, "free": text(self._free.get(asset, ZERO))},
                    "locked": text(locked.get(asset, ZERO)),
                }
                for asset in assets
            ],
        }

    # Reading an order

    def _wanted(self, query: Mapping[str, str], now: int) -> OrderRow:
        symbol = self._market.require(query.get("symbol"))
        side, kind = _required(query, "side"), _required(query, "type")
        if side not in ("BUY", "SELL"):
            raise ApiError(-1117, "Invalid side.")
        if kind not in TYPES:
            raise ApiError(-1116, "Invalid orderType.")
        client_id = query.get("newClientOrderId") or f"replay{len(self._orders) + 1}"
        if not CLIENT_ID.fullmatch(client_id):
            raise ApiError(
                -1100,
                "Illegal characters found in parameter 'newClientOrderId'; legal range is "
                "'^[a-zA-Z0-9-_]{1,36}$'.",
            )
        limit = kind in ("LIMIT", "STOP_LOSS_LIMIT")
        force = _required(query, "timeInForce") if limit else "GTC"
        if force not in ("GTC", "IOC", "FOK"):
            raise ApiError(-1115, "Invalid timeInForce.")
        quoted = kind == "MARKET" and "quoteOrderQty" in query
        return OrderRow(
            order_id=len(self._orders) + 1,
            client_id=client_id,
            symbol=symbol,
            side=side,
            type=kind,
            time_in_force=force,
            quantity=ZERO if quoted else _decimal(query, "quantity"),
            price=ZERO if kind == "MARKET" else _decimal(query, "price"),
            stop_price=_decimal(query, "stopPrice") if kind == "STOP_LOSS_LIMIT" else ZERO,
            time=now,
            update_time=now,
        )

    def _sized(self, order: OrderRow, query: Mapping[str, str], price: Decimal) -> OrderRow:
        """The quantity of a market order that was given as an amount of quote."""
        if order.type != "MARKET" or "quoteOrderQty" not in query:
            return order
        step = self._market.filters[order.symbol].lot_step
        lots = _decimal(query, "quoteOrderQty") / price // step
        return replace(order, quantity=lots * step)

    def _require_book(self, symbol: str, now: int) -> tuple[Decimal, Decimal]:
        book = self._market.book(symbol, now)
        if book is None:
            raise ApiError(-1013, "Market is closed.")
        return book

    def _require_filters(self, order: OrderRow, market_price: Decimal) -> None:
        filters = self._market.filters[order.symbol]
        quantity = order.quantity
        within = filters.min_quantity <= quantity <= filters.max_quantity
        if not within or quantity <= 0 or quantity % filters.lot_step:
            raise ApiError(-1013, "Filter failure: LOT_SIZE")
        for price in (order.price, order.stop_price):
            if price % filters.tick:
                raise ApiError(-1013, "Filter failure: PRICE_FILTER")
        if order.type != "MARKET" and order.price <= 0:
            raise ApiError(-1013, "Filter failure: PRICE_FILTER")
        worth = quantity * (market_price if order.type == "MARKET" else order.price)
        if worth < filters.min_notional:
            raise ApiError(-1013, "Filter failure: NOTIONAL")

    def _named(self, query: Mapping[str, str], code: int, message: str) -> OrderRow:
        symbol = self._market.require(query.get("symbol"))
        by_id, by_client = query.get("orderId"), query.get("origClientOrderId")
        if by_id is None and by_client is None:
            raise ApiError(
                -1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty."
            )
        for one in reversed(self._orders):
            named = str(one.order_id) == by_id if by_id else one.client_id == by_client
            if named and one.symbol == symbol:
                return one
        raise ApiError(code, message)

    # Trading

    def _settle(self, now: int) -> None:
        """What the walk since the last look has done to the open orders, in order of time.

        However often one looks, the same comes of it: each order fills when its price was met.
        """
        waiting = [one for one in self._orders if one.is_open]
        met: list[tuple[int, int, OrderRow, str, Decimal]] = []
        for order in waiting:
            since = max(self._settled, order.time)
            if not order.is_working:
                at = self._crossed(order, order.stop_price, since, now, rising=order.buys)
                if at is None:
                    continue
                order = self._put(replace(order, working_time=at, update_time=at))
                bid, ask = self._require_book(order.symbol, at)
                if order.crosses(bid, ask):
                    met.append((at, order.order_id, order, "takes", ask if order.buys else bid))
                    continue
                if order.time_in_force in ("IOC", "FOK"):
                    met.append((at, order.order_id, order, "expires", ZERO))
                    continue
                since = at
            at = self._crossed(order, order.price, since, now, rising=not order.buys)
            if at is not None:
                met.append((at, order.order_id, order, "rests", order.price))
        for at, _, order, how, price in sorted(met, key=lambda one: one[:2]):
            if how == "expires":
                self._close(order, "EXPIRED", at)
            else:
                self._fill(order, price, at, maker=how == "rests")
        self._settled = max(self._settled, now)

    def _crossed(
        self, order: OrderRow, level: Decimal, since: int, now: int, rising: bool
    ) -> int | None:
        story = self._market.stories[order.symbol]
        return story.crossing(since, now, float(level), rising)

    def _fill(
        self, order: OrderRow, price: Decimal, now: int, maker: bool
    ) -> tuple[OrderRow, list[dict[str, Any]]]:
        base, quote = self._market.assets[order.symbol]
        worth = order.quantity * price
        buys = order.buys
        asset, got = (base, order.quantity) if buys else (quote, worth)
        fee = got * FEE
        self._free[asset] = self._free.get(asset, ZERO) + got - fee
        if buys:
            self._hold(order, order.locked - worth)
        filled = replace(
            order,
            status="FILLED",
            executed=order.quantity,
            spent=worth,
            locked=ZERO,
            update_time=now,
        )
        self._put(filled)
        fill = {
            **{"symbol": order.symbol, "id": len(self._fills) + 1, "orderId": order.order_id},
            **{"orderListId": -1, "price": text(price), "qty": text(order.quantity)},
            **{"quoteQty": text(worth), "commission": text(fee), "commissionAsset": asset},
            **{"time": now, "isBuyer": buys, "isMaker": maker, "isBestMatch": True},
        }
        self._fills.append(fill)
        return filled, [fill]

    def _close(self, order: OrderRow, status: str, now: int) -> OrderRow:
        self._hold(order, order.locked)
        return self._put(replace(order, status=status, locked=ZERO, update_time=now))

    def _hold(self, order: OrderRow, amount: Decimal) -> None:
        """Add ``amount`` to what is free of the asset that the order pays with."""
        asset = self._asset(order)
        free = self._free.get(asset, ZERO) + amount
        if free < 0:
            raise ApiError(-2010, "Account has insufficient balance for requested action.")
        self._free[asset] = free

    def _asset(self, order: OrderRow) -> str:
        base, quote = self._market.assets[order.symbol]
        return quote if order.buys else base

    def _put(self, order: OrderRow) -> OrderRow:
        self._orders[order.order_id - 1] = order
        return order


def _required(query: Mapping[str, str], name: str) -> str:
    value = query.get(name)
    if not value:
        raise ApiError(
            -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
        )
    return value


def _decimal(query: Mapping[str, str], name: str) -> Decimal:
    value = _required(query, name)
    try:
        if DECIMAL.fullmatch(value):
            return Decimal(value)
    except InvalidOperation:
        pass
    raise ApiError(-1100, f"Illegal characters found in parameter '{name}'.")


def _answer(order: OrderRow) -> dict[str, Any]:
    return {
        **{"symbol": order.symbol, "orderId": order.order_id, "orderListId": -1},
        **{"clientOrderId": order.client_id, "price": text(order.price)},
        **{"origQty": text(order.quantity), "executedQty": text(order.executed)},
        **{"origQuoteOrderQty": text(ZERO), "cummulativeQuoteQty": text(order.spent)},
        **{"status": order.status, "timeInForce": order.time_in_force, "type": order.type},
        **{"side": order.side, "stopPrice": text(order.stop_price)},
        "selfTradePreventionMode": "EXPIRE_MAKER",
    }


def _full(order: OrderRow) -> dict[str, Any]:
    return _answer(order) | {
        **{"icebergQty": text(ZERO), "time": order.time, "updateTime": order.update_time},
        **{"isWorking": order.is_working, "workingTime": order.working_time},
    }
