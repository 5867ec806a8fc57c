"""What counts as a trial, and how many different things trials are."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import norm

from research import trial_clusters
from research.account import Account
from research.candles import DAY, Candles, CandleSet, utc_ms
from research.combinations import every, space_of
from research.errors import ParameterError
from research.indicators import Bank
from research.rows import course_of, figures_of_rows
from research.sketch import blank_sketch
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import Strategy, Targets, param
from research.trial_clusters import clusters_of, sharpe_of_clusters
from research.trials import Batch, Recorded, code_of_class, trials_of

PERIODS = 120


def walk(seed: int, rows: int = 1, periods: int = PERIODS) -> Any:
    return (0.01 * np.random.default_rng(seed).standard_normal((rows, periods))).astype(np.float32)


def digests_of(returns: Any) -> Any:
    said = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in returns]
    return np.frombuffer(b"".join(said), np.uint8).reshape(len(said), 16)


def batch(returns: Any, first_period: int = 0, **changes: Any) -> Batch:
    rows, periods = returns.shape
    made = Batch(
        kind="sweep",
        strategy="Sma",
        version=1,
        module="lab",
        code="c",
        symbols=("BTCUSDT",),
        timeframe="1h",
        exchange="binance",
        source="memory",
        candles="d",
        account="a",
        first_close=first_period * DAY,
        last_close=(first_period + periods) * DAY - 1,
        parameters={"fast": list(range(rows)), "slow": [50] * rows},
        sharpe=np.linspace(-1.0, 1.0, rows),
        trades=np.full(rows, 9),
        step_days=1,
        buckets=first_period + np.arange(periods),
        returns=returns,
        digests=digests_of(returns),
    )
    return replace(made, **changes)


def counted(*batches: Batch, window: tuple[int, int] | None = None) -> Any:
    recorded = [Recorded(i + 1, 1_000 * i, "me", one) for i, one in enumerate(batches)]
    return trials_of(recorded, window)


def test_a_trial_counts_once_however_often_it_was_run() -> None:
    one = batch(walk(1, 30))
    found = counted(one, one, replace(one, candles="other data", kind="optimise"))
    assert (found.raw, found.runs, found.batches) == (30, 90, 3)
    assert set(found.rows["batch"]) == {3}, "of equals the latest"


@pytest.mark.parametrize(
    "other",
    [
        {"strategy": "Ema"},
        {"version": 2},
        {"module": "elsewhere"},
        {"code": "edited"},
        {"symbols": ("BTCUSDT", "ETHUSDT")},
        {"account": "another stop"},
        {"exchange": "kraken"},
        {"parameters": {"fast": list(range(100, 105)), "slow": [50] * 5}},
    ],
)
def test_what_a_person_chose_among_is_another_trial(other: dict[str, Any]) -> None:
    one = batch(walk(1, 5))
    assert counted(one, replace(one, **other)).raw == 10


def test_of_runs_over_other_windows_that_counts_which_reaches_furthest_into_the_asked_one() -> None:
    long, short = batch(walk(1, 4)), batch(walk(2, 4, 20), first_period=100)
    assert set(counted(long, short).rows["batch"]) == {1}
    assert set(counted(short, long).rows["batch"]) == {2}
    recent = (100 * DAY, 130 * DAY)
    assert set(counted(long, short, window=recent).rows["batch"]) == {2}


def test_trials_of_other_windows_are_compared_over_the_periods_that_both_have() -> None:
    whole = walk(3, 2)
    part = replace(
        batch(whole[:, 40:].copy(), first_period=40), parameters={"fast": [7, 8], "slow": [1, 1]}
    )
    found = counted(batch(whole), part)
    assert found.raw == 4
    assert np.isnan(found.returns[2, :40]).all()
    assert found.effective().labels.tolist() == [0, 1, 0, 1]
    apart = replace(
        batch(whole[:, :9].copy(), first_period=PERIODS),
        parameters={"fast": [7, 8], "slow": [1, 1]},
    )
    assert counted(batch(whole), apart).effective().number == 4, "nothing in common"


def test_trials_of_finer_periods_are_brought_to_the_longest() -> None:
    fine = batch(walk(4, 2))
    days = np.arange(0, PERIODS, 4)
    coarse = (np.multiply.reduceat(fine.returns + 1.0, days, axis=1) - 1.0).astype(np.float32)
    named = {"fast": [7, 8], "slow": [1, 1]}
    other = replace(batch(coarse), step_days=4, buckets=days // 4, parameters=named)
    found = counted(fine, other)
    assert found.step_days == 4
    assert found.returns.shape == (4, 30)
    assert np.allclose(found.returns[:2], found.returns[2:], atol=1e-6)
    assert found.effective().labels.tolist() == [0, 1, 0, 1]


def test_copies_with_a_little_noise_are_one_thing_and_strangers_are_many() -> None:
    strangers = walk(5, 12)
    copies = np.repeat(strangers, 20, axis=0) + 0.2 * walk(6, 240)
    found = counted(batch(copies)).effective()
    assert found.number == 12
    assert (found.labels.reshape(12, 20) == found.labels.reshape(12, 20)[:, :1]).all()


def test_rows_that_never_traded_count_raw_alone() -> None:
    returns = walk(7, 5)
    returns[[1, 3]] = 0.0
    found = counted(batch(returns))
    effective = found.effective()
    assert (found.raw, effective.number) == (5, 3)
    assert effective.labels.tolist() == [0, -1, 1, -1, 2]
    still = counted(batch(np.zeros((3, PERIODS), np.float32))).effective()
    assert (still.number, math.isnan(still.variance)) == (0, True)


def test_nothing_tried_is_an_answer_too() -> None:
    found = trials_of([])
    assert (found.raw, found.effective().number) == (0, 0)
    assert repr(found) == "Trials(nothing was tried)"


def test_a_threshold_that_is_none_is_refused() -> None:
    for wrong in (0.0, -1, 1.5, math.nan, "high"):
        with pytest.raises(ParameterError, match="correlation: expected above 0 and at most 1"):
            counted(batch(walk(1, 3))).effective(wrong)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 40), st.sampled_from([0.3, 0.5, 0.7, 0.9]))
def test_clusters_are_those_of_scipy_on_numpys_correlations(
    seed: int, rows: int, correlation: float
) -> None:
    base = walk(seed, 4)
    mix = np.random.default_rng(seed).random((rows, 4))
    returns = (mix @ base + 0.3 * walk(seed + 1, rows)).astype(np.float32)
    found = clusters_of(returns, digests_of(returns), correlation)
    distance = 1.0 - np.corrcoef(returns.astype(float))
    tree = linkage(squareform(distance, checks=False), "average")
    near = np.abs(tree[:, 2] - (1.0 - correlation)).min() < 1e-5
    oracle = fcluster(tree, 1.0 - correlation, "distance")
    pairs = found[:, None] == found[None, :]
    assert near or (pairs == (oracle[:, None] == oracle[None, :])).all()


def test_merging_what_is_alike_first_changes_no_clear_cut_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strangers = walk(8, 25)
    returns = np.repeat(strangers, 12, axis=0) + 0.15 * walk(9, 300)
    plain = clusters_of(returns, digests_of(returns), 0.7)
    monkeypatch.setattr(trial_clusters, "MANY", 100)
    monkeypatch.setattr(trial_clusters, "BLOCK", 64)
    assert clusters_of(returns, digests_of(returns), 0.7).tolist() == plain.tolist()
    monkeypatch.setattr(trial_clusters, "MOST_LEADERS", 200)
    bounded = clusters_of(returns, digests_of(returns), 0.7)
    assert len(set(bounded.tolist())) >= 25, "never fewer than there are"
    monkeypatch.setattr(trial_clusters, "MOST_LEADERS", 30)
    strange = walk(10, 300)
    assert clusters_of(strange, digests_of(strange), 0.7).max() + 1 == 300


def test_identical_digests_are_one_even_in_windows_too_short_to_compare() -> None:
    few = walk(11, 3, 5)
    returns = np.vstack([few, few])
    assert clusters_of(returns, digests_of(returns), 0.7).tolist() == [0, 1, 2, 0, 1, 2]
    strange = digests_of(walk(12, 6))
    assert clusters_of(returns, strange, 0.7).tolist() == [0, 1, 2, 3, 4, 5]


def test_two_that_are_long_half_of_the_time_by_a_coin_are_two_things() -> None:
    """Long-or-flat accounts on one symbol correlate by 0.5 without having anything in common."""
    market = walk(13, 1, 2_000)
    coins = np.random.default_rng(13).random((40, 2_000)) < 0.5
    returns = (market * coins).astype(np.float32)
    assert counted(batch(returns)).effective().number == 40
    assert counted(batch(returns)).effective(0.4).number == 1, "what a lower threshold would say"


def test_the_ratio_of_a_cluster_is_that_of_its_members_weighed_by_their_precision() -> None:
    returns = np.vstack([walk(14) + 0.001, 3.0 * walk(14) + 0.002, walk(15)]).astype(np.float32)
    found = sharpe_of_clusters(returns, np.array([0, 0, 1]), 2)
    weights = 1.0 / returns.astype(float).var(axis=1)
    pair = (weights[:2] @ returns[:2].astype(float)) / weights[:2].sum()
    for ratio, one in zip(found, (pair, returns[2].astype(float)), strict=True):
        assert ratio == pytest.approx(one.mean() / one.std(ddof=1) * math.sqrt(365 / 2), rel=1e-4)
    whole = counted(batch(returns)).effective()
    daily = sharpe_of_clusters(returns, whole.labels, 1)
    assert whole.variance == pytest.approx(daily.var(ddof=1))


def test_the_frame_by_strategy_says_what_was_tried_where() -> None:
    found = counted(
        batch(walk(1, 5)),
        batch(walk(2, 3), strategy="Ema"),
        batch(walk(1, 5), symbols=("ETHUSDT",)),
    )
    told = found.by_strategy
    assert told[["strategy", "symbols", "trials", "batches"]].to_numpy().tolist() == [
        ["Ema", "BTCUSDT", 3, 1],
        ["Sma", "BTCUSDT", 5, 1],
        ["Sma", "ETHUSDT", 5, 1],
    ]
    assert repr(found) == "Trials(13 in 3 batches: Sma 10, Ema 3, best Sharpe ratio 1.00)"
    assert "<table" in found._repr_html_()


def test_the_best_of_a_sweep_of_noise_is_what_so_many_independent_trials_explain() -> None:
    """Expected maximum: D. Bailey, M. Lopez de Prado, The Deflated Sharpe Ratio (2014), eq. 1."""

    def expected_best(number: int, variance: float) -> float:
        if number < 2:
            return 0.0
        tails = norm.ppf([1 - 1 / number, 1 - 1 / (number * math.e)])
        return math.sqrt(variance) * float(tails @ [1 - np.euler_gamma, np.euler_gamma])

    bars = 365 * 24
    chosen, _ = every(space_of(SmaCrossover, {"fast": range(5, 60, 5), "slow": range(60, 240, 12)}))
    best, fair, low = [], [], []
    for seed in range(12):
        moves = 0.007 * np.random.default_rng(seed).standard_normal(bars)
        close = 100.0 * np.exp(np.cumsum(moves))
        opened = np.append(100.0, close[:-1])
        ends = np.maximum(opened, close), np.minimum(opened, close)
        ts = utc_ms("2024") + 3_600_000 * np.arange(bars)
        one = Candles("BTCUSDT", "1h", ts, opened, *ends, close, np.full(bars, 1e6))
        account = Account(limits=None, fee_rate=0.0, slippage_bps=0.0)
        course = course_of(CandleSet((one,)), None, account)
        marked = np.empty((len(chosen), len(course.marks)))
        rows = figures_of_rows(chosen, course, account, Bank(2**26), marked=marked)
        sketch = blank_sketch(course.tape.close_time, len(chosen))
        sketch.put(range(len(chosen)), marked, account.initial_cash)
        made = batch(sketch.returns, buckets=sketch.buckets, step_days=sketch.step_days)
        best.append(max(row.figures.sharpe for row in rows))
        fair.append(expected_best(counted(made).effective().number, 1.0))
        low.append(expected_best(counted(made).effective(0.5).number, 1.0))
    assert 0.8 * np.mean(fair) < np.mean(best) < 1.1 * np.mean(fair)
    assert np.mean(best) > 1.5 * np.mean(low), "a low threshold takes luck for skill"


def edition(threshold: float) -> type[Strategy]:
    @dataclass(frozen=True)
    class Idea(Strategy):
        version: ClassVar[int] = 1
        reasons: ClassVar[tuple[str, ...]] = ("so",)
        window: int = param(5, low=1, high=9)

        @property
        def warmup(self) -> int:
            return self.window

        if threshold > 1:

            def targets(self, candles: Candles) -> Targets:
                return candles.close > 2  # type: ignore[return-value]
        else:

            def targets(self, candles: Candles) -> Targets:
                return candles.close > 1  # type: ignore[return-value]

    return Idea


def test_an_edited_class_of_a_notebook_has_another_code() -> None:
    assert code_of_class(edition(1)) == code_of_class(edition(0.5))
    assert code_of_class(edition(1)) != code_of_class(edition(2))
