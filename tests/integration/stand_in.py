"""A loopback stand-in that answers time, klines and exchangeInfo as Binance does, with faults.

Small on purpose, and written apart from ``live.replay``: what the exchange client makes of answers
is not judged by the project's own idea of an exchange alone.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from research.synthetic import synthetic_candles

HOUR = 3_600_000
START = 1_672_531_200_000
BARS = 2_500
# 20 minutes into candle 2,500, the one still forming.
NOW = START + BARS * HOUR + 20 * 60_000

Fault = Callable[[BaseHTTPRequestHandler], None]


class Exchange(ThreadingHTTPServer):
    """Serves time, klines and exchangeInfo. ``faults`` answer first, one a request, for a path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.candles = synthetic_candles(["BTCUSDT"], "1h", START, BARS + 1)["BTCUSDT"]
        self.trades = 7
        self.date = NOW
        self.absent: set[int] = set()
        self.faults: dict[str, list[Fault]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.closing = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gives up is what many of these tests are about."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def klines(self, query: dict[str, str]) -> list[list[Any]]:
        first, last = int(query["startTime"]), int(query["endTime"])
        found = [
            i
            for i, ts in enumerate(self.candles.ts.tolist())
            if first <= ts <= last and i not in self.absent
        ]
        return [self.row(i) for i in found[: int(query["limit"])]]

    def row(self, i: int) -> list[Any]:
        c, ts = self.candles, int(self.candles.ts[i])
        texts = (f"{column[i]:.8f}" for column in (c.open, c.high, c.low, c.close, c.volume))
        end = ts + HOUR - 1
        return [ts, *texts, end, "10.00000000", self.trades, "1.00000000", "5.00000000", "0"]


class _Handler(BaseHTTPRequestHandler):
    server: Exchange
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        name = url.path.removeprefix("/api/v3/")
        self.server.asked.append((name, query))
        faults = self.server.faults.get(name)
        if faults:
            faults.pop(0)(self)
        elif name == "time":
            send(self, json.dumps({"serverTime": NOW}))
        elif name == "klines" and query["symbol"] == "BTCUSDT":
            send(self, json.dumps(self.server.klines(query)))
        elif name == "exchangeInfo":
            send(self, json.dumps({"symbols": [listed(s) for s in json.loads(query["symbols"])]}))
        else:
            send(self, json.dumps({"code": -1121, "msg": "Invalid symbol."}), status=400)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(self.server.date / 1000)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the test report is the log."""


def send(
    handler: BaseHTTPRequestHandler,
    text: str,
    status: int = 200,
    kind: str = "application/json",
    **headers: str,
) -> None:
    data = text.encode()
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(data)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def listed(symbol: str) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "status": "TRADING",
        "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"},
            {
                "filterType": "LOT_SIZE",
                "minQty": "0.00001000",
                "maxQty": "9000.00000000",
                "stepSize": "0.00001000",
            },
            {"filterType": "MIN_NOTIONAL", "minNotional": "10.00000000"},
        ],
    }


def answer(text: str, status: int = 200, kind: str = "application/json", **headers: str) -> Fault:
    return lambda handler: send(handler, text, status, kind, **headers)


def reset(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.shutdown(socket.SHUT_RD)
    handler.close_connection = True
    handler.rfile.close()
    handler.connection.close()


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(b"[[1672531200000,")
    handler.close_connection = True


def drip_body(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    _drip(handler, b" ")


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    _drip(handler, b"x")


def _drip(handler: BaseHTTPRequestHandler, byte: bytes) -> None:
    assert isinstance(handler.server, Exchange)
    handler.close_connection = True
    while not handler.server.closing.wait(0.05):
        try:
            handler.wfile.write(byte)
        except OSError:
            return


def silence(handler: BaseHTTPRequestHandler) -> None:
    assert isinstance(handler.server, Exchange)
    handler.server.closing.wait(10)
    handler.close_connection = True
