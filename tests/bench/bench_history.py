"""Reading four years of hours from the store, beside plain pandas on one file of the same rows.

The store checks the SHA-256 of every month file and every page's checksum; pandas checks nothing.
Interleaved, warm, medians. The aim for the store is 50 ms.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from research.candles import utc_ms
from research.history import History
from research.synthetic import synthetic_candles

HOURS = 35_064
REPEATS = 15


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


def main() -> None:
    """Print both medians and their ratio."""
    candles = synthetic_candles(("BTCUSDT",), "1h", utc_ms("2022"), HOURS)["BTCUSDT"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        history = History(folder / "history")
        history.append("binance", candles, "synthetic")
        single = folder / "plain.parquet"
        candles.frame().to_parquet(single)
        month = utc_ms("2024-03-01"), utc_ms("2024-04-01")
        calls: dict[str, Callable[[], object]] = {
            "store, four years": lambda: history.read("binance", "BTCUSDT", "1h"),
            "store, one month": lambda: history.read("binance", "BTCUSDT", "1h", *month),
            "pandas, one file": lambda: pd.read_parquet(single),
        }
        for call in calls.values():
            call()
        times: dict[str, list[float]] = {label: [] for label in calls}
        for _ in range(REPEATS):
            for label, call in calls.items():
                times[label].append(timed(call))
    medians = {label: statistics.median(values) for label, values in times.items()}
    print(f"{HOURS:,} rows{'median ms':>24}{'min ms':>10}")
    for label, median in medians.items():
        print(f"{label:<22}{median:>13.1f}{min(times[label]):>10.1f}")
    ratio = medians["store, four years"] / medians["pandas, one file"]
    print(f"the checks and the 48 files cost {ratio:.1f}x plain pandas")


if __name__ == "__main__":
    main()
