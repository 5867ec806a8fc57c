"""A sweep of 1,000 SMA crossovers over four years of hours: ours and its peers, in one run.

Same candles and grid, fees and slippage, fills at the next open, no risk gate (no peer has one),
and the same figures of every row: total return, Sharpe, Sortino, drawdown, CAGR, win rate, profit
factor. Each side is a process of its own that stays warm (side.py); they take turns, one at a time,
and the fastest of three turns counts. From candles to figures sorted by Sharpe ratio.

backtesting.py runs a sample of the grid, and its time is scaled to all of it. That all sides did
the same is checked by the total return of every row. Two averages that are equal but for the last
bit may compare either way: a row may differ for that, and is counted.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.market import SYMBOL, candles_in, fill_store

FAST, SLOW = range(5, 45), range(50, 300, 10)
TURNS = 3
SAMPLE = 125  # backtesting.py runs every 125th row
TOLERANCE = 1e-6  # of the final equity: two of the sides trade whole lots of 1e-8
OURS = "candlebook"
PEERS = {
    "vectorbt, numba": False,
    "vectorbt, Rust": True,
    "numpy by hand": False,
    "backtesting.py": True,
}
ROOT = Path(__file__).resolve().parents[2]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"


class Side:
    """A warm process that runs its part of the grid whenever it is told to."""

    def __init__(self, name: str, folder: Path) -> None:
        python = str(PEERS_PYTHON) if PEERS.get(name) else sys.executable
        self.process = subprocess.Popen(
            [python, str(Path(__file__).with_name("side.py")), name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.answers: list[dict[str, Any]] = []

    def turn(self) -> bool:
        """Run once; False where the process has died (its peer is then left out)."""
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            return False
        try:
            stdin.write("\n")
            stdin.flush()
        except BrokenPipeError:
            return False
        for line in stdout:
            if line.startswith("{"):
                self.answers.append(json.loads(line))
                return True
        return False

    def best(self, figure: str = "seconds") -> float:
        """The least of what the turns took, the first one left out: it compiled."""
        return min(float(one[figure]) for one in self.answers[1:])

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()


def lay_out(folder: Path) -> tuple[str, int, int]:
    """Candles and grid as the sides read them; the source, the bars, the combinations."""
    source = fill_store(folder, "1h")
    one = candles_in(folder, "1h")[SYMBOL]
    one.frame().reset_index().to_parquet(folder / "hours.parquet")
    prices = [one.ts.astype(float), one.open, one.high, one.low, one.close]
    np.save(folder / "prices.npy", np.array(prices))
    pairs = [(fast, slow) for fast in FAST for slow in SLOW]
    grid = dict.fromkeys((OURS, *PEERS), pairs) | {"backtesting.py": pairs[::SAMPLE]}
    (folder / "grid.json").write_text(json.dumps(grid))
    return source, len(one), len(pairs)


def run_sides(folder: Path) -> dict[str, Side]:
    """Every side that is installed, after all turns."""
    names = [OURS, *(name for name, apart in PEERS.items() if not apart or PEERS_PYTHON.exists())]
    sides = {name: Side(name, folder) for name in names}
    for _ in range(1 + TURNS):
        for name in names:
            if name in sides and not sides[name].turn():
                sides.pop(name).close()
    for side in sides.values():
        side.close()
    return sides


def agreement(side: Side, ours: Side) -> dict[str, float]:
    """How many rows end with our equity to the tolerance, and the largest difference there is."""
    mine = np.array(ours.answers[0]["total_return"])
    theirs = np.array(side.answers[0]["total_return"])
    apart = np.abs((1 + theirs) / (1 + mine[:: len(mine) // len(theirs)]) - 1)
    return {"same": int((apart <= TOLERANCE).sum()), "of": len(theirs), "apart": float(apart.max())}


def main() -> dict[str, Any]:
    """Print times, ratios, peaks and the agreement, and return them."""
    with tempfile.TemporaryDirectory() as name:
        source, bars, rows = lay_out(Path(name))
        sides = run_sides(Path(name))
    print(f"{rows:,} rows x {bars:,} {source} hours, from candles to a sorted frame, warm")
    print(f"{'':<18}{'s':>9}{'M bars/s':>10}{'ours is':>10}{'peak MiB':>10}  same final equity")
    found: dict[str, Any] = {"source": source, "bars": bars, "rows": rows, "sides": {}}
    ours = sides[OURS]
    for name in (OURS, *PEERS):
        if name not in sides:
            print(f"{name:<18}not installed: make bench-peers")
            continue
        side = sides[name]
        scale = rows / side.answers[0]["rows"]
        seconds, same = side.best() * scale, agreement(side, ours)
        found["sides"][name] = one = {
            "seconds": seconds,
            "bars_a_second": rows * bars / seconds,
            "ratio": seconds / ours.best(),
            "MiB": side.answers[0]["peak"],
            "scaled_from": side.answers[0]["rows"],
            **same,
        }
        print(
            f"{name:<18}{seconds:>9.3f}{one['bars_a_second'] / 1e6:>10.2f}{one['ratio']:>9.1f}x"
            f"{one['MiB']:>10.0f}  {same['same']} of {same['of']}, else to {same['apart']:.1e}"
            + (f"; {side.answers[0]['rows']} rows, scaled" if scale > 1 else "")
        )
        if "simulation" in side.answers[0]:
            one["simulation"] = side.best("simulation")
            one["simulation_ratio"] = one["simulation"] / ours.best()
            print(
                f"{'  simulation only':<18}{one['simulation']:>9.3f}{'':>10}"
                f"{one['simulation_ratio']:>9.1f}x"
            )
    return found


if __name__ == "__main__":
    main()
