"""The `candlebook` command, in a project of its own: each command, and each way to get it wrong."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from live import runner
from live.cli import main
from live.paper import run_slot
from live.runner import Run
from research.backtesting import backtest
from research.candles import Candles, CandleSet, iso, utc_ms
from research.history import History
from research.settings import load_settings
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles
from research.variables import VARIABLES

ROOT = Path(__file__).resolve().parents[2]
HOUR = 3_600_000
START = utc_ms("2023-03-20")
BARS = 24 * 30
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
OUTAGE = utc_ms("2023-03-24T13:00")
LAST_CLOSE = START + BARS * HOUR
PROMOTE = ("promote", "trend", "--strategy", "sma_trend", "--param", "fast=5", "--param")
PROMOTE = (*PROMOTE, "slow=30", "--end", "2023-04-18", "--why", "a test")


def made() -> CandleSet:
    return synthetic_candles(SYMBOLS, "1h", START, BARS)


def without(candles: Candles, ts: int) -> Candles:
    kept = np.flatnonzero(candles.ts != ts)
    columns = (getattr(candles, name)[kept] for name in ("ts", "open", "high", "low", "close"))
    return Candles(candles.symbol, candles.timeframe, *columns, candles.volume[kept])


def as_file(candles: Candles, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    candles.frame().reset_index().to_parquet(path)
    return path


def empty_project(root: Path) -> Path:
    for folder in ("params", "notebooks"):
        shutil.copytree(
            ROOT / folder, root / folder, ignore=shutil.ignore_patterns("promoted", ".ipynb*")
        )
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic candles laid out as people have them; one symbol lacks an hour of an outage."""
    folder = tmp_path_factory.mktemp("files")
    for one in made():
        candles = without(one, OUTAGE) if one.symbol == "BTCUSDT" else one
        as_file(candles, folder / "binance" / one.symbol / "1h.parquet")
    return folder


@pytest.fixture(scope="module")
def prepared(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with history and one promoted strategy. Copied, never used."""
    root = empty_project(tmp_path_factory.mktemp("prepared"))
    for args in (("history", "import", str(tree)), PROMOTE):
        done = CliRunner().invoke(main, ["--home", str(root), *args])
        assert done.exit_code == 0, done.output
    return root


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "CANDLEBOOK_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(prepared, root)
    monkeypatch.setenv("CANDLEBOOK_HOME", str(root))
    return root


@pytest.fixture
def new_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = empty_project(tmp_path / "new")
    monkeypatch.setenv("CANDLEBOOK_HOME", str(root))
    return root


def candlebook(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


def shown(*args: str, code: int = 0) -> str:
    """What a command shows on standard output; nothing but notices may be on standard error."""
    done = candlebook(*args)
    assert done.exit_code == code, (done.output, done.exception)
    return done.stdout


def document(*args: str, code: int = 0) -> Any:
    """The one JSON document that a command answers with."""
    return json.loads(shown(*args, "--json", code=code), parse_constant=pytest.fail)


def contents(root: Path) -> dict[str, str]:
    """Every file below ``root``, by its hash; locks come and go and hold nothing."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


# Help and settings


def test_help_names_every_command_and_every_exit_code() -> None:
    text = shown("--help")
    for name in main.commands:
        assert f"\n  {name} " in text
    for code in (*range(2, 10), 130):
        assert f" {code} " in text
    assert "..." not in text.partition("Commands:")[2]  # no command's sentence is cut


def test_config_tells_where_a_value_came_from_and_never_a_secret(
    new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (new_home / ".env").write_text("MAX_DRAWDOWN_PERCENT=7\nOPENAI_API_KEY=canary-1\n")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:canary-2@localhost/books")
    rows = {one["key"]: one for one in document("config")["settings"]}
    assert (
        rows["limits.max_drawdown_pct"]["value"],
        rows["limits.max_drawdown_pct"]["source"],
    ) == (
        "7",
        ".env",
    )
    assert rows["fee_rate"]["source"] == "params/settings.yaml"
    text = shown("config")
    assert "limits.max_drawdown_pct" in text
    assert "canary" not in text + json.dumps(rows)


def test_home_is_the_project_whatever_the_environment_says(
    new_home: Path, home: Path, tmp_path: Path
) -> None:
    assert document("--home", str(home), "history", "show")["series"]
    assert not document("--home", str(new_home), "history", "show")["series"]
    assert os.environ["CANDLEBOOK_HOME"] in (str(home), str(new_home))


# History


def test_import_takes_a_tree_accepts_known_outages_and_says_so(new_home: Path, tree: Path) -> None:
    done = candlebook("history", "import", str(tree))
    assert done.exit_code == 0
    assert "Accepted as known outages" in done.stdout
    assert "BTCUSDT 2023-03-24T13:00Z .. 2023-03-24T14:00Z (matching_engine_2023)" in done.stdout
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


def test_a_heap_of_files_is_imported_up_to_the_first_that_is_broken(
    new_home: Path, tmp_path: Path
) -> None:
    heap = tmp_path / "heap"
    as_file(made()["BTCUSDT"], heap / "BTCUSDT-1h-a.parquet")
    (heap / "ETHUSDT-1h-b.parquet").write_bytes(b"PAR1 this is not Parquet")
    done = candlebook("history", "import", str(heap))
    assert done.exit_code == 3
    assert "The 1 files before this one are stored." in done.stderr
    assert "ETHUSDT-1h-b.parquet" in done.stderr
    assert [one["symbol"] for one in document("history", "show")["series"]] == ["BTCUSDT"]


def test_show_lists_what_is_stored_and_says_when_there_is_nothing(home: Path) -> None:
    rows = {one["symbol"]: one for one in document("history", "show")["series"]}
    assert rows["BTCUSDT"]["rows"] == BARS - 1
    assert rows["BTCUSDT"]["first"] == "2023-03-20T00:00Z"
    assert rows["BTCUSDT"]["accepted_gaps"][0]["name"] == "matching_engine_2023"
    assert rows["ETHUSDT"]["defects"] == {}
    assert "1 gap" in shown("history", "show")
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


# Research


def test_a_backtest_of_the_command_is_the_backtest_of_the_library(home: Path) -> None:
    args = ("--param", "fast=5", "--param", "slow=30", "--trade-from", "2023-03-25")
    found = document("backtest", "sma_trend", *args)
    settings = load_settings(home)
    candles = History(home / "data/history").load(SYMBOLS, "1h")
    run = backtest(SmaCrossover(5, 30), candles, settings.account(SYMBOLS), trade_from="2023-03-25")
    assert found["digest"] == run.digest()
    assert found["metrics"]["sharpe"] == run.metrics.sharpe
    assert found["first_close"] == "2023-03-25T00:00Z"
    text = shown("backtest", "sma_trend", *args)
    assert "SmaCrossover(fast=5, slow=30) on BTCUSDT, ETHUSDT, SOLUSDT, 1h" in text
    assert "Sharpe ratio" in text


@pytest.mark.parametrize("name", ["SmaCrossover", "sma_crossover"])
def test_a_strategy_is_found_by_class_and_by_file(home: Path, name: str) -> None:
    found = document("backtest", name, "--symbols", "SOLUSDT,ETHUSDT", "--start", "2023-04-01")
    assert found["parameters"] == {"fast": 20, "slow": 50}
    assert found["symbols"] == ["SOLUSDT", "ETHUSDT"]
    assert found["start"] == "2023-04-01T00:00Z"


def test_a_run_without_trades_has_null_where_there_is_nothing_to_say(home: Path) -> None:
    found = document("backtest", "SmaCrossover", "--symbols", "ETHUSDT", "--end", "2023-03-21")
    assert found["metrics"]["trades"] == 0
    assert found["metrics"]["win_rate"] is None


def test_a_report_is_written_whole_and_said_where(home: Path) -> None:
    path = home / "out" / "report.html"
    assert str(path) in shown("backtest", "sma_trend", "--report", str(path))
    assert "</html>" in path.read_text("utf-8")


def test_every_row_of_a_sweep_equals_its_single_backtest(home: Path) -> None:
    csv = home / "sweep.csv"
    grid = ("--grid", "fast=5:20:5", "--grid", "slow=10,30", "--symbols", "ETHUSDT")
    found = document("sweep", "SmaCrossover", *grid, "--csv", str(csv))
    assert (found["runs"], found["skipped"]) == (5, 3)
    assert len(csv.read_text().splitlines()) == 6
    ratios = [one["sharpe"] for one in found["rows"]]
    assert ratios == sorted(ratios, reverse=True)
    best = found["rows"][0]
    assert found["best"] == {"fast": best["fast"], "slow": best["slow"]}
    given = ("--param", f"fast={best['fast']}", "--param", f"slow={best['slow']}")
    single = document("backtest", "SmaCrossover", "--symbols", "ETHUSDT", *given)["metrics"]
    assert {name: best[name] for name in single} == single
    text = shown("sweep", "SmaCrossover", *grid, "--top", "2", "--metric", "max_drawdown")
    assert "5 combinations, 3 that the strategy does not allow" in text
    assert len([line for line in text.splitlines() if line.strip()[:1].isdigit()]) == 2


# Promotion


def test_what_is_promoted_is_listed_and_verified(home: Path) -> None:
    (one,) = document("artefacts")["artefacts"]
    assert (one["name"], one["state"], one["rows_tried"]) == ("trend", "sealed", 1)
    assert one["parameters"] == {"fast": 5, "slow": 30}
    assert "SmaCrossover(fast=5, slow=30)" in shown("artefacts")
    assert document("verify", "trend")["seal"] == one["seal"]
    assert "trend is what was promoted" in shown("verify", "trend")


def test_the_best_of_a_sweep_is_promoted_with_the_number_of_trials(home: Path) -> None:
    args = ("--from-sweep", "--grid", "fast=5,10", "--grid", "slow=30,40", "--why", "it is a test")
    done = document("promote", "best", "--strategy", "sma_trend", *args, "--days", "3")
    ranked = document("sweep", "sma_trend", *args[1:5])
    assert done["rows_tried"] == ranked["runs"] == 4
    assert done["parameters"] == ranked["best"]
    assert utc_ms(done["expires_at"]) - utc_ms(done["promoted_at"]) == 3 * 24 * HOUR
    assert document(*PROMOTE, "--replace")["name"] == "trend"


def test_an_edited_artefact_is_refused_by_the_name_of_what_changed(home: Path) -> None:
    file = home / "params/promoted/trend.yaml"
    file.write_text(file.read_text().replace("fast: 5", "fast: 6"))
    done = candlebook("verify", "trend")
    assert done.exit_code == 5
    assert done.stderr.startswith("error: trend: strategy: changed since it was promoted")
    (one,) = document("artefacts")["artefacts"]
    assert one["state"] == "tampered"
    assert "tampered" in shown("artefacts")


def test_changed_candles_are_found_by_verify(home: Path) -> None:
    shutil.rmtree(home / "data/history/binance/ETHUSDT")
    other = synthetic_candles(["ETHUSDT"], "1h", START, BARS, seed=99)["ETHUSDT"]
    file = as_file(other, home / "ETHUSDT" / "1h.parquet")
    document("history", "import", str(file))
    done = candlebook("verify", "trend")
    assert done.exit_code == 5
    assert done.stderr.startswith("error: trend: data (2023-03-20T00:00Z")


# Paper


def test_the_kill_switch_stands_tripped_until_somebody_says_go(home: Path) -> None:
    before = contents(home)
    assert document("status") == {"mode": "paper", "kill_switch": None, "accounts": []}
    assert "No paper ledger yet" in shown("status")
    assert contents(home) == before  # to look makes no ledger
    moved = document("reset", "--reason", "let it run", "--who", "ada")
    assert (moved["move"], moved["mode"], moved["who"]) == ("reset", "paper", "ada")
    switch = document("status")["kill_switch"]
    assert (switch["tripped"], switch["reason"]) == (False, "let it run")
    assert "Tripped" in shown("kill", "--reason", "enough", "--who", "ada")
    text = shown("status")
    assert "Kill switch TRIPPED" in text
    assert "enough (ada" in text
    assert document("status", "--replay")["kill_switch"] is None  # books of their own


@pytest.fixture
def lived(home: Path) -> Path:
    """A project whose replay has lived two bars, without a notebook."""
    slot = LAST_CLOSE - HOUR
    document("reset", "--reason", "go", "--replay", "--at", iso(slot - HOUR))
    for moment in (slot, LAST_CLOSE):
        run_slot("trend", moment, "replay", load_settings(home))
    return home


def test_status_shows_where_an_account_stands(lived: Path) -> None:
    found = document("status", "--replay")
    (one,) = found["accounts"]
    assert (one["account"], one["mode"]) == ("trend", "replay")
    assert one["marked_at"] == iso(LAST_CLOSE)
    assert one["cursor"] == f"{iso(LAST_CLOSE - HOUR)} close"
    assert [said["symbol"] for said in one["signals"]] == list(SYMBOLS)
    assert {said["at"] for said in one["signals"]} == {iso(LAST_CLOSE)}
    held = sum(position["value"] for position in one["positions"])
    assert one["equity"] == pytest.approx(one["cash"] + held, rel=1e-12)
    assert one["last_run"] is None
    text = shown("status", "--replay")
    for word in ("trend", "replay", "Last signals", "Kill switch not tripped"):
        assert word in text


def test_parity_is_exit_code_0_and_after_an_edit_7(lived: Path) -> None:
    found = document("parity", "trend", "--replay")
    assert (found["equal"], found["differences"], found["bars"]) == (True, 0, 2)
    assert "Paper equals replay" in shown("parity", "trend", "--replay")
    books = sa.create_engine(f"sqlite:///{lived / 'data' / 'replay.db'}")
    with books.begin() as conn:
        conn.execute(sa.text("UPDATE metrics SET cash = cash + 0.01"))
    books.dispose()
    broken = document("parity", "trend", "--replay", code=7)
    assert broken["differences"] == 2
    assert broken["first_differences"][0]["field"] == "cash"
    assert broken["first_differences"][0]["at"] == iso(LAST_CLOSE - HOUR)
    assert "cause:" in shown("parity", "trend", "--replay", code=7)


def test_a_replay_goes_through_the_notebook_in_a_kernel_of_the_same_project(home: Path) -> None:
    first = iso(LAST_CLOSE)
    found = document(
        "--home", str(home), "paper", "replay", "trend", "--bars", "1", "--from", first
    )
    assert [one["status"] for one in found["runs"]] == ["done"]
    assert Path(found["runs"][0]["report"]).is_file()
    again = shown("paper", "replay", "trend", "--bars", "1", "--from", first)
    assert "1 already done" in again
    (one,) = document("status", "--replay")["accounts"]
    assert (one["last_run"]["slot"], one["last_run"]["status"]) == (first, "done")


def test_paper_run_hands_the_slot_on_and_tells_how_it_ended(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def run(name: str, slot: int | None, mode: str, settings: Any) -> Run:
        asked.append((name, slot, mode, settings.root))
        return Run(name, LAST_CLOSE, mode, "done", home / "data", 1, 2.5)

    monkeypatch.setattr(runner, "run", run)
    assert "trend, slot 2023-04-19T00:00Z: done in 2.5 s" in shown("paper", "run", "trend")
    found = document("paper", "run", "trend", "--slot", "2023-04-19")
    assert (found["slot"], found["status"], found["seconds"]) == ("2023-04-19T00:00Z", "done", 2.5)
    assert asked == [("trend", None, "paper", home), ("trend", LAST_CLOSE, "paper", home)]


# Bad input: one message, the right exit code, nothing half-written


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ("backtest sma_trend --timeframe 1d", 3, ("binance/BTCUSDT/1d", "history fetch BTCUSDT")),
        ("backtest sma_trend --start 2030", 3, ("binance/BTCUSDT/1h", "stored is 2023-03-20")),
        ("backtest sma_trend --start 2024 --end 2023", 2, ("--end", "after 2024-01-01")),
        ("backtest sma_trend --trade-from 2030", 2, ("trade_from", "2023-04-19T00:00Z")),
        ("backtest sma_trend --symbols BTCUSD", 2, ("params/symbols.yaml", "mean BTCUSDT?")),
        ("backtest sma_trend --symbols BTCUSDT,BTCUSDT", 2, ("symbols", "each symbol once")),
        ("backtest sma_trends", 2, ("strategy", "Did you mean sma_trend?")),
        ("backtest sma_trend --param fats=5", 2, ("SmaCrossover.fats", "Did you mean fast?")),
        ("backtest sma_trend --param fast=1", 2, ("SmaCrossover.fast", "from 2 to 1000, got 1")),
        ("backtest sma_trend --param fast=2.5", 2, ("SmaCrossover.fast", "a whole number")),
        ("backtest sma_trend --param fast=60", 2, ("SmaCrossover.fast", "less than slow")),
        ("backtest sma_trend --timeframe 7m", 2, ("timeframe", "one of 1m, 3m")),
        ("backtest sma_trend --start soon", 2, ("--start", "a UTC date or time")),
        ("backtest sma_trend --report params", 2, ("--report", "is a directory")),
        ("backtest sma_trend --report README/x.html", 2, ("--report", "can be written")),
        ("backtest sma_trend --nope", 2, ("No such option",)),
        ("sweep sma_trend", 2, ("--grid", "fast=5:60:5")),
        ("sweep sma_trend --grid fast=5,5000", 2, ("SmaCrossover.fast", "got 5000")),
        ("sweep sma_trend --grid fast=90,100", 2, ("SmaCrossover grid", "strategy allows")),
        ("sweep sma_trend --grid fast=5 --metric sharp", 2, ("--metric", "Did you mean sharpe?")),
        ("sweep sma_trend --grid fast=5 --csv README/x.csv", 2, ("--csv", "can be written")),
        ("promote Bad --strategy sma_trend --why x", 2, ("name", "starting with a letter")),
        ("promote new --strategy sma_trend --why=", 2, ("why", "a reason, in words")),
        ("promote new --strategy sma_trend", 2, ("--why",)),
        ("promote new --strategy sma_trend --why x --from-sweep", 2, ("--grid",)),
        ("promote trend --strategy sma_trend --why x", 5, ("trend.yaml", "--replace")),
        ("verify nope", 2, ("artefact", "one of trend")),
        ("verify ../trend", 2, ("name", "starting with a letter")),
        ("history import nope.parquet", 2, ("nope.parquet", "does not exist")),
        ("history import params", 2, ("params", "binance/BTCUSDT/1h.parquet")),
        ("history verify --symbol NOPE", 3, ("NOPE", "history show")),
        (
            "history accept-gap BTCUSDT --timeframe 1h --start 2023-04-01 --end 2023-04-02 "
            "--name x --why y",
            2,
            ("binance/BTCUSDT/1h gap", "exactly a run of missing bars"),
        ),
        ("paper run nope", 2, ("artefact", "one of trend")),
        ("paper run trend --slot 2023-04-01T00:30", 2, ("slot", "close of a 1h bar")),
        ("paper replay trend --bars 0", 2, ("--bars",)),
        ("kill --reason=", 2, ("reason", "in words")),
        ("reset", 2, ("--reason",)),
        ("frobnicate", 2, ("No such command",)),
    ],
)
def test_a_mistake_is_one_message_with_field_and_remedy_and_changes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, args: str, code: int, said: tuple[str, ...]
) -> None:
    monkeypatch.chdir(home)
    (home / "README").write_text("a file, where somebody wants a folder")
    if args.startswith(("kill", "reset")):
        document("reset", "--reason", "so that there is a ledger")
    before = contents(home)
    done = candlebook(*args.split())
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    assert done.stderr.lower().count("error: ") == 1
    assert "Traceback" not in done.stderr
    for part in said:
        assert part in done.stderr
    machine = document(*args.split(), code=code)["error"]
    assert machine["exit_code"] == code
    assert all(part in f"{machine['field']} {machine['message']}" for part in said)
    assert contents(home) == before


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("params/settings.yaml", "fee_rat: 0.1\n", ("fee_rat", "Did you mean fee_rate?")),
        ("params/settings.yaml", "fee_rate: 2\n", ("params/settings.yaml: fee_rate", "got 2")),
        ("params/risk_limits.yaml", "limits: [", ("params/risk_limits.yaml",)),
        (".env", "CANDLEBOOK_HOUSE=x\n", ("CANDLEBOOK_HOUSE", "CANDLEBOOK_HOME")),
    ],
)
def test_wrong_settings_stop_every_command_by_file_and_key(
    home: Path, file: str, text: str, said: tuple[str, ...]
) -> None:
    (home / file).write_text(text)
    for args in (("config",), ("status",), ("backtest", "sma_trend"), ("history", "show")):
        done = candlebook(*args)
        assert done.exit_code == 2
        assert all(part in done.stderr for part in said)
    assert document("config", code=2)["error"]["type"] == "SettingsError"


def test_a_corrupted_month_is_named_and_nothing_is_computed(home: Path) -> None:
    file = home / "data/history/binance/BTCUSDT/1h/2023-03.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    report = home / "report.html"
    before = contents(home)
    for args in (
        ("backtest", "sma_trend", "--report", str(report)),
        ("promote", "other", "--strategy", "sma_trend", "--why", "x"),
        ("verify", "trend"),
        ("parity", "trend", "--replay"),
    ):
        done = candlebook(*args)
        assert done.exit_code == 3, done.output
        assert "binance/BTCUSDT/1h" in done.stderr
        assert "2023-03.parquet" in done.stderr
    assert contents(home) == before


def test_a_ledger_that_is_none_is_a_ledger_error(home: Path) -> None:
    (home / "data/ledger.db").write_bytes(b"this is not SQLite" * 100)
    for args in (("status",), ("kill", "--reason", "stop")):
        done = candlebook(*args)
        assert done.exit_code == 6, done.output
        assert "ledger.db" in done.stderr


def test_an_error_that_nobody_foresaw_is_short_and_long_only_with_debug(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("research.settings.load_settings", broken)
    done = candlebook("config")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "planted" in done.stderr
    assert "Traceback" not in done.stderr
    loud = candlebook("--debug", "config")
    assert (loud.exit_code, "Traceback" in loud.stderr) == (1, True)
    assert document("config", code=1)["error"]["type"] == "ZeroDivisionError"


# Real processes


def start(*args: str) -> subprocess.Popen[str]:
    code = "import sys; from live.cli import main; main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


# Runs a command, then names on standard error the watched libraries that it has loaded.
PROBE = """
import atexit, sys
watched = sys.argv.pop(1).split(",")
atexit.register(lambda: print(sorted(set(watched) & set(sys.modules)), file=sys.stderr))
from live.cli import main
main(sys.argv[1:])
"""
HEAVY = ("vectorbt", "llama_index", "openai", "jupyterlab", "IPython", "papermill", "ccxt")
HEAVY = (*HEAVY, "numba", "plotly", "pyarrow.parquet", "talib", "alembic")


def loaded(watched: tuple[str, ...], *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, ",".join(watched), *args],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=60,
        check=True,
    )
    return done.stderr.strip().splitlines()[-1]


def test_status_loads_no_lab_no_compiler_and_no_network(lived: Path) -> None:
    assert loaded(HEAVY, "status", "--replay", "--json") == "[]"


def test_help_loads_nothing_that_it_does_not_need() -> None:
    assert loaded((*HEAVY, "pandas", "numpy", "sqlalchemy", "pydantic"), "--help") == "[]"


def test_the_probe_of_what_is_loaded_would_see_it(home: Path) -> None:
    assert loaded(HEAVY, "history", "show") != "[]"
