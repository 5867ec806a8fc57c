"""Every public way to run something is counted among the trials, and nothing else is."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import research as rs
from research import search, workspace
from research.account import Account
from research.backtesting import backtest, rerun
from research.candles import CandleSet, utc_ms
from research.errors import SettingsError
from research.history import History
from research.indicators import Bank
from research.rows import course_of, figures_of_rows
from research.search import sweep
from research.sketch import blank_sketch, coarser, marks_of
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles
from research.tpe import optimise
from research.trial_ledger import TrialLedger, UnrecordedTrial, open_trials
from research.trials import Recorded
from tests.integration.cli_project import candlebook, document, shown

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = Account()
GRID: dict[str, Any] = {"fast": [3, 5, 7], "slow": [20, 40]}


def made(bars: int = 900) -> CandleSet:
    return synthetic_candles(("BTCUSDT",), "1h", utc_ms("2024"), bars)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialLedger:
    monkeypatch.setenv("CANDLEBOOK_TRIALS", str(tmp_path / "trials.db"))
    return open_trials()


def batches(ledger: TrialLedger) -> list[Recorded]:
    return list(ledger.batches())


def run_sketch(strategy: SmaCrossover, candles: CandleSet) -> tuple[bytes, list[float]]:
    """Digest and period returns of a single run, from its whole curve of equity."""
    run = rerun(strategy, candles, ACCOUNT)
    sketch = blank_sketch(run.tape.close_time, 1)
    marked = run.equity.to_numpy()[marks_of(run.tape.close_time)]
    sketch.put([0], marked[None, :], ACCOUNT.initial_cash)
    return sketch.digests[0].tobytes(), sketch.returns[0].tolist()


def require_rows_of_single_runs(one: Recorded, candles: CandleSet) -> None:
    batch = one.batch
    for i in range(len(batch)):
        strategy = SmaCrossover(**{name: v[i] for name, v in batch.parameters.items()})
        digest, returns = run_sketch(strategy, candles)
        assert batch.digests[i].tobytes() == digest
        assert batch.returns[i].tolist() == returns
        figures = rerun(strategy, candles, ACCOUNT).metrics
        assert repr(batch.sharpe[i].item()) == repr(figures.sharpe)
        assert batch.trades[i] == figures.trades


def test_a_backtest_is_a_batch_of_one(ledger: TrialLedger) -> None:
    candles = made()
    run = backtest(SmaCrossover(5, 40), candles, ACCOUNT, trade_from="2024-01-03")
    (one,) = batches(ledger)
    assert (one.batch.kind, one.batch.strategy, one.batch.version) == (
        "backtest",
        "SmaCrossover",
        1,
    )
    assert one.batch.module == "research.strategies.sma_crossover"
    assert one.batch.parameters == {"fast": [5], "slow": [40]}
    assert (one.batch.symbols, one.batch.timeframe) == (("BTCUSDT",), "1h")
    assert (one.batch.exchange, one.batch.source) == ("binance", "synthetic")
    assert one.batch.candles == candles.digest()
    ends = [int(run.tape.close_time[i]) for i in (0, -1)]
    assert [one.batch.first_close, one.batch.last_close] == ends
    assert one.batch.sharpe[0] == run.metrics.sharpe


@pytest.mark.parametrize("way", ["plain", "with returns", "resumed", "optimise"])
def test_every_row_of_a_search_is_recorded_with_the_sketch_of_its_single_run(
    way: str, ledger: TrialLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candles = made()
    if way == "optimise":
        pytest.importorskip("optuna")
        found = optimise(SmaCrossover, candles, ACCOUNT, trials=9, progress=False, **GRID)
    else:
        options: dict[str, Any] = {"returns": tmp_path / "r"} if way != "plain" else {}
        if way == "resumed":
            options["resume"] = tmp_path / "rows"
            sweep(SmaCrossover, candles, ACCOUNT, progress=False, **options, **GRID)
            monkeypatch.setattr(search, "figures_of_rows", lambda *_: pytest.fail("computed"))
        found = sweep(SmaCrossover, candles, ACCOUNT, progress=False, **options, **GRID)
    recorded = batches(ledger)
    assert [one.batch.kind for one in recorded] == {
        "optimise": ["optimise"],
        "resumed": ["sweep", "sweep"],
    }.get(way, ["sweep"])
    assert len(recorded[-1].batch) == len(found)
    require_rows_of_single_runs(recorded[-1], candles)
    assert ledger.trials().raw == len(found), "resumed or not, each once"


def test_the_check_above_sees_a_row_that_is_shifted_and_one_that_is_off_by_a_bit(
    ledger: TrialLedger,
) -> None:
    candles = made()
    sweep(SmaCrossover, candles, ACCOUNT, progress=False, **GRID)
    (one,) = batches(ledger)
    for name in ("digests", "returns", "sharpe"):
        wrong = np.roll(getattr(one.batch, name), 1, axis=0)
        with pytest.raises(AssertionError):
            require_rows_of_single_runs(one._replace(batch=_with(one.batch, name, wrong)), candles)


def _with(batch: Any, name: str, value: Any) -> Any:
    import dataclasses

    return dataclasses.replace(batch, **{name: value})


def test_marks_without_daily_returns_and_with_them_are_the_same_bits() -> None:
    candles = synthetic_candles(("BTCUSDT", "ETHUSDT"), "1h", utc_ms("2020"), 9_000)
    course = course_of(candles, utc_ms("2020-02-02T05:00"), ACCOUNT)
    chosen = [SmaCrossover(fast, 50) for fast in (5, 10, 20)]
    alone, beside = np.zeros((2, 3, len(course.marks)))
    daily = np.zeros((3, len(course.day_ends)))
    assert len(course.marks) < len(course.day_ends)
    plain = figures_of_rows(chosen, course, ACCOUNT, Bank(2**20))
    assert figures_of_rows(chosen, course, ACCOUNT, Bank(2**20), marked=alone) == plain
    both = figures_of_rows(chosen, course, ACCOUNT, Bank(2**20), daily=daily, marked=beside)
    assert both == plain
    assert alone.tobytes() == beside.tobytes()
    equity = rerun(chosen[1], candles, ACCOUNT, trade_from="2020-02-02T05:00").log.equity
    assert alone[1].tobytes() == equity[course.marks].tobytes()


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs Dask")
def test_rows_of_a_cluster_are_recorded_as_those_of_this_process(ledger: TrialLedger) -> None:
    candles = made()
    sweep(SmaCrossover, candles, ACCOUNT, progress=False, **GRID)
    sweep(SmaCrossover, candles, ACCOUNT, progress=False, on="dask", workers=1, **GRID)
    here, there = batches(ledger)
    assert here.batch.returns.tobytes() == there.batch.returns.tobytes()
    assert here.batch.digests.tobytes() == there.batch.digests.tobytes()


def test_what_looks_again_at_a_run_is_not_counted(ledger: TrialLedger) -> None:
    candles = made()
    found = sweep(SmaCrossover, candles, ACCOUNT, progress=False, **GRID)
    run = found.run()
    found.top(2)
    rerun(SmaCrossover(5, 40), candles, ACCOUNT)
    assert run.metrics.sharpe == found.frame["sharpe"].max()
    assert len(batches(ledger)) == 1


def test_a_search_that_fails_or_is_refused_is_not_recorded(ledger: TrialLedger) -> None:
    with pytest.raises(rs.CandlebookError):
        sweep(SmaCrossover, made(), ACCOUNT, fast=[50], slow=[10])
    with pytest.raises(rs.CandlebookError):
        backtest(SmaCrossover(), made(), ACCOUNT, trade_from="2030")
    assert batches(ledger) == []


def test_tried_answers_by_symbol_timeframe_and_time(ledger: TrialLedger) -> None:
    sweep(SmaCrossover, made(), ACCOUNT, progress=False, **GRID)
    backtest(SmaCrossover(5, 40), made(1_200), ACCOUNT)
    assert rs.tried().raw == rs.tried("BTCUSDT", "1h", "2024", "2025").raw == 6
    assert rs.tried(["ETHUSDT", "BTCUSDT"]).runs == 7
    assert rs.tried("ETHUSDT").raw == rs.tried(start="2025").raw == rs.tried(end="2023").raw == 0
    assert rs.tried(start="2024-02-10").raw == 1, "only the backtest went on for so long"


# Where it cannot be written


def warned(run: Callable[[], Any]) -> tuple[Any, str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run()
    (one,) = [each for each in caught if each.category is UnrecordedTrial]
    assert one.filename == __file__, "it points at the line that ran it"
    return result, str(one.message)


def test_a_run_that_cannot_be_recorded_has_its_result_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "trials.db"
    broken.write_bytes(b"no database at all" * 100)
    monkeypatch.setenv("CANDLEBOOK_TRIALS", str(broken))
    candles = made()
    run, words = warned(lambda: backtest(SmaCrossover(5, 40), candles, ACCOUNT))
    assert "not counted among the trials" in words
    assert str(broken) in words
    assert run.metrics == rerun(SmaCrossover(5, 40), candles, ACCOUNT).metrics
    found, words = warned(lambda: sweep(SmaCrossover, candles, ACCOUNT, progress=False, **GRID))
    assert len(found) == 6
    assert broken.read_bytes() == b"no database at all" * 100
    monkeypatch.setenv("CANDLEBOOK_TRIALS", str(broken / "below" / "a.file"))
    assert "cannot be used" in warned(lambda: backtest(SmaCrossover(5, 40), candles, ACCOUNT))[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnrecordedTrial)
        with pytest.raises(UnrecordedTrial):
            backtest(SmaCrossover(5, 40), candles, ACCOUNT)


def test_outside_a_project_a_run_is_not_counted_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Path:
        raise SettingsError("no params/settings.yaml here", field="project root")

    monkeypatch.delenv("CANDLEBOOK_TRIALS")
    monkeypatch.setattr(workspace, "project_root", nowhere)
    _, words = warned(lambda: backtest(SmaCrossover(5, 40), made(), ACCOUNT))
    assert "project root: no params/settings.yaml here" in words


def test_the_ledger_follows_what_the_project_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "settings.yaml").write_text("data_dir: here\n")
    monkeypatch.setenv("CANDLEBOOK_HOME", str(tmp_path))
    for name in ("CANDLEBOOK_TRIALS", "CANDLEBOOK_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert open_trials().path == tmp_path / "here" / "trials.db"
    monkeypatch.setenv("CANDLEBOOK_DATA_DIR", str(tmp_path / "there"))
    assert open_trials().path == tmp_path / "there" / "trials.db"
    (tmp_path / ".env").write_text("CANDLEBOOK_TRIALS=mine.db\n")
    assert open_trials().path == tmp_path / "mine.db"
    monkeypatch.setenv("CANDLEBOOK_TRIALS", str(tmp_path / "x.db"))
    assert open_trials().path == tmp_path / "x.db"
    assert open_trials() is open_trials()
    (tmp_path / "params" / "settings.yaml").write_text("no such key: 1\n")
    assert open_trials().path == tmp_path / "x.db", "nothing else has to be right for that"
    monkeypatch.delenv("CANDLEBOOK_TRIALS")
    with pytest.raises(SettingsError):
        open_trials()


def test_the_runs_of_the_tests_land_in_a_ledger_of_their_own(trials_of_the_tests: Path) -> None:
    assert open_trials().path == trials_of_the_tests
    assert not trials_of_the_tests.is_relative_to(ROOT)
    before = open_trials().head().number
    backtest(SmaCrossover(5, 40), made(), ACCOUNT)
    code = "import os; print(os.environ['CANDLEBOOK_TRIALS'])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(trials_of_the_tests) == os.environ["CANDLEBOOK_TRIALS"]
    assert open_trials().head().number == before + 1


# The command


def test_the_command_says_what_was_tried_and_whether_the_record_is_whole(home: Path) -> None:
    # Of the project in ``home``, which has promoted: its backtest was counted there.
    before = document("trials")
    assert before["ledger"] == str(home / "data" / "trials.db")
    candlebook("sweep", "sma_crossover", "--grid", "fast=5,7", "--grid", "slow=30,60")
    candlebook("backtest", "sma_crossover", "--param", "fast=5", "--param", "slow=30")
    found = document("trials")
    assert (found["runs"], found["batches"]) == (before["runs"] + 5, before["batches"] + 2)
    assert found["trials"] == before["trials"] + 4 - (before["trials"] and 1)
    assert 1 <= found["effective"] <= found["trials"]
    (row,) = found["by_strategy"]
    assert (row["strategy"], row["timeframe"]) == ("SmaCrossover", "1h")
    assert document("trials", "--symbols", "XRPUSDT")["trials"] == 0
    assert document("trials", "--symbols", "ETHUSDT", "--timeframe", "1h")["trials"] > 0
    assert "SmaCrossover" in shown("trials")
    assert shown("trials", "--timeframe", "1d") == "Nothing was tried yet.\n"
    assert document("trials", "--check")["batches"] == found["batches"]
    assert "as recorded and none missing" in shown("trials", "--check")


def test_the_command_ends_with_the_ledgers_code_where_it_was_changed(home: Path) -> None:
    import sqlite3
    from contextlib import closing

    candlebook("backtest", "sma_crossover", "--param", "fast=5", "--param", "slow=30")
    open_trials().close()
    with closing(sqlite3.connect(home / "data" / "trials.db")) as conn:
        conn.execute("DROP TRIGGER batches_no_update")
        conn.execute("UPDATE batches SET who = 'nobody'")
        conn.commit()
    error = document("trials", "--check", code=6)["error"]
    assert error["type"] == "LedgerError"
    assert "batch 1: it is not what was recorded" in error["message"]


# Real candles


def test_a_thousand_crossovers_of_four_real_years_are_far_fewer_different_things(
    shared_history: History, ledger: TrialLedger
) -> None:
    candles = shared_history.load(["BTCUSDT"], "1h")
    account = Account(limits=None)
    grid = {"fast": range(5, 45), "slow": range(50, 300, 10)}
    found = sweep(SmaCrossover, candles, account, progress=False, **grid)
    trials = rs.tried("BTCUSDT", "1h")
    effective = trials.effective()
    assert trials.raw == len(found) == 1_000
    assert trials.returns.shape == (1_000, len(trials.periods)) == (1_000, 183)
    assert trials.effective(0.5).number == 1 < effective.number < 100
    daily = rerun(SmaCrossover(5, 50), candles, account).daily_returns
    periods = daily.groupby(daily.index.as_unit("ms").asi8 // (8 * 86_400_000))
    assert np.allclose(
        periods.apply(lambda one: (1 + one).prod() - 1).to_numpy(), trials.returns[0], atol=1e-6
    )
    assert coarser(np.arange(183), trials.returns, 1)[1] is trials.returns
