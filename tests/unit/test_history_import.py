"""Files of others: what is sound goes in whole, what is not is named with its row and column."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from research.candles import Candles, DefectKind, utc_ms
from research.errors import (
    CandlesRejected,
    InputError,
    SettingsError,
    UnknownNameError,
)
from research.history import AppendReport, History
from research.history_import import CSV_COLUMNS, import_file, import_folder
from research.known_gaps import KnownGap, accept_known_gaps, load_known_gaps

MINUTE = 60_000
NEW_YEAR = utc_ms("2025-01-01")
ROOT = Path(__file__).resolve().parents[2]

# The archive's own words: two candles of 2024 in milliseconds and two of 2025 in microseconds.
IN_MILLISECONDS = """\
1735689480000,93610.10,93616.05,93600.01,93600.01,5.5,1735689539999,514000.1,900,2.1,196000.0,0
1735689540000,93600.01,93616.05,93576.00,93576.00,5.25,1735689599999,491000.2,1062,3.25,304000.5,0
"""
IN_MICROSECONDS = """\
1735689600000000,93576.00,93610.93,93537.50,93610.93,8.25,1735689659999999,772000.2,2631,4.0,374000.3,0
1735689660000000,93610.93,93652.00,93606.20,93652.00,12.5,1735689719999999,1170000.5,2570,4.0,374000.7,0
"""
HEADER = ",".join(CSV_COLUMNS) + "\n"
VALUES = {
    "ts": [NEW_YEAR - 2 * MINUTE, NEW_YEAR - MINUTE, NEW_YEAR, NEW_YEAR + MINUTE],
    "open": [93610.10, 93600.01, 93576.00, 93610.93],
    "high": [93616.05, 93616.05, 93610.93, 93652.00],
    "low": [93600.01, 93576.00, 93537.50, 93606.20],
    "close": [93600.01, 93576.00, 93610.93, 93652.00],
    "volume": [5.5, 5.25, 8.25, 12.5],
}
FOUR = Candles("BTCUSDT", "1m", *(np.array(column) for column in VALUES.values()))


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


def file_of(folder: Path, text: str, name: str = "BTCUSDT-1m-2024-12-31.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("header", ["", HEADER, "\ufeff" + HEADER, HEADER.upper()])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_an_archive_file_gives_the_same_candles_in_either_unit_with_or_without_header(
    history: History, tmp_path: Path, header: str, newline: str
) -> None:
    text = (header + IN_MILLISECONDS + IN_MICROSECONDS).replace("\n", newline)
    report = import_file(history, file_of(tmp_path, text))
    assert report.rows_added == 4
    assert history.read("binance", "BTCUSDT", "1m").digest() == FOUR.digest()
    assert history.manifest("binance", "BTCUSDT", "1m").source == "binance"


def test_a_zip_of_one_archive_file_is_read(history: History, tmp_path: Path) -> None:
    path = tmp_path / "ETHUSDT-1m-2024-12.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ETHUSDT-1m-2024-12.csv", IN_MILLISECONDS + IN_MICROSECONDS)
    import_file(history, path)
    expected = replace(FOUR, symbol="ETHUSDT").digest()
    assert history.read("binance", "ETHUSDT", "1m").digest() == expected


def test_a_zip_that_is_not_one_csv_is_refused(history: History, tmp_path: Path) -> None:
    path = tmp_path / "ETHUSDT-1m-2024-12.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", IN_MILLISECONDS)
        archive.writestr("b.csv", IN_MICROSECONDS)
    with pytest.raises(CandlesRejected, match=r"ETHUSDT-1m-2024-12.zip: content: .*one .csv file"):
        import_file(history, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", IN_MILLISECONDS)
    whole = path.read_bytes()
    middle = whole.index(b"93610.10")
    for damaged in (whole[:-30], whole[:middle] + b"8" + whole[middle + 1 :], b"", b"PK"):
        path.write_bytes(damaged)
        with pytest.raises(CandlesRejected, match="not a sound zip file"):
            import_file(history, path)


def test_a_file_cut_off_anywhere_gives_whole_rows_or_none(tmp_path: Path) -> None:
    text = IN_MILLISECONDS + IN_MICROSECONDS
    refused = 0
    for length in range(len(text)):
        history = History(tmp_path / str(length))
        try:
            import_file(history, file_of(tmp_path, text[:length]))
        except CandlesRejected:
            refused += 1
            continue
        read = history.read("binance", "BTCUSDT", "1m")
        assert read.digest() == FOUR.rows(0, len(read)).digest()
    # Only a cut at or beside a line's end, where no column of a candle is touched, may pass.
    assert refused > 0.95 * len(text)


def edited(row: int, column: str, value: str) -> str:
    lines = [line.split(",") for line in (IN_MILLISECONDS + IN_MICROSECONDS).splitlines()]
    lines[row - 1][CSV_COLUMNS.index(column)] = value
    return "\n".join(",".join(line) for line in lines) + "\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (edited(3, "close", "abc"), "column close: Row #3: .*'abc'"),
        (HEADER + edited(3, "close", "abc"), "column close: Row #4"),
        (edited(2, "volume", ""), "row 2, volume: expected a value"),
        (edited(2, "close", "nan"), "row 2: non_finite"),
        (edited(4, "high", "1"), "row 4: high_below_low"),
        (HEADER + edited(4, "high", "1"), "row 5: high_below_low"),
        (edited(2, "open_time", "1735689540001"), "row 2: off_grid"),
        (edited(2, "volume", "inf"), "row 2: non_finite"),
        (IN_MICROSECONDS + IN_MILLISECONDS, "row 3: unsorted"),
        (IN_MILLISECONDS + IN_MILLISECONDS.splitlines()[1], "row 3: duplicate"),
        (edited(2, "open_time", "1735689420000"), "row 2, close_time"),
        (edited(3, "open_time", "1735689600000001"), "row 3, open_time: .*whole milliseconds"),
        (edited(1, "open_time", "1735689480"), "row 1, time: .*milliseconds or microseconds"),
        (edited(1, "open_time", "1735689480.5"), "column open_time: Row #1"),
        (edited(1, "close_time", "1735693079999"), "row 1, close_time: .*within 1m of the open"),
        (IN_MILLISECONDS + "1,2,3\n", "Row #3: Expected 12 columns, got 3"),
        ("date,price\n1,2\n", "row 1: expected numbers, or open_time"),
        ("\x00\x01binary", "row 1"),
        ("", "row 1"),
        (HEADER, "rows: expected at least one candle"),
    ],
)
def test_a_bad_value_is_named_with_file_row_and_column_and_nothing_is_stored(
    history: History, tmp_path: Path, text: str, named: str
) -> None:
    with pytest.raises(CandlesRejected, match=named) as caught:
        import_file(history, file_of(tmp_path, text))
    assert str(caught.value).startswith("BTCUSDT-1m-2024-12-31.csv: ")
    assert not history.root.exists()


def test_a_candle_still_forming_is_refused_when_the_time_is_known(
    history: History, tmp_path: Path
) -> None:
    path = file_of(tmp_path, IN_MILLISECONDS + IN_MICROSECONDS)
    with pytest.raises(CandlesRejected, match="row 4: still_forming"):
        import_file(history, path, now=NEW_YEAR + 2 * MINUTE - 1)
    assert import_file(history, path, now=NEW_YEAR + 2 * MINUTE).rows_added == 4


def test_a_candle_that_the_exchange_stamped_off_the_grid_is_refused_with_what_one_can_do(
    history: History, tmp_path: Path
) -> None:
    outage_ends = utc_ms("2018-02-09T10:30:17")
    ts = [outage_ends, utc_ms("2018-02-09T10:32"), utc_ms("2018-02-09T10:33")]
    rows = [f"{t},8000.0,8100.0,7900.0,8050.0,1.5,{t + 59_999},1,1,1,1,0" for t in ts]
    path = file_of(tmp_path, "\n".join(rows), "BTCUSDT-1m-2018-02-09.csv")
    with pytest.raises(CandlesRejected, match=r"row 1: off_grid at 2018-02-09T10:30:17Z") as caught:
        import_file(history, path)
    assert "start after this candle" in str(caught.value)
    # The remedy works.
    assert import_file(history, file_of(tmp_path, "\n".join(rows[1:]), path.name)).rows_added == 2


def test_a_file_of_another_timeframe_is_refused(history: History, tmp_path: Path) -> None:
    hours = pd.DataFrame(
        {
            **VALUES,
            "ts": pd.to_datetime([NEW_YEAR + k * 3_600_000 for k in range(4)], unit="ms", utc=True),
        }
    )
    path = tmp_path / "BTCUSDT-1m-hours.parquet"
    hours.to_parquet(path)
    with pytest.raises(CandlesRejected, match="timeframe: expected one of 3600000 ms"):
        import_file(history, path)
    with pytest.raises(CandlesRejected, match="off_grid"):
        import_file(history, path, timeframe="1d")
    assert import_file(history, path, timeframe="1h").rows_added == 4


# Names


@pytest.mark.parametrize(
    ("name", "symbol", "timeframe"),
    [
        ("BTCUSDT-1m-2024-12-31.csv", "BTCUSDT", "1m"),
        ("1INCHUSDT-1m.csv", "1INCHUSDT", "1m"),
        ("XRPUSDT/1m.csv", "XRPUSDT", "1m"),
        ("SOLUSDT/BTCUSDT-1m-2024-12.csv", "BTCUSDT", "1m"),
    ],
)
def test_symbol_and_timeframe_are_read_from_the_name(
    history: History, tmp_path: Path, name: str, symbol: str, timeframe: str
) -> None:
    path = tmp_path / "in" / name
    path.parent.mkdir(parents=True)
    report = import_file(history, file_of(path.parent, IN_MILLISECONDS, path.name))
    assert (report.series.symbol, report.series.timeframe) == (symbol, timeframe)


def test_a_name_that_tells_nothing_must_be_helped(history: History, tmp_path: Path) -> None:
    path = file_of(tmp_path, IN_MILLISECONDS, "candles.csv")
    with pytest.raises(InputError, match="a name that tells the symbol"):
        import_file(history, path, timeframe="1m")
    with pytest.raises(InputError, match="a name that tells the timeframe"):
        import_file(history, path, symbol="BTCUSDT")
    report = import_file(history, path, "BTCUSDT", "1m", "kraken", "a friend")
    assert str(report.series) == "kraken/BTCUSDT/1m"
    assert history.manifest("kraken", "BTCUSDT", "1m").source == "a friend"


def test_a_path_that_will_not_do_is_an_input_error(history: History, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a file that can be read"):
        import_file(history, tmp_path / "BTCUSDT-1m-1.csv")
    (tmp_path / "BTCUSDT-1m-2.csv").mkdir()
    with pytest.raises(InputError, match="a file that can be read"):
        import_file(history, tmp_path / "BTCUSDT-1m-2.csv")
    with pytest.raises(InputError, match=r"a file ending in \.parquet, \.csv, \.zip"):
        import_file(history, file_of(tmp_path, "", "BTCUSDT-1m-3.feather"))
    with pytest.raises(UnknownNameError, match="symbol"):
        import_file(history, file_of(tmp_path, IN_MILLISECONDS), symbol="../BTC")


# Parquet


def frame_of(**changes: object) -> pa.Table:
    ts = pa.array(VALUES["ts"]).cast(pa.timestamp("ms", tz="UTC"))
    columns = {**VALUES, "ts": ts, **changes}
    return pa.table({name: column for name, column in columns.items() if column is not None})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"quote_volume": [1.0] * 4, "trades": [1] * 4},
        {"ts": pa.array(VALUES["ts"]).cast(pa.timestamp("ms"))},
        {"ts": pa.array([1_000_000 * t for t in VALUES["ts"]]).cast(pa.timestamp("ns", "UTC"))},
        {"ts": pa.array(VALUES["ts"]).cast(pa.timestamp("ms", tz="Europe/Berlin"))},
    ],
)
def test_a_parquet_file_is_read_whatever_its_clock(
    history: History, tmp_path: Path, changes: dict[str, object]
) -> None:
    pq.write_table(frame_of(**changes), tmp_path / "BTCUSDT-1m.parquet")
    import_file(history, tmp_path / "BTCUSDT-1m.parquet")
    assert history.read("binance", "BTCUSDT", "1m").digest() == FOUR.digest()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"close": None}, "column close: expected columns ts, open"),
        ({"close": ["1", "2", "3", "4"]}, "column close: expected numbers"),
        ({"close": [1.0, None, 3.0, 4.0]}, "row 2, close: expected a value"),
        ({"ts": VALUES["ts"]}, "column ts: expected timestamps"),
        (
            {"ts": pa.array([1000 * t + 1 for t in VALUES["ts"]]).cast(pa.timestamp("us", "UTC"))},
            "column ts: expected whole milliseconds",
        ),
        ({"low": [93600.01, 99999.0, 93537.50, 93606.20]}, "row 2: high_below_low"),
    ],
)
def test_a_foreign_parquet_file_is_refused_by_name(
    history: History, tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    pq.write_table(frame_of(**changes), tmp_path / "BTCUSDT-1m.parquet")
    with pytest.raises(CandlesRejected, match=named) as caught:
        import_file(history, tmp_path / "BTCUSDT-1m.parquet")
    assert str(caught.value).startswith("BTCUSDT-1m.parquet: ")
    assert not history.root.exists()


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -9])
def test_a_parquet_file_cut_off_is_refused(history: History, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "BTCUSDT-1m.parquet"
    pq.write_table(frame_of(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CandlesRejected, match="not a sound Parquet file"):
        import_file(history, path)


def test_a_folder_is_imported_in_order_and_again_without_effect(
    history: History, tmp_path: Path
) -> None:
    for name in ("binance/BTCUSDT", "binance/ETHUSDT", "kraken/BTCUSDT"):
        (tmp_path / "in" / name).mkdir(parents=True)
        pq.write_table(frame_of(), tmp_path / "in" / name / "1m.parquet")
    seen: list[tuple[int, int, str]] = []

    def on_progress(done: int, total: int, report: AppendReport) -> None:
        seen.append((done, total, str(report.series)))

    reports = import_folder(history, tmp_path / "in", on_progress=on_progress)
    assert seen == [
        (1, 3, "binance/BTCUSDT/1m"),
        (2, 3, "binance/ETHUSDT/1m"),
        (3, 3, "kraken/BTCUSDT/1m"),
    ]
    assert [report.rows_added for report in reports] == [4, 4, 4]
    assert [str(info.series) for info in history.inventory()] == [name for *_, name in seen]
    again = import_folder(history, tmp_path / "in", symbols=["BTCUSDT"], timeframes=["1m"])
    assert [(one.rows_added, one.already_there) for one in again] == [(0, 4), (0, 4)]
    with pytest.raises(UnknownNameError, match="symbols: expected one of BTCUSDT, ETHUSDT"):
        import_folder(history, tmp_path / "in", symbols=["SOLUSDT"])
    with pytest.raises(InputError, match=r"files like binance/BTCUSDT/1h\.parquet"):
        import_folder(history, tmp_path / "nowhere")


# Known outages


def test_a_known_outage_is_accepted_only_where_bars_are_missing_within_it(
    history: History, tmp_path: Path
) -> None:
    start = NEW_YEAR
    known = (KnownGap(exchange="binance", start=start, end=start + 9 * MINUTE, name="a", why="b"),)
    missing = {"BTCUSDT": (2, 5), "ETHUSDT": (5, 12), "SOLUSDT": (0, 9), "XRPUSDT": (3, 3)}
    for symbol, (first, stop) in missing.items():
        minutes = [m for m in range(-3, 20) if not first <= m < stop]
        ts = np.array([start + m * MINUTE for m in minutes])
        flat = np.full(len(ts), 7.0)
        for exchange in ("binance", "kraken"):
            candles = Candles(symbol, "1m", ts, flat, flat, flat, flat, flat)
            history.append(exchange, candles, "test")
    accepted = accept_known_gaps(history, known, at=5)
    spans = [(g.symbol, (g.start - start) // MINUTE, (g.end - start) // MINUTE) for g in accepted]
    assert spans == [("BTCUSDT", 2, 5), ("SOLUSDT", 0, 9)]
    assert accept_known_gaps(history, known) == []
    assert history.load(["ETHUSDT"], "1m").gaps == ()
    assert history.load(["BTCUSDT"], "1m", exchange="kraken").gaps == ()
    (on_record,) = history.manifest("binance", "BTCUSDT", "1m").accepted
    assert (on_record.who, on_record.why, on_record.at) == ("candlebook", "b", 5)


def test_the_shipped_list_of_outages_is_sound() -> None:
    known = load_known_gaps(ROOT / "params" / "known_gaps.yaml")
    assert [one.name for one in known if one.start == utc_ms("2023-03-24T12:40")] == [
        "matching_engine_2023"
    ]
    assert list(known) == sorted(known, key=lambda one: one.start)
    assert len({one.name for one in known}) == len(known)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("- {exchange: binance", "cannot be read"),
        ("exchange: binance", "expected a list of outages"),
        ("- 7", r"\[0\]: expected exchange, start"),
        ("- {exchange: binance}", r"\[0\]: KnownGap.start"),
        ("- {exchange: b, start: '2024', end: '2023', name: a, why: b}", "an end after the start"),
        ("- {exchange: b, start: never, end: '2023', name: a, why: b}", r"KnownGap.start"),
        ("- {exchange: b, start: '2022', end: '2023', name: A, why: b}", r"KnownGap.name"),
        ("- {exchange: b, start: '2022', end: '2023', name: a, why: b, x: 1}", r"KnownGap.x"),
    ],
)
def test_a_wrong_list_of_outages_is_named_with_its_field(
    tmp_path: Path, text: str, named: str
) -> None:
    path = tmp_path / "known_gaps.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=named) as caught:
        load_known_gaps(path)
    assert "known_gaps.yaml" in str(caught.value)


# The real files


@pytest.mark.parametrize(
    ("name", "rows", "first", "defects"),
    [
        ("AVAXUSDT-1m-2026-07-head.csv", 2999, "2026-07-01", {}),
        ("BTCUSDT-1m-2018-02-08.csv", 29, "2018-02-08", {}),
        (
            "BTCUSDT-1m-2023-03-24.csv",
            1360,
            "2023-03-24",
            {DefectKind.GAP: 1, DefectKind.ZERO_VOLUME: 72},
        ),
        ("BTCUSDT-1m-2024-12-31.csv", 1440, "2024-12-31", {}),
        ("BTCUSDT-1m-2025-01-01.csv", 1440, "2025-01-01", {}),
    ],
)
def test_a_real_archive_file_goes_in_whole(
    shared: Path,
    history: History,
    name: str,
    rows: int,
    first: str,
    defects: dict[DefectKind, int],
) -> None:
    report = import_file(history, shared / "raw" / "binance_csv" / name)
    assert report.rows_added == rows
    (info,) = history.inventory()
    assert (info.first, info.defects) == (utc_ms(first), defects)
    assert history.verify() == []


def test_the_real_outage_of_2023_is_known_by_the_minute(shared: Path, history: History) -> None:
    import_file(history, shared / "raw" / "binance_csv" / "BTCUSDT-1m-2023-03-24.csv")
    known = load_known_gaps(ROOT / "params" / "known_gaps.yaml")
    (gap,) = accept_known_gaps(history, known)
    assert str(gap) == "BTCUSDT 2023-03-24T12:40Z .. 2023-03-24T14:00Z (matching_engine_2023)"
    history.load(["BTCUSDT"], "1m").require_gaps_accepted()


def test_the_archive_agrees_with_the_shared_history(
    shared: Path, history: History, shared_history: History
) -> None:
    for name in ("BTCUSDT-1m-2024-12-31.csv", "BTCUSDT-1m-2025-01-01.csv"):
        import_file(history, shared / "raw" / "binance_csv" / name)
    archive = history.read("binance", "BTCUSDT", "1m")
    stored = shared_history.read(
        "binance", "BTCUSDT", "1m", utc_ms("2024-12-31"), utc_ms("2025-01-02")
    )
    assert archive.digest() == stored.digest()
