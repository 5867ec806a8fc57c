"""The replay exchange on the wire: requests in, answers out, and all that can go wrong there.

``/replay`` beside the exchange's own paths moves the clock and injects faults. A request is only
answered under the name of this machine, so that no web page can reach it by another.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from live.replay.endpoints import weight_of
from live.replay.faults import DATA_FAULTS, FAULTS, STATUS_FAULTS, Fault
from live.replay.market import ApiError
from research.candles import iso
from research.errors import CandlebookError, InputError

if TYPE_CHECKING:
    from live.replay.server import ReplayExchange

__all__ = ["Handler", "Server"]

RETRY_AFTER_S, BAN_S = 60, 120
# How long a hang or a drip lasts where nobody ends it before.
LONGEST_S = 600.0
DRIP_S = 0.05
LARGEST_BODY = 1 << 16
FAREWELL_S = 5.0


class Server(ThreadingHTTPServer):
    """Serves one replay exchange, each connection in a thread that ends with the process."""

    daemon_threads = True
    exchange: ReplayExchange

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lock = threading.Lock()
        self._open: dict[Any, threading.Thread] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        with self._lock:
            self._open[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """End those that are still open and wait for their threads; none may be new."""
        with self._lock:
            still = dict(self._open)
        for request, thread in still.items():
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)
            thread.join(FAREWELL_S)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to tell; anything else is."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Gone(Exception):
    """The connection is broken off on purpose."""


class Handler(BaseHTTPRequestHandler):
    """One connection: the exchange's own paths, their faults, and the control path."""

    server: Server
    protocol_version = "HTTP/1.1"
    # Headers and body leave one after the other; without this the body of an answer on a kept
    # connection waits 40 ms for the client's word that it has the headers.
    disable_nagle_algorithm = True
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
        size = int(length) if length.isascii() and length.isdigit() else LARGEST_BODY + 1
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
        named = re.findall(r"[A-Z0-9]+", query.get("symbol") or query.get("symbols") or "")
        fault = exchange.fault_for(endpoint, named)
        if fault is not None:
            self._fault_before(fault)
        self._used_weight, refusal = exchange.weigh(weight_of(method, endpoint, query))
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
