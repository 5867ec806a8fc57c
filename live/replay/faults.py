"""What can be wrong with an exchange's answers: the faults that the replay exchange injects.

A *transport* fault is of the connection or the whole answer, a *data* fault changes rows or fields
of an answer that is otherwise in order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from research.errors import InputError, UnknownNameError

__all__ = [
    "DATA_FAULTS",
    "FAULTS",
    "STATUS_FAULTS",
    "TRANSPORT_FAULTS",
    "Fault",
    "bent",
    "forming_late",
]

HOUR = 3_600_000
Rows = list[list[Any]]

SERVER_ERRORS = (
    *(500, 501, 502, 503, 504, 505, 507, 508, 510, 511),
    *(520, 521, 522, 523, 524, 525, 526, 527, 530),
)
STATUS_FAULTS = {f"status_{code}": code for code in (429, 418, 403, 451, *SERVER_ERRORS)}

_TRANSPORT = {
    "hang": "the connection is taken and nothing is ever said",
    "drip": "the answer comes one byte at a time, without end",
    "reset_before": "the connection is reset before the request takes effect",
    "reset_after": "the connection is reset after it has taken effect",
    "half_body": "the connection ends in the middle of the body",
    "status_429": "too many requests, with Retry-After",
    "status_418": "banned, with Retry-After",
    "status_403": "refused by the firewall in front of the exchange",
    "status_451": "not served in this region",
    **{f"status_{code}": "a server error" for code in SERVER_ERRORS},
    "html": "a web page under status 200",
    "truncated_json": "JSON that breaks off, under status 200",
    "null": "the JSON value null",
    "empty": "an empty body",
    "gzip_garbage": "said to be gzip, and is not",
    "redirect_loop": "a redirect to itself",
    "error_object": "an error object under status 200",
}
_DATA = {
    "gap": "a candle is left out",
    "duplicate": "a candle comes twice",
    "reversed": "the newest candle comes first",
    "nan": "a price is NaN",
    "negative": "a price is below zero",
    "swapped_high_low": "high and low have changed places",
    "spike": "a candle's high and close are ten times too high",
    "microseconds": "times are in microseconds",
    "stale_tail": "the newest three candles are missing",
    "restated": "a closed candle has other values than before",
    "forming_as_closed": "the candle that still forms comes as if it had closed",
    "short_row": "a row lacks its last columns",
    "extra_column": "rows have a column too many",
    "halted": "the symbol does not trade: status BREAK, no candle from the bar before on",
    "changed_filters": "lot step and tick are ten times as large",
    "clock_skew": "the server's time is an hour ahead",
}
FAULTS: dict[str, str] = {**_TRANSPORT, **_DATA}
TRANSPORT_FAULTS, DATA_FAULTS = frozenset(_TRANSPORT), frozenset(_DATA)

# Which answers a data fault is about.
_ENDPOINTS: dict[str, tuple[str, ...]] = {
    "changed_filters": ("exchangeInfo",),
    "clock_skew": ("time",),
    "halted": ("exchangeInfo", "klines"),
}
# Which answers are about every symbol where none is named.
_ABOUT_ALL = ("exchangeInfo", "ticker/price", "ticker/24hr", "ticker/bookTicker", "openOrders")
STALE_ROWS = 3


@dataclass(frozen=True)
class Fault:
    """One fault that is switched on: ``endpoint`` such as klines, ``symbol``; None is any.

    ``after`` is how many of its requests pass first, ``times`` how many it hits then (None: until
    it is cleared), ``row`` the row of an answer that a data fault hits (as Python counts),
    ``seconds`` the Retry-After of a 429 or 418 and how long a hang or drip lasts at most. Raises
    UnknownNameError, InputError.
    """

    kind: str
    endpoint: str | None = None
    symbol: str | None = None
    times: int | None = None
    after: int = 0
    row: int = -2
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in FAULTS:
            raise UnknownNameError(
                field="fault.kind", value=self.kind, expected=f"one of {', '.join(FAULTS)}"
            )
        whole = type(self.times) is int and self.times > 0
        if self.times is not None and not whole:
            raise InputError(field="fault.times", value=self.times, expected="a number from 1 on")
        if type(self.row) is not int:
            raise InputError(field="fault.row", value=self.row, expected="a whole number")
        if type(self.after) is not int or self.after < 0:
            raise InputError(field="fault.after", value=self.after, expected="a number from 0 on")
        number = isinstance(self.seconds, int | float) and not isinstance(self.seconds, bool)
        if self.seconds is not None and not (number and 0 <= self.seconds <= 86_400):
            raise InputError(field="fault.seconds", value=self.seconds, expected="0 to 86,400")
        for name, value in (("endpoint", self.endpoint), ("symbol", self.symbol)):
            if value is not None and not (isinstance(value, str) and value):
                raise InputError(field=f"fault.{name}", value=value, expected="a name")

    def hits(self, endpoint: str, symbols: Collection[str]) -> bool:
        """Whether a request for ``endpoint`` meets this fault; ``symbols`` are those it names."""
        if self.kind in DATA_FAULTS and endpoint not in _ENDPOINTS.get(self.kind, ("klines",)):
            return False
        about_all = not symbols and endpoint in _ABOUT_ALL
        named = self.symbol is None or self.symbol in symbols or about_all
        return self.endpoint in (None, endpoint) and named


def bent(fault: Fault, endpoint: str, answer: Any) -> Any:
    """``answer`` as a data fault leaves it; a row that an answer does not have is not bent."""
    if endpoint == "time":
        return {**answer, "serverTime": answer["serverTime"] + HOUR}
    if endpoint == "exchangeInfo":
        change = _halted if fault.kind == "halted" else _other_filters
        listed = [
            change(one) if fault.symbol in (None, one["symbol"]) else one
            for one in answer["symbols"]
        ]
        return {**answer, "symbols": listed}
    rows = [list(row) for row in answer]
    if not rows:
        return rows
    at = max(-len(rows), min(fault.row, len(rows) - 1)) % len(rows)
    return _BENDS[fault.kind](rows, at)


def forming_late(rows: Rows, forming: list[Any], now: int) -> Rows:
    """``rows`` with the forming candle behind them, its close time already past."""
    late = [*forming[:6], now - 1, *forming[7:]]
    return [*(row for row in rows if row[0] != forming[0]), late]


def _gap(rows: Rows, at: int) -> Rows:
    return rows[:at] + rows[at + 1 :]


def _duplicate(rows: Rows, at: int) -> Rows:
    return rows[: at + 1] + rows[at:]


def _with(rows: Rows, at: int, **columns: Any) -> Rows:
    places = {"ts": 0, "open": 1, "high": 2, "low": 3, "close": 4}
    row = list(rows[at])
    for name, value in columns.items():
        row[places[name]] = value
    return [*rows[:at], row, *rows[at + 1 :]]


def _spike(rows: Rows, at: int) -> Rows:
    high = f"{float(rows[at][2]) * 10:.8f}"
    return _with(rows, at, high=high, close=high)


def _restated(rows: Rows, at: int) -> Rows:
    row = rows[at]
    close = (float(row[2]) + float(row[3])) / 2
    other = close if f"{close:.8f}" != row[4] else float(row[3])
    return _with(rows, at, close=f"{other:.8f}")


def _microseconds(rows: Rows, _: int) -> Rows:
    return [[row[0] * 1000, *row[1:6], row[6] * 1000 + 999, *row[7:]] for row in rows]


_BENDS: dict[str, Callable[[Rows, int], Rows]] = {
    "gap": _gap,
    "duplicate": _duplicate,
    "reversed": lambda rows, _: rows[::-1],
    "nan": lambda rows, at: _with(rows, at, close="NaN"),
    "negative": lambda rows, at: _with(rows, at, low="-1.00000000"),
    "swapped_high_low": lambda rows, at: _with(rows, at, high=rows[at][3], low=rows[at][2]),
    "spike": _spike,
    "microseconds": _microseconds,
    "stale_tail": lambda rows, _: rows[:-STALE_ROWS],
    "restated": _restated,
    "short_row": lambda rows, at: [*rows[:at], rows[at][:6], *rows[at + 1 :]],
    "extra_column": lambda rows, _: [[*row, "0"] for row in rows],
}


def _halted(listing: dict[str, Any]) -> dict[str, Any]:
    return {**listing, "status": "BREAK"}


def _other_filters(listing: dict[str, Any]) -> dict[str, Any]:
    changed = []
    for one in listing["filters"]:
        steps = {
            key: f"{float(one[key]) * 10:.8f}" for key in ("stepSize", "tickSize") if key in one
        }
        changed.append({**one, **steps})
    return {**listing, "filters": changed}
