"""Candles from other people's files into the store: Parquet, and Binance's public archive.

Two formats. **Parquet** (``.parquet``): ``ts`` as a timestamp (UTC where it has no zone) and
``open high low close volume`` as numbers; more columns are left out. **Binance archive**
(``.csv``, or ``.zip`` of one): 12 columns, with or without a header row, times in milliseconds or,
as since 2025, in microseconds. Every value is checked before anything is stored, and an error
names the file and the row (counted from 1, a header row included) or column.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from research.candles import (
    COLUMNS,
    HARMLESS,
    TIMEFRAMES,
    Candles,
    DefectKind,
    find_defects,
    timeframe_ms,
)
from research.errors import CandlesRejected, InputError, UnknownNameError
from research.history import AppendReport, History
from research.history_manifest import Series

__all__ = ["CSV_COLUMNS", "import_file", "import_folder"]

CSV_COLUMNS = (
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume",
    "count", "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip

# As milliseconds this is the year 5138, as microseconds 1973: no candle is near either.
FIRST_MICROSECONDS = 10**14
# Before the first bitcoin block of 2009 there is no candle: such a stamp is in seconds.
FIRST_TS = 1_230_768_000_000

# One month of minutes is about 6 MB unpacked; more than this is not an archive file.
MAX_UNPACKED_BYTES = 1 << 30

# Binance itself served some of its candles off the grid after the outage of 2018-02-08.
_REMEDIES = {
    DefectKind.OFF_GRID: "If the timeframe is the right one, start after this candle: Binance "
    "stamped some so after an outage (February 2018), and they are not stored."
}

Progress = Callable[[int, int, AppendReport], None]


def import_file(
    history: History,
    path: str | Path,
    symbol: str | None = None,
    timeframe: str | None = None,
    exchange: str = "binance",
    source: str | None = None,
    now: int | None = None,
) -> AppendReport:
    """Append one file's candles; all of them or, if any is unsound, none.

    ``symbol`` and ``timeframe`` are taken from names like ``BTCUSDT-1m-2024-12-31.csv`` or
    ``BTCUSDT/1h.parquet`` unless given; ``source`` is the exchange unless given. With ``now``
    (milliseconds) a candle that had not closed by then is refused. Raises InputError for a path or
    name that will not do, CandlesRejected for the content, and what ``History.append`` raises.
    """
    path = Path(path)
    guessed_symbol, guessed_timeframe = _names_in(path)
    series = Series(
        exchange,
        _require_named(path, "symbol", symbol or guessed_symbol),
        _require_named(path, "timeframe", timeframe or guessed_timeframe),
    )
    candles, first_row = _read_candles(path, series)
    _require_sound_rows(path, candles, first_row, now)
    return history.append(exchange, candles, source or exchange, now)


def import_folder(
    history: History,
    folder: str | Path,
    symbols: Collection[str] | None = None,
    timeframes: Collection[str] | None = None,
    on_progress: Progress | None = None,
) -> list[AppendReport]:
    """Import a tree laid out as ``<exchange>/<symbol>/<timeframe>.parquet``, in order of name.

    ``symbols`` and ``timeframes`` choose among the files; ``on_progress`` is told how many of how
    many files are done, and the last one's report. Each file is imported whole or not at all; the
    first that fails raises, and those before it stay (importing them again changes nothing).
    """
    folder = Path(folder)
    found = [(_series_at(path), path) for path in sorted(folder.glob("*/*/*.parquet"))]
    if not found:
        raise InputError(
            field=str(folder),
            value="no such file in it" if folder.is_dir() else "no such folder",
            expected="files like binance/BTCUSDT/1h.parquet",
        )
    _require_present("symbols", symbols, {one.symbol for one, _ in found})
    _require_present("timeframes", timeframes, {one.timeframe for one, _ in found})
    chosen = [
        (one, path)
        for one, path in found
        if one.symbol in (symbols or (one.symbol,))
        and one.timeframe in (timeframes or (one.timeframe,))
    ]
    reports = []
    for done, (one, path) in enumerate(chosen, start=1):
        report = import_file(history, path, one.symbol, one.timeframe, one.exchange)
        reports.append(report)
        if on_progress is not None:
            on_progress(done, len(chosen), report)
    return reports


# Names


def _series_at(path: Path) -> Series:
    return Series(path.parts[-3], path.parts[-2], path.stem)


def _names_in(path: Path) -> tuple[str | None, str | None]:
    named = re.match(r"([A-Z0-9]{2,20})-(\d+[mhd])(?=-|$)", path.stem)
    if named:
        return named[1], named[2]
    parent = path.parent.name
    symbol = parent if re.fullmatch(r"[A-Z0-9]{2,20}", parent) else None
    return symbol, path.stem if path.stem in TIMEFRAMES else None


def _require_named(path: Path, field: str, name: str | None) -> str:
    if name is None:
        raise InputError(
            field=path.name,
            value=path.name,
            expected=f"a name that tells the {field}, such as BTCUSDT-1m-2024-12-31.csv "
            f"or BTCUSDT/1h.parquet",
            remedy=f"Or give the {field}.",
        )
    return name


def _require_present(field: str, wanted: Collection[str] | None, found: set[str]) -> None:
    for name in wanted or ():
        if name not in found:
            raise UnknownNameError(
                field=field, value=name, expected=f"one of {', '.join(sorted(found))}"
            )


# Formats


def _read_candles(path: Path, series: Series) -> tuple[Candles, int]:
    """The file's rows as they stand, and the number of the first one as a person counts."""
    readers = {".parquet": _from_parquet, ".csv": _from_csv, ".zip": _from_zip}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            field=path.name,
            value=path.suffix,
            expected=f"a file ending in {', '.join(readers)}",
        )
    try:
        raw = path.read_bytes()
    except OSError as err:
        raise InputError(
            field=str(path), value=err.strerror, expected="a file that can be read"
        ) from err
    return reader(raw, path, series)


def _from_parquet(raw: bytes, path: Path, series: Series) -> tuple[Candles, int]:
    wanted = ("ts", *COLUMNS)
    try:
        file = pq.ParquetFile(pa.BufferReader(raw), page_checksum_verification=True)
        names = file.schema_arrow.names
        if missing := [name for name in wanted if name not in names]:
            raise _rejected(path, f"column {missing[0]}", names, f"columns {', '.join(wanted)}")
        table = file.read(columns=list(wanted))
    except (pa.ArrowException, OSError, ValueError) as err:
        raise _unreadable(path, "Parquet", err) from err
    columns: dict[str, npt.NDArray[np.float64]] = {}
    for name in wanted:
        _require_no_null(path, table[name], name, first_row=1)
    for name in COLUMNS:
        kind = table[name].type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise _rejected(path, f"column {name}", str(kind), "numbers")
        columns[name] = table[name].cast(pa.float64()).to_numpy()
    if not pa.types.is_timestamp(table["ts"].type):
        raise _rejected(path, "column ts", str(table["ts"].type), "timestamps")
    try:
        ts = table["ts"].cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64()).to_numpy()
    except pa.ArrowException as err:
        raise _rejected(path, "column ts", str(err), "whole milliseconds") from err
    _require_plausible_times(path, ts, first_row=1)
    return Candles(series.symbol, series.timeframe, ts, **columns), 1


def _from_zip(raw: bytes, path: Path, series: Series) -> tuple[Candles, int]:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = archive.infolist()
            if len(members) != 1 or not members[0].filename.lower().endswith(".csv"):
                names = [one.filename for one in members]
                raise _rejected(path, "content", names, "one .csv file")
            if members[0].file_size > MAX_UNPACKED_BYTES:
                size = members[0].file_size
                raise _rejected(path, "size", size, f"at most {MAX_UNPACKED_BYTES} bytes unpacked")
            text = archive.read(members[0])  # checks the member's CRC-32
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as err:
        raise _unreadable(path, "zip", err) from err
    return _from_csv(text, path, series)


def _from_csv(raw: bytes, path: Path, series: Series) -> tuple[Candles, int]:
    has_header = not raw.lstrip(b"\xef\xbb\xbf")[:1].isdigit()
    first_row = 2 if has_header else 1
    if has_header:
        head = raw.split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip().lower().split(",")
        if tuple(head[:7]) != CSV_COLUMNS[:7]:
            raise _rejected(path, "row 1", ",".join(head), f"numbers, or {','.join(CSV_COLUMNS)}")
    whole, text = pa.int64(), pa.string()
    kinds = {name: pa.float64() for name in COLUMNS} | {"open_time": whole, "close_time": whole}
    try:
        table = pacsv.read_csv(
            io.BytesIO(raw),
            read_options=pacsv.ReadOptions(
                column_names=CSV_COLUMNS, skip_rows=first_row - 1, use_threads=False
            ),
            convert_options=pacsv.ConvertOptions(
                column_types={name: kinds.get(name, text) for name in CSV_COLUMNS},
                include_columns=list(kinds),
                null_values=[""],  # "nan" is a value that is wrong, not one that is absent
            ),
        )
    except (pa.ArrowException, OSError, ValueError) as err:
        # Arrow counts columns from 0 and knows no names here.
        said = re.sub(
            r"column #(\d+)", lambda found: f"column {CSV_COLUMNS[int(found[1])]}", str(err)
        )
        raise _unreadable(path, "12-column CSV", said) from err
    for name in kinds:
        _require_no_null(path, table[name], name, first_row)
    opens = _milliseconds(path, table["open_time"].to_numpy(), "open_time", first_row)
    closes = _milliseconds(path, table["close_time"].to_numpy(), "close_time", first_row)
    _require_plausible_times(path, opens, first_row)
    # An outage cuts a candle's close short, but no candle closes after its timeframe.
    bar = timeframe_ms(series.timeframe)
    row = _first((closes < opens) | (closes >= opens + bar))
    if row is not None:
        raise _rejected(
            path,
            f"row {row + first_row}, close_time",
            int(closes[row]),
            f"a close within {series.timeframe} of the open {opens[row]}",
        )
    columns = {name: table[name].to_numpy() for name in COLUMNS}
    return Candles(series.symbol, series.timeframe, opens, **columns), first_row


def _milliseconds(
    path: Path, stamps: npt.NDArray[np.int64], column: str, first_row: int
) -> npt.NDArray[np.int64]:
    micro = stamps >= FIRST_MICROSECONDS
    # A close is the last microsecond of its candle; an open is a round number or is wrong.
    row = _first(micro & (stamps % 1000 != 0)) if column == "open_time" else None
    if row is not None:
        where, stamp = f"row {row + first_row}, {column}", int(stamps[row])
        raise _rejected(path, where, stamp, "whole milliseconds")
    return np.where(micro, stamps // 1000, stamps)


# Checks


def _first(bad: npt.NDArray[np.bool_]) -> int | None:
    rows = np.flatnonzero(bad)
    return int(rows[0]) if len(rows) else None


def _require_no_null(path: Path, column: pa.ChunkedArray, name: str, first_row: int) -> None:
    row = _first(column.is_null().to_numpy()) if column.null_count else None
    if row is not None:
        raise _rejected(path, f"row {row + first_row}, {name}", None, "a value")


def _require_plausible_times(path: Path, ts: npt.NDArray[np.int64], first_row: int) -> None:
    row = _first((ts < FIRST_TS) | (ts >= FIRST_MICROSECONDS))
    if row is not None:
        raise _rejected(
            path,
            f"row {row + first_row}, time",
            int(ts[row]),
            "a time after 2009, in milliseconds or microseconds since 1970",
        )


def _require_sound_rows(path: Path, candles: Candles, first_row: int, now: int | None) -> None:
    """Raises CandlesRejected naming the file and row; ``append`` would name the series alone."""
    if not len(candles):
        raise _rejected(path, "rows", 0, "at least one candle")
    for defect in find_defects(candles, now):
        if defect.kind not in HARMLESS and defect.kind is not DefectKind.GAP:
            row = int(np.flatnonzero(candles.ts == defect.ts)[-1]) + first_row
            raise CandlesRejected(
                str(defect), field=f"{path.name}: row {row}", remedy=_REMEDIES.get(defect.kind)
            )
    steps = np.diff(candles.ts)
    if len(steps) > 1 and steps.min() > candles.bar_ms:
        apart = f"one of {int(steps.min())} ms, since no two rows are nearer"
        raise _rejected(path, "timeframe", candles.timeframe, apart)


def _rejected(path: Path, where: str, value: object, expected: str) -> CandlesRejected:
    return CandlesRejected(field=f"{path.name}: {where}", value=value, expected=expected)


def _unreadable(path: Path, format_name: str, err: object) -> CandlesRejected:
    return CandlesRejected(
        f"it is not a sound {format_name} file ({err})",
        field=path.name,
        remedy="Get the file again, or check what wrote it.",
    )
