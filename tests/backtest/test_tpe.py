"""TPE: the same rows for the same seed, those of a sweep to the bit, and better than chance."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from research import tpe
from research.account import Account, Limits
from research.candles import CandleSet, utc_ms
from research.daily_file import read_returns
from research.errors import InputError, ParameterError
from research.rows import figures_of_rows
from research.search import sweep
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles
from research.tpe import optimise

optuna = pytest.importorskip("optuna", reason="the extra search is not installed")

ACCOUNT = Account(limits=Limits(max_position_pct=40, max_drawdown_pct=100))
GRID: dict[str, Any] = {"fast": range(2, 42), "slow": range(3, 123, 3)}
TRIALS = 60


@pytest.fixture(scope="module")
def candles() -> CandleSet:
    return synthetic_candles(("AAAUSDT",), "1h", utc_ms("2024"), 1_500)


@pytest.fixture(scope="module")
def whole(candles: CandleSet) -> pd.DataFrame:
    return sweep(SmaCrossover, candles, ACCOUNT, **GRID).frame


def found(candles: CandleSet, **changes: Any) -> Any:
    asked = {"trials": TRIALS, "seed": 3, **GRID, **changes}
    return optimise(SmaCrossover, candles, ACCOUNT, **asked)


def test_every_row_is_the_sweeps_to_the_bit(candles: CandleSet, whole: pd.DataFrame) -> None:
    tried = found(candles)
    assert tried.frame.index.is_unique
    assert len(tried) + tried.skipped <= TRIALS
    assert tried.frame.equals(whole.loc[tried.frame.index])
    assert tried.strategies == tuple(SmaCrossover(*key) for key in tried.frame.index)
    best = tried.run().metrics
    assert best.sharpe == tried.frame["sharpe"].max()


def test_the_same_seed_gives_the_same_frame_however_many_cores_there_are(
    candles: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = found(candles)
    for cores in (1, 7):
        monkeypatch.setattr(tpe.os, "cpu_count", lambda cores=cores: cores)
        again = found(candles)
        pd.testing.assert_frame_equal(again.frame, first.frame, check_exact=True)
        assert again.skipped == first.skipped
    other = found(candles, seed=4)
    assert not other.frame.index.equals(first.frame.index)


def test_what_it_proposes_last_is_better_than_what_a_draw_gives(
    candles: CandleSet, whole: pd.DataFrame
) -> None:
    ranks = whole["total_return"].rank(pct=True)
    learnt, drawn = [], []
    for seed in range(5):
        tried = found(candles, trials=100, seed=seed, metric="total_return").frame.index
        chance = sweep(SmaCrossover, candles, ACCOUNT, draws=len(tried), seed=seed, **GRID)
        learnt.append(ranks.loc[tried[len(tried) // 2 :]].mean())
        drawn.append(ranks.loc[chance.frame.index].mean())
    assert np.mean(learnt) > 0.65
    assert np.mean(drawn) < 0.6, "otherwise it need not have learnt anything"


def test_a_smaller_drawdown_is_the_better_one(candles: CandleSet, whole: pd.DataFrame) -> None:
    scores = whole["max_drawdown"].rank(pct=True)
    means = [
        scores.loc[found(candles, seed=seed, metric="max_drawdown").frame.index].mean()
        for seed in range(4)
    ]
    assert np.mean(means) < 0.4


def counted(monkeypatch: pytest.MonkeyPatch) -> list[SmaCrossover]:
    ran: list[SmaCrossover] = []

    def counting(strategies: Any, *others: Any) -> Any:
        ran.extend(strategies)
        return figures_of_rows(strategies, *others)

    monkeypatch.setattr(tpe, "figures_of_rows", counting)
    return ran


def test_what_is_refused_is_counted_told_and_never_run(
    candles: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = counted(monkeypatch)
    told: list[Any] = []
    real = optuna.Study.tell

    def telling(study: Any, trial: Any, *values: Any, **more: Any) -> Any:
        told.append((trial.params, values, more.get("state")))
        return real(study, trial, *values, **more)

    monkeypatch.setattr(optuna.Study, "tell", telling)
    tried = found(candles, constraint=lambda p: 3 * p["fast"] <= p["slow"])
    assert len(told) == TRIALS
    assert sorted(map(repr, ran)) == sorted(map(repr, tried.strategies))
    assert all(3 * one.fast <= one.slow for one in ran)
    pruned = {tuple(params.values()) for params, _, state in told if state is not None}
    assert len(pruned) == tried.skipped > 0
    assert all(not values for _, values, state in told if state is not None)
    assert {state for *_, state in told} == {None, optuna.trial.TrialState.PRUNED}
    assert len(found(candles)) > len(tried), "the strategy's own rule refuses less"


def test_a_run_without_the_figure_is_in_the_frame_and_pruned(candles: CandleSet) -> None:
    tried = optimise(
        *(SmaCrossover, candles, ACCOUNT),
        **{"trials": 12, "metric": "win_rate", "fast": [3], "slow": [9, 4_000]},
    )
    assert sorted(tried.frame.index) == [(3, 9), (3, 4_000)]
    assert tried.frame["win_rate"].isna().sum() == 1


def test_a_space_that_is_used_up_ends_early(
    candles: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = counted(monkeypatch)
    tried = found(candles, trials=1_000, fast=[2, 5, 9], slow=[6, 30])
    assert len(tried) == len(ran) == 5
    assert tried.skipped == 1


def test_daily_returns_are_those_of_each_row_in_the_order_of_trial(
    candles: CandleSet, tmp_path: Path
) -> None:
    tried = found(candles, returns=tmp_path)
    days, matrix, parameters = read_returns(tmp_path)
    assert parameters.equals(tried.frame.index.to_frame(index=False))
    assert tried.returns == tmp_path
    for strategy, row in zip(tried.strategies, matrix, strict=True):
        alone = tried.run(strategy).daily_returns
        assert alone.tolist() == row.tolist()
        assert alone.index.equals(days)
    assert tried.frame.equals(found(candles).frame)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metric": "sharp"}, "metric: expected one of total_return"),
        ({"trials": 0}, "trials: expected a whole number from 1 on, got 0"),
        ({"seed": -1}, "seed: expected a whole number from 0 on"),
        ({"fast": [60], "slow": [50]}, "at least one combination"),
        ({"fast": [1]}, r"SmaCrossover\.fast: expected a whole number from 2"),
        ({"constraint": "fast < slow"}, "constraint: expected a function"),
    ],
)
def test_wrong_questions_are_refused_by_name(
    candles: CandleSet, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ParameterError, match=words):
        found(candles, **changes)


def test_without_optuna_the_extra_is_named(
    candles: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"Optuna is not installed.*candlebook\[search\]"):
        found(candles)


def test_nothing_loads_optuna_before_it_is_asked_for() -> None:
    code = "import sys, research.tpe, research.search; print('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# Quiet


def test_it_says_nothing_and_leaves_optunas_own_words_as_they_were(candles: CandleSet) -> None:
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    logger = logging.getLogger("optuna")
    logger.addHandler(handler)
    level = optuna.logging.get_verbosity()
    try:
        found(candles, trials=20)
        assert heard.getvalue() == ""
        assert optuna.logging.get_verbosity() == level
        optuna.create_study()
        assert "A new study created" in heard.getvalue()
    finally:
        logger.removeHandler(handler)


def test_another_thread_is_heard_meanwhile() -> None:
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("candlebook.test.quiet")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    with tpe._quiet(logger.name):
        logger.info("here")
        other = threading.Thread(target=logger.info, args=("elsewhere",))
        other.start()
        other.join()
    logger.info("afterwards")
    logger.removeHandler(handler)
    assert heard == ["elsewhere", "afterwards"]
