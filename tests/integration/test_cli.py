"""The `candlebook` command in a project of its own: settings, research, promotion, paper."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from live import runner
from live.cli import main
from live.runner import Run
from research.backtesting import backtest
from research.candles import iso, utc_ms
from research.history import History
from research.settings import load_settings
from research.strategies.momentum_rotation import MomentumRotation
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles
from tests.integration.cli_project import (
    BARS,
    HOUR,
    LAST_CLOSE,
    PROMOTE,
    ROOT,
    START,
    SYMBOLS,
    UNJUDGED,
    as_file,
    candlebook,
    contents,
    document,
    shown,
)

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
    ) == (7.0, ".env")
    assert rows["fee_rate"]["source"] == "params/settings.yaml"
    native = {name: rows[name]["value"] for name in ("fee_rate", "limits.max_position_usd")}
    assert native == {"fee_rate": 0.001, "limits.max_position_usd": None}
    assert rows["strategies.sma_trend"]["value"]["parameters"] == {"fast": 20, "slow": 50}
    assert rows["symbols.BTCUSDT"]["value"]["min_trade_size"] == "0.0001"
    assert rows["openai_api_key"]["value"] == "********"
    assert rows["alert_webhook_url"]["value"] is None
    text = shown("config")
    assert "limits.max_drawdown_pct" in text
    assert "canary" not in text + json.dumps(rows)


def test_home_is_the_project_whatever_the_environment_says(
    new_home: Path, home: Path, tmp_path: Path
) -> None:
    assert document("--home", str(home), "history", "show")["series"]
    assert not document("--home", str(new_home), "history", "show")["series"]
    assert os.environ["CANDLEBOOK_HOME"] in (str(home), str(new_home))


def test_json_may_be_asked_for_before_the_command(home: Path) -> None:
    assert json.loads(shown("--json", "status")) == document("status")
    assert json.loads(shown("--json", "history", "show")) == document("history", "show")
    done = candlebook("--json", "verify", "nope")
    assert json.loads(done.stdout)["error"]["exit_code"] == 2


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


AUDIT = ("backtest", "sma_trend", "--param", "fast=2", "--param", "slow=5", "--timeframe", "4h")


def with_a_trailing_stop(home: Path) -> None:
    limits = home / "params/risk_limits.yaml"
    text = limits.read_text("utf-8")
    assert text.count("trailing_stop_pct: null") == 1
    limits.write_text(text.replace("trailing_stop_pct: null", "trailing_stop_pct: 2"), "utf-8")


def test_stops_are_audited_on_the_finer_candles_of_the_store(home: Path) -> None:
    with_a_trailing_stop(home)
    shown("history", "resample", "ETHUSDT", "SOLUSDT", "--from", "1h", "--to", "4h")
    args = (*AUDIT, "--symbols", "SOLUSDT,ETHUSDT", "--audit-stops", "1h")
    found = document(*args)["stop_audit"]
    history = History(home / "data/history")
    symbols = ("SOLUSDT", "ETHUSDT")
    run = backtest(
        SmaCrossover(2, 5), history.load(symbols, "4h"), load_settings(home).account(symbols)
    )
    wanted = run.audit_stops(history.load(symbols, "1h")).summary()
    assert found == json.loads(json.dumps(wanted))
    assert found["audited"] == found["trades"] > found["differing"] > 0
    assert document(*args[:-2])["stop_audit"] is None
    text = shown(*args)
    assert "Stops of a run over 4h bars of SOLUSDT, ETHUSDT, replayed on 1h candles" in text
    assert "Exit differs" in text


def test_a_symbol_without_finer_candles_is_not_covered_and_none_at_all_is_refused(
    home: Path,
) -> None:
    with_a_trailing_stop(home)
    shown("history", "resample", "ETHUSDT", "--from", "1h", "--to", "4h")
    args = ("--param", "fast=2", "--param", "slow=5", "--symbols", "SOLUSDT,ETHUSDT")
    finer = candlebook("backtest", "sma_trend", *args, "--audit-stops", "15m", "--json")
    assert json.loads(finer.stdout)["error"]["exit_code"] == 3
    history = History(home / "data/history")
    made = synthetic_candles(("ETHUSDT",), "15m", START, BARS * 4)["ETHUSDT"]
    history.append("binance", made, "synthetic")
    found = document("backtest", "sma_trend", *args, "--audit-stops", "15m")["stop_audit"]
    assert 0 < found["not_covered"] < found["trades"]


@pytest.mark.parametrize(
    ("timeframe", "expected"),
    [("1h", "a shorter one that divides 1h"), ("4h", "divides 1h"), ("1x", "one of 1m, 3m")],
)
def test_an_audit_on_candles_that_are_not_finer_is_refused(
    home: Path, timeframe: str, expected: str
) -> None:
    with_a_trailing_stop(home)
    done = candlebook("backtest", "sma_trend", "--audit-stops", timeframe)
    assert done.exit_code == 2
    assert expected in done.stderr


def test_an_audit_of_an_account_without_stops_is_refused(home: Path) -> None:
    done = candlebook("backtest", "sma_trend", "--audit-stops", "15m")
    assert done.exit_code == 2
    assert "no stop that acts at a price" in done.stderr


def test_a_strategy_that_ranks_symbols_is_given_all_of_them(home: Path) -> None:
    asked = ("backtest", "momentum_rotation", "--param", "lookback=48", "--param", "floor=-100")
    found = document(*asked, "--symbols", ",".join(SYMBOLS))
    candles = History(home / "data/history").load(SYMBOLS, "1h")
    strategy = MomentumRotation(lookback=48, floor=-100.0)
    run = backtest(strategy, candles, load_settings(home).account(SYMBOLS))
    assert found["digest"] == run.digest()
    assert {fill.symbol for fill in run.fill_list} == set(SYMBOLS)
    grid = ("--grid", "lookback=24,48", "--grid", "top=1:2:1")
    text = shown("sweep", "momentum_rotation", "--symbols", ",".join(SYMBOLS), *grid)
    assert "MomentumRotation" in text


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


def test_a_run_that_halted_says_so_last_and_how_much_it_missed(home: Path) -> None:
    limits = home / "params/risk_limits.yaml"
    limits.write_text(limits.read_text().replace("max_drawdown_pct: 10", "max_drawdown_pct: 0.5"))
    found = document("backtest", "sma_trend")
    assert found["halted_at"] is not None
    last = shown("backtest", "sma_trend").strip().splitlines()[-1]
    still = (LAST_CLOSE - utc_ms(found["halted_at"])) / (BARS * HOUR)
    assert f"{still:.0%} of the window went untraded" in last
    text = shown("sweep", "sma_trend", "--grid", "fast=5,10")
    assert "2 of 2 reached the drawdown limit" in text
    assert [line.split()[-1] for line in text.splitlines() if "%  " in line] == ["yes", "yes"]
    assert "untraded" not in shown("backtest", "sma_trend", "--end", "2023-03-21")


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
    assert "5 combinations, 3 that are not allowed" in text
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
    args = (*args, *UNJUDGED)
    done = document("promote", "best", "--strategy", "sma_trend", *args, "--days", "3")
    ranked = document("sweep", "sma_trend", *args[1:5])
    assert done["rows_tried"] == ranked["runs"] == 4
    assert done["parameters"] == ranked["best"]
    assert utc_ms(done["expires_at"]) - utc_ms(done["promoted_at"]) == 3 * 24 * HOUR
    assert document(*PROMOTE, "--replace")["name"] == "trend"


def test_a_replay_is_suggested_only_where_stored_bars_lie_after_the_window(home: Path) -> None:
    args = ("promote", "new", "--strategy", "sma_trend", "--why", "a test", *UNJUDGED)
    text = shown(*args)
    assert "nothing to replay it on" in text
    assert "--end" in text
    assert "paper replay" not in text
    earlier = (*args, "--replace", "--end", "2023-04-18T21:00")
    text = shown(*earlier)
    assert "on the 3 stored bars after its window" in text
    assert "candlebook paper replay new --bars 3" in text
    assert "candlebook reset --replay" in text
    assert document(*earlier)["bars_after_window"] == 3


def test_a_promotion_tells_what_the_run_earned(home: Path) -> None:
    done = document(*PROMOTE, "--replace")
    text = shown(*PROMOTE, "--replace")
    assert f"Total return {done['metrics']['total_return']:+.2%}" in text
    assert "chosen from 1 combination." in text


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
    assert "Kill switch of paper TRIPPED" in text
    assert "enough (ada" in text
    assert document("status", "--replay")["kill_switch"] is None  # books of their own


def test_a_move_that_is_yet_to_come_is_planned_not_done(home: Path) -> None:
    text = shown("reset", "--reason", "go", "--replay")
    assert "trading may go on from the first bar" in text
    assert "from the first bar)" in shown("status", "--replay")
    document("reset", "--reason", "go", "--who", "ada")
    document("kill", "--reason", "holidays", "--who", "ada", "--at", "2199-12-24")
    switch = document("status")["kill_switch"]
    assert (switch["tripped"], switch["reason"]) == (False, "go")
    planned = {"move": "kill", "at": "2199-12-24T00:00Z", "reason": "holidays", "who": "ada"}
    assert switch["planned"] == [planned]
    text = shown("status")
    assert "TRIPPED" not in text
    assert "Planned: kill from 2199-12-24T00:00Z. holidays (ada)" in text


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
    for word in ("trend", "replay", "Last signals", "Kill switch of replay not tripped"):
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
    replay = ("paper", "replay", "trend", "--bars", "1", "--from", first)
    told = candlebook("--home", str(home), *replay, "--json")
    found = json.loads(told.stdout)
    assert [one["status"] for one in found["runs"]] == ["done"]
    assert "kill switch of replay is tripped: entries are refused until" in told.stderr
    assert "candlebook reset --replay" in told.stderr
    assert Path(found["runs"][0]["report"]).is_file()
    assert candlebook(*replay).exit_code == 2  # what is decided is not lived through twice
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
    before = contents(home)
    assert "trend, slot 2023-04-19T00:00Z: done in 2.5 s" in shown("paper", "run", "trend")
    found = document("paper", "run", "trend", "--slot", "2023-04-19")
    assert (found["slot"], found["status"], found["seconds"]) == ("2023-04-19T00:00Z", "done", 2.5)
    assert asked == [("trend", None, "paper", home), ("trend", LAST_CLOSE, "paper", home)]
    assert contents(home) == before  # to look whether the switch is tripped makes no ledger
    document("kill", "--reason", "enough")
    assert "kill switch of paper is tripped" in candlebook("paper", "run", "trend").stderr


# Real processes


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


def test_a_sweep_that_is_resumed_shows_the_same(home: Path, tmp_path: Path) -> None:
    asked = ("sweep", "sma_crossover", "--grid", "fast=5,10", "--grid", "slow=20,40")
    kept = ("--resume", str(tmp_path / "rows"))
    assert document(*asked, *kept) == document(*asked, *kept) == document(*asked)
    assert list((tmp_path / "rows").glob("rows-*.npy"))
    refused = candlebook(*asked[:4], "--grid", "slow=50", *kept)
    assert refused.exit_code == 2
    assert "another sweep" in refused.stderr
