"""The Parquet store of candles: append, read by range, accept gaps by name, take stock, verify.

A series is one (exchange, symbol, timeframe) under ``<root>/<exchange>/<symbol>/<timeframe>/``.
Times are UTC milliseconds, ranges ``[start, end)``, prices and volumes as in ``candles``.

What it keeps: rows are sorted, unique, closed and sound (gaps and candles without trades are true
and stay, counted in the manifest); a row that came first stays, whatever comes later for the same
open, and a bar that was accepted as missing stays missing; nothing is filled, mended or dropped; a
read is of one committed state, verified byte for byte, or an error. How that survives crashes is
told in ``history_files``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pandas as pd

from research.candles import (
    Candles,
    CandleSet,
    Defect,
    DefectKind,
    Gap,
    iso,
    not_covered,
    require_sound,
    timeframe_ms,
    utc_ms,
)
from research.errors import HistoryMissing, InputError
from research.history_files import (
    Problem,
    commit,
    consistently,
    find_problems,
    join_candles,
    load_manifest,
    month_files,
    read_month,
    require_listed_files,
    split_months,
    stage_month,
    writing,
)
from research.history_manifest import (
    AcceptedGap,
    Manifest,
    MonthFile,
    Revision,
    Series,
    merge,
    new_defects,
    split_late,
    with_months,
)

__all__ = ["AppendReport", "History", "Problem", "Series", "SeriesInfo"]

Moment = str | int | datetime | pd.Timestamp


@dataclass(frozen=True, slots=True)
class AppendReport:
    """What an append did. Every row given is one of: added, already there, revised, kept out.

    ``revisions`` are the candles that came with other values than the stored ones, ``kept_out``
    those that came for a bar which was accepted as missing. What is on record already counts as
    already there. ``defects`` are those that the stored
    series did not have before: gaps, and candles without trades.
    """

    series: Series
    rows_added: int = 0
    already_there: int = 0
    revisions: tuple[Revision, ...] = ()
    defects: tuple[Defect, ...] = ()
    kept_out: tuple[Revision, ...] = ()

    def __str__(self) -> str:
        late = f", {len(self.kept_out)} kept out of accepted gaps" if self.kept_out else ""
        return (
            f"{self.series}: {self.rows_added:,} rows added, {self.already_there:,} already "
            f"there, {len(self.revisions)} revised{late}, {len(self.defects)} new defects"
        )


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """One line of the inventory: how much there is, from the first open to the last, how sound.

    ``gaps`` are those that nobody has accepted; ``defects`` counts every kind, a gap once;
    ``kept_out`` counts the candles that came after their bar was accepted as missing.
    """

    series: Series
    rows: int
    first: int
    last: int
    gaps: tuple[Gap, ...]
    accepted_gaps: tuple[Gap, ...]
    defects: dict[DefectKind, int]
    revisions: int
    kept_out: int
    size_bytes: int
    sources: tuple[str, ...]
    last_refresh: int | None


@dataclass(frozen=True)
class History:
    """The store under ``root`` (usually ``data/history``). Reading takes no lock; writing does."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    def folder(self, series: Series) -> Path:
        """Where the series' month files and manifest lie."""
        return self.root / series.exchange / series.symbol / series.timeframe

    # Reading

    def read(
        self,
        exchange: str,
        symbol: str,
        timeframe: str,
        start: int | None = None,
        end: int | None = None,
    ) -> Candles:
        """The stored candles whose open lies in ``[start, end)``; None is unbounded.

        Raises HistoryMissing where nothing is stored for the series or the range, CorruptHistory
        where a file is gone, unexpected, or not what was written.
        """
        return self._read(Series(exchange, symbol, timeframe), start, end)[1]

    def load(
        self,
        symbols: Sequence[str],
        timeframe: str,
        start: Moment | None = None,
        end: Moment | None = None,
        exchange: str = "binance",
    ) -> CandleSet:
        """Several symbols' candles, in the order given, with the gaps that are accepted by name.

        ``start`` and ``end`` may also be dates such as ``"2024"``. Raises as ``read`` does.
        """
        if isinstance(symbols, str):
            raise InputError(field="symbols", value=symbols, expected="a list of symbols")
        first = None if start is None else utc_ms(start)
        stop = None if end is None else utc_ms(end)
        read = [self._read(Series(exchange, one, timeframe), first, stop) for one in symbols]
        gaps = tuple(gap for manifest, _ in read for gap in manifest.accepted_gaps())
        sources = dict.fromkeys(source for manifest, _ in read for source in manifest.sources)
        return CandleSet(tuple(candles for _, candles in read), gaps, ", ".join(sources), exchange)

    def manifest(self, exchange: str, symbol: str, timeframe: str) -> Manifest:
        """What is on record about a series. Raises HistoryMissing, CorruptHistory."""
        series = Series(exchange, symbol, timeframe)
        return _require_stored(load_manifest(self.folder(series), series), series)

    def _read(self, series: Series, start: int | None, end: int | None) -> tuple[Manifest, Candles]:
        folder = self.folder(series)

        def look(committed: Manifest | None) -> tuple[Manifest, Candles]:
            require_listed_files(folder, series, committed)
            manifest = _require_stored(committed, series)
            wanted = [one for one in manifest.months if _overlaps(one, start, end)]
            months = [read_month(folder, series, one) for one in wanted]
            return manifest, join_candles(series, months).between(start, end)

        manifest, candles = consistently(folder, series, look)
        if not len(candles):
            stored = f"{iso(manifest.months[0].first)} .. {iso(manifest.months[-1].last)}"
            raise HistoryMissing(
                f"no candle between {_shown(start)} and {_shown(end)}; stored is {stored}",
                field=str(series),
                remedy=f"Choose another range, or: {series.fetch_command}",
            )
        return manifest, candles

    # Writing

    def append(
        self, exchange: str, candles: Candles, source: str, now: int | None = None
    ) -> AppendReport:
        """Store sorted, sound candles of one series, newer, older or in between; all or nothing.

        With ``now`` (milliseconds) a candle that has not closed by then is refused. The same row
        again changes nothing; other values for a stored open are recorded as a revision and the
        first-seen row stays. So does an accepted gap: runs have been decided without its bars, so
        a candle that comes for one is recorded and kept out. Raises CandlesRejected,
        CorruptHistory, Busy; nothing is written then.
        """
        series = Series(exchange, candles.symbol, candles.timeframe)
        now = None if now is None else utc_ms(now)
        require_sound(candles, now)
        if not list(split_months(candles)):  # which also refuses impossible times
            return AppendReport(series)
        folder = self.folder(series)
        with writing(folder, series) as before:
            wanted, late = split_late(candles, before.accepted_gaps(), now)
            entries = {one.month: one for one in before.months}
            changed: dict[str, Candles] = {}
            restated = late
            for month, new in split_months(wanted):
                entry = entries.get(month)
                stored = read_month(folder, series, entry) if entry else new.rows(0, 0)
                merged, others = merge(stored, new, now)
                restated += others
                if len(merged) > len(stored):
                    changed[month] = merged
            known = {(one.ts, one.later) for one in before.revisions}
            revisions = [one for one in restated if (one.ts, one.later) not in known]
            for month, merged in changed.items():
                entries[month] = stage_month(folder, merged)
            after = replace(
                with_months(before, entries, changed),
                sources=_with_source(before.sources, source, bool(changed or revisions)),
                revisions=tuple(sorted((*before.revisions, *revisions), key=lambda one: one.ts)),
                last_refresh=_latest(before.last_refresh, now),
            )
            if after != before:
                commit(folder, after)
        added = after.rows - before.rows
        kept_out = tuple(one for one in revisions if one.first_seen is None)
        return AppendReport(
            series,
            rows_added=added,
            already_there=len(candles) - added - len(revisions),
            revisions=tuple(one for one in revisions if one.first_seen is not None),
            defects=new_defects(before, after, changed),
            kept_out=kept_out,
        )

    def accept_gap(
        self,
        exchange: str,
        symbol: str,
        timeframe: str,
        start: int,
        end: int,
        name: str,
        who: str,
        why: str,
        at: int | None = None,
    ) -> Gap:
        """Accept by name that the bars from ``start`` up to ``end`` are missing; returns the gap.

        Exactly such a run must be missing, so that nobody accepts more than they looked at. The
        same acceptance again changes nothing. ``at`` is the time of the decision, by the wall
        clock unless given. Raises InputError, HistoryMissing, CorruptHistory, Busy.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
            raise InputError(
                field="name", value=name, expected="lower case letters, digits and underscores"
            )
        for field, text in (("who", who), ("why", why)):
            if not text.strip():
                raise InputError(field=field, value=text, expected="some words")
        self.manifest(exchange, symbol, timeframe)
        series, gap = Series(exchange, symbol, timeframe), Gap(symbol, start, end, name)
        with writing(self.folder(series), series) as before:
            if gap in before.accepted_gaps():
                return gap
            _require_open_gap(before, gap)
            moment = time.time_ns() // 1_000_000 if at is None else at
            accepted = (*before.accepted, AcceptedGap(start, end, name, who, why, moment))
            ordered = tuple(sorted(accepted, key=lambda one: (one.start, one.end)))
            commit(self.folder(series), replace(before, accepted=ordered))
        return gap

    # Taking stock

    def series(self) -> list[Series]:
        """Every series with a folder that holds a manifest or a month file, sorted."""
        found = []
        for folder in sorted(self.root.glob("*/*/*/")):
            try:
                one = Series(*folder.relative_to(self.root).parts)
            except InputError:
                continue  # somebody's own folder: no series can have that name
            if (folder / "manifest.json").exists() or month_files(folder):
                found.append(one)
        return found

    def inventory(self) -> list[SeriesInfo]:
        """One entry for each stored series, from the manifests alone. Raises CorruptHistory."""
        return [self._info(one) for one in self.series()]

    def _info(self, series: Series) -> SeriesInfo:
        manifest = self.manifest(series.exchange, series.symbol, series.timeframe)
        folder = self.folder(series)
        return SeriesInfo(
            series=series,
            rows=manifest.rows,
            first=manifest.months[0].first,
            last=manifest.months[-1].last,
            gaps=manifest.open_gaps(),
            accepted_gaps=manifest.accepted_gaps(),
            defects=manifest.defect_counts(),
            revisions=sum(one.first_seen is not None for one in manifest.revisions),
            kept_out=sum(one.first_seen is None for one in manifest.revisions),
            size_bytes=sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
            sources=manifest.sources,
            last_refresh=manifest.last_refresh,
        )

    def verify(
        self, exchange: str | None = None, symbol: str | None = None, timeframe: str | None = None
    ) -> list[Problem]:
        """Every problem of the series chosen (None is any); an empty list is a sound store.

        Reads every file: SHA-256, page checksums, rows against the manifest, and soundness.
        """
        asked = (("exchange", exchange), ("symbol", symbol), ("timeframe", timeframe))
        wanted = {part: value for part, value in asked if value is not None}
        chosen = [
            one
            for one in self.series()
            if all(getattr(one, part) == value for part, value in wanted.items())
        ]
        if wanted and not chosen:
            raise HistoryMissing(
                "nothing is stored of it",
                field=" ".join(wanted.values()),
                remedy="candlebook history show lists what is stored.",
            )
        return [problem for one in chosen for problem in find_problems(self.folder(one), one)]


def _with_source(sources: tuple[str, ...], source: str, used: bool) -> tuple[str, ...]:
    return (*sources, source) if used and source not in sources else sources


def _latest(before: int | None, now: int | None) -> int | None:
    return max((one for one in (before, now) if one is not None), default=None)


def _overlaps(month: MonthFile, start: int | None, end: int | None) -> bool:
    return (start is None or month.last >= start) and (end is None or month.first < end)


def _require_stored(manifest: Manifest | None, series: Series) -> Manifest:
    if manifest is None:
        raise HistoryMissing(
            "nothing is stored of this series",
            field=str(series),
            remedy=f"{series.fetch_command}, or, from files: candlebook history import PATH",
        )
    return manifest


def _require_open_gap(manifest: Manifest, gap: Gap) -> None:
    runs = (*manifest.gaps, *manifest.open_gaps())
    if not any((one.start, one.end) == (gap.start, gap.end) for one in runs):
        missing = ", ".join(str(one) for one in manifest.gaps[:10]) or "none"
        raise InputError(
            field=f"{manifest.series} gap",
            value=f"{iso(gap.start)} .. {iso(gap.end)}",
            expected=f"exactly a run of missing bars (there are: {missing})",
        )
    known = manifest.accepted_gaps()
    if not not_covered(gap, known, timeframe_ms(manifest.series.timeframe)):
        there = ", ".join(str(one) for one in known)
        raise InputError(
            field=f"{manifest.series} gap", value=str(gap), expected=f"a gap other than {there}"
        )


def _shown(moment: int | None) -> str:
    return "any time" if moment is None else iso(moment)
