"""How often luck is promoted, and how often an edge.

Each sweep is a morning's work on a market of which the truth is known (planted.py): a grid of SMA
crossovers over four years of hours, with a ledger of trials of its own, judged by the thresholds
that ship. Beside it stand two habits: to promote the best row if it made money, and to ask
vectorbt's deflated Sharpe ratio of the sweep at hand.

What a strategy's true Sharpe ratio is on a kind of market is measured on other markets of that
kind: the mean of the row that is best on average there, which nothing was chosen by.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from research.account import Account, Limits
from research.evidence.daily_matrix import daily_matrix
from research.evidence.judge import judge
from research.evidence.planted import Market, candles_of
from research.params import Thresholds
from research.search import Sweep, sweep
from research.strategies.sma_crossover import SmaCrossover
from research.variables import environment_with

Grid = Mapping[str, Sequence[int]]
GRID: Final[Grid] = {
    "fast": (5, 10, 20, 40, 80, 120),
    "slow": (50, 100, 150, 200, 300, 400, 600, 800),
}
DENSE: Final[Grid] = {"fast": range(5, 125, 8), "slow": range(50, 801, 30)}


@dataclass(frozen=True)
class Kind:
    """A kind of market, and the grid that is searched on it."""

    market: Market
    grid: Grid = field(default_factory=lambda: GRID)
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.market.name


NOISE: Final = (
    Kind(Market("no edge")),
    Kind(Market("no edge"), DENSE, "no edge, dense grid"),
    Kind(Market("no edge, rising", rise=1.0)),
)
EDGES: Final = (
    Kind(Market("weak edge", trend=4.0)),
    Kind(Market("edge", trend=5.0)),
    Kind(Market("strong edge", trend=6.0)),
)
OTHERS: Final = 1_000_000  # seeds of the markets that the truth is measured on
SURE: Final = 0.95


@dataclass(frozen=True)
class Outcome:
    """What became of one sweep: by our gate, by the best row, by vectorbt's deflated ratio."""

    passed: bool
    failed: tuple[str, ...]
    sharpe: float
    best_row: bool
    vectorbt: bool
    overfitting: float
    seconds: float


def searched(kind: Kind, seed: int) -> Sweep:
    """The morning's sweep on one market."""
    candles = candles_of(kind.market, seed)
    return sweep(SmaCrossover, candles, Account(limits=Limits()), progress=False, **kind.grid)


def outcome_of(task: tuple[Kind, int]) -> Outcome:
    """One sweep and its judgement, with a ledger of trials that holds nothing else."""
    kind, seed = task
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        environment_with({"CANDLEBOOK_TRIALS": str(Path(folder, "trials.db"))}),
    ):
        found = searched(kind, seed)
        evidence = judge(found, thresholds=Thresholds(), seed=seed)
        verdicts = evidence.verdicts
    best = found.frame.iloc[int(found.ranked()[0])]
    pbo = next(one.value for one in verdicts if one.check == "overfitting")
    return Outcome(
        passed=evidence.passed,
        failed=tuple(one.check for one in verdicts if one.passed is False),
        sharpe=float(best["sharpe"]),
        best_row=bool(best["total_return"] > 0),
        vectorbt=_vectorbt_says(found) >= SURE,
        overfitting=float("nan") if pbo is None else pbo,
        seconds=time.perf_counter() - started,
    )


def _vectorbt_says(found: Sweep) -> float:
    """vectorbt's deflated Sharpe ratio of the best row, among the rows of this object alone."""
    import vectorbt  # noqa: F401 - which gives frames their accessor

    days, matrix = daily_matrix(found)
    frame = pd.DataFrame(np.asarray(matrix).T, index=days)
    said = frame.vbt.returns(freq="1D", year_freq="365D").deflated_sharpe_ratio()
    return float(said.iloc[int(found.ranked()[0])])


def true_sharpe(kind: Kind, sweeps: int) -> float:
    """The mean Sharpe ratio of the row that is best on average, on markets of its own."""
    from research.combinations import every, space_of
    from research.indicators import Bank
    from research.rows import course_of, figures_of_rows

    account = Account(limits=Limits())
    chosen, _ = every(space_of(SmaCrossover, kind.grid, None))
    total = np.zeros(len(chosen))
    for seed in range(OTHERS, OTHERS + sweeps):
        course = course_of(candles_of(kind.market, seed), None, account)
        rows = figures_of_rows(chosen, course, account, Bank(2**27))
        total += [row.figures.sharpe for row in rows]
    return float(np.nanmax(total / sweeps))


def interval(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share; Clopper and Pearson (1934)."""
    from scipy.stats import binomtest

    found = binomtest(hits, of).proportion_ci(0.95, "exact")
    return float(found.low), float(found.high)


def figures_of(kind: Kind, number: int, sweeps: int, pool: Executor) -> dict[str, Any]:
    """What became of so many sweeps on a kind of market, the ``number``-th of them."""
    truth = pool.submit(true_sharpe, kind, sweeps)
    tasks = [(kind, 10_000 * number + seed) for seed in range(sweeps)]
    return _told(kind, list(pool.map(outcome_of, tasks, chunksize=5)), truth.result())


def _told(kind: Kind, outcomes: list[Outcome], truth: float) -> dict[str, Any]:
    def share(hits: list[bool]) -> dict[str, Any]:
        low, high = interval(sum(hits), len(hits))
        return {"hits": sum(hits), "low": low, "high": high}

    failed = [check for one in outcomes for check in one.failed]
    return {
        "market": str(kind),
        "sweeps": len(outcomes),
        "rows": sum(fast < slow for fast in kind.grid["fast"] for slow in kind.grid["slow"]),
        "true_sharpe": truth,
        "best_sharpe": float(np.mean([one.sharpe for one in outcomes])),
        "ours": share([one.passed for one in outcomes]),
        "best_row": share([one.best_row for one in outcomes]),
        "vectorbt": share([one.vectorbt for one in outcomes]),
        "refused_by": {check: failed.count(check) for check in dict.fromkeys(failed)},
        "overfitting_below_half": float(np.mean([one.overfitting < 0.5 for one in outcomes])),
        "seconds": float(np.median([one.seconds for one in outcomes])),
    }
