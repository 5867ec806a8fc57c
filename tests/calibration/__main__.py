"""How often luck is promoted, and how often an edge: ``python -m tests.calibration [--sweeps N]``.

Each sweep is a morning's work on a market of which the truth is known (planted.py of evidence): a
grid of SMA crossovers over four years of hours, with a ledger of trials of its own, judged by the
thresholds that ship. Beside it stand two habits: to promote the best row if it made money, and to
ask vectorbt's deflated Sharpe ratio of the sweep at hand. ``make calibrate`` runs 200 sweeps of
each kind and writes the table and the chart of knowledge/evidence.md.

What a strategy's true Sharpe ratio is on a kind of market is measured on other markets of that
kind: the mean of the row that is best on average there, which nothing was chosen by.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
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
from tests.calibration.page import write_page

NOISE: Final = (Market("no edge"), Market("no edge, rising", rise=1.0))
EDGES: Final = (
    Market("weak edge", trend=4.0),
    Market("edge", trend=5.0),
    Market("strong edge", trend=6.0),
)
GRID: Final = {
    "fast": (5, 10, 20, 40, 80, 120),
    "slow": (50, 100, 150, 200, 300, 400, 600, 800),
}
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


def searched(market: Market, seed: int) -> Sweep:
    """The morning's sweep on one market."""
    return sweep(
        SmaCrossover, candles_of(market, seed), Account(limits=Limits()), progress=False, **GRID
    )


def outcome_of(task: tuple[Market, int]) -> Outcome:
    """One sweep and its judgement, with a ledger of trials that holds nothing else."""
    market, seed = task
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        environment_with({"CANDLEBOOK_TRIALS": str(Path(folder, "trials.db"))}),
    ):
        found = searched(market, seed)
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


def true_sharpe(market: Market, sweeps: int) -> float:
    """The mean Sharpe ratio of the row that is best on average, on markets of its own."""
    from research.combinations import every, space_of
    from research.indicators import Bank
    from research.rows import course_of, figures_of_rows

    account = Account(limits=Limits())
    chosen, _ = every(space_of(SmaCrossover, GRID, None))
    total = np.zeros(len(chosen))
    for seed in range(OTHERS, OTHERS + sweeps):
        course = course_of(candles_of(market, seed), None, account)
        rows = figures_of_rows(chosen, course, account, Bank(2**27))
        total += [row.figures.sharpe for row in rows]
    return float(np.nanmax(total / sweeps))


def interval(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share; Clopper and Pearson (1934)."""
    from scipy.stats import binomtest

    found = binomtest(hits, of).proportion_ci(0.95, "exact")
    return float(found.low), float(found.high)


def main(sweeps: int, workers: int, page: Path | None, save: Path | None) -> int:
    """Run them all, print the table, and write the page; the exit code is 1 for a gate that fails
    what it promises."""
    started = time.perf_counter()
    results: list[dict[str, Any]] = []
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for number, market in enumerate((*NOISE, *EDGES)):
            truth = pool.submit(true_sharpe, market, sweeps)
            tasks = [(market, 10_000 * number + seed) for seed in range(sweeps)]
            outcomes = list(pool.map(outcome_of, tasks, chunksize=5))
            results.append(_told(market, outcomes, truth.result()))
            print(_line(results[-1]), flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s on {workers} processes")
    if save is not None:
        save.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    if page is not None:
        write_page(page, results)
        print(f"written: {page}")
    luck = results[0]["ours"]["hits"]
    power = [one["ours"]["hits"] for one in results[len(NOISE) :]]
    return 0 if luck <= 0.05 * sweeps and max(power) >= 0.5 * sweeps else 1


def _told(market: Market, outcomes: list[Outcome], truth: float) -> dict[str, Any]:
    def share(hits: list[bool]) -> dict[str, Any]:
        low, high = interval(sum(hits), len(hits))
        return {"hits": sum(hits), "low": low, "high": high}

    failed = [check for one in outcomes for check in one.failed]
    return {
        "market": market.name,
        "sweeps": len(outcomes),
        "rows": sum(fast < slow for fast in GRID["fast"] for slow in GRID["slow"]),
        "true_sharpe": truth,
        "best_sharpe": float(np.mean([one.sharpe for one in outcomes])),
        "ours": share([one.passed for one in outcomes]),
        "best_row": share([one.best_row for one in outcomes]),
        "vectorbt": share([one.vectorbt for one in outcomes]),
        "refused_by": {check: failed.count(check) for check in dict.fromkeys(failed)},
        "overfitting_below_half": float(np.mean([one.overfitting < 0.5 for one in outcomes])),
        "seconds": float(np.median([one.seconds for one in outcomes])),
    }


def _line(one: dict[str, Any]) -> str:
    def words(side: dict[str, Any]) -> str:
        return f"{side['hits']:>4} ({side['low']:5.1%} .. {side['high']:5.1%})"

    return (
        f"{one['market']:<16} true Sharpe {one['true_sharpe']:5.2f}, best row's "
        f"{one['best_sharpe']:5.2f}: promoted of {one['sweeps']}: ours {words(one['ours'])}, best "
        f"row {words(one['best_row'])}, vectorbt {words(one['vectorbt'])}; "
        f"{one['seconds']:.1f} s each; refused by {one['refused_by']}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.calibration", description=__doc__)
    parser.add_argument("--sweeps", type=int, default=200, help="of each kind of market")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--page", type=Path, help="the page whose block to replace")
    parser.add_argument("--save", type=Path, metavar="FILE", help="the figures, as JSON")
    given = parser.parse_args()
    sys.exit(main(given.sweeps, given.workers, given.page, given.save))
