"""A sweep over a year of minutes, for a process whose memory is measured.

``python -m tests.bench.year_of_minutes FOLDER ROWS`` prints the peak of its memory in MiB and the
seconds from the store to the frame.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from research.account import Account
from research.search import sweep
from research.strategies.sma_crossover import SmaCrossover
from tests.bench.market import candles_in


def sweep_of(folder: Path, rows: int) -> None:
    """``rows`` combinations, a hundred fast windows times so many slow ones."""
    fast = range(5, 105)
    slow = range(200, 200 + 10 * (rows // len(fast)), 10)
    account, candles = Account(limits=None), candles_in(folder, "1m")
    sweep(SmaCrossover, candles, account, progress=False, fast=fast, slow=slow)


if __name__ == "__main__":
    started = time.perf_counter()
    sweep_of(Path(sys.argv[1]), int(sys.argv[2]))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(used, time.perf_counter() - started)
