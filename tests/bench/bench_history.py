"""The Parquet store beside plain pandas on one file of the same rows: import, read, append.

The store checks the SHA-256 of every month file and every page's checksum, and syncs what it
writes; pandas checks and syncs nothing. Real minutes of BTCUSDT where CANDLEBOOK_SHARED has them,
else made up ones. Interleaved, warm, medians. The aims: import below 10 s, a month below 10 ms, one
candle appended below 30 ms.
"""

from __future__ import annotations

import functools
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from research.account import Account
from research.candles import COLUMNS, CandleSet, utc_ms
from research.history import History
from research.history_import import import_file
from research.search import sweep
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles

MINUTES = 787_680
HOURS = 35_064
SERIES = ("binance", "BTCUSDT")
MONTH = utc_ms("2024-03-01"), utc_ms("2024-04-01")


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


def side_by_side(
    title: str, ours: Callable[[], object], pandas: Callable[[], object], repeats: int
) -> None:
    """One line: both medians and the ratio."""
    ours()
    pandas()
    times = [(timed(ours), timed(pandas)) for _ in range(repeats)]
    mine, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{title:<40}{mine:>10.1f}{theirs:>14.1f}{mine / theirs:>9.1f}x")


def minutes_file(folder: Path) -> tuple[Path, str]:
    """787,680 minutes of BTCUSDT as one Parquet file, and where they are from."""
    root = Path(__file__).resolve().parents[2]
    shared = (root / os.environ.get("CANDLEBOOK_SHARED", "../shared")).resolve()
    real = shared / "history" / "binance" / "BTCUSDT" / "1m.parquet"
    if real.is_file():
        return real, "real"
    made = synthetic_candles(("BTCUSDT",), "1m", utc_ms("2024"), MINUTES)["BTCUSDT"]
    file = folder / "1m.parquet"
    made.frame().reset_index().to_parquet(file)
    return file, "made up"


def main() -> None:
    """Print the medians and their ratios, and what a memory-mapped cache would save."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, source = minutes_file(folder)
        print(f"{MINUTES:,} {source} minutes, {HOURS:,} hours; median milliseconds")
        print(f"{'':<40}{'store':>10}{'pandas':>14}{'ratio':>10}")
        _imports(folder, file)
        history = History(folder / "history")
        import_file(history, file, "BTCUSDT", "1m")
        _reads(history, file)
        _appends(history, folder)
        _cache(history, folder)


def _imports(folder: Path, file: Path) -> None:
    copies = iter(range(100))

    def ours() -> None:
        import_file(History(folder / f"import-{next(copies)}"), file, "BTCUSDT", "1m")

    def pandas() -> None:
        pd.read_parquet(file).to_parquet(folder / f"plain-{next(copies)}.parquet")

    side_by_side("import every minute", ours, pandas, 3)


def _reads(history: History, file: Path) -> None:
    first, stop = (pd.Timestamp(ts, unit="ms", tz="UTC") for ts in MONTH)

    def month() -> pd.DataFrame:
        return pd.read_parquet(file, filters=[("ts", ">=", first), ("ts", "<", stop)])

    assert len(month()) == len(history.read(*SERIES, "1m", *MONTH)) == 44_640
    side_by_side(
        "read one month of the minutes", lambda: history.read(*SERIES, "1m", *MONTH), month, 15
    )
    whole = lambda: pd.read_parquet(file)  # noqa: E731
    side_by_side("read every minute", lambda: history.read(*SERIES, "1m"), whole, 5)


def _appends(history: History, folder: Path) -> None:
    made = synthetic_candles(("ETHUSDT",), "1h", utc_ms("2022"), HOURS)["ETHUSDT"]
    half = HOURS - 200
    history.append("binance", made.rows(0, half), "binance")
    plain, at = folder / "hours.parquet", iter(range(half, HOURS))
    made.rows(0, half).frame().to_parquet(plain)
    last = half

    def ours() -> None:
        nonlocal last
        last = next(at)
        history.append("binance", made.rows(last, last + 1), "binance")

    def pandas() -> None:
        frame = pd.read_parquet(plain)
        pd.concat([frame, made.rows(last, last + 1).frame()]).to_parquet(plain)

    side_by_side("append one candle to four years of hours", ours, pandas, 30)


def _cache(history: History, folder: Path) -> None:
    """What a memory-mapped cache of bare columns would save, beside the sweep that it is for.

    ``checked`` hashes what it maps, as the store does with what it reads. A session loads once and
    sweeps often; the first sweep of a process also gets its kernels ready.
    """
    names = [f"S{number}USDT" for number in range(10)]
    for one in synthetic_candles(names, "1h", utc_ms("2022"), HOURS):
        history.append("binance", one, "synthetic")
    print(f"\n{'a memory-mapped cache':<34}{'load':>9}{'mapped':>9}{'checked':>9}", end="")
    print(f"{'sweep':>9}{'first':>9}   (32 rows; milliseconds)")
    for symbols, timeframe in ((["BTCUSDT"], "1m"), (names, "1h")):
        candles, files = history.load(symbols, timeframe), []
        for one in candles:
            files.append(folder / f"{one.symbol}.npy")
            np.save(files[-1], np.stack([getattr(one, name) for name in COLUMNS]))
        calls: dict[str, Callable[[], object]] = {
            "load": functools.partial(history.load, symbols, timeframe),
            "mapped": functools.partial(_mapped, files, checked=False),
            "checked": functools.partial(_mapped, files, checked=True),
            "sweep": functools.partial(_sweep, candles),
        }
        first = timed(calls["sweep"])
        medians = [statistics.median(timed(call) for _ in range(5)) for call in calls.values()]
        bars = f"{len(symbols)} x {len(candles.series[0]):,} bars"
        print(f"{bars:<34}" + "".join(f"{one:>9.1f}" for one in (*medians, first)))


def _mapped(files: list[Path], checked: bool) -> list[object]:
    columns = [np.load(file, mmap_mode="r") for file in files]
    if checked:
        return [hashlib.sha256(one.data).hexdigest() for one in columns]
    return [one.sum() for one in columns]


def _sweep(candles: CandleSet) -> object:
    account = Account(filters=None, limits=None)
    return sweep(SmaCrossover, candles, account, progress=False, fast=range(5, 37), slow=[100])


if __name__ == "__main__":
    main()
