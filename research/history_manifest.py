"""What is on record about one stored series: its month files, defects, accepted gaps, revisions.

Times are UTC milliseconds; a range is ``[start, end)``. A manifest is a frozen value, and its
file is the truth about the series: a month file counts only with the SHA-256 that stands here.
The file carries a SHA-256 of its own content, so that a changed byte in it is seen as well.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from research.candles import (
    COLUMNS,
    Candles,
    Defect,
    DefectKind,
    Gap,
    find_defects,
    find_gaps,
    iso,
    not_covered,
    timeframe_ms,
)
from research.errors import CorruptHistory, UnknownNameError

__all__ = [
    "SCHEMA_VERSION",
    "AcceptedGap",
    "Manifest",
    "MonthFile",
    "Revision",
    "Series",
    "Values",
    "merge",
    "month_of",
    "new_defects",
    "parse_manifest",
    "render_manifest",
    "split_late",
    "with_months",
]

SCHEMA_VERSION = 1

Values = tuple[float, float, float, float, float]


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """The address of a series; its parts are safe as folder names. Raises UnknownNameError."""

    exchange: str
    symbol: str
    timeframe: str

    def __post_init__(self) -> None:
        _require_name("exchange", self.exchange, r"[a-z][a-z0-9_]{0,40}", "a name like binance")
        _require_name("symbol", self.symbol, r"[A-Z0-9]{2,20}", "a symbol like BTCUSDT")
        timeframe_ms(self.timeframe)

    def __str__(self) -> str:
        return f"{self.exchange}/{self.symbol}/{self.timeframe}"

    @property
    def fetch_command(self) -> str:
        return f"candlebook history fetch {self.symbol} --timeframe {self.timeframe}"


def _require_name(field: str, value: object, pattern: str, example: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise UnknownNameError(field=field, value=value, expected=f"{example}: {pattern}")


@dataclass(frozen=True, slots=True)
class MonthFile:
    """One month of rows, ``<month>.parquet``: how many, from which open to which, and its hash."""

    month: str
    rows: int
    first: int
    last: int
    sha256: str


@dataclass(frozen=True, slots=True)
class AcceptedGap:
    """A run of missing bars that a person knows of: what it was called, who said so, why, when."""

    start: int
    end: int
    name: str
    who: str
    why: str
    at: int


@dataclass(frozen=True, slots=True)
class Revision:
    """A candle that came again with other values: open, high, low, close, volume then and later.

    What was seen first stays: the row in the month file, or, where ``first_seen`` is None, its
    absence in a gap that a person has accepted. ``at`` is when the later one came, if known.
    """

    ts: int
    first_seen: Values | None
    later: Values
    at: int | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """The record of one series; ``months`` in order of time, the rest in order of ``ts``.

    ``gaps`` are all runs of missing bars between the first row and the last, accepted or not;
    ``defects`` the kind and open of every other odd row. ``last_refresh`` is when rows were last
    asked for with a known clock.
    """

    series: Series
    sources: tuple[str, ...] = ()
    months: tuple[MonthFile, ...] = ()
    gaps: tuple[Gap, ...] = ()
    defects: tuple[tuple[DefectKind, int], ...] = ()
    accepted: tuple[AcceptedGap, ...] = ()
    revisions: tuple[Revision, ...] = ()
    last_refresh: int | None = None

    @property
    def source(self) -> str:
        return ", ".join(self.sources)

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.months)

    def accepted_gaps(self) -> tuple[Gap, ...]:
        """The accepted gaps as candles know them, by name."""
        symbol = self.series.symbol
        return tuple(Gap(symbol, one.start, one.end, one.name) for one in self.accepted)

    def open_gaps(self) -> tuple[Gap, ...]:
        """The missing bars that nobody has accepted, as gaps."""
        known, bar = self.accepted_gaps(), timeframe_ms(self.series.timeframe)
        return tuple(part for gap in self.gaps for part in not_covered(gap, known, bar))

    def defect_counts(self) -> dict[DefectKind, int]:
        """How many defects of each kind; a gap counts once however long it is."""
        counts = {DefectKind.GAP: len(self.gaps)} if self.gaps else {}
        for kind, _ in self.defects:
            counts[kind] = counts.get(kind, 0) + 1
        return counts


def month_of(ts: int) -> str:
    """The UTC month of a millisecond stamp, such as ``2024-03``."""
    return str(np.datetime64(ts, "ms").astype("datetime64[M]"))


def with_months(
    manifest: Manifest, entries: Mapping[str, MonthFile], changed: Mapping[str, Candles]
) -> Manifest:
    """The manifest with month files ``entries``, of which ``changed`` are new with these rows.

    Gaps and defects of the other months are kept as they are on record, so that one new candle
    does not cost a reading of the whole series.
    """
    months = tuple(entries[month] for month in sorted(entries))
    bar = timeframe_ms(manifest.series.timeframe)
    kept = [
        gap
        for gap in manifest.gaps
        if (month := month_of(gap.end)) == month_of(gap.start - bar) and month not in changed
    ]
    within = [gap for candles in changed.values() for gap in find_gaps(candles)]
    between = [
        Gap(manifest.series.symbol, one.last + bar, after.first)
        for one, after in pairwise(months)
        if after.first - one.last > bar
    ]
    defects = [one for one in manifest.defects if month_of(one[1]) not in changed]
    defects += [(one.kind, one.ts) for one in _odd_rows(changed)]
    return replace(
        manifest,
        months=months,
        gaps=tuple(sorted([*kept, *within, *between])),
        defects=tuple(sorted(defects)),
    )


def new_defects(
    before: Manifest, after: Manifest, changed: Mapping[str, Candles]
) -> tuple[Defect, ...]:
    """The gaps and odd rows that ``after`` has and ``before`` had not, in order of time.

    What is left of a gap that was filled in part is not new.
    """
    bar = timeframe_ms(after.series.timeframe)
    gaps = [
        Defect(
            DefectKind.GAP,
            gap.end,
            f"{(gap.end - gap.start) // bar} bars missing before it, since {iso(gap.start - bar)}",
        )
        for gap in after.gaps
        if not any(old.covers(gap) for old in before.gaps)
    ]
    known = set(before.defects)
    rows = [one for one in _odd_rows(changed) if (one.kind, one.ts) not in known]
    return tuple(sorted([*gaps, *rows], key=lambda one: (one.ts, one.kind)))


def _odd_rows(changed: Mapping[str, Candles]) -> list[Defect]:
    found = (one for candles in changed.values() for one in find_defects(candles))
    return [one for one in found if one.kind is not DefectKind.GAP]


def merge(stored: Candles, new: Candles, now: int | None) -> tuple[Candles, list[Revision]]:
    """Stored rows and those of ``new`` at other opens; and where both differ at the same open."""
    at = np.searchsorted(stored.ts, new.ts)
    there = np.zeros(len(new), dtype=bool)
    inside = at < len(stored)
    there[inside] = stored.ts[at[inside]] == new.ts[inside]
    old, again = at[there], np.flatnonzero(there)
    differs = np.zeros(len(old), dtype=bool)
    for name in COLUMNS:
        differs |= getattr(stored, name)[old] != getattr(new, name)[again]
    revisions = [
        Revision(int(new.ts[j]), _values_at(stored, int(i)), _values_at(new, int(j)), now)
        for i, j in zip(old[differs], again[differs], strict=True)
    ]
    order = np.argsort(np.concatenate([stored.ts, new.ts[~there]]), kind="stable")
    columns = (
        np.concatenate([getattr(stored, name), getattr(new, name)[~there]])[order]
        for name in ("ts", *COLUMNS)
    )
    return Candles(new.symbol, new.timeframe, *columns), revisions


def _values_at(candles: Candles, row: int) -> Values:
    o, h, low, c, v = (float(getattr(candles, name)[row]) for name in COLUMNS)
    return o, h, low, c, v


def split_late(
    candles: Candles, gaps: Sequence[Gap], now: int | None
) -> tuple[Candles, list[Revision]]:
    """The candles outside ``gaps``, and a record of each of those inside."""
    inside = np.zeros(len(candles), dtype=bool)
    for gap in gaps:
        inside |= (candles.ts >= gap.start) & (candles.ts < gap.end)
    if not inside.any():
        return candles, []
    late = [
        Revision(int(candles.ts[i]), None, _values_at(candles, int(i)), now)
        for i in np.flatnonzero(inside)
    ]
    columns = (getattr(candles, name)[~inside] for name in ("ts", *COLUMNS))
    return Candles(candles.symbol, candles.timeframe, *columns), late


def render_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON for people and for ``parse_manifest``, its own hash last."""
    defects: dict[str, list[int]] = {}
    for kind, ts in manifest.defects:
        defects.setdefault(kind.value, []).append(ts)
    body = {
        "schema": SCHEMA_VERSION,
        "exchange": manifest.series.exchange,
        "symbol": manifest.series.symbol,
        "timeframe": manifest.series.timeframe,
        "sources": list(manifest.sources),
        "rows": manifest.rows,
        "first": manifest.months[0].first if manifest.months else None,
        "last": manifest.months[-1].last if manifest.months else None,
        "last_refresh": manifest.last_refresh,
        "months": {
            one.month: {key: value for key, value in asdict(one).items() if key != "month"}
            for one in manifest.months
        },
        "gaps": [[gap.start, gap.end] for gap in manifest.gaps],
        "defects": defects,
        "accepted_gaps": [asdict(one) for one in manifest.accepted],
        "revisions": [asdict(one) for one in manifest.revisions],
    }
    signed = {**body, "sha256": _content_hash(body)}
    return (json.dumps(signed, indent=1, allow_nan=False) + "\n").encode()


def parse_manifest(raw: bytes, series: Series, where: str) -> Manifest:
    """The manifest in ``raw``, which must be that of ``series``; ``where`` names it in errors.

    Raises CorruptHistory for anything but what ``render_manifest`` wrote for this series.
    """
    try:
        body: Any = json.loads(raw)
        if not isinstance(body, dict):
            raise ValueError("not an object")
        if body.pop("sha256") != _content_hash(body):
            raise ValueError("its content does not match its own hash")
    except (ValueError, KeyError, RecursionError) as err:
        raise CorruptHistory(f"the manifest cannot be trusted ({err})", field=where) from err
    if body.get("schema") != SCHEMA_VERSION:
        raise CorruptHistory(
            field=f"{where}: schema",
            value=body.get("schema"),
            expected=f"{SCHEMA_VERSION}",
            remedy="It was written by another version of Candlebook: use that one.",
        )
    try:
        found = Series(body["exchange"], body["symbol"], body["timeframe"])
        manifest = _from_body(body, found)
    except (KeyError, TypeError, ValueError) as err:
        raise CorruptHistory(f"the manifest lacks a part ({err!r})", field=where) from err
    if found != series:
        raise CorruptHistory(field=where, value=str(found), expected=f"the manifest of {series}")
    return manifest


def _from_body(body: Mapping[str, Any], series: Series) -> Manifest:
    return Manifest(
        series=series,
        sources=tuple(body["sources"]),
        months=tuple(
            sorted(
                (MonthFile(month=month, **entry) for month, entry in body["months"].items()),
                key=lambda one: one.month,
            )
        ),
        gaps=tuple(Gap(series.symbol, start, end) for start, end in body["gaps"]),
        defects=tuple(
            (DefectKind(kind), ts) for kind, moments in body["defects"].items() for ts in moments
        ),
        accepted=tuple(AcceptedGap(**one) for one in body["accepted_gaps"]),
        revisions=tuple(
            Revision(
                one["ts"],
                None if one["first_seen"] is None else _values(one["first_seen"]),
                _values(one["later"]),
                one["at"],
            )
            for one in body["revisions"]
        ),
        last_refresh=body["last_refresh"],
    )


def _values(numbers: list[float]) -> Values:
    o, h, low, c, v = (float(number) for number in numbers)
    return o, h, low, c, v


def _content_hash(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
