"""A process that sweeps 10,000 rows, made to be killed: forked again and again from a warm one.

`python -m tests.backtest.killed_sweep` reads lines of words, parted by tabs, from its standard
input. ``start WORD FOLDER JOURNAL LEASH`` forks a process that sweeps with ``resume=FOLDER``,
broken as WORD says: ``nothing``, one of BREAKS, or ``dies at N``, which is a sweep of FEW rows that
kills itself before its Nth file operation. ``kill`` sends SIGKILL to the process that was started
last, ``wait`` lets it end; each is answered by its exit status. The forked process notes in JOURNAL
the size of every chunk as it begins, and ``end`` when it is done: what it noted outlives it. After
LEASH chunks it stalls, so that it cannot run away from a test on a busy machine; 0 is no leash.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from research import durable, kept_rows, search
from research.account import Account, Limits, Stops
from research.candles import CandleSet
from research.kept_rows import KeptRows
from research.metrics import Metrics
from research.rows import Row, figures_of_rows
from research.search import sweep
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles

__all__ = ["BREAKS", "FEW", "WORKERS", "swept"]

WORKERS = 2

GRID = {"fast": range(2, 102), "slow": range(110, 210)}
FEW = {"fast": range(2, 12), "slow": range(110, 120)}
ACCOUNT = Account(
    limits=Limits(max_position_pct=40, max_drawdown_pct=20), stops=Stops(trailing_stop_pct=9)
)


@cache
def candles() -> CandleSet:
    return synthetic_candles(("BTCUSDT",), "1h", "2024", 6_000)


def swept(resume: Path | None = None, **grid: Sequence[int]) -> pd.DataFrame:
    """The frame of the sweep, of all 10,000 rows unless another grid is given."""
    found = sweep(SmaCrossover, candles(), ACCOUNT, resume=resume, progress=False, **(grid or GRID))
    return found.frame


# --- what is broken on purpose, each by a patch in the forked process alone

keep_rows = KeptRows.keep


def _positions_off_by_one(
    kept: KeptRows, positions: Sequence[int], rows: Sequence[Row], *notes: Any
) -> None:
    keep_rows(kept, [max(one - 1, 0) for one in positions], rows, *notes)


def _one_row_too_few(
    kept: KeptRows, positions: Sequence[int], rows: Sequence[Row], *notes: Any
) -> None:
    keep_rows(kept, positions[:-1], rows[:-1], *(one[:-1] for one in notes if one is not None))


def _keeps_nothing(
    kept: KeptRows, positions: Sequence[int], rows: Sequence[Row], *notes: Any
) -> None:
    pass


def _last_bit(kept: KeptRows, positions: Sequence[int], rows: Sequence[Row], *notes: Any) -> None:
    first, *others = rows
    sharpe = float(np.nextafter(first.figures.sharpe, 9.0))
    changed: Metrics = first.figures._replace(sharpe=sharpe)
    keep_rows(kept, positions, [first._replace(figures=changed), *others], *notes)


BREAKS: dict[str, Callable[..., None]] = {
    "positions off by one": _positions_off_by_one,
    "a row too few": _one_row_too_few,
    "keeps nothing": _keeps_nothing,
    "one bit": _last_bit,
}


def _die_at(operation: int) -> None:
    """SIGKILL to this process before the nth time that it opens, syncs, renames or closes a file.

    Only those operations count by which ``write_whole`` writes.
    """
    done = itertools.count(1)

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            if next(done) == operation:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **options)

        return call

    names = {"open": dying(os.open), "fsync": dying(os.fsync), "close": dying(os.close)}
    rest = {name: getattr(os, name) for name in ("O_WRONLY", "O_CREAT", "O_EXCL", "O_RDONLY")}
    durable.os = SimpleNamespace(fdopen=os.fdopen, **rest, **names)  # type: ignore[assignment]
    Path.replace = dying(Path.replace)  # type: ignore[method-assign]


# --- the process


def attempt(word: str, folder: Path, journal: Path, leash: int) -> None:
    """One sweep with ``resume``, chunk by chunk noted, until it is done."""
    note = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    begun = itertools.count(1)

    def noting(strategies: Sequence[Any], *others: Any) -> list[Row]:
        if next(begun) > leash > 0:
            time.sleep(60)
            os._exit(1)
        os.write(note, f"{len(strategies)}\n".encode())
        return figures_of_rows(strategies, *others)

    search.figures_of_rows = noting  # type: ignore[assignment]
    os.cpu_count = lambda: WORKERS
    grid = {}
    if word.startswith("dies at "):
        grid = FEW
        _die_at(int(word.removeprefix("dies at ")))
    elif word != "nothing":
        KeptRows.keep = BREAKS[word]  # type: ignore[method-assign]
    swept(folder, **grid)
    os.write(note, b"end\n")


def fork(word: str, folder: Path, journal: Path, leash: int) -> int:
    """The id of a process of its own that attempts the sweep."""
    child = os.fork()
    if child:
        return child
    try:
        attempt(word, folder, journal, leash)
    except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    """Obey, line by line; see the module's docstring."""
    # What takes a process longest is done once for all forks: the kernel, and the code's digest.
    kept_rows.code_hashes = cache(kept_rows.code_hashes)
    with tempfile.TemporaryDirectory() as folder:
        swept(Path(folder), fast=[5], slow=[50])
    child = 0
    for line in sys.stdin:
        command, *words = line.rstrip("\n").split("\t")
        if command == "start":
            word, rows, journal, leash = words
            child = fork(word, Path(rows), Path(journal), int(leash))
            continue
        if command == "kill":
            os.kill(child, signal.SIGKILL)  # not yet waited for, so the id is still its own
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
