"""`candlebook history`: import, fetch from a loopback exchange, show, verify, accept."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from live.replay import Fault, ReplayExchange
from research.account import Filters
from research.candles import COLUMNS, Candles, CandleSet, iso, utc_ms
from research.history import History
from research.resampling import resample
from research.settings import load_settings
from research.synthetic import synthetic_candles
from tests.integration.cli_project import (
    BARS,
    HOUR,
    OUTAGE,
    START,
    as_file,
    candlebook,
    document,
    made,
    shown,
    start,
    without,
)


def test_import_takes_a_tree_accepts_known_outages_and_says_so(new_home: Path, tree: Path) -> None:
    done = candlebook("history", "import", str(tree))
    assert done.exit_code == 0
    assert "Accepted as known outages" in done.stdout
    outage = "BTCUSDT 2023-03-24T13:00Z .. 2023-03-24T14:00Z (matching_engine_2023)"
    assert f"binance 1h {outage}" in done.stdout
    assert "Exchanges:" not in done.stdout
    assert done.stderr == ""  # not a terminal: no progress
    again = document("history", "import", str(tree))
    assert [one["rows_added"] for one in again["series"]] == [0, 0, 0]
    assert [one["already_there"] for one in again["series"]] == [BARS - 1, BARS, BARS]
    assert again["accepted_gaps"] == []


def test_import_takes_part_of_a_tree_and_single_files_that_options_name(
    new_home: Path, tree: Path, tmp_path: Path
) -> None:
    part = document("history", "import", str(tree), "--symbol", "ETHUSDT")
    assert [one["series"] for one in part["series"]] == ["binance/ETHUSDT/1h"]
    file = as_file(made()["SOLUSDT"], tmp_path / "mine.parquet")
    refused = candlebook("history", "import", str(file))
    assert refused.exit_code == 2
    assert "a name that tells the symbol" in refused.stderr
    named = document("history", "import", str(file), "--symbol", "SOLUSDT", "--timeframe", "1h")
    assert named["series"][0]["rows_added"] == BARS


def test_import_names_every_exchange_of_a_tree_and_the_gaps_that_stay_open(
    new_home: Path, tree: Path, tmp_path: Path
) -> None:
    both = tmp_path / "both"
    shutil.copytree(tree, both)
    other = without(made()["ETHUSDT"], utc_ms("2023-04-01"))
    as_file(other, both / "elsewhere" / "ETHUSDT" / "1h.parquet")
    found = document("history", "import", str(both))
    assert [(one["exchange"], one["symbol"]) for one in found["open_gaps"]] == [
        ("elsewhere", "ETHUSDT")
    ]
    assert {one["exchange"] for one in found["accepted_gaps"]} == {"binance"}
    text = shown("history", "import", str(both))
    assert "Exchanges: binance (3 series), elsewhere (1 series). Backtests read binance" in text
    assert "  elsewhere 1h ETHUSDT 2023-04-01T00:00Z .. 2023-04-01T01:00Z" in text


def test_a_heap_of_files_is_imported_up_to_the_first_that_is_broken(
    new_home: Path, tmp_path: Path
) -> None:
    heap = tmp_path / "heap"
    as_file(made()["BTCUSDT"], heap / "BTCUSDT-1h-a.parquet")
    (heap / "ETHUSDT-1h-b.parquet").write_bytes(b"PAR1 this is not Parquet")
    done = candlebook("history", "import", str(heap))
    assert done.exit_code == 3
    assert "Stored before this one: 1 file." in done.stderr
    assert "ETHUSDT-1h-b.parquet" in done.stderr
    assert [one["symbol"] for one in document("history", "show")["series"]] == ["BTCUSDT"]


def test_show_lists_what_is_stored_and_says_when_there_is_nothing(home: Path) -> None:
    rows = {one["symbol"]: one for one in document("history", "show")["series"]}
    assert rows["BTCUSDT"]["rows"] == BARS - 1
    assert rows["BTCUSDT"]["first"] == "2023-03-20T00:00Z"
    assert rows["BTCUSDT"]["accepted_gaps"][0]["name"] == "matching_engine_2023"
    assert rows["ETHUSDT"]["defects"] == {}
    assert "1 accepted" in shown("history", "show")
    shutil.rmtree(home / "data")
    assert "Nothing is stored yet" in shown("history", "show")


def test_verify_finds_one_flipped_bit(home: Path) -> None:
    assert "Sound" in shown("history", "verify")
    file = home / "data/history/binance/ETHUSDT/1h/2023-04.parquet"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    found = document("history", "verify", code=3)
    assert not found["sound"]
    assert {one["file"] for one in found["problems"]} == {"2023-04.parquet"}
    assert "2023-04.parquet" in shown("history", "verify", code=3)
    assert "Sound" in shown("history", "verify", "--symbol", "BTCUSDT")


def test_a_gap_that_nobody_accepted_stops_a_backtest_until_it_is(home: Path) -> None:
    hole = utc_ms("2023-04-01")
    shutil.rmtree(home / "data/history/binance/ETHUSDT")
    file = as_file(without(made()["ETHUSDT"], hole), home / "ETHUSDT" / "1h.parquet")
    document("history", "import", str(file))
    run = ("backtest", "sma_trend", "--symbols", "ETHUSDT")
    refused = candlebook(*run)
    assert refused.exit_code == 3
    assert "Gaps that nobody has accepted" in shown("history", "show")
    # The remedy in the message is the command that mends it.
    remedy = refused.stderr.partition("candlebook ")[2].split()
    filled = {"NAME": "lunch", "REASON": "they were out"}
    mended = document(*(filled.get(word, word) for word in remedy))
    assert mended["accepted"] == {
        "symbol": "ETHUSDT",
        "start": "2023-04-01T00:00Z",
        "end": "2023-04-01T01:00Z",
        "name": "lunch",
    }
    assert document(*run)["bars"] == BARS - 1


def test_show_and_import_tell_what_was_restated_and_what_was_kept_out(
    home: Path, tmp_path: Path
) -> None:
    before = document("history", "show")
    whole = made()["BTCUSDT"]  # with the hour that the stored series lacks, and one restated
    volume = np.array(whole.volume)
    volume[7] += 1.0
    file = as_file(replace(whole, volume=volume), tmp_path / "BTCUSDT" / "1h.parquet")
    text = shown("history", "import", str(file))
    assert "kept out" in text.splitlines()[0]
    restated = f"  binance/BTCUSDT/1h 2023-03-20T07:00Z: volume {whole.volume[7].item()!r} -> "
    late = "  binance/BTCUSDT/1h 2023-03-24T13:00Z: close "
    for said in (text, shown("history", "show")):
        assert "Restated later; the row that was seen first stays:\n" + restated in said
        assert "accepted as missing, and were kept out:\n" + late in said
    after = document("history", "show")
    assert [one["first_seen"] is None for one in after["restated"]] == [False, True]
    (row,) = (one for one in after["series"] if one["symbol"] == "BTCUSDT")
    assert (row["revisions"], row["kept_out"], row["rows"]) == (1, 1, BARS - 1)
    # Told once: the same file again brings nothing new, and the rows are those of before.
    again = document("history", "import", str(file))
    assert (again["series"][0]["kept_out"], again["restated"]) == (0, [])
    assert [one["rows"] for one in before["series"]] == [one["rows"] for one in after["series"]]


def test_the_inventory_tells_the_last_refresh_within_120_columns(home: Path) -> None:
    history = History(home / "data/history")
    minutes = synthetic_candles(["BTCUSDT"], "15m", START, 2_000)["BTCUSDT"]
    here = np.ones(2_000, bool)
    here[10:1_000:40] = False  # 25 gaps
    columns = (getattr(minutes, name)[here] for name in ("ts", *COLUMNS))
    last_close = int(minutes.ts[-1]) + 15 * 60_000
    history.append("binance_2021", Candles("BTCUSDT", "15m", *columns), "x", now=last_close)
    for gap in history.inventory()[-1].gaps[:12]:
        span = (gap.start, gap.end)
        history.accept_gap("binance_2021", "BTCUSDT", "15m", *span, "lunch", "ada", "out")
    lines = shown("history", "show").splitlines()
    (line,) = (one for one in lines if one.startswith("binance_2021/BTCUSDT/15m"))
    assert "13 open, 12 accepted" in line
    assert line.split()[-1] == iso(last_close)
    table = lines[: lines.index("Gaps that nobody has accepted (candlebook history accept-gap):")]
    assert "last refresh" in table[0]
    assert max(len(one.rstrip()) for one in table) <= 120 - 4, "1,787,680 rows need four more"


# Resample, compare


def test_resample_stores_longer_bars_and_the_gaps_that_are_accepted(home: Path) -> None:
    args = ("history", "resample", "BTCUSDT", "ETHUSDT", "--from", "1h", "--to", "4h")
    found = document(*args)
    assert [one["rows_added"] for one in found["series"]] == [BARS // 4, BARS // 4]
    assert found["accepted_gaps"] == []  # 12:00 to 16:00 has three hours: the bar is made of them
    rows = {(one["symbol"], one["timeframe"]): one for one in document("history", "show")["series"]}
    assert rows["BTCUSDT", "4h"]["sources"] == ["resampled from 1h"]
    assert [one["already_there"] for one in document(*args)["series"]] == [BARS // 4, BARS // 4]
    assert "binance/BTCUSDT/4h" in shown(*args)
    read = History(home / "data/history").read("binance", "BTCUSDT", "4h", OUTAGE - HOUR)
    hours = without(made()["BTCUSDT"], OUTAGE).between(OUTAGE - HOUR, OUTAGE + 3 * HOUR)
    assert (read.open[0], read.high[0], read.low[0], read.close[0]) == (
        *(hours.open[0], hours.high.max(), hours.low.min(), hours.close[-1]),
    )
    for wrong in ("1h", "30m"):
        refused = candlebook("history", "resample", "BTCUSDT", "--from", "1h", "--to", wrong)
        assert refused.exit_code == 2
        assert f'a longer, whole multiple of 1h, got "{wrong}"' in refused.stderr


def test_resample_refuses_a_gap_that_nobody_accepted_and_says_what_is_stored_already(
    home: Path,
) -> None:
    history = History(home / "data/history")
    shutil.rmtree(history.root / "binance/SOLUSDT")
    history.append("binance", without(made()["SOLUSDT"], OUTAGE + 200 * HOUR), "x")
    done = candlebook("history", "resample", "ETHUSDT", "SOLUSDT", "--from", "1h", "--to", "1d")
    assert done.exit_code == 3
    assert "SOLUSDT 1h at 2023-04-01T21:00Z: 1 bar is missing" in done.stderr
    assert "Stored before this one: binance/ETHUSDT/1d." in done.stderr
    assert not (history.root / "binance/SOLUSDT/1d").exists()


def test_compare_counts_the_bars_and_ends_with_3_at_the_first_one_that_differs(
    home: Path,
) -> None:
    history = History(home / "data/history")
    days = resample(history.read("binance", "ETHUSDT", "1h"), "1d")
    history.append("binance", days, "binance")
    compare = ("history", "compare", "ETHUSDT", "--from", "1h", "--to", "1d")
    assert document(*compare)["series"] == [
        {"symbol": "ETHUSDT", "bars": 30, "differences": 0, "first_differences": []}
    ]
    shutil.rmtree(history.root / "binance/ETHUSDT/1d")
    high = np.array(days.high)
    high[4] = np.nextafter(high[4], np.inf)  # the last bit
    history.append("binance", replace(days, high=high), "binance")
    (row,) = document(*compare, code=3)["series"]
    assert (row["bars"], row["differences"]) == (30, 1)
    assert row["first_differences"] == [
        {"open_time": "2023-03-24T00:00Z", "column": "high"}
        | {"resampled": days.high[4], "stored": high[4]}
    ]
    assert "ETHUSDT 2023-03-24T00:00Z high: ours" in shown(*compare, code=3)


def test_compare_of_bars_that_are_nowhere_both_is_no_success(home: Path) -> None:
    history = History(home / "data/history")
    later = synthetic_candles(["ETHUSDT"], "1d", START + 400 * 24 * HOUR, 10)["ETHUSDT"]
    history.append("binance", later, "binance")
    done = candlebook("history", "compare", "ETHUSDT", "--from", "1h", "--to", "1d")
    assert done.exit_code == 3
    assert "binance/ETHUSDT/1d: no bar of it can be made from 1h" in done.stderr


# Fetch


WHOLE = synthetic_candles(["BTCUSDT"], "1h", START, 1_500)
CLOSED = WHOLE["BTCUSDT"].rows(0, 1_499)  # the last is still forming


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReplayExchange]:
    now = int(WHOLE["BTCUSDT"].ts[-1]) + HOUR // 2
    with ReplayExchange([WHOLE], {"BTCUSDT": Filters()}, now) as server:
        monkeypatch.setenv("CANDLEBOOK_EXCHANGE_URL", server.url)
        yield server


def asked(exchange: ReplayExchange) -> list[int]:
    """Where the pages that were asked for begin."""
    return [int(q["startTime"]) for _, path, q in exchange.requests if path.endswith("/klines")]


def test_fetch_stores_closed_candles_and_goes_on_where_it_stopped(
    new_home: Path, exchange: ReplayExchange
) -> None:
    fetch = ("history", "fetch", "BTCUSDT", "--timeframe", "1h", "--since", "2023-03-20")
    exchange.inject(Fault("error_object", "klines", after=1))
    broken = candlebook(*fetch)
    assert broken.exit_code == 4
    assert "1,000 candles stored; the same command goes on from there." in broken.stderr
    exchange.clear_faults()
    exchange.requests.clear()
    (row,) = document(*fetch)["series"]
    assert asked(exchange) == [START + 994 * HOUR]  # the last five again, and on
    assert (row["rows_added"], row["rows"]) == (499, 1_499)
    assert row["last"] == iso(START + 1_498 * HOUR)
    stored = History(new_home / "data/history").read("binance", "BTCUSDT", "1h")
    assert stored.digest() == CLOSED.digest()
    done = candlebook("history", "fetch", "BTCUSDT")  # timeframe of the settings, since the first
    assert "0 candles added" in done.stderr


def test_fetch_fills_what_lies_before_and_between(new_home: Path, exchange: ReplayExchange) -> None:
    history = History(new_home / "data/history")
    for first, stop in ((100, 200), (300, 400)):
        history.append("binance", CLOSED.rows(first, stop), "binance")
    args = ("history", "fetch", "BTCUSDT", "--since", "2023-03-20", "--until", "2023-05-01")
    (row,) = document(*args)["series"]
    assert row["gaps"] == []
    assert row["rows"] == (utc_ms("2023-05-01") - START) // HOUR
    assert row["rows_added"] == row["rows"] - 200


def test_fetch_says_which_symbol_the_exchange_does_not_know(
    new_home: Path, exchange: ReplayExchange
) -> None:
    done = candlebook("history", "fetch", "NOPEUSDT")
    assert done.exit_code == 4
    assert "Check symbol" in done.stderr
    assert candlebook("history", "fetch", "btc").exit_code == 2
    late = candlebook("history", "fetch", "BTCUSDT", "--since", "2024", "--until", "2023")
    assert (late.exit_code, "--since" in late.stderr) == (2, True)
    assert not (new_home / "data").exists()


def test_fetch_reports_what_was_restated_withheld_or_is_odd(
    new_home: Path, exchange: ReplayExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = ("history", "fetch", "BTCUSDT", "--timeframe", "1h", "--since", "2023-03-20")
    document(*fetch)
    volume = np.array(WHOLE["BTCUSDT"].volume)
    volume[1_498] += 1.0
    other = CandleSet((replace(WHOLE["BTCUSDT"], volume=volume),))
    with ReplayExchange([other], {"BTCUSDT": Filters()}, exchange.clock.now()) as later:
        monkeypatch.setenv("CANDLEBOOK_EXCHANGE_URL", later.url)
        said = document(*fetch)
        assert [one["open_time"] for one in said["restated"]] == [iso(START + 1_498 * HOUR)]
        assert said["series"][0]["revised"] == 1
        assert "1 restated" not in candlebook(*fetch).stderr, "once is enough"
    stored = History(new_home / "data/history").read("binance", "BTCUSDT", "1h")
    assert stored.digest() == CLOSED.digest()
    assert "Restated later" in shown("history", "show")
    monkeypatch.setenv("CANDLEBOOK_EXCHANGE_URL", exchange.url)
    exchange.clock.set(int(WHOLE["BTCUSDT"].ts[-1]) + 4 * HOUR)
    exchange.inject(Fault("halted", "exchangeInfo"))
    (line,) = document(*fetch)["short"]
    assert "is stale" in line
    assert "BREAK" in line
    early = document("history", "fetch", "BTCUSDT", "--since", "2023-03-01")
    assert "begins at 2023-03-20T00:00Z" in early["short"][0]


def test_a_symbol_whose_candles_are_refused_does_not_stop_the_others(
    new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = synthetic_candles(["BTCUSDT", "ETHUSDT"], "1h", START, 100)
    filters = dict.fromkeys(both.symbols, Filters())
    with ReplayExchange([both], filters, START + 100 * HOUR + 5_000) as server:
        monkeypatch.setenv("CANDLEBOOK_EXCHANGE_URL", server.url)
        server.inject(Fault("nan", symbol="BTCUSDT"))
        fetch = ("history", "fetch", "BTCUSDT", "ETHUSDT", "--since", "2023-03-20")
        done = candlebook(*fetch)
        assert done.exit_code == 3
        assert "BTCUSDT is left as it was" in done.stderr
        assert [one["symbol"] for one in document("history", "show")["series"]] == ["ETHUSDT"]
        server.clear_faults()
        assert [one["rows_added"] for one in document(*fetch)["series"]] == [100, 0]


def test_filters_are_fetched_into_the_snapshot_and_compared_with_today(
    new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candles = synthetic_candles(["BTCUSDT", "NEWUSDT"], "1h", START, 50)
    mine = Filters(lot_step="0.001", tick="0.5", max_quantity="100", min_notional="5")
    listed = load_settings(new_home).filters
    assert listed is not None
    others = [name for name in listed.filters if name != "BTCUSDT"]
    more = synthetic_candles(others, "1h", START, 50)
    filters = {**listed.filters, "BTCUSDT": mine, "NEWUSDT": mine}
    with ReplayExchange([candles, more], filters, START + 40 * HOUR) as server:
        monkeypatch.setenv("CANDLEBOOK_EXCHANGE_URL", server.url)
        changed = document("filters", "show", "--live")["changed"]
        assert {one["symbol"] for one in changed} == {"BTCUSDT"}
        assert {"symbol": "BTCUSDT", "what": "tick", "snapshot": "0.01", "today": "0.5"} in changed
        assert candlebook("filters", "show", "NEWUSDT").exit_code == 2
        fetched = document("filters", "fetch", "NEWUSDT")
        assert set(fetched["changed"]) == {"BTCUSDT", "NEWUSDT"}
        snapshot = load_settings(new_home).filters
        assert snapshot is not None
        assert snapshot.filters["NEWUSDT"].tick == mine.tick
        assert snapshot.taken_at.isoformat() == "2023-03-21"
        assert "The exchange says the same today." in shown("filters", "show", "--live")
        server.inject(Fault("halted", "exchangeInfo"))
        assert "BTCUSDT status: TRADING -> BREAK" in shown("filters", "show", "BTCUSDT", "--live")


def test_ctrl_c_ends_a_fetch_with_130_and_one_line(
    new_home: Path, exchange: ReplayExchange
) -> None:
    exchange.inject(Fault("hang"))
    process = start("history", "fetch", "BTCUSDT")
    until = time.monotonic() + 30
    while not exchange.requests and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert (process.returncode, out) == (130, "")
    assert err.strip() == "error: interrupted; what was finished before stays"
