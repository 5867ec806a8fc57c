"""Market data through ccxt: closed candles, the open of the forming one, exchange filters.

Units: UTC milliseconds, prices in quote currency, volumes in base currency. Invariants: no API key
is ever given, so nothing here can trade; a row that breaks a rule is never handed on; every request
ends within a hard deadline in an answer, ExchangeUnreachable or ExchangeRefused. Binance's raw
``klines`` is read instead of ``ccxt.fetch_ohlcv``, which lets NaN, HTML and forming candles pass.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import tenacity

from research.account import Filters
from research.candles import Candles, iso, timeframe_ms, utc_ms
from research.errors import (
    CandlesRejected,
    ExchangeError,
    ExchangeRefused,
    ExchangeUnreachable,
    ParameterError,
    SettingsError,
    UnknownNameError,
)
from research.klines import REJECTED, Klines, parse_filters, parse_klines, parse_time

__all__ = ["Klines", "MarketData", "parse_filters", "parse_klines"]

_SYMBOL = re.compile(r"[A-Z0-9]{2,30}")
_BASE_URL = re.compile(r"https?://[^/@?#\s]+")
_PAGE = 1000
_ATTEMPTS = 4


class _Retryable(Exception):
    """A failure worth another attempt: the error to raise if none is left, the wait asked for."""

    def __init__(self, error: ExchangeError, wait_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait_s = wait_s


class MarketData:
    """A read-only connection to one exchange; for one thread. Opens on the first question.

    ``base_url`` (scheme and host) sends every question to another server that speaks Binance's
    REST. ``deadline_s`` bounds each request with all its retries; a page of candles is one request.
    """

    def __init__(
        self, exchange: str = "binance", base_url: str | None = None, deadline_s: float = 20.0
    ) -> None:
        if exchange != "binance":
            raise UnknownNameError(field="exchange", value=exchange, expected="binance")
        if base_url is not None and not _BASE_URL.fullmatch(base_url.rstrip("/")):
            raise SettingsError(
                field="base_url", value=base_url, expected="scheme and host: https://host[:port]"
            )
        if not 0 < deadline_s <= 600:
            raise ParameterError(field="deadline_s", value=deadline_s, expected="0 to 600 seconds")
        self.exchange = exchange
        self.base_url = None if base_url is None else base_url.rstrip("/")
        self.deadline_s = deadline_s
        self._ccxt: Any = None
        self._heard: list[tuple[int, str | None]] = []
        self._refused_until = 0.0

    def server_time(self) -> int:
        """The exchange's clock, milliseconds."""
        return parse_time(self._get("publicGetTime", {}))

    def reachable(self, timeout_s: float = 5.0) -> bool:
        """Whether the exchange tells its time within ``timeout_s``: one attempt, never raises.

        The first call in a process also imports ccxt (0.3 to 3 s), which is not counted.
        """
        try:
            self._open()
            parse_time(self._attempt("publicGetTime", {}, time.monotonic() + timeout_s))
        except (ExchangeError, _Retryable):
            return False
        return True

    def closed_candles(
        self, symbol: str, timeframe: str, start: int | str, end: int | str | None = None
    ) -> Iterator[Candles]:
        """Pages of closed candles whose open lies in ``[start, end)``, oldest first, none empty.

        ``symbol`` as the exchange writes it (BTCUSDT). Closed means by the exchange's clock, read
        once before the first page. Gaps come through as they are. Raises CandlesRejected,
        ExchangeUnreachable, ExchangeRefused; pages handed out before stay good.
        """
        _check_symbol(symbol)
        bar = timeframe_ms(timeframe)
        first = -(-utc_ms(start) // bar) * bar
        return self._pages(symbol, timeframe, first, None if end is None else utc_ms(end))

    def _pages(self, symbol: str, timeframe: str, start: int, end: int | None) -> Iterator[Candles]:
        now = self.server_time()
        stop = now if end is None else min(end, now)
        while start < stop:
            candles = self._page(symbol, timeframe, start, stop, now).candles
            closed = candles.closed_by(now)
            if len(closed):
                yield closed
            # An empty page is the exchange's word that nothing follows; a short one is not.
            if not len(candles):
                return
            start = int(candles.ts[-1]) + candles.bar_ms

    def _page(self, symbol: str, timeframe: str, start: int, stop: int, now: int) -> Klines:
        query = {"symbol": symbol, "interval": timeframe, "limit": _PAGE}
        query |= {"startTime": start, "endTime": stop - 1}
        klines = parse_klines(self._get("publicGetKlines", query), symbol, timeframe, now)
        ts = klines.candles.ts
        if len(ts) > _PAGE or (len(ts) and (ts[0] < start or ts[-1] >= stop)):
            raise CandlesRejected(
                field=f"{symbol} {timeframe} page",
                value=f"{len(ts)} rows, {iso(int(ts[0]))} .. {iso(int(ts[-1]))}",
                expected=f"at most {_PAGE} rows from {iso(start)} up to {iso(stop)}",
                remedy=REJECTED,
            )
        return klines

    def forming_open(self, symbol: str, timeframe: str) -> tuple[int, float] | None:
        """``(ts, open)`` of the candle that is forming now; None while nothing has traded in it."""
        _check_symbol(symbol)
        bar = timeframe_ms(timeframe)
        now = self.server_time()
        start = now // bar * bar
        klines = self._page(symbol, timeframe, start, start + bar, now)
        if not len(klines.candles) or klines.trades[0] == 0:
            return None
        return start, float(klines.candles.open[0])

    def filters(self, symbols: Sequence[str]) -> dict[str, Filters]:
        """Lot step, tick and minima of each symbol, from ``exchangeInfo``."""
        for symbol in symbols:
            _check_symbol(symbol)
        if not symbols:
            return {}
        wanted = json.dumps(list(symbols), separators=(",", ":"))
        return parse_filters(self._get("publicGetExchangeInfo", {"symbols": wanted}), symbols)

    def _open(self) -> Any:
        if self._ccxt is None:
            import ccxt  # seconds to import: only for those who ask the exchange

            exchange = ccxt.binance(
                {"options": {"fetchMarkets": {"types": ["spot"]}}, "enableRateLimit": True}
            )
            if self.base_url is not None:
                # Every entry, so that no question can leave for the real exchange.
                exchange.urls["api"] = {
                    name: self.base_url + urlsplit(url).path
                    for name, url in exchange.urls["api"].items()
                }
            # A redirect would be a portal or a proxy: an answer from somebody else.
            exchange.session.max_redirects = 0
            heard: list[tuple[int, str | None]] = []

            # ccxt drops the status and never reads Retry-After.
            def listen(response: Any, **_: Any) -> None:
                heard.append((response.status_code, response.headers.get("Retry-After")))

            exchange.session.hooks["response"].append(listen)
            self._ccxt, self._heard = exchange, heard
        return self._ccxt

    def _get(self, endpoint: str, query: dict[str, Any]) -> Any:
        """The decoded answer to one GET, retried on network errors, 5xx and asked-for waits."""
        self._open()  # importing ccxt is no fault of the exchange: before the clock starts
        deadline = time.monotonic() + self.deadline_s
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Retryable),
            stop=tenacity.stop_after_attempt(_ATTEMPTS)
            | tenacity.stop_before_delay(self.deadline_s),
            wait=_pause,
            reraise=True,
        )
        try:
            return retrying(self._attempt, endpoint, query, deadline)
        except _Retryable as failure:
            if failure.wait_s is not None:
                self._refused_until = time.monotonic() + failure.wait_s
            raise failure.error from failure.__cause__

    def _attempt(self, endpoint: str, query: dict[str, Any], deadline: float) -> Any:
        exchange = self._open()
        left = self._refused_until - time.monotonic()
        if left > 0:
            raise ExchangeRefused(
                f"asked to wait for another {left:.0f} s",
                field=self._host(),
                remedy="Wait: asking sooner lengthens the ban.",
            )
        self._heard.clear()
        left = max(deadline - time.monotonic(), 0.001)
        # Silence on the socket; half, so that one silent connection leaves time for another.
        exchange.timeout = max(int(500 * left), 1)
        try:
            return _within(left, lambda: getattr(exchange, endpoint)(dict(query)))
        except _Overrun:
            # The abandoned worker keeps this connection: the next attempt opens its own.
            self._ccxt = None
            raise ExchangeUnreachable(
                f"no whole answer within {self.deadline_s:g} s",
                field=self._host(),
                remedy="Ask again later; nothing was stored.",
            ) from None
        except Exception as err:
            raise self._translated(err) from err

    def _translated(self, err: Exception) -> Exception:
        """What a failed request means: an ExchangeError, or a _Retryable around one."""
        import ccxt
        import requests

        status, retry_after = self._heard[-1] if self._heard else (0, None)
        text = " ".join(str(err).split())[:200]
        cause = err.__cause__
        # requests' errors are OSErrors; HTTPError only repeats the status.
        broken = isinstance(cause, OSError) and not isinstance(cause, requests.HTTPError)
        if status < 300 and broken:
            return _Retryable(
                ExchangeUnreachable(
                    text, field=self._host(), remedy="Check the network; stored history still works"
                )
            )
        said = f"status {status}: {text}"
        if status in (418, 429) or isinstance(err, ccxt.DDoSProtection | ccxt.RateLimitExceeded):
            return self._rate_limited(said, retry_after)
        if status >= 500:
            return _Retryable(
                ExchangeRefused(said, field=self._host(), remedy="Ask again in a few minutes.")
            )
        remedy = "Check symbol, timeframe and dates."
        if status in (401, 403, 451):
            remedy = "The exchange does not serve this network or region; use stored history."
        elif 300 <= status < 400:
            remedy = "Something on the way answers instead of the exchange; check the network."
        return ExchangeRefused(said, field=self._host(), remedy=remedy)

    def _rate_limited(self, said: str, retry_after: str | None) -> Exception:
        if retry_after is None or not re.fullmatch(r"[0-9]{1,7}", retry_after):
            return ExchangeRefused(
                said, field=self._host(), remedy="Wait a few minutes before asking again."
            )
        error = ExchangeRefused(
            said, field=self._host(), remedy=f"Wait {int(retry_after)} s before asking again."
        )
        return _Retryable(error, wait_s=float(retry_after))

    def _host(self) -> str:
        return self.exchange if self.base_url is None else f"{self.exchange} at {self.base_url}"


class _Overrun(Exception):
    """A call did not return in time."""


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What ``call`` returns or raises; _Overrun after ``seconds``, whatever the sockets do.

    A socket's timeout starts again with every byte, and name look-ups have none; so the call runs
    in a daemon thread, which cannot keep the process alive once it is abandoned.
    """
    outcome: list[tuple[Any, Exception | None]] = []

    def work() -> None:
        try:
            outcome.append((call(), None))
        except Exception as err:  # noqa: BLE001 - carried over to the caller
            outcome.append((None, err))

    worker = threading.Thread(target=work, name="exchange-request", daemon=True)
    worker.start()
    worker.join(seconds)
    if not outcome:
        raise _Overrun
    answer, err = outcome[0]
    if err is not None:
        raise err
    return answer


def _pause(state: tenacity.RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome is not None else None
    if isinstance(failure, _Retryable) and failure.wait_s is not None:
        return failure.wait_s
    return min(0.2 * 2.0 ** (state.attempt_number - 1), 2.0)


def _check_symbol(symbol: str) -> None:
    if not isinstance(symbol, str) or not _SYMBOL.fullmatch(symbol):
        raise UnknownNameError(
            field="symbol", value=symbol, expected="a symbol as Binance writes it: BTCUSDT"
        )
