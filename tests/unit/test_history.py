"""The store gives back what was put in, first come first kept, and says what it cannot give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research import history_manifest
from research.candles import COLUMNS, Candles, DefectKind, Gap, find_defects, find_gaps, utc_ms
from research.errors import (
    CandlesRejected,
    CorruptHistory,
    GapNotAccepted,
    HistoryMissing,
    InputError,
    UnknownNameError,
)
from research.history import History
from research.history_manifest import Manifest, Series, parse_manifest, render_manifest

DAY = 86_400_000
HOUR = 3_600_000
JANUARY = utc_ms("2024-01-01")


def candles_at(ts: list[int], timeframe: str = "1d", symbol: str = "BTCUSDT") -> Candles:
    """Sound candles at these opens; a candle's values depend on its open alone."""
    opens = np.array(ts, dtype=np.int64)
    low = 100 + (opens // HOUR % 977) / 7
    open_, close = low + (opens // HOUR % 13) / 3, low + (opens // HOUR % 11) / 3
    high = np.maximum(open_, close) + 0.1
    volume = (opens // HOUR % 9) / 4  # one in nine has no trades
    return Candles(symbol, timeframe, opens, open_, high, low, close, volume)


def days(first: int, count: int) -> Candles:
    return candles_at([JANUARY + (first + i) * DAY for i in range(count)])


def shown(history: History) -> Candles:
    return history.read("binance", "BTCUSDT", "1d")


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


# Sets of days over half a year, so with gaps, and an order in which parts of them come.
day_sets = st.lists(st.integers(0, 180), min_size=1, max_size=60, unique=True).map(sorted)


@settings(max_examples=60, deadline=None)
@given(day_sets, st.data())
def test_any_split_into_appends_in_any_order_gives_the_same_series(
    wanted: list[int], data: st.DataObject
) -> None:
    whole = candles_at([JANUARY + day * DAY for day in wanted])
    owner = data.draw(st.lists(st.integers(0, 3), min_size=len(wanted), max_size=len(wanted)))
    again = data.draw(st.lists(st.sampled_from(wanted), max_size=5))  # rows that come twice
    parts = [[d for d, o in zip(wanted, owner, strict=True) if o == k] for k in range(4)]
    parts.append(sorted(set(again)))
    with TemporaryDirectory() as folder:
        history = History(Path(folder))
        added = 0
        for part in data.draw(st.permutations(parts)):
            report = history.append(
                "binance", candles_at([JANUARY + d * DAY for d in part]), "test"
            )
            assert report.rows_added + report.already_there == len(part)
            assert report.revisions == ()
            added += report.rows_added
        assert added == len(whole)
        assert shown(history).digest() == whole.digest()
        manifest = history.manifest("binance", "BTCUSDT", "1d")
        odd = [(d.kind, d.ts) for d in find_defects(whole) if d.kind is not DefectKind.GAP]
        assert manifest.gaps == tuple(find_gaps(whole))
        assert manifest.defects == tuple(odd)
        assert history.verify() == []


@settings(max_examples=80, deadline=None)
@given(st.integers(-5, 130), st.integers(-5, 130), st.booleans(), st.booleans())
def test_reading_a_range_is_slicing_the_whole(
    hundred_days: History, first: int, stop: int, from_first: bool, to_last: bool
) -> None:
    start = None if from_first else JANUARY + first * DAY + 1
    end = None if to_last else JANUARY + stop * DAY
    expected = shown(hundred_days).between(start, end)
    if len(expected):
        read = hundred_days.read("binance", "BTCUSDT", "1d", start, end)
        assert read.digest() == expected.digest()
    else:
        with pytest.raises(HistoryMissing, match="no candle between"):
            hundred_days.read("binance", "BTCUSDT", "1d", start, end)


@pytest.fixture(scope="module")
def hundred_days(tmp_path_factory: pytest.TempPathFactory) -> History:
    history = History(tmp_path_factory.mktemp("hundred"))
    history.append("binance", days(0, 100), "test")
    return history


def test_a_month_file_is_plain_parquet_under_its_month(history: History) -> None:
    history.append("binance", days(20, 20), "test")
    folder = history.root / "binance" / "BTCUSDT" / "1d"
    visible = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    assert visible == ["2024-01.parquet", "2024-02.parquet", "manifest.json"]
    table = pq.read_table(folder / "2024-02.parquet")
    assert table.schema.names == ["ts", *COLUMNS]
    assert table.schema.field("ts").type == pa.timestamp("ms", tz="UTC")
    frame = pd.read_parquet(folder / "2024-02.parquet")
    assert frame["ts"].iloc[0] == pd.Timestamp("2024-02-01", tz="UTC")
    assert len(frame) == 9


def test_only_the_month_that_changed_is_rewritten(history: History) -> None:
    history.append("binance", days(0, 45), "test")
    folder = history.root / "binance" / "BTCUSDT" / "1d"
    before = {path.name: path.stat().st_ino for path in folder.glob("*.parquet")}
    history.append("binance", days(45, 1), "test")
    after = {path.name: path.stat().st_ino for path in folder.glob("*.parquet")}
    assert after["2024-01.parquet"] == before["2024-01.parquet"]
    assert after["2024-02.parquet"] != before["2024-02.parquet"]


def test_a_restated_candle_is_recorded_and_the_first_seen_row_stays(history: History) -> None:
    first = days(0, 10)
    history.append("binance", first, "test")
    close = first.close.copy()
    close[4] = first.low[4]
    restated = replace(first, close=close)
    assert close[4] != first.close[4]
    now = JANUARY + 11 * DAY
    report = history.append("binance", restated, "test", now)
    assert (report.rows_added, report.already_there, len(report.revisions)) == (0, 9, 1)
    (revision,) = report.revisions
    assert (revision.ts, revision.at) == (int(first.ts[4]), now)
    assert revision.first_seen == tuple(float(getattr(first, name)[4]) for name in COLUMNS)
    assert revision.later == tuple(float(getattr(restated, name)[4]) for name in COLUMNS)
    assert shown(history).digest() == first.digest()
    assert history.manifest("binance", "BTCUSDT", "1d").revisions == (revision,)
    # The same restatement again is on record; a third value is news.
    again = history.append("binance", restated, "test", now + DAY)
    assert (again.already_there, again.revisions) == (10, ())
    close[4] = first.high[4]
    third = history.append("binance", replace(first, close=close), "test")
    assert len(third.revisions) == 1
    assert len(history.manifest("binance", "BTCUSDT", "1d").revisions) == 2
    assert history.verify() == []


def test_a_forming_candle_is_refused_and_a_closed_one_is_not(history: History) -> None:
    candles = days(0, 3)
    close_of_last = int(candles.ts[-1]) + DAY
    with pytest.raises(CandlesRejected, match="still_forming"):
        history.append("binance", candles, "test", now=close_of_last - 1)
    assert not history.root.exists()
    report = history.append("binance", candles, "test", now=close_of_last)
    assert report.rows_added == 3
    assert history.manifest("binance", "BTCUSDT", "1d").last_refresh == close_of_last


def _with(column: str, row: int, value: float) -> Candles:
    candles = days(0, 5)
    values = getattr(candles, column).copy()
    values[row] = value
    return replace(candles, **{column: values})


@pytest.mark.parametrize(
    ("candles", "kind"),
    [
        (_with("close", 2, np.nan), "non_finite"),
        (_with("volume", 2, np.inf), "non_finite"),
        (_with("low", 2, -1.0), "non_positive_price"),
        (_with("high", 2, 1.0), "high_below_low"),
        (_with("close", 2, 1e9), "close_outside_range"),
        (_with("open", 2, 1e9), "open_outside_range"),
        (_with("volume", 2, -1.0), "negative_volume"),
        (_with("ts", 2, JANUARY + DAY), "duplicate"),
        (_with("ts", 2, JANUARY), "unsorted"),
        (_with("ts", 2, JANUARY + 2 * DAY + 1), "off_grid"),
        (_with("ts", 4, 1000 * JANUARY), "before 2100"),
        (_with("ts", 0, -DAY), "since 1970"),
    ],
)
def test_an_unsound_row_is_refused_and_nothing_is_written(
    history: History, candles: Candles, kind: str
) -> None:
    with pytest.raises(CandlesRejected, match=kind):
        history.append("binance", candles, "test")
    assert not history.root.exists()


def test_nothing_appended_is_nothing_written(history: History) -> None:
    assert history.append("binance", days(0, 0), "test").rows_added == 0
    assert not history.root.exists()


def test_rows_may_fall_into_a_gap_and_the_gap_shrinks(history: History) -> None:
    first = history.append("binance", candles_at([JANUARY, JANUARY + 40 * DAY]), "test")
    assert [d.kind for d in first.defects if d.kind is DefectKind.GAP] == [DefectKind.GAP]
    second = history.append("binance", days(10, 20), "test")
    assert DefectKind.GAP not in {d.kind for d in second.defects}  # what is left is not new
    gaps = history.manifest("binance", "BTCUSDT", "1d").gaps
    assert [((g.start - JANUARY) // DAY, (g.end - JANUARY) // DAY) for g in gaps] == [
        (1, 10),
        (30, 40),
    ]


@pytest.mark.parametrize(
    ("exchange", "symbol", "timeframe"),
    [
        ("..", "BTCUSDT", "1d"),
        ("binance", "../../etc", "1d"),
        ("binance", "BTC/USDT", "1d"),
        ("binance", "BTCUSDT", "../1d"),
        ("binance", "BTCUSDT\n", "1d"),
        ("Binance", "BTCUSDT", "1d"),
        ("binance", "", "1d"),
    ],
)
def test_a_name_that_is_no_name_is_refused(
    history: History, exchange: str, symbol: str, timeframe: str
) -> None:
    with pytest.raises(UnknownNameError):
        history.read(exchange, symbol, timeframe)


def test_what_is_missing_is_said_with_the_command_that_fills_it(history: History) -> None:
    with pytest.raises(HistoryMissing, match="candlebook history fetch BTCUSDT --timeframe 1d"):
        shown(history)
    with pytest.raises(HistoryMissing, match="nothing is stored of it"):
        history.verify(symbol="BTCUSDT")
    assert history.inventory() == []
    assert history.verify() == []


def test_a_set_keeps_the_order_of_its_symbols_and_knows_its_sources(history: History) -> None:
    history.append("binance", days(0, 40), "archive")
    history.append("binance", replace(days(0, 40), symbol="ETHUSDT"), "api")
    loaded = history.load(["ETHUSDT", "BTCUSDT"], "1d", "2024-01-10", "2024-02")
    assert loaded.symbols == ("ETHUSDT", "BTCUSDT")
    assert loaded.source == "api, archive"
    assert [len(one) for one in loaded] == [22, 22]
    with pytest.raises(HistoryMissing, match="SOLUSDT"):
        history.load(["BTCUSDT", "SOLUSDT"], "1d")
    with pytest.raises(InputError, match="a list of symbols"):
        history.load("BTCUSDT", "1d")


# Gaps


@pytest.fixture
def with_gap(history: History) -> History:
    history.append("binance", days(0, 10), "test")
    history.append("binance", days(12, 5), "test")
    return history


GAP = (JANUARY + 10 * DAY, JANUARY + 12 * DAY)


def test_a_gap_is_open_until_it_is_accepted_by_name(with_gap: History) -> None:
    with pytest.raises(GapNotAccepted):
        with_gap.load(["BTCUSDT"], "1d").require_gaps_accepted()
    gap = with_gap.accept_gap(
        "binance", "BTCUSDT", "1d", *GAP, "flood", "anna", "the cellar was under water", at=7
    )
    assert gap == Gap("BTCUSDT", *GAP, "flood")
    loaded = with_gap.load(["BTCUSDT"], "1d")
    assert loaded.gaps == (gap,)
    loaded.require_gaps_accepted()
    (accepted,) = with_gap.manifest("binance", "BTCUSDT", "1d").accepted
    assert (accepted.who, accepted.why, accepted.at) == ("anna", "the cellar was under water", 7)
    (info,) = with_gap.inventory()
    assert (info.gaps, info.accepted_gaps) == ((), (gap,))
    # Later rows and another opinion of the same gap leave it as it is.
    with_gap.append("binance", days(17, 30), "test")
    assert with_gap.accept_gap("binance", "BTCUSDT", "1d", *GAP, "flood", "bob", "so it was") == gap
    assert with_gap.manifest("binance", "BTCUSDT", "1d").accepted == (accepted,)
    assert with_gap.verify() == []


@pytest.mark.parametrize(
    ("start", "end", "name", "who", "why", "named"),
    [
        (JANUARY, JANUARY + DAY, "flood", "anna", "x", "a run of missing bars"),
        (GAP[0], GAP[1] + DAY, "flood", "anna", "x", "a run of missing bars"),
        (GAP[0] + DAY, GAP[1], "flood", "anna", "x", "a run of missing bars"),
        (*GAP, "The flood", "anna", "x", "lower case"),
        (*GAP, "flood", " ", "x", "who"),
        (*GAP, "flood", "anna", "", "why"),
    ],
)
def test_what_is_not_exactly_a_gap_with_a_reason_is_not_accepted(
    with_gap: History, start: int, end: int, name: str, who: str, why: str, named: str
) -> None:
    with pytest.raises(InputError, match=named):
        with_gap.accept_gap("binance", "BTCUSDT", "1d", start, end, name, who, why)
    assert with_gap.manifest("binance", "BTCUSDT", "1d").accepted == ()


def test_a_gap_has_one_name(with_gap: History) -> None:
    with_gap.accept_gap("binance", "BTCUSDT", "1d", *GAP, "flood", "anna", "water")
    with pytest.raises(InputError, match="a gap other than"):
        with_gap.accept_gap("binance", "BTCUSDT", "1d", *GAP, "fire", "anna", "flames")


def test_a_candle_that_comes_for_an_accepted_gap_is_recorded_and_kept_out(
    with_gap: History,
) -> None:
    """Runs were decided without it: with it, nobody could repeat them."""
    with_gap.accept_gap("binance", "BTCUSDT", "1d", *GAP, "flood", "anna", "water")
    before = shown(with_gap).digest()
    report = with_gap.append("binance", days(8, 6), "backup", now=JANUARY + 20 * DAY)
    assert (report.rows_added, report.already_there, report.revisions) == (0, 4, ())
    late = days(10, 2)
    assert [one.ts for one in report.kept_out] == late.ts.tolist()
    assert [one.later[3] for one in report.kept_out] == late.close.tolist()
    assert {(one.first_seen, one.at) for one in report.kept_out} == {(None, JANUARY + 20 * DAY)}
    assert "2 kept out of accepted gaps" in str(report)
    assert shown(with_gap).digest() == before
    assert with_gap.manifest("binance", "BTCUSDT", "1d").revisions == report.kept_out
    (info,) = with_gap.inventory()
    assert (info.kept_out, info.revisions, info.gaps) == (2, 0, ())
    assert with_gap.verify() == []
    # The same again is on record already; rows on either side still come in.
    again = with_gap.append("binance", days(10, 2), "backup")
    assert (again.rows_added, again.already_there, again.kept_out) == (0, 2, ())
    more = with_gap.append("binance", days(9, 11), "backup")
    assert (more.rows_added, more.already_there) == (3, 8)


def test_a_candle_that_comes_for_a_gap_that_nobody_accepted_fills_it(with_gap: History) -> None:
    report = with_gap.append("binance", days(9, 4), "backup")
    assert (report.rows_added, report.already_there, report.kept_out) == (2, 2, ())
    assert with_gap.inventory()[0].gaps == ()


def test_a_gap_of_nothing_stored_is_missing_history(history: History) -> None:
    with pytest.raises(HistoryMissing):
        history.accept_gap("binance", "BTCUSDT", "1d", *GAP, "flood", "anna", "water")
    assert not history.root.exists()


# Stock


def test_the_inventory_tells_what_there_is(with_gap: History) -> None:
    with_gap.append("kraken", candles_at([JANUARY], symbol="ETHUSDT"), "api", now=JANUARY + DAY)
    (with_gap.root / "notes").mkdir()
    (with_gap.root / "binance" / "BTCUSDT" / "old backup").mkdir()
    btc, eth = with_gap.inventory()
    assert (btc.series, eth.series) == (
        Series("binance", "BTCUSDT", "1d"),
        Series("kraken", "ETHUSDT", "1d"),
    )
    assert (btc.rows, btc.first, btc.last) == (15, JANUARY, JANUARY + 16 * DAY)
    assert btc.gaps == (Gap("BTCUSDT", *GAP),)
    silent = int((shown(with_gap).volume == 0).sum())
    assert silent > 0
    assert btc.defects == {DefectKind.GAP: 1, DefectKind.ZERO_VOLUME: silent}
    assert (btc.last_refresh, eth.last_refresh) == (None, JANUARY + DAY)
    assert btc.size_bytes > 1000
    assert eth.sources == ("api",)


def test_a_manifest_survives_its_file_and_belongs_to_one_series(with_gap: History) -> None:
    with_gap.accept_gap("binance", "BTCUSDT", "1d", *GAP, "flood", "ännä", "\u2028 water")
    manifest = with_gap.manifest("binance", "BTCUSDT", "1d")
    raw = render_manifest(manifest)
    assert parse_manifest(raw, manifest.series, "here") == manifest
    with pytest.raises(CorruptHistory, match="ETHUSDT"):
        parse_manifest(raw, Series("binance", "ETHUSDT", "1d"), "here")


def _resigned(manifest: Manifest, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(render_manifest(manifest))


def test_verify_checks_the_manifest_against_the_rows(with_gap: History) -> None:
    # A manifest with a sound hash of its own that states what the rows do not bear out.
    folder = with_gap.root / "binance" / "BTCUSDT" / "1d"
    true = with_gap.manifest("binance", "BTCUSDT", "1d")
    assert with_gap.verify() == []
    _resigned(replace(true, gaps=()), folder)
    assert ["gaps" in problem.what for problem in with_gap.verify()] == [True]
    (month,) = true.months
    _resigned(replace(true, months=(replace(month, rows=14),)), folder)
    assert ["14" in problem.what for problem in with_gap.verify()] == [True]
    _resigned(true, folder)
    assert with_gap.verify() == []


def test_verify_lists_every_missing_and_every_strange_file_once(history: History) -> None:
    history.append("binance", days(0, 100), "test")
    folder = history.root / "binance" / "BTCUSDT" / "1d"
    first, second, *_ = sorted(folder.glob("*.parquet"))
    second.rename(folder / "strange.parquet")
    first.rename(folder / "stranger.parquet")
    gone, unnamed = "the file is gone, and the manifest names it", "does not name this file"
    problems = {problem.file: problem.what for problem in history.verify()}
    assert len(history.verify()) == len(problems) == 4
    assert {file for file, what in problems.items() if gone in what} == {first.name, second.name}
    assert {file for file, what in problems.items() if unnamed in what} == {
        "strange.parquet",
        "stranger.parquet",
    }


def test_a_manifest_of_another_schema_is_refused(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later_version:
        later_version.setattr(history_manifest, "SCHEMA_VERSION", 2)
        history.append("binance", days(0, 3), "test")
        assert len(shown(history)) == 3
    with pytest.raises(CorruptHistory, match=r"schema: expected 1, got 2\. It was written by"):
        shown(history)


def test_the_shared_candles_come_back_as_they_are(shared: Path, shared_history: History) -> None:
    frame = pd.read_parquet(shared / "history" / "binance" / "BTCUSDT" / "1h.parquet")
    raw = Candles.from_frame("BTCUSDT", "1h", frame)
    read = shared_history.read("binance", "BTCUSDT", "1h")
    assert len(read) == 35_063
    assert read.digest() == raw.digest()


def test_the_real_outage_is_found_named_and_accepted(shared_history: History) -> None:
    hourly = [one for one in shared_history.inventory() if one.series.timeframe == "1h"]
    outage = (utc_ms("2023-03-24T13:00"), utc_ms("2023-03-24T14:00"))
    assert len(hourly) == 10
    for info in hourly:
        assert info.gaps == ()
        assert [(gap.start, gap.end, gap.name) for gap in info.accepted_gaps] == [
            (*outage, "matching_engine_2023")
        ]
        assert info.defects[DefectKind.GAP] == 1
    loaded = shared_history.load(["BTCUSDT", "ETHUSDT"], "1h", "2023", "2024")
    loaded.require_gaps_accepted()
    # The 2021 candles lie under a name of their own, and are binance's all the same.
    minutes = [one for one in shared_history.inventory() if one.series.exchange == "binance_2021"]
    assert [
        sum((gap.end - gap.start) // 60_000 for gap in one.accepted_gaps) for one in minutes
    ] == [
        434,
        434,
    ]
