"""`candlebook history`: import, fetch from a loopback exchange, show, verify, accept."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest

from research.candles import Candles, iso, utc_ms
from research.history import History
from research.synthetic import synthetic_candles
from tests.integration.cli_project import (
    BARS,
    HOUR,
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


class Exchange(ThreadingHTTPServer):
    """Tells its time and serves BTCUSDT hours as Binance does; ``fault`` answers in its place."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.candles = synthetic_candles(["BTCUSDT"], "1h", START, 1_500)["BTCUSDT"]
        self.asked: list[int] = []
        self.refuse_from = 10**18
        self.hang = threading.Event()
        self.reached = threading.Event()
        self.closing = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: Exchange

    def do_GET(self) -> None:
        url, here = urlsplit(self.path), self.server
        query = dict(parse_qsl(url.query))
        here.reached.set()
        if here.hang.is_set():
            here.closing.wait(20)
            return
        c = here.candles
        if url.path.endswith("/time"):
            self.answer({"serverTime": int(c.ts[-1]) + HOUR // 2})  # the last is still forming
            return
        first, last = int(query["startTime"]), int(query["endTime"])
        here.asked.append(first)
        if first >= here.refuse_from or query["symbol"] != "BTCUSDT":
            self.answer({"code": -1121, "msg": "Invalid symbol."}, 400)
            return
        rows = np.flatnonzero((c.ts >= first) & (c.ts <= last))[: int(query["limit"])]
        self.answer([self.row(c, int(i)) for i in rows])

    @staticmethod
    def row(c: Candles, i: int) -> list[Any]:
        texts = (f"{column[i]:.8f}" for column in (c.open, c.high, c.low, c.close, c.volume))
        return [int(c.ts[i]), *texts, int(c.ts[i]) + HOUR - 1, "1.0", 7, "1.0", "1.0", "0"]

    def answer(self, body: Any, status: int = 200) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchange]:
    server = Exchange()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("CANDLEBOOK_EXCHANGE_URL", f"http://127.0.0.1:{server.server_address[1]}")
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


def test_fetch_stores_closed_candles_and_goes_on_where_it_stopped(
    new_home: Path, exchange: Exchange
) -> None:
    fetch = ("history", "fetch", "BTCUSDT", "--timeframe", "1h", "--since", "2023-03-20")
    exchange.refuse_from = START + 1_000 * HOUR
    broken = candlebook(*fetch)
    assert broken.exit_code == 4
    assert "1,000 candles are stored; the same command goes on from there." in broken.stderr
    exchange.refuse_from, exchange.asked = 10**18, []
    (row,) = document(*fetch)["series"]
    assert exchange.asked == [START + 999 * HOUR]  # the last stored one again, and on
    assert (row["rows_added"], row["rows"]) == (499, 1_499)
    assert row["last"] == iso(START + 1_498 * HOUR)
    stored = History(new_home / "data/history").read("binance", "BTCUSDT", "1h")
    assert np.array_equal(stored.close, exchange.candles.close[:-1])
    done = candlebook("history", "fetch", "BTCUSDT")  # timeframe of the settings, since the first
    assert "0 candles added" in done.stderr


def test_fetch_fills_what_lies_before_and_between(new_home: Path, exchange: Exchange) -> None:
    history = History(new_home / "data/history")
    for first, stop in ((100, 200), (300, 400)):
        history.append("binance", exchange.candles.rows(first, stop), "binance")
    args = ("history", "fetch", "BTCUSDT", "--since", "2023-03-20", "--until", "2023-05-01")
    (row,) = document(*args)["series"]
    assert row["gaps"] == []
    assert row["rows"] == (utc_ms("2023-05-01") - START) // HOUR
    assert row["rows_added"] == row["rows"] - 200


def test_fetch_says_which_symbol_the_exchange_does_not_know(
    new_home: Path, exchange: Exchange
) -> None:
    done = candlebook("history", "fetch", "NOPEUSDT")
    assert done.exit_code == 4
    assert "Check symbol" in done.stderr
    assert candlebook("history", "fetch", "btc").exit_code == 2
    late = candlebook("history", "fetch", "BTCUSDT", "--since", "2024", "--until", "2023")
    assert (late.exit_code, "--since" in late.stderr) == (2, True)
    assert not (new_home / "data").exists()


def test_ctrl_c_ends_a_fetch_with_130_and_one_line(new_home: Path, exchange: Exchange) -> None:
    exchange.hang.set()
    process = start("history", "fetch", "BTCUSDT")
    assert exchange.reached.wait(30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert (process.returncode, out) == (130, "")
    assert err.strip() == "error: interrupted; what was finished before stays"
