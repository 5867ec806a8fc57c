"""Bad input to the command: one message, the right exit code, nothing half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli_project import (
    candlebook,
    contents,
    document,
)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ("backtest sma_trend --timeframe 1d", 3, ("binance/BTCUSDT/1d", "history fetch BTCUSDT")),
        ("backtest sma_trend --start 2030", 3, ("binance/BTCUSDT/1h", "stored is 2023-03-20")),
        ("backtest sma_trend --start 2024 --end 2023", 2, ("--end", "after 2024-01-01")),
        ("backtest sma_trend --trade-from 2030", 2, ("trade_from", "2023-04-19T00:00Z")),
        ("backtest sma_trend --symbols BTCUSD", 2, ("--symbols", "mean BTCUSDT?", "symbols.yaml")),
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
        ("sweep sma_trend --grid fast=5 --on spark", 2, ("on", "tcp://host:8786")),
        ("sweep sma_trend --grid fast=5 --workers 2", 2, ("workers", "on=")),
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
        ("parity trend", 2, ("no paper run of trend yet", "parity trend --replay")),
        ("parity nope", 2, ("artefact", "one of trend")),
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
    ):
        done = candlebook(*args)
        assert done.exit_code == 3, done.output
        assert "binance/BTCUSDT/1h" in done.stderr
        assert "2023-03.parquet" in done.stderr
    assert contents(home) == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("fast: 20", "fast: 1", ("parameters.fast: SmaCrossover.fast", "from 2 to 1000, got 1")),
        ("fast: 20", "fats: 20", ("parameters.fats: SmaCrossover.fats", "Did you mean fast?")),
        ("fast: 20", "fast: 60", ("parameters: SmaCrossover.fast", "less than slow")),
    ],
)
def test_a_parameter_of_a_file_is_that_files_mistake(
    home: Path, old: str, new: str, said: tuple[str, ...]
) -> None:
    file = home / "params/strategies.yaml"
    file.write_text(file.read_text().replace(old, new))
    done = candlebook("backtest", "sma_trend")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: params/strategies.yaml: strategies.sma_trend.parameters")
    assert all(part in done.stderr for part in said)
    if new != "fats: 20":  # what the command line says in its place is right
        assert document("backtest", "sma_trend", "--param", "fast=5")["parameters"]["fast"] == 5


def test_parity_over_a_corrupted_month_is_about_the_candles(lived: Path) -> None:
    file = lived / "data/history/binance/BTCUSDT/1h/2023-03.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    done = candlebook("parity", "trend", "--replay")
    assert done.exit_code == 3
    assert "2023-03.parquet" in done.stderr


def test_a_replay_beyond_what_is_stored_says_where_the_account_stands(lived: Path) -> None:
    before = contents(lived)
    done = candlebook("paper", "replay", "trend", "--bars", "2")
    assert done.exit_code == 2
    assert "trend has reached the last stored bar (2023-04-19T00:00Z)" in done.stderr
    assert "history fetch" in done.stderr
    assert contents(lived) == before


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
