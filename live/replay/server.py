"""The replay exchange itself: Binance's spot REST on loopback, over stored candles.

Unmodified ccxt speaks to it once its base address is exchanged. ``/replay`` beside the exchange's
own paths moves the clock and injects faults. It listens on 127.0.0.1 alone, and answers only to
that name, so that no web page can reach it by another.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from live.replay.clock import VirtualClock
from live.replay.faults import DATA_FAULTS, FAULTS, STATUS_FAULTS, Fault, bent, forming_late
from live.replay.market import KLINES_DEFAULT, KLINES_MOST, ApiError, Market, market_of
from live.replay.orders import API_KEY, API_SECRET, Book
from research.account import Filters
from research.candles import CandleSet, iso
from research.errors import CandlebookError, InputError

__all__ = ["ReplayExchange"]

WEIGHT_LIMIT = 6_000
RETRY_AFTER_S, BAN_S = 60, 120
# How long a hang or a drip lasts where nobody ends it before.
LONGEST_S = 600.0
DRIP_S = 0.05
LARGEST_BODY = 1 << 16
RECV_WINDOW_MS = 5_000

Query = Mapping[str, str]


class ReplayExchange:
    """A Binance look-alike at ``url`` while it is open; a context manager.

    ``candles`` are sets of one timeframe each, ``filters`` by symbol, ``now`` where its ``clock``
    starts (UTC milliseconds) and ``speed`` how fast it runs. ``port`` 0 takes a free one.
    ``weight_limit`` is what a real minute's requests may weigh. Raises UnknownNameError,
    InputError, OSError for a port that is taken.
    """

    def __init__(
        self,
        candles: Sequence[CandleSet],
        filters: Mapping[str, Filters],
        now: int,
        speed: float = 0.0,
        port: int = 0,
        weight_limit: int = WEIGHT_LIMIT,
    ) -> None:
        self.clock = VirtualClock(now, speed)
        self.market: Market = market_of(candles, filters)
        self.weight_limit = weight_limit
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._lock = threading.Lock()
        self._book = Book(self.market)
        self._faults: list[Fault] = []
        self._used: list[int] = []
        self._weights: dict[int, int] = {}
        self._calm = threading.Event()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.exchange = self
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address to put in place of the exchange's own."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        """Serve from now on, in a thread of its own."""
        serve = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread = serve
        serve.start()

    def close(self) -> None:
        """Stop serving; requests that hang are let go."""
        self.clear_faults()
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> ReplayExchange:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Faults

    def inject(self, fault: Fault) -> None:
        """Switch a fault on; of several that fit a request, the first one hits."""
        with self._lock:
            self._faults.append(fault)
            self._used.append(0)

    def clear_faults(self) -> None:
        """Switch every fault off; connections that hang or drip end."""
        with self._lock:
            self._faults, self._used = [], []
            self._calm.set()
            self._calm = threading.Event()

    def faults(self) -> list[Fault]:
        """Those that are on."""
        with self._lock:
            return list(self._faults)

    def fault_for(self, endpoint: str, symbol: str | None) -> Fault | None:
        """The fault that hits this request, which counts against its ``times``."""
        with self._lock:
            for i, fault in enumerate(self._faults):
                if not fault.hits(endpoint, symbol):
                    continue
                self._used[i] += 1
                late = fault.times is not None and self._used[i] > fault.after + fault.times
                if self._used[i] > fault.after and not late:
                    return fault
        return None

    def calm(self) -> threading.Event:
        """Set once the faults of this moment are cleared."""
        with self._lock:
            return self._calm

    # Answers

    def weigh(self, weight: int) -> tuple[int, ApiError | None]:
        """Count a request; the minute's weight so far, and the refusal where that is too much."""
        minute = int(time.time() // 60)
        with self._lock:
            used = self._weights.get(minute, 0) + weight
            self._weights = {minute: used}
        if used > 2 * self.weight_limit:
            return used, ApiError(-1003, "Way too many requests; IP banned.", 418)
        if used > self.weight_limit:
            return used, ApiError(-1003, "Too much request weight used.", 429)
        return used, None

    def answer(self, method: str, endpoint: str, query: Query, headers: Query) -> Any:
        """The answer to one of the exchange's own requests. Raises ApiError."""
        now = self.clock.now()
        signed = _SIGNED.get((method, endpoint))
        if signed is not None:
            _require_signature(query, headers, now)
            with self._lock:
                return signed(self._book, query, now)
        public = _PUBLIC.get(endpoint) if method == "GET" else None
        if public is None:
            raise ApiError(-1000, "Path not found.", 404)
        return public(self, query, now)

    def bend(self, fault: Fault, endpoint: str, query: Query, answer: Any) -> Any:
        """What a data fault makes of an answer."""
        if fault.kind != "forming_as_closed":
            return bent(fault, endpoint, answer)
        now = self.clock.now()
        forming = self.market.klines(query["symbol"], query["interval"], now, limit=1)
        if not forming or forming[0][6] < now:
            return answer
        return forming_late(answer, forming[0], now)


# The exchange's own paths


def _klines(exchange: ReplayExchange, query: Query, now: int) -> Any:
    symbol = exchange.market.require(query.get("symbol"))
    interval = query.get("interval")
    if interval is None:
        raise ApiError(
            -1102, "Mandatory parameter 'interval' was not sent, was empty/null, or malformed."
        )
    start, end = _whole(query, "startTime"), _whole(query, "endTime")
    limit = _whole(query, "limit")
    wanted = KLINES_DEFAULT if limit is None else limit
    if wanted < 1:
        raise ApiError(
            -1100, "Illegal characters found in parameter 'limit'; legal range is '^[1-9][0-9]*$'."
        )
    most = min(wanted, KLINES_MOST)
    return exchange.market.klines(symbol, interval, now, start, end, most)


def _whole(query: Query, name: str) -> int | None:
    value = query.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 20):
        raise ApiError(
            -1100,
            f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.",
        )
    return int(value)


def _exchange_info(exchange: ReplayExchange, query: Query, now: int) -> Any:
    symbols = _symbols(exchange.market, query) or list(exchange.market.series)
    return exchange.market.exchange_info(symbols, now, exchange.weight_limit)


def _symbols(market: Market, query: Query) -> list[str] | None:
    """The symbols that a request names; None where it names none."""
    if "symbol" in query and "symbols" in query:
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    if "symbols" in query:
        try:
            named = json.loads(query["symbols"])
        except ValueError:
            named = None
        if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
            raise ApiError(-1100, "Illegal characters found in parameter 'symbols'.")
        return [market.require(one) for one in named]
    return [market.require(query["symbol"])] if "symbol" in query else None


def _ticker(show: Callable[[Market, str, int], Any]) -> Callable[..., Any]:
    def answer(exchange: ReplayExchange, query: Query, now: int) -> Any:
        market = exchange.market
        named = _symbols(market, query)
        if "symbol" in query and named:
            return show(market, named[0], now)
        return [show(market, one, now) for one in named or market.series]

    return answer


_PUBLIC: dict[str, Callable[[ReplayExchange, Query, int], Any]] = {
    "ping": lambda _exchange, _query, _now: {},
    "time": lambda _exchange, _query, now: {"serverTime": now},
    "exchangeInfo": _exchange_info,
    "klines": _klines,
    "ticker/price": _ticker(Market.ticker_price),
    "ticker/24hr": _ticker(Market.day),
    "ticker/bookTicker": _ticker(Market.book_ticker),
    # What ccxt asks where it has a key, before it sets its clock: coins and margin. There are none.
    **dict.fromkeys(
        (
            "/sapi/v1/capital/config/getall",
            "/sapi/v1/margin/allPairs",
            "/sapi/v1/margin/isolated/allPairs",
        ),
        lambda _exchange, _query, _now: [],
    ),
}
_SIGNED: dict[tuple[str, str], Callable[[Book, Query, int], Any]] = {
    ("POST", "order"): Book.place,
    ("GET", "order"): Book.find,
    ("DELETE", "order"): Book.cancel,
    ("GET", "openOrders"): lambda book, query, now: book.open_orders(query.get("symbol"), now),
    ("GET", "account"): lambda book, _, now: book.account(now),
    ("GET", "myTrades"): lambda book, query, now: book.fills(query.get("symbol", ""), now),
}
_WEIGHTS = {"klines": 2, "exchangeInfo": 20, "ticker/price": 2, "ticker/24hr": 2, "account": 20}
_WEIGHTS |= {"ticker/bookTicker": 2, "openOrders": 6, "myTrades": 20}


def _require_signature(query: Query, headers: Query, now: int) -> None:
    if headers.get("X-MBX-APIKEY") != API_KEY:
        raise ApiError(-2015, "Invalid API-key, IP, or permissions for action.", 401)
    stamp, window = _whole(query, "timestamp"), _whole(query, "recvWindow")
    if stamp is None:
        raise ApiError(
            -1102, "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed."
        )
    if (window or 0) > 60_000:
        raise ApiError(-1131, "recvWindow must be less than 60000.")
    if stamp >= now + 1000:
        raise ApiError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if now - stamp > (RECV_WINDOW_MS if window is None else window):
        raise ApiError(-1021, "Timestamp for this request is outside of the recvWindow.")
    payload, _, signature = headers["payload"].rpartition("signature=")
    signed = hmac.new(API_SECRET.encode(), payload.rstrip("&").encode(), hashlib.sha256)
    if not hmac.compare_digest(signed.hexdigest(), signature):
        raise ApiError(-1022, "Signature for this request is not valid.")


# HTTP


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    exchange: ReplayExchange

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to tell; anything else is."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Gone(Exception):
    """The connection is broken off on purpose."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    _used_weight = 0

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: ``requests`` is the log."""

    def version_string(self) -> str:
        """Who answers, as every answer's Server."""
        return "candlebook-replay"

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The virtual clock, as every answer's Date."""
        now = self.server.exchange.clock.now() / 1000 if timestamp is None else timestamp
        return formatdate(now, usegmt=True)

    def _serve(self, method: str) -> None:
        url = urlsplit(self.path)
        length = self.headers.get("Content-Length") or "0"
        size = int(length) if length.isdigit() else LARGEST_BODY + 1
        if size > LARGEST_BODY:
            self.close_connection = True
            self._send({"code": -1100, "msg": "The body is too large."}, 413)
            return
        body = self.rfile.read(size).decode("utf-8", "replace")
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        if host not in ("127.0.0.1", "localhost"):
            self._send({"code": -1000, "msg": "This exchange is 127.0.0.1 alone."}, 403)
        elif url.path == "/replay" or url.path.startswith("/replay/"):
            self._control(method, url.path, body)
        else:
            try:
                self._exchange(method, url.path, url.query, body)
            except _Gone:
                self.close_connection = True

    # The exchange's own paths

    def _exchange(self, method: str, path: str, query_text: str, body: str) -> None:
        exchange = self.server.exchange
        endpoint = path.removeprefix("/api/v3/")
        payload = "&".join(part for part in (query_text, body) if part)
        query = dict(parse_qsl(payload, keep_blank_values=True))
        exchange.requests.append((method, path, query))
        named = query.get("symbol") or query.get("symbols")
        fault = exchange.fault_for(endpoint, named)
        if fault is not None:
            self._fault_before(fault)
        self._used_weight, refusal = exchange.weigh(_WEIGHTS.get(endpoint, 1))
        try:
            if refusal is not None:
                raise refusal
            headers = {"payload": payload, "X-MBX-APIKEY": self.headers.get("X-MBX-APIKEY", "")}
            answer = exchange.answer(method, endpoint, query, headers)
        except ApiError as err:
            if fault is not None:
                self._fault_after(fault, "{}")
            retry = {429: RETRY_AFTER_S, 418: BAN_S}.get(err.status)
            self._send({"code": err.code, "msg": err.message}, err.status, retry)
            return
        if fault is not None and fault.kind in DATA_FAULTS:
            answer = exchange.bend(fault, endpoint, query, answer)
        elif fault is not None:
            self._fault_after(fault, json.dumps(answer))
        self._send(answer)

    def _fault_before(self, fault: Fault) -> None:
        """Faults by which the request takes no effect. Raises _Gone once it is answered."""
        kind = fault.kind
        if kind == "reset_before":
            self._reset()
        elif kind in ("hang", "drip"):
            self._never_end(fault)
        elif kind == "redirect_loop":
            where = f"{self.server.exchange.url}{self.path}"
            self._raw(302, b"", headers={"Location": where})
        elif kind in STATUS_FAULTS:
            status = STATUS_FAULTS[kind]
            default = {429: RETRY_AFTER_S, 418: BAN_S}.get(status)
            wait = default if fault.seconds is None else fault.seconds
            retry = None if status not in (418, 429) or wait is None else max(1, round(wait))
            self._send({"code": -1003, "msg": FAULTS[kind]}, status, retry)
        else:
            return
        raise _Gone

    def _fault_after(self, fault: Fault, text: str) -> None:
        """Faults of the answer to a request that took effect. Raises _Gone once it is answered."""
        raw = text.encode()
        match fault.kind:
            case "reset_after":
                self._reset()
            case "half_body":
                self._raw(200, raw[: len(raw) // 2], length=len(raw))
            case "html":
                page = b"<html><body>Sign in to this network</body></html>"
                self._raw(200, page, kind="text/html")
            case "truncated_json":
                self._raw(200, raw[: max(1, len(raw) * 2 // 3)])
            case "null":
                self._raw(200, b"null")
            case "empty":
                self._raw(200, b"")
            case "gzip_garbage":
                self._raw(200, b"\x1f\x8b" + raw, headers={"Content-Encoding": "gzip"})
            case "error_object":
                said = {"code": -1000, "msg": "An unknown error occurred while processing."}
                self._raw(200, json.dumps(said).encode())
            case _:
                return
        raise _Gone

    def _never_end(self, fault: Fault) -> None:
        calm = self.server.exchange.calm()
        lasts = LONGEST_S if fault.seconds is None else fault.seconds
        until = time.monotonic() + lasts
        if fault.kind == "hang":
            calm.wait(lasts)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        while time.monotonic() < until and not calm.wait(DRIP_S):
            self.wfile.write(b" ")

    def _reset(self) -> None:
        """End the connection with a reset in place of a farewell."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    # The control path

    def _control(self, method: str, path: str, body: str) -> None:
        exchange = self.server.exchange
        try:
            match method, path:
                case "GET", "/replay":
                    pass
                case "POST", "/replay/clock":
                    asked = self._document(body, {"now", "speed"})
                    now = asked.get("now", exchange.clock.now())
                    exchange.clock.set(now, asked.get("speed"))
                case "POST", "/replay/faults":
                    known = {field.name for field in fields(Fault)}
                    exchange.inject(Fault(**{"kind": "", **self._document(body, known)}))
                case "DELETE", "/replay/faults":
                    exchange.clear_faults()
                case _:
                    self._send({"error": f"no such path: {method} {path}"}, 404)
                    return
        except CandlebookError as err:
            self._send({"error": str(err)}, 400)
            return
        self._send(self._state())

    def _document(self, body: str, known: set[str]) -> dict[str, Any]:
        if self.headers.get_content_type() != "application/json":
            raise InputError(
                field="Content-Type",
                value=self.headers.get_content_type(),
                expected="application/json",
            )
        try:
            asked = json.loads(body)
        except ValueError as err:
            raise InputError(field="body", value=body, expected="JSON") from err
        if not isinstance(asked, dict) or not set(asked) <= known:
            raise InputError(
                field="body", value=asked, expected=f"an object of {', '.join(sorted(known))}"
            )
        return asked

    def _state(self) -> dict[str, Any]:
        exchange = self.server.exchange
        series = exchange.market.series
        return {
            "now": iso(exchange.clock.now()),
            "speed": exchange.clock.speed,
            "symbols": {symbol: list(frames) for symbol, frames in series.items()},
            "faults": [asdict(one) for one in exchange.faults()],
            "requests": len(exchange.requests),
        }

    # Writing

    def _send(self, answer: Any, status: int = 200, retry_after: int | None = None) -> None:
        headers = {"X-MBX-USED-WEIGHT-1M": str(self._used_weight)}
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        self._raw(status, json.dumps(answer).encode(), headers=headers)

    def _raw(
        self,
        status: int,
        raw: bytes,
        kind: str = "application/json",
        length: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)
