"""One series on disk: month files, their manifest, and the one rename that commits both.

``<folder>/<YYYY-MM>.parquet`` holds the rows whose open lies in that UTC month: ``ts`` as
``timestamp[ms, tz=UTC]``, then open, high, low, close and volume as float64, with page checksums.
``<folder>/manifest.json`` says which month files there are and the SHA-256 of each.

How a write survives a crash at any point:

1. Every changed month is written in full to a hidden file beside its place, named after its
   SHA-256, and synced to disk. Nobody reads it yet.
2. The new manifest replaces the old one by a rename. **This is the commit.**
3. The hidden files are renamed into place. If a crash comes first, readers take the hidden file,
   because its hash is the one in the manifest, and the next writer finishes the renames. Hidden
   files that no manifest names are from a write that never happened: the next writer sweeps them.

So a month file is believed only if its bytes have the hash in the manifest. There is no such thing
as a "newer" file, and rot cannot pass for one. Readers take no lock: they read the files that one
manifest names, or start again when a new manifest has come meanwhile.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from research.candles import COLUMNS, HARMLESS, Candles, DefectKind, find_defects, find_gaps
from research.durable import sync_folder
from research.errors import Busy, CandlesRejected, CorruptHistory
from research.history_manifest import (
    Manifest,
    MonthFile,
    Series,
    month_of,
    parse_manifest,
    render_manifest,
)

__all__ = [
    "LAST_TS",
    "Problem",
    "commit",
    "consistently",
    "find_problems",
    "finish_commit",
    "join_candles",
    "load_manifest",
    "month_files",
    "read_month",
    "require_listed_files",
    "split_months",
    "stage_month",
    "writing",
]

MANIFEST = "manifest.json"
LOCK = ".lock"
LOCK_SECONDS = 60.0
# A reader starts again only when a writer committed meanwhile, so more than a few tries in a row
# would take a writer that commits faster than files can be read.
READ_TRIES = 20

GONE = "the file is gone, and the manifest names it"
UNNAMED = "the manifest does not name this file"

LAST_TS = 4_102_444_800_000  # 2100: beyond it a stamp is in microseconds or nonsense

_SCHEMA = pa.schema(
    [("ts", pa.timestamp("ms", tz="UTC")), *((name, pa.float64()) for name in COLUMNS)]
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a stored series: the file in its folder, and what is wrong."""

    series: Series
    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.series}/{self.file}: {self.what}"


def split_months(candles: Candles) -> Iterator[tuple[str, Candles]]:
    """Sorted candles by UTC month. Raises CandlesRejected for a time outside 1970 to 2100."""
    if not len(candles):
        return
    if candles.ts[0] < 0 or candles.ts[-1] >= LAST_TS:
        wrong = candles.ts[0] if candles.ts[0] < 0 else candles.ts[-1]
        raise CandlesRejected(
            field=f"{candles.symbol} {candles.timeframe}: ts",
            value=int(wrong),
            expected="milliseconds since 1970, before 2100",
        )
    months = candles.ts.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
    cuts = [0, *(np.flatnonzero(np.diff(months)) + 1).tolist(), len(candles)]
    for first, stop in pairwise(cuts):
        yield month_of(int(candles.ts[first])), candles.rows(first, stop)


def join_candles(series: Series, parts: list[Candles]) -> Candles:
    """The rows of ``parts`` one after the other; none at all is an empty series."""
    if not parts:
        nothing = np.empty(0)
        ts = np.empty(0, np.int64)
        return Candles(series.symbol, series.timeframe, ts, *(nothing for _ in COLUMNS))
    return Candles(
        series.symbol,
        series.timeframe,
        np.concatenate([part.ts for part in parts]),
        *(np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS),
    )


# Reading


def load_manifest(folder: Path, series: Series) -> Manifest | None:
    """The committed manifest, or None where there is none. Raises CorruptHistory."""
    try:
        raw = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as err:
        raise _corrupt(series, MANIFEST, f"it cannot be read ({err.strerror})") from err
    try:
        return parse_manifest(raw, series, f"{series}/{MANIFEST}")
    except CorruptHistory as err:
        if err.remedy is not None:
            raise
        raise CorruptHistory(str(err), remedy=_remedy(series)) from err


def consistently(folder: Path, series: Series, look: Callable[[Manifest | None], _T]) -> _T:
    """What ``look`` finds under one committed manifest, without a lock.

    A writer may replace files between the look at the manifest and the look at them: then the
    finding is of no manifest, and we look again. Raises what ``look`` raises once the manifest
    stood still.
    """
    for _ in range(READ_TRIES):
        before = load_manifest(folder, series)
        failure: CorruptHistory | None = None
        try:
            found = look(before)
        except CorruptHistory as err:
            failure = err
        if failure is None:
            return found
        if load_manifest(folder, series) == before:
            raise failure
    raise Busy(
        f"the series was rewritten {READ_TRIES} times while it was read",
        field=str(series),
        remedy="Stop whatever writes it without pause, then try again.",
    )


def month_files(folder: Path) -> set[str]:
    """The months for which there is a file in place."""
    if not folder.is_dir():
        return set()
    # Any Parquet file in sight counts: one under a strange name is unexpected, not invisible.
    return {path.stem for path in folder.iterdir() if re.fullmatch(r"[^.].*\.parquet", path.name)}


def require_listed_files(folder: Path, series: Series, manifest: Manifest | None) -> None:
    """The month files are those of the manifest, no fewer and no more, else CorruptHistory."""
    listed = {one.month: one for one in manifest.months} if manifest else {}
    there = month_files(folder)
    for month in sorted(there - set(listed)):
        raise _corrupt(series, f"{month}.parquet", UNNAMED)
    for month in sorted(set(listed) - there):
        if not any(path.exists() for path in _places(folder, listed[month])):
            raise _corrupt(series, f"{month}.parquet", GONE)


def read_month(folder: Path, series: Series, entry: MonthFile) -> Candles:
    """One month's rows, after its SHA-256 and its page checksums. Raises CorruptHistory."""
    name, wrong = f"{entry.month}.parquet", GONE
    for path in _places(folder, entry):
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as err:
            raise _corrupt(series, name, f"it cannot be read ({err.strerror})") from err
        if hashlib.sha256(raw).hexdigest() == entry.sha256:
            return _decode_month(raw, series, name)
        wrong = f"its SHA-256 is not the one in {MANIFEST}: bytes have changed since it was written"
    raise _corrupt(series, name, wrong)


def _places(folder: Path, entry: MonthFile) -> tuple[Path, Path, Path]:
    # In place, else still hidden; and again in place, for a writer that finishes in between.
    final, hidden = folder / f"{entry.month}.parquet", folder / _hidden_name(entry)
    return final, hidden, final


def _decode_month(raw: bytes, series: Series, name: str) -> Candles:
    try:
        file = pq.ParquetFile(pa.BufferReader(raw), page_checksum_verification=True)
        table = file.read(use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as err:
        raise _corrupt(series, name, f"it is not a sound Parquet file ({err})") from err
    if not table.schema.equals(_SCHEMA) or any(column.null_count for column in table.columns):
        raise _corrupt(
            series, name, f"its columns are {table.schema.names}, or some value is absent"
        )
    ts = table["ts"].cast(pa.int64()).to_numpy()
    columns = (table[column].to_numpy() for column in COLUMNS)
    return Candles(series.symbol, series.timeframe, ts, *columns)


def _corrupt(series: Series, name: str, what: str) -> CorruptHistory:
    return CorruptHistory(what, field=f"{series}/{name}", remedy=_remedy(series))


def _remedy(series: Series) -> str:
    return (
        f"Restore it from a backup, or move the folder {series} away and fill the series again: "
        f"{series.fetch_command}"
    )


def find_problems(folder: Path, series: Series) -> list[Problem]:
    """Everything that is wrong with the series; empty is sound. Reads every file. Raises Busy."""

    def look(manifest: Manifest | None) -> list[Problem]:
        found = list(_problems(folder, series, manifest))
        # Only a finding under a manifest that stood still counts; see ``consistently``.
        if found and load_manifest(folder, series) != manifest:
            raise CorruptHistory(str(found[0]))
        return found

    try:
        return consistently(folder, series, look)
    except CorruptHistory as err:
        return [_problem(series, MANIFEST, err)]


def _problems(folder: Path, series: Series, manifest: Manifest | None) -> Iterator[Problem]:
    # A file that is gone is found below, where its rows are wanted.
    listed = {one.month for one in manifest.months} if manifest else set()
    for month in sorted(month_files(folder) - listed):
        yield Problem(series, f"{month}.parquet", UNNAMED)
    parts = []
    for entry in manifest.months if manifest else ():
        name = f"{entry.month}.parquet"
        try:
            candles = read_month(folder, series, entry)
        except CorruptHistory as err:
            yield _problem(series, name, err)
            continue
        parts.append(candles)
        stated = (entry.month, entry.month, entry.rows, entry.first, entry.last)
        first, last = int(candles.ts[0]), int(candles.ts[-1])
        if (month_of(first), month_of(last), len(candles), first, last) != stated:
            yield Problem(series, name, f"its rows are not the {entry.rows} that the manifest has")
        for defect in find_defects(candles):
            if defect.kind not in HARMLESS and defect.kind is not DefectKind.GAP:
                yield Problem(series, name, str(defect))
    if manifest and len(parts) == len(manifest.months):
        rows = join_candles(series, parts)
        odd = tuple((one.kind, one.ts) for one in find_defects(rows) if one.kind in HARMLESS)
        if tuple(find_gaps(rows)) != manifest.gaps or odd != manifest.defects:
            yield Problem(series, MANIFEST, "its gaps or defects are not those of the rows")


def _problem(series: Series, file: str, err: CorruptHistory) -> Problem:
    return Problem(series, file, str(err).removeprefix(f"{series}/{file}: "))


# Writing


@contextmanager
def writing(folder: Path, series: Series) -> Iterator[Manifest]:
    """Hold the series' lock; yields its manifest after finishing or sweeping an earlier write.

    Raises Busy when another process keeps the lock, CorruptHistory when the files are not those
    of the manifest.
    """
    _make_folder(folder)
    try:
        with FileLock(folder / LOCK).acquire(timeout=LOCK_SECONDS, poll_interval=0.01):
            committed = load_manifest(folder, series)
            finish_commit(folder, committed)
            require_listed_files(folder, series, committed)
            yield committed or Manifest(series)
    except Timeout as err:
        raise Busy(
            f"another process has been writing for {LOCK_SECONDS:.0f} s",
            field=str(series),
            remedy="Wait for the other import or fetch to end, then try again.",
        ) from err


def stage_month(folder: Path, candles: Candles) -> MonthFile:
    """Write one month's rows to its hidden file and sync it; the entry for the manifest."""
    columns = [pa.array(getattr(candles, name)) for name in COLUMNS]
    ts = pa.array(candles.ts).cast(_SCHEMA.field("ts").type)
    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_arrays([ts, *columns], schema=_SCHEMA),
        sink,
        compression="zstd",
        use_dictionary=False,
        write_page_checksum=True,
    )
    raw = sink.getvalue()
    first, last = int(candles.ts[0]), int(candles.ts[-1])
    sha256 = hashlib.sha256(raw).hexdigest()
    entry = MonthFile(month_of(first), len(candles), first, last, sha256)
    _write_synced(folder / _hidden_name(entry), raw)
    return entry


def commit(folder: Path, manifest: Manifest) -> None:
    """Make ``manifest`` the series' truth, then put the staged months in place. Needs the lock."""
    temporary = folder / f".{MANIFEST}.tmp"
    _write_synced(temporary, render_manifest(manifest))
    sync_folder(folder)  # the hidden files must be found before a manifest may name them
    temporary.replace(folder / MANIFEST)
    sync_folder(folder)
    finish_commit(folder, manifest)


def finish_commit(folder: Path, manifest: Manifest | None) -> None:
    """Put staged months of the committed manifest in place; sweep every other temporary."""
    staged = {_hidden_name(one): one for one in manifest.months} if manifest else {}
    leftovers = [path for path in folder.iterdir() if re.fullmatch(r"\..+\.tmp", path.name)]
    for path in leftovers:
        if path.name in staged:
            path.replace(folder / f"{staged[path.name].month}.parquet")
        else:
            path.unlink()
    if leftovers:
        sync_folder(folder)


def _hidden_name(entry: MonthFile) -> str:
    return f".{entry.month}.{entry.sha256[:32]}.tmp"


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        if folder.parent != folder:
            _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def _write_synced(path: Path, raw: bytes) -> None:
    with path.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
