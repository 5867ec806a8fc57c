"""One symbol's OHLCV bars, and what makes them fit to trade on.

Units, everywhere: ``ts`` is the candle's *open*, UTC, integer milliseconds since 1970; prices are
in quote currency, volumes in base currency, float64. A candle closes at ``ts + timeframe``.

Two doors: ``require_sound`` is the strict check of the live path (the first defect raises);
``find_defects`` counts every defect of a stored history and changes nothing. No bar is ever
invented, dropped or mended here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from research.errors import CandlesRejected, GapNotAccepted, InputError, UnknownNameError

__all__ = [
    "COLUMNS",
    "TIMEFRAMES",
    "CandleSet",
    "Candles",
    "Defect",
    "DefectKind",
    "Floats",
    "Gap",
    "Ints",
    "find_defects",
    "find_gaps",
    "iso",
    "not_covered",
    "require_sound",
    "timeframe_ms",
    "utc_ms",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

COLUMNS = ("open", "high", "low", "close", "volume")

MINUTE = 60_000
DAY = 86_400_000
TIMEFRAMES: dict[str, int] = {
    "1m": MINUTE,
    "3m": 3 * MINUTE,
    "5m": 5 * MINUTE,
    "15m": 15 * MINUTE,
    "30m": 30 * MINUTE,
    "1h": 60 * MINUTE,
    "2h": 120 * MINUTE,
    "4h": 240 * MINUTE,
    "6h": 360 * MINUTE,
    "8h": 480 * MINUTE,
    "12h": 720 * MINUTE,
    "1d": DAY,
}


def timeframe_ms(timeframe: str) -> int:
    """Length of one candle in milliseconds. Raises UnknownNameError."""
    try:
        return TIMEFRAMES[timeframe]
    except (KeyError, TypeError):
        raise UnknownNameError(
            field="timeframe", value=timeframe, expected=f"one of {', '.join(TIMEFRAMES)}"
        ) from None


def utc_ms(moment: str | int | datetime | pd.Timestamp) -> int:
    """Milliseconds since 1970 of a UTC moment: '2024', '2024-03-01T12:00', a datetime, or itself.

    A moment without a zone is taken as UTC. Text begins with a year of four digits: "now" or
    "12:00" would depend on the clock. Raises InputError for anything else.
    """
    if isinstance(moment, (int, np.integer)) and not isinstance(moment, bool):
        return int(moment)
    try:
        # pandas takes a float for nanoseconds: 1.7e12 would silently be a moment of 1970.
        dated = not isinstance(moment, str) or re.match(r"\d{4}", moment)
        stamp = pd.NaT if isinstance(moment, float) or not dated else pd.Timestamp(moment)
        if pd.isna(stamp):
            raise ValueError("no moment")
        stamp = stamp.tz_localize("UTC") if stamp.tz is None else stamp.tz_convert("UTC")
        return int(stamp.value // 1_000_000)
    except (ValueError, TypeError, OverflowError) as err:
        raise InputError(
            field="time", value=moment, expected="a UTC date or time such as 2024-03-01T12:00"
        ) from err


def iso(ts: int) -> str:
    """``2024-03-01T12:00Z`` for a millisecond stamp; seconds only where they are not zero."""
    moment = datetime.fromtimestamp(ts / 1000, UTC)
    spec = "minutes" if ts % MINUTE == 0 else "seconds" if ts % 1000 == 0 else "milliseconds"
    return moment.replace(tzinfo=None).isoformat(timespec=spec) + "Z"


class DefectKind(StrEnum):
    """What can be wrong with candles. The value is what the manifest stores."""

    GAP = "gap"
    DUPLICATE = "duplicate"
    UNSORTED = "unsorted"
    OFF_GRID = "off_grid"
    NON_FINITE = "non_finite"
    NON_POSITIVE = "non_positive_price"
    HIGH_BELOW_LOW = "high_below_low"
    OPEN_OUTSIDE = "open_outside_range"
    CLOSE_OUTSIDE = "close_outside_range"
    NEGATIVE_VOLUME = "negative_volume"
    ZERO_VOLUME = "zero_volume"
    FORMING = "still_forming"
    STALE = "stale"


# A candle in which nothing traded is odd but true; it is counted, never a reason to refuse.
HARMLESS = frozenset({DefectKind.ZERO_VOLUME})


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect: its kind, the candle's ``ts`` and the offending values in words."""

    kind: DefectKind
    ts: int
    detail: str

    def __str__(self) -> str:
        return f"{self.kind.value} at {iso(self.ts)}: {self.detail}"


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """Missing bars of one symbol: opens from ``start`` (the first absent) up to ``end``, exclusive.

    ``name`` is set where a person has accepted the gap (a known outage).
    """

    symbol: str
    start: int
    end: int
    name: str = ""

    def covers(self, other: Gap) -> bool:
        return self.symbol == other.symbol and self.start <= other.start and other.end <= self.end

    def __str__(self) -> str:
        label = f" ({self.name})" if self.name else ""
        return f"{self.symbol} {iso(self.start)} .. {iso(self.end)}{label}"


@dataclass(frozen=True, eq=False)
class Candles:
    """One symbol's candles, oldest first: six arrays of one length, read-only.

    ``ts`` int64 milliseconds of the open; the rest float64. Construction checks shapes and types
    only; ``require_sound`` and ``find_defects`` judge the values.
    """

    symbol: str
    timeframe: str
    ts: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def __post_init__(self) -> None:
        timeframe_ms(self.timeframe)
        object.__setattr__(self, "ts", _frozen_array(self.ts, np.int64, "ts", None))
        for name in COLUMNS:
            column = _frozen_array(getattr(self, name), np.float64, name, len(self.ts))
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.ts)

    def __repr__(self) -> str:
        if not len(self):
            return f"Candles({self.symbol} {self.timeframe}, empty)"
        first, last = iso(int(self.ts[0])), iso(int(self.ts[-1]))
        return f"Candles({self.symbol} {self.timeframe}, {len(self):,} bars, {first} .. {last})"

    @property
    def bar_ms(self) -> int:
        """Length of one bar in milliseconds."""
        return timeframe_ms(self.timeframe)

    def rows(self, first: int, stop: int) -> Candles:
        """The candles at positions ``first`` up to ``stop``, exclusive; views, not copies."""
        part = slice(first, stop)
        return Candles(
            self.symbol, self.timeframe, self.ts[part], *(getattr(self, c)[part] for c in COLUMNS)
        )

    def between(self, start: int | None = None, end: int | None = None) -> Candles:
        """Candles whose open lies in ``[start, end)``, both milliseconds or None for unbounded."""
        first = 0 if start is None else int(np.searchsorted(self.ts, start, side="left"))
        stop = len(self) if end is None else int(np.searchsorted(self.ts, end, side="left"))
        return self.rows(first, max(first, stop))

    def closed_by(self, now: int) -> Candles:
        """Candles that had closed at ``now`` (milliseconds)."""
        return self.between(None, now - self.bar_ms + 1)

    def frame(self) -> pd.DataFrame:
        """A DataFrame of the five columns, indexed by the open as UTC timestamps (ms)."""
        index = pd.DatetimeIndex(self.ts.astype("datetime64[ms]"), name="ts").tz_localize("UTC")
        return pd.DataFrame({name: getattr(self, name) for name in COLUMNS}, index=index)

    @classmethod
    def from_frame(cls, symbol: str, timeframe: str, frame: pd.DataFrame) -> Candles:
        """From a DataFrame with the five columns and a ``ts`` column or UTC DatetimeIndex.

        Raises CandlesRejected for a missing column, for moments that are not datetimes (pandas
        takes whole numbers for nanoseconds) and for values that are not numbers.
        """
        missing = [name for name in COLUMNS if name not in frame.columns]
        if missing:
            raise CandlesRejected(
                field=f"{symbol} columns",
                value=list(frame.columns),
                expected=f"columns {', '.join(COLUMNS)}",
            )
        moments = frame["ts"] if "ts" in frame.columns else frame.index
        if not pd.api.types.is_datetime64_any_dtype(moments.dtype) or moments.hasnans:
            raise CandlesRejected(
                field=f"{symbol} ts", value=moments.dtype, expected="a datetime in every row"
            )
        index = pd.DatetimeIndex(moments)
        index = index.tz_localize("UTC") if index.tz is None else index.tz_convert("UTC")
        ts = index.tz_localize(None).to_numpy().astype("datetime64[ms]").astype(np.int64)
        # np.array copies: no later change of the frame reaches the candles.
        return cls(symbol, timeframe, ts, *(np.array(frame[c]) for c in COLUMNS))

    def digest(self) -> str:
        """SHA-256 over symbol, timeframe and every value; the same however rows are stored."""
        sha = hashlib.sha256(f"{self.symbol} {self.timeframe} {len(self)}\n".encode())
        sha.update(self.ts.astype("<i8").tobytes())
        for name in COLUMNS:
            sha.update(getattr(self, name).astype("<f8").tobytes())
        return sha.hexdigest()


def _frozen_array(values: Any, dtype: type, name: str, length: int | None) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as err:
        raise CandlesRejected(str(err), field=f"candles.{name}", expected="numbers") from err
    if array.ndim != 1 or (length is not None and len(array) != length):
        raise CandlesRejected(
            field=f"candles.{name}",
            value=array.shape,
            expected="one dimension" if length is None else f"{length} values, as many as ts has",
        )
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, eq=False)
class CandleSet:
    """Candles of several symbols on one timeframe, in the run's fixed order.

    The order is part of a run's meaning: it decides who is filled first from one cash account.
    ``gaps`` are the gaps that a person has accepted by name; ``source`` is where the rows came
    from (``binance``, ``synthetic``, ...), ``exchange`` the market that they are of.
    """

    series: tuple[Candles, ...]
    gaps: tuple[Gap, ...] = ()
    source: str = "memory"
    exchange: str = "binance"
    _position: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.series:
            raise InputError(field="symbols", value=[], expected="at least one symbol")
        frames = {one.timeframe for one in self.series}
        if len(frames) > 1:
            raise InputError(
                field="timeframe", value=sorted(frames), expected="one timeframe for all symbols"
            )
        position = {one.symbol: i for i, one in enumerate(self.series)}
        if len(position) != len(self.series):
            raise InputError(field="symbols", value=list(self.symbols), expected="each symbol once")
        object.__setattr__(self, "_position", position)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(one.symbol for one in self.series)

    @property
    def timeframe(self) -> str:
        return self.series[0].timeframe

    @property
    def bar_ms(self) -> int:
        return self.series[0].bar_ms

    def __getitem__(self, symbol: str) -> Candles:
        try:
            return self.series[self._position[symbol]]
        except KeyError:
            raise UnknownNameError(
                field="symbol", value=symbol, expected=f"one of {', '.join(self.symbols)}"
            ) from None

    def __iter__(self) -> Iterator[Candles]:
        return iter(self.series)

    def __len__(self) -> int:
        return len(self.series)

    def __repr__(self) -> str:
        return f"CandleSet({self.source}: {', '.join(repr(one) for one in self.series)})"

    def between(self, start: int | None = None, end: int | None = None) -> CandleSet:
        """The same set with only the candles whose open lies in ``[start, end)``."""
        return self._with(one.between(start, end) for one in self.series)

    def closed_by(self, now: int) -> CandleSet:
        """The same set with only the candles that had closed at ``now``."""
        return self._with(one.closed_by(now) for one in self.series)

    def _with(self, series: Iterator[Candles]) -> CandleSet:
        return replace(self, series=tuple(series))

    def clock(self) -> Ints:
        """Sorted union of the symbols' opens: the bars that a run steps through."""
        clock: Ints = np.unique(np.concatenate([one.ts for one in self.series]))
        return clock

    def digest(self) -> str:
        """SHA-256 over every row of every symbol, in order."""
        sha = hashlib.sha256()
        for one in self.series:
            sha.update(one.digest().encode())
        return sha.hexdigest()

    def require_gaps_accepted(self) -> None:
        """Raises GapNotAccepted for the first missing bars that nobody has accepted by name."""
        for one in self.series:
            known = [gap for gap in self.gaps if gap.symbol == one.symbol]
            for hole in find_gaps(one):
                for gap in not_covered(hole, known, one.bar_ms):
                    missing = (gap.end - gap.start) // one.bar_ms
                    raise GapNotAccepted(
                        f"{missing} bars are missing" if missing > 1 else "1 bar is missing",
                        field=f"{one.symbol} {one.timeframe} at {iso(gap.start)}",
                        remedy=f"If the exchange was down then, accept it by name: candlebook "
                        f"history accept-gap {one.symbol} --timeframe {one.timeframe} --start "
                        f"{iso(gap.start)} --end {iso(gap.end)} --name NAME --why REASON",
                    )


def not_covered(gap: Gap, known: Iterable[Gap], bar_ms: int) -> list[Gap]:
    """The bars of ``gap`` that lie in none of the ``known`` gaps, as gaps, in order of time."""
    opens = np.arange(gap.start, gap.end, bar_ms)
    left = np.ones(len(opens), dtype=bool)
    for one in known:
        if one.symbol == gap.symbol and one.start < gap.end and gap.start < one.end:
            left &= (opens < one.start) | (opens + bar_ms > one.end)
    edges = np.flatnonzero(np.diff(left, prepend=False, append=False)).tolist()
    return [
        Gap(gap.symbol, int(opens[first]), int(opens[stop - 1]) + bar_ms)
        for first, stop in zip(edges[::2], edges[1::2], strict=True)
    ]


def find_gaps(candles: Candles) -> list[Gap]:
    """Every run of missing bars between the first and the last candle; sorted input."""
    steps = np.diff(candles.ts)
    return [
        Gap(candles.symbol, int(candles.ts[i]) + candles.bar_ms, int(candles.ts[i + 1]))
        for i in np.flatnonzero(steps > candles.bar_ms)
    ]


def find_defects(candles: Candles, now: int | None = None) -> list[Defect]:
    """Every defect, in order of kind then time; an empty list is a clean series.

    ``now`` (milliseconds) turns on the check for candles that were still forming.
    """
    c, bar = candles, candles.bar_ms
    steps = np.diff(c.ts)
    finite = np.isfinite(c.open) & np.isfinite(c.high) & np.isfinite(c.low) & np.isfinite(c.close)
    priced = finite & (np.minimum.reduce([c.open, c.high, c.low, c.close]) > 0)
    ordered = finite & (c.high >= c.low)
    tests: Sequence[tuple[DefectKind, npt.NDArray[np.bool_]]] = (
        (DefectKind.UNSORTED, np.append(False, steps < 0)),
        (DefectKind.DUPLICATE, np.append(False, steps == 0)),
        (DefectKind.OFF_GRID, c.ts % bar != 0),
        (DefectKind.GAP, np.append(False, steps > bar)),
        (DefectKind.NON_FINITE, ~(finite & np.isfinite(c.volume))),
        (DefectKind.NON_POSITIVE, finite & ~priced),
        (DefectKind.HIGH_BELOW_LOW, finite & ~ordered),
        (DefectKind.OPEN_OUTSIDE, ordered & ((c.open > c.high) | (c.open < c.low))),
        (DefectKind.CLOSE_OUTSIDE, ordered & ((c.close > c.high) | (c.close < c.low))),
        (DefectKind.NEGATIVE_VOLUME, c.volume < 0),
        (DefectKind.ZERO_VOLUME, c.volume == 0),
        (DefectKind.FORMING, np.zeros(len(c), bool) if now is None else c.ts + bar > now),
    )
    found = []
    for kind, bad in tests:
        for i in np.flatnonzero(bad[: len(c)]):
            found.append(Defect(kind, int(c.ts[i]), _detail(c, int(i), kind)))
    return found


def _detail(c: Candles, i: int, kind: DefectKind) -> str:
    if kind is DefectKind.GAP:
        missing = (int(c.ts[i]) - int(c.ts[i - 1])) // c.bar_ms - 1
        return f"{missing} bars missing before it, since {iso(int(c.ts[i - 1]))}"
    if kind in (DefectKind.UNSORTED, DefectKind.DUPLICATE):
        return f"follows {iso(int(c.ts[i - 1]))}"
    if kind in (DefectKind.OFF_GRID, DefectKind.FORMING):
        return f"timeframe {c.timeframe}"
    return ", ".join(f"{name} {float(getattr(c, name)[i])!r}" for name in COLUMNS)


def require_sound(
    candles: Candles, now: int | None = None, max_age_bars: int | None = None
) -> None:
    """The live path's check: raises CandlesRejected at the first defect that forbids trading.

    With ``now`` a candle that has not closed is refused; with ``max_age_bars`` too a series whose
    last close lies further back than that many bars. Gaps are left to the caller, since a person
    may have accepted them.
    """
    for defect in find_defects(candles, now):
        if defect.kind not in HARMLESS and defect.kind is not DefectKind.GAP:
            raise CandlesRejected(str(defect), field=f"{candles.symbol} {candles.timeframe}")
    if now is None or max_age_bars is None:
        return
    last_close = int(candles.ts[-1]) + candles.bar_ms if len(candles) else 0
    if now - last_close >= (max_age_bars + 1) * candles.bar_ms:
        stale = Defect(DefectKind.STALE, last_close, f"no closed candle since, now {iso(now)}")
        raise CandlesRejected(str(stale), field=f"{candles.symbol} {candles.timeframe}")
