"""The replay exchange itself: Binance's spot REST on loopback, over stored candles.

Unmodified ccxt speaks to it once its base address is exchanged. It listens on 127.0.0.1 alone.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from live.replay.clock import VirtualClock
from live.replay.endpoints import ENDPOINTS, PUBLIC, SIGNED, Query, require_signature
from live.replay.faults import Fault, bent, forming_late
from live.replay.market import WEIGHT_LIMIT, ApiError, Market, market_of
from live.replay.orders import Book
from live.replay.wire import Handler, Server
from research.account import Filters
from research.candles import CandleSet, timeframe_ms
from research.errors import UnknownNameError

__all__ = ["ReplayExchange"]

REMEMBERED_REQUESTS = 100_000


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
        self.market: Market = market_of(candles, filters, weight_limit)
        self.requests: deque[tuple[str, str, dict[str, str]]] = deque(maxlen=REMEMBERED_REQUESTS)
        self._lock = threading.Lock()
        self._book = Book(self.market)
        self._faults: list[_Active] = []
        self._weights: dict[int, int] = {}
        self._calm = threading.Event()
        self._closing = False
        self._server = Server(("127.0.0.1", port), Handler)
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
        """Stop serving: requests that hang are let go, open connections end."""
        with self._lock:
            self._closing = True
        self.clear_faults()
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._server.end_connections()

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
        """Switch a fault on; of several that fit a request, the first one hits.

        Raises UnknownNameError for an endpoint or a symbol that is not served.
        """
        for name, value, known in (
            ("endpoint", fault.endpoint, sorted(ENDPOINTS)),
            ("symbol", fault.symbol, list(self.market.series)),
        ):
            if value is not None and value not in known:
                raise UnknownNameError(
                    field=f"fault.{name}", value=value, expected=f"one of {', '.join(known)}"
                )
        with self._lock:
            self._faults.append(_Active(fault, self.clock.now()))

    def clear_faults(self) -> None:
        """Switch every fault off; connections that hang or drip end."""
        with self._lock:
            self._faults = []
            self._calm.set()
            if not self._closing:
                self._calm = threading.Event()

    def faults(self) -> list[Fault]:
        """Those that are on and still have requests to hit."""
        with self._lock:
            return [one.fault for one in self._faults if not one.is_spent]

    def fault_for(self, endpoint: str, symbols: Collection[str]) -> Fault | None:
        """The fault that hits this request, which counts against its ``times``."""
        with self._lock:
            for one in self._faults:
                if one.is_spent or not one.fault.hits(endpoint, symbols):
                    continue
                one.met += 1
                if one.met > one.fault.after:
                    return one.fault
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
        if used > 2 * self.market.weight_limit:
            return used, ApiError(-1003, "Way too many requests; IP banned.", 418)
        if used > self.market.weight_limit:
            return used, ApiError(-1003, "Too much request weight used.", 429)
        return used, None

    def answer(self, method: str, endpoint: str, query: Query, headers: Query) -> Any:
        """The answer to one of the exchange's own requests. Raises ApiError."""
        now = self.clock.now()
        signed = SIGNED.get((method, endpoint))
        if signed is not None:
            require_signature(query, headers, now)
            with self._lock:
                return signed(self._book, query, now)
        public = PUBLIC.get(endpoint) if method == "GET" else None
        if public is None:
            raise ApiError(-1000, "Path not found.", 404)
        return public(self.market, query, now)

    def bend(self, fault: Fault, endpoint: str, query: Query, answer: Any) -> Any:
        """What a data fault makes of an answer."""
        if (fault.kind, endpoint) == ("halted", "klines"):
            return self._until_halted(fault, query)
        if fault.kind != "forming_as_closed":
            return bent(fault, endpoint, answer)
        now = self.clock.now()
        forming = self.market.klines(query["symbol"], query["interval"], now, limit=1)
        if not forming or forming[0][6] < now:
            return answer
        return forming_late(answer, forming[0], now)

    def _until_halted(self, fault: Fault, query: Query) -> Any:
        """The candles before the bar that preceded the halt, which was noticed late."""
        with self._lock:
            known = [one.since for one in self._faults if one.fault is fault]
        now = self.clock.now()
        bar_ms = timeframe_ms(query["interval"])
        last = (min([*known, now]) // bar_ms - 1) * bar_ms - 1
        end = min(last, int(query.get("endTime", last)))
        return PUBLIC["klines"](self.market, {**query, "endTime": str(end)}, now)


@dataclass
class _Active:
    """A fault that was switched on at ``since``; ``met`` counts the requests it was for."""

    fault: Fault
    since: int
    met: int = 0

    @property
    def is_spent(self) -> bool:
        fault = self.fault
        return fault.times is not None and self.met >= fault.after + fault.times
