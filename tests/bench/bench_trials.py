"""What it costs that nothing is forgotten: a sweep with and without the ledger of trials.

1,000 SMA crossovers over four years of hours, warm, the two in turns, medians. *Without* takes no
equity at the marks, makes no digest and writes nothing. Then one backtest the same way, and how
long 100,000 trials take to be told apart.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from research import backtesting, search
from research.account import Account
from research.rows import figures_of_rows
from research.sketch import Sketch
from research.strategies.sma_crossover import SmaCrossover
from research.trial_clusters import clusters_of
from research.trials import SAME_THING
from research.variables import environment_with
from tests.bench.market import candles_in, fill_store

GRID: dict[str, Any] = {"fast": range(5, 45), "slow": range(50, 300, 10)}
TURNS = 41


@contextmanager
def unrecorded() -> Iterator[None]:
    """Sweeps and backtests as they would be if there were no ledger."""

    def without_marks(*given: Any) -> Any:
        return figures_of_rows(*given[:-1])

    with (
        patch.object(search, "record_batch", lambda _make: None),
        patch.object(backtesting, "record_batch", lambda _make: None),
        patch.object(search, "figures_of_rows", without_marks),
        patch.object(Sketch, "put", lambda *_given: None),
    ):
        yield


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compared(work: Callable[[], Any]) -> dict[str, float]:
    """Medians with and without, and the median of what each pair differs by."""
    with_it, without = [], []
    for turn in range(TURNS + 2):
        for recorded in (True, False) if turn % 2 else (False, True):
            if recorded:
                with_it.append(seconds(work))
            else:
                with unrecorded():
                    without.append(seconds(work))
    pairs = [one - other for one, other in zip(with_it[2:], without[2:], strict=True)]
    return {
        "recorded": statistics.median(with_it[2:]),
        "unrecorded": statistics.median(without[2:]),
        "cost": statistics.median(pairs),
    }


def many_trials(kinds: int, rows: int = 100_000, periods: int = 184) -> tuple[float, int]:
    """Seconds to cluster made-up rows of so many kinds, and the clusters found."""
    rng = np.random.default_rng(7)
    centres = rng.standard_normal((kinds, periods))
    made = centres[rng.integers(0, kinds, rows)] + 0.3 * rng.standard_normal((rows, periods))
    returns = (0.01 * made).astype(np.float32)
    digests = np.arange(rows, dtype="<u8").view(np.uint8).reshape(rows, 8)
    started = time.perf_counter()
    labels = clusters_of(returns, digests, SAME_THING)
    return time.perf_counter() - started, int(labels.max()) + 1


def main() -> dict[str, Any]:
    """Print what recording costs, and return it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = fill_store(folder, "1h")
        candles, account = candles_in(folder, "1h"), Account(limits=None)
        with environment_with({"CANDLEBOOK_TRIALS": str(folder / "trials.db")}):
            found: dict[str, Any] = {
                "sweep of 1,000": compared(
                    lambda: search.sweep(SmaCrossover, candles, account, progress=False, **GRID)
                ),
                "one backtest": compared(
                    lambda: backtesting.backtest(SmaCrossover(), candles, account).metrics
                ),
            }
            weight = sum(os.path.getsize(one) for one in folder.glob("trials.db*"))  # noqa: PTH202
    print(f"{source} hours; milliseconds, medians of {TURNS} turns")
    print(f"{'':<16}{'recorded':>10}{'unrecorded':>12}{'cost':>8}{'share':>8}")
    for what, one in found.items():
        one["share"] = one["cost"] / one["unrecorded"]
        times = (1e3 * one["recorded"], 1e3 * one["unrecorded"], 1e3 * one["cost"])
        print("{:<16}{:>10.2f}{:>12.2f}{:>8.2f}{:>8.1%}".format(what, *times, one["share"]))
    print(f"the ledger after {TURNS + 2} of each: {weight / 2**20:.1f} MiB")
    for kinds in (50, 20_000):
        took, clusters = many_trials(kinds)
        found[f"{kinds} kinds"] = {"seconds": took, "clusters": clusters}
        print(f"100,000 trials of {kinds:,} kinds: {clusters:,} clusters in {took:.1f} s")
    return found


if __name__ == "__main__":
    main()
