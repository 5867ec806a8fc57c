"""``python -m tests.calibration``: calibrate the gate, or report on real candles.

``make calibrate`` runs 200 sweeps of each kind of market (sweeps.py) and the search of real.py, and
writes the tables and the chart of knowledge/evidence.md. The exit code is 1 for a gate that breaks
its promise: of sweeps on a market without an edge at most one in twenty is promoted, of those on
some planted edge at least half.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.calibration import real
from tests.calibration.page import write_calibration, write_real
from tests.calibration.sweeps import EDGES, NOISE, figures_of


def calibrated(sweeps: int, workers: int) -> list[dict[str, Any]]:
    """The figures of every kind of market, printed as they come."""
    started, results = time.perf_counter(), []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for number, kind in enumerate((*NOISE, *EDGES)):
            results.append(figures_of(kind, number, sweeps, pool))
            print(_line(results[-1]), flush=True)
    print(f"{time.perf_counter() - started:.0f} s on {workers} processes")
    return results


def main(given: argparse.Namespace) -> int:
    """Run what was asked for, print it, write it; returns the exit code."""
    code = 0
    if given.what != "real":
        results = calibrated(given.sweeps, given.workers)
        if given.save is not None:
            given.save.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        if given.page is not None:
            write_calibration(given.page, results)
        luck = max(one["ours"]["hits"] for one in results[: len(NOISE)])
        power = max(one["ours"]["hits"] for one in results[len(NOISE) :])
        code = 0 if luck <= 0.05 * given.sweeps and power >= 0.5 * given.sweeps else 1
    if given.what != "made-up":
        rows = real.report()
        if rows and given.page is not None:
            write_real(given.page, rows)
    return code


def _line(one: dict[str, Any]) -> str:
    def words(side: dict[str, Any]) -> str:
        return f"{side['hits']:>4} ({side['low']:5.1%} .. {side['high']:5.1%})"

    return (
        f"{one['market']:<20} true Sharpe {one['true_sharpe']:5.2f}, best row's "
        f"{one['best_sharpe']:5.2f}: promoted of {one['sweeps']}: ours {words(one['ours'])}, best "
        f"row {words(one['best_row'])}, vectorbt {words(one['vectorbt'])}; "
        f"{one['seconds']:.1f} s each; refused by {one['refused_by']}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.calibration", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("all", "made-up", "real"), default="all")
    parser.add_argument("--sweeps", type=int, default=200, help="of each kind of market")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--page", type=Path, help="the page whose blocks to replace")
    parser.add_argument("--save", type=Path, metavar="FILE", help="the figures, as JSON")
    sys.exit(main(parser.parse_args()))
