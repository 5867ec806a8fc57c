"""Market data through ccxt: closed candles, the open of the forming one, prices, what is listed.

Units: UTC milliseconds, prices in quote currency, volumes in base currency. Invariants: no API key
is ever given, so nothing here can trade; a row that breaks a rule is never handed on; what looks
odd (missing bars, a leap of the price) is asked for twice and borne out, or refused; every question
ends within a hard deadline in an answer, ExchangeUnreachable, ExchangeRefused or CandlesRejected.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from research.account import Filters
from research.answers import DayStatistics, Listing
from research.binance import Binance
from research.candles import COLUMNS, DAY, Candles, find_gaps, iso, timeframe_ms, utc_ms
from research.errors import CandlesRejected, ExchangeError, ExchangeRefused, UnknownNameError
from research.klines import REJECTED
from research.listing_cache import ListingCache
from research.transport import Transport
from research.unified import Unified

__all__ = ["MarketData"]

T = TypeVar("T")

_SYMBOL = re.compile(r"[A-Z0-9]{2,30}")
# A candle that leaves the close before it by more than this is asked for twice.
LEAP = 0.2
# How far the server's clock may be from the date of the very answer that tells it.
CLOCK_TOLERANCE_MS = 60_000
# A candle is final once a later one shows, or this long after its close.
SETTLING_MS = 2_000


class Source(Protocol):
    """One exchange's way to answer what ``MarketData`` asks."""

    page: int

    def server_time(self) -> int: ...
    def probe(self, timeout_s: float) -> None: ...
    def candles(self, symbol: str, timeframe: str, start: int, stop: int, now: int) -> Candles: ...
    def price(self, symbol: str) -> float: ...
    def day(self, symbol: str) -> DayStatistics: ...
    def listings(self, symbols: Sequence[str]) -> dict[str, Listing]: ...


class MarketData:
    """A read-only connection to one exchange; for one thread. Opens on the first question.

    ``exchange`` is ccxt's id; Binance is read through its own endpoints, any other through ccxt's
    unified interface. ``base_url`` (scheme and host) sends every question to another server that
    speaks the exchange's REST. ``deadline_s`` bounds each request with all its retries; a page of
    candles is one request. ``patience_s`` is what may be waited beyond that where the exchange asks
    to, and ``on_wait`` is told of it: how long, and why. ``memory`` is a folder that keeps bans and
    listings for every process.
    """

    def __init__(
        self,
        exchange: str = "binance",
        base_url: str | None = None,
        deadline_s: float = 20.0,
        patience_s: float = 0.0,
        memory: Path | None = None,
        on_wait: Callable[[float, str], None] | None = None,
    ) -> None:
        self.exchange = exchange
        self.transport = Transport(exchange, base_url, deadline_s, patience_s, memory, on_wait)
        self._source: Source = (
            Binance(self.transport) if exchange == "binance" else Unified(self.transport)
        )
        self._listed = ListingCache(self.transport.file("listings"))
        self._asked: dict[tuple[str, str], tuple[float, Any]] = {}

    def server_time(self) -> int:
        """The exchange's clock, milliseconds.

        Raises ExchangeRefused where it is more than a minute off the date of its own answer: such
        a clock would make forming candles look closed, or closed ones look stale.
        """
        moment, date = self._source.server_time(), self.transport.date_ms
        if date is not None and abs(moment - date) > CLOCK_TOLERANCE_MS:
            raise ExchangeRefused(
                field=f"{self.transport.host} server time",
                value=iso(moment),
                expected=f"about the date of the answer, {iso(date)}",
                remedy="Ask again; something on the way may be answering from a cache.",
            )
        return moment

    def reachable(self, timeout_s: float = 5.0) -> bool:
        """Whether the exchange answers within ``timeout_s``: one attempt, never raises.

        The first call in a process also imports ccxt (0.3 to 3 s), which is not counted.
        """
        try:
            self._source.probe(timeout_s)
        except ExchangeError:
            return False
        return True

    # Candles

    def closed_candles(
        self,
        symbol: str,
        timeframe: str,
        start: int | str,
        end: int | str | None = None,
        stored: Candles | None = None,
        now: int | None = None,
    ) -> Iterator[Candles]:
        """Pages of closed candles whose open lies in ``[start, end)``, oldest first, none empty.

        ``symbol`` as the exchange writes it (BTCUSDT). Closed means by the exchange's clock, read
        once before the first page unless ``now`` tells it. ``stored`` are candles from ``start`` on
        that the exchange has answered before: it must answer with their opens again, whatever their
        values. Each page begins with the last candle of the page before. Gaps come through where
        the exchange confirms them. Raises CandlesRejected, ExchangeUnreachable, ExchangeRefused;
        pages handed out before stay good.
        """
        _check_symbol(symbol)
        bar = timeframe_ms(timeframe)
        first = -(-utc_ms(start) // bar) * bar
        stop = None if end is None else utc_ms(end)
        return self._pages((symbol, timeframe), first, stop, stored, now)

    def _pages(
        self,
        named: tuple[str, str],
        start: int,
        end: int | None,
        stored: Candles | None,
        told: int | None,
    ) -> Iterator[Candles]:
        now = self.server_time() if told is None else told
        stop = now if end is None else min(end, now)
        known = None if stored is None else stored.between(start, stop)
        reached = start
        while reached < stop:
            candles = self._page(*named, start, stop, now)
            _require_continued(candles, known, start)
            self._require_same_market(candles, known, now)
            if self._is_odd(candles, known, (start, stop), now):
                self._require_confirmed(candles, known, (start, stop), now)
            closed = _settled(candles, now).between(reached)
            if len(closed):
                yield closed
            # A page that brings nothing new is the exchange's word that nothing follows; a short
            # one is not.
            if int(candles.ts[-1] if len(candles) else -1) <= _last(known):
                return
            known = candles.rows(len(candles) - 1, len(candles))
            start = _last(known)
            reached = start + candles.bar_ms

    def _page(self, symbol: str, timeframe: str, start: int, stop: int, now: int) -> Candles:
        candles = self._source.candles(symbol, timeframe, start, stop, now)
        ts, most = candles.ts, self._source.page
        if len(ts) > most or (len(ts) and (ts[0] < start or ts[-1] >= stop)):
            raise CandlesRejected(
                field=f"{symbol} {timeframe} page",
                value=f"{len(ts)} rows, {iso(int(ts[0]))} .. {iso(int(ts[-1]))}",
                expected=f"at most {most} rows from {iso(start)} up to {iso(stop)}",
                remedy=REJECTED,
            )
        return candles

    def _is_odd(
        self, candles: Candles, known: Candles | None, span: tuple[int, int], now: int
    ) -> bool:
        """Whether bars are missing that one would expect, or the price leaps."""
        if not len(candles):
            return False
        bar = candles.bar_ms
        last_closed = min(span[1] - 1, now - bar) // bar * bar
        begins_late = _last(known) < 0 and int(candles.ts[0]) > span[0]
        ends_early = len(candles) < self._source.page and int(candles.ts[-1]) < last_closed
        leaps = _leaps(_seen_first(candles, known))
        return bool(begins_late or ends_early or find_gaps(candles) or leaps)

    def _require_same_market(self, candles: Candles, known: Candles | None, now: int) -> None:
        """Candles that come again are those of the same market, a restated one among them or not.

        None has moved far, and where all have, those of the last 24 hours lie in their range.
        """
        if known is None or not len(known) or not len(candles):
            return
        known = known.between(None, int(candles.ts[-1]) + 1)
        again = candles.close[np.searchsorted(candles.ts, known.ts)]
        where = f"{candles.symbol} {candles.timeframe} from {iso(int(known.ts[0]))}"
        if (np.abs(again / known.close - 1.0) > LEAP).any():
            raise CandlesRejected(
                "candles came again with quite other prices",
                field=where,
                value=again.tolist(),
                expected=f"closes about {known.close.tolist()}",
                remedy=REJECTED,
            )
        recent = known.ts > now - DAY + candles.bar_ms
        if len(known) < 2 or (again == known.close).any() or not recent.any():
            return
        day = self.day_statistics(candles.symbol, max_age_s=0)
        low, high = float(again[recent].min()), float(again[recent].max())
        if day.open_time is not None and not day.bears_out(low, high):
            raise CandlesRejected(
                "every candle came again with another price",
                field=where,
                value=f"{low} .. {high}",
                expected=f"prices of the last 24 hours, {day.low} to {day.high}",
                remedy=REJECTED,
            )

    def _require_confirmed(
        self, candles: Candles, known: Candles | None, span: tuple[int, int], now: int
    ) -> None:
        """The same question has the same answer, and the last 24 hours bear out every leap."""
        where = f"{candles.symbol} {candles.timeframe}"
        again = self._page(candles.symbol, candles.timeframe, *span, now)
        if again.closed_by(now).digest() != candles.closed_by(now).digest():
            raise CandlesRejected(
                "asked twice, the exchange answered with different candles",
                field=f"{where} from {iso(span[0])}",
                remedy=REJECTED,
            )
        since = max(_last(known), now - DAY + candles.bar_ms)
        seen = _seen_first(candles, known)
        # A candle that others leave behind may be the wrong one itself.
        around = {i for leap in _leaps(seen) for i in (leap - 1, leap)}
        recent = [i for i in sorted(around) if seen.ts[i] > since]
        day = self.day_statistics(candles.symbol, max_age_s=0) if recent else None
        for i in recent:
            low, high = float(seen.low[i]), float(seen.high[i])
            if day and day.open_time is not None and not day.bears_out(low, high):
                raise CandlesRejected(
                    field=f"{where} at {iso(int(seen.ts[i]))}, low and high",
                    value=f"{low} .. {high}",
                    expected=f"prices of the last 24 hours, {day.low} to {day.high}",
                    remedy=REJECTED,
                )

    def forming_open(
        self, symbol: str, timeframe: str, now: int | None = None
    ) -> tuple[int, float] | None:
        """``(ts, open)`` of the candle that forms at ``now``; None while nothing has traded in it.

        ``now`` is by the exchange's clock unless given. An open that leaves the close before it far
        behind, or that nothing precedes, must lie in the range of the last 24 hours, else
        CandlesRejected.
        """
        _check_symbol(symbol)
        bar = timeframe_ms(timeframe)
        moment = self.server_time() if now is None else now
        start = moment // bar * bar
        candles = self._page(symbol, timeframe, start - bar, start + bar, moment)
        if not len(candles) or candles.ts[-1] != start or candles.volume[-1] == 0:
            return None
        price = float(candles.open[-1])
        if len(candles) < 2 or abs(price / float(candles.close[0]) - 1) > LEAP:
            day = self.day_statistics(symbol, max_age_s=0)
            if day.open_time is not None and not day.bears_out(price, price):
                raise CandlesRejected(
                    field=f"{symbol} {timeframe} at {iso(start)}, open",
                    value=price,
                    expected=f"a price of the last 24 hours, {day.low} to {day.high}",
                    remedy=REJECTED,
                )
        return start, price

    # Prices and listings

    def latest_price(self, symbol: str, max_age_s: float = 30.0) -> float:
        """The last traded price, asked for again once it is ``max_age_s`` old."""
        return self._recent("price", symbol, max_age_s, self._source.price)

    def day_statistics(self, symbol: str, max_age_s: float = 300.0) -> DayStatistics:
        """The last 24 hours: high, low, volume; asked for again once they are ``max_age_s`` old."""
        return self._recent("day", symbol, max_age_s, self._source.day)

    def _recent(self, kind: str, symbol: str, max_age_s: float, ask: Callable[[str], T]) -> T:
        _check_symbol(symbol)
        asked_at, value = self._asked.get((kind, symbol), (-np.inf, None))
        if time.monotonic() - asked_at >= max_age_s:
            value = ask(symbol)
            self._asked[kind, symbol] = time.monotonic(), value
        found: T = value
        return found

    def listings(self, symbols: Sequence[str], max_age_s: float = 0.0) -> dict[str, Listing]:
        """How each symbol is listed: whether it trades, and its filters.

        Those that some process was told at most ``max_age_s`` ago are taken from the memory folder.
        """
        for symbol in symbols:
            _check_symbol(symbol)
        if not symbols:
            return {}
        now = int(time.time() * 1000)
        kept = self._listed.read(symbols, now, max_age_s) if max_age_s > 0 else None
        if kept is not None:
            return kept
        found = self._source.listings(symbols)
        self._listed.write(found, now)
        return found

    def filters(self, symbols: Sequence[str], max_age_s: float = 0.0) -> dict[str, Filters]:
        """Lot step, tick and minima of each symbol; see ``listings``."""
        return {name: one.filters for name, one in self.listings(symbols, max_age_s).items()}


def _seen_first(candles: Candles, known: Candles | None) -> Candles:
    """``candles`` with the values that were seen first, where some were."""
    if known is None or not len(known) or not len(candles):
        return candles
    known = known.between(None, int(candles.ts[-1]) + 1)
    at = np.searchsorted(candles.ts, known.ts)
    columns = [np.array(getattr(candles, name)) for name in COLUMNS]
    for name, column in zip(COLUMNS, columns, strict=True):
        column[at] = getattr(known, name)
    return Candles(candles.symbol, candles.timeframe, candles.ts, *columns)


def _settled(candles: Candles, now: int) -> Candles:
    """The closed ones; not the last of all while it is fresh: it may lag behind the clock."""
    closed = candles.closed_by(now)
    shown_later = len(closed) < len(candles)
    if len(closed) and not shown_later and int(closed.ts[-1]) + closed.bar_ms > now - SETTLING_MS:
        return closed.rows(0, len(closed) - 1)
    return closed


def _leaps(candles: Candles) -> list[int]:
    """Positions of candles that leave the close before them by more than LEAP."""
    before = candles.close[:-1]
    up, down = candles.high[1:] / before - 1, 1 - candles.low[1:] / before
    return (np.flatnonzero(np.maximum(up, down) > LEAP) + 1).tolist()


def _last(known: Candles | None) -> int:
    """The last open, -1 where there is none."""
    return int(known.ts[-1]) if known is not None and len(known) else -1


def _require_continued(candles: Candles, known: Candles | None, start: int) -> None:
    """A page that holds all of the candles that must come again, else CandlesRejected.

    Others may have come before and between them: bars that were missing once.
    """
    if known is None or not len(known):
        return
    if not np.isin(known.ts, candles.ts).all():
        raise CandlesRejected(
            field=f"{candles.symbol} {candles.timeframe} page from {iso(start)}",
            value=", ".join(iso(ts) for ts in candles.ts[: len(known)].tolist()) or "nothing",
            expected=f"first {', '.join(map(iso, known.ts.tolist()))} again",
            remedy="Nothing was kept of this answer. Ask again; if the exchange has withdrawn a "
            "candle, fetch with a --since after it.",
        )


def _check_symbol(symbol: str) -> None:
    if not isinstance(symbol, str) or not _SYMBOL.fullmatch(symbol):
        raise UnknownNameError(
            field="symbol", value=symbol, expected="a symbol as Binance writes it: BTCUSDT"
        )
