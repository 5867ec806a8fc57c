"""A sweep of 1,000 SMA crossovers over four years of hours, beside vectorbt as documented.

Same candles and parameters, fee and slippage, no risk gate (vectorbt has none), fills at the next
open on both sides. Both compute total return, Sharpe, Sortino, drawdown, CAGR, win rate and profit
factor of every row. Warm, interleaved, medians of three; vectorbt computes all rows in one
broadcast. Real hours of BTCUSDT where CANDLEBOOK_SHARED has them, else made up ones.

The rates are of one core: the kernel that takes a full step at every bar, and the one that skips
bars on which nothing can happen, without the gate and with it. The peaks of memory (Linux) are
those of a process that sweeps a year of made-up minutes, the making of them counted.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import vectorbt as vbt

from research import metrics, rows
from research.account import Account, Filters, Limits
from research.candles import Candles, CandleSet, utc_ms
from research.compiled import compile_kernel
from research.engine import KERNEL_MODULES, step
from research.history import History
from research.history_import import import_file
from research.metrics import Tally, opening_tally, tally_bar
from research.risk import Rules, rules_for
from research.search import sweep
from research.state import Log, State, as_arrays, clear_row, new_log, opening_state
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import compute_targets
from research.synthetic import synthetic_candles
from research.tape import Tape, tape_of
from tests.bench.year_of_minutes import BARS as MEMORY_BARS

HOURS = 35_064
FAST, SLOW = range(5, 45), range(50, 300, 10)
FREE = Account(limits=None, filters={"BTCUSDT": Filters(lot_step="0.00001", tick="0.01")})
GATED = Account(limits=Limits(), filters=FREE.filters)
REPEATS = 3
MEMORY_ROWS = (1_000, 10_000)


def hours() -> tuple[CandleSet, str]:
    """Four years of hours, and where they are from."""
    root = Path(__file__).resolve().parents[2]
    shared = (root / os.environ.get("CANDLEBOOK_SHARED", "../shared")).resolve()
    file = shared / "history" / "binance" / "BTCUSDT" / "1h.parquet"
    if not file.is_file():
        return synthetic_candles(("BTCUSDT",), "1h", utc_ms("2022"), HOURS), "made up"
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder))
        import_file(history, file)
        (info,) = history.inventory()
        for gap in info.gaps:
            address = ("binance", "BTCUSDT", "1h", gap.start, gap.end)
            history.accept_gap(*address, "outage", "the benchmark", "a known outage")
        return history.load(["BTCUSDT"], "1h"), "real"


def ours(candles: CandleSet, account: Account) -> float:
    """From candles to the sorted frame; best final equity."""
    found = sweep(SmaCrossover, candles, account, progress=False, fast=FAST, slow=SLOW)
    return float(found.frame.sort_values("sharpe", ascending=False)["final_equity"].max())


def theirs(one: Candles) -> float:
    """The same by vectorbt, signals shifted to the next open."""
    frame = one.frame()
    pairs = [(fast, slow) for fast in FAST for slow in SLOW]
    quick = vbt.MA.run(frame["close"], [p[0] for p in pairs])
    lazy = vbt.MA.run(frame["close"], [p[1] for p in pairs])
    quick_ma, lazy_ma = (ma.ma.to_numpy().reshape(len(one), -1) for ma in (quick, lazy))
    signal = np.zeros(quick_ma.shape, bool)
    signal[1:] = ((quick_ma > lazy_ma) & ~np.isnan(lazy_ma))[:-1]
    price = np.broadcast_to(frame["open"].to_numpy()[:, None], signal.shape)
    run = vbt.Portfolio.from_signals(
        frame["close"],
        entries=signal,
        exits=~signal,
        price=price,
        fees=FREE.fee_rate,
        slippage=FREE.slippage_bps / 10_000,
        init_cash=FREE.initial_cash,
        freq="1h",
    )
    figures = {
        "total_return": run.total_return(),
        "sharpe": run.sharpe_ratio(),
        "sortino": run.sortino_ratio(),
        "max_drawdown": run.max_drawdown(),
        "cagr": run.annualized_return(),
        "win_rate": run.trades.win_rate(),
        "profit_factor": run.trades.profit_factor(),
    }
    np.argsort(figures["sharpe"].to_numpy())
    return float(np.max(run.final_value()))


def plain(state: State, tape: Tape, rules: Rules, log: Log, tally: Tally) -> tuple[Tally, bool]:
    """A full step at every bar, in the subset of Python that numba compiles."""
    for t in range(len(tape.close_time)):
        clear_row(log, 0)
        state = step(state, tape, t, rules, log, 0)
        tally = tally_bar(tally, log, 0, rules)
    return tally, state.tripped


def rate(kernel: Callable[..., Any], candles: CandleSet, account: Account, skips: bool) -> float:
    """Bars a second of one core, over a spread of the grid."""
    times, bars = 0.0, 0
    for fast, slow in ((5, 50), (10, 100), (20, 200), (44, 290)):
        strategy = SmaCrossover(fast, slow)
        tape = tape_of(candles, compute_targets(strategy, candles))
        rules, busy = as_arrays(rules_for(account, candles.symbols)), np.empty(HOURS + 1, np.int64)
        for repeat in range(6):
            state = as_arrays(opening_state(account.initial_cash, 1))
            tally = as_arrays(opening_tally(account.initial_cash, 1))
            middle = (busy,) if skips else ()
            started = time.perf_counter()
            kernel(state, tape, *middle, rules, new_log(1, 1), tally)
            if repeat:  # the first one compiles, or warms the caches
                times, bars = times + time.perf_counter() - started, bars + len(tape.close_time)
    return bars / times


def peak_memory(count: int) -> tuple[float, float]:
    """MiB at the peak, and seconds, of a sweep of ``count`` rows over a year of minutes."""
    code = (
        "import sys, time, pathlib\n"
        "from tests.bench.year_of_minutes import sweep_of\n"
        "started = time.perf_counter(); sweep_of(int(sys.argv[1]))\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "used = int(status.partition('VmHWM:')[2].split()[0]) / 1024\n"
        "print(used, time.perf_counter() - started)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(count)], capture_output=True, text=True, check=True
    )
    used, seconds = done.stdout.split()
    return float(used), float(seconds)


def main() -> None:
    """Print times, ratios, rates and peaks."""
    candles, source = hours()
    one = candles["BTCUSDT"]
    count = len(FAST) * len(SLOW)
    results = ours(candles, FREE), theirs(one)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for side, call in zip(
            times, (lambda: ours(candles, FREE), lambda: theirs(one)), strict=True
        ):
            started = time.perf_counter()
            call()
            side.append(time.perf_counter() - started)
    mine, other = (statistics.median(side) for side in times)
    work = count * len(one)
    print(f"{count:,} rows x {len(one):,} {source} hours, from candles to a sorted frame")
    print(f"{'ours':<12}{mine:>9.3f} s{work / mine / 1e6:>10.0f} M bars/s")
    print(
        f"{'vectorbt':<12}{other:>9.3f} s{work / other / 1e6:>10.0f} M bars/s{other / mine:>8.0f}x"
    )
    print(f"best final equity: {results[0]:,.4f}, {results[1]:,.4f}")
    modules = (*KERNEL_MODULES, metrics, sys.modules[__name__])
    print("one core, million bars a second:   no gate   full gate")
    full, skipping = compile_kernel(plain, modules), rows._compiled_row()
    for label, kernel, skips in (("every bar", full, False), ("skipping", skipping, True)):
        rates = [rate(kernel, candles, account, skips) / 1e6 for account in (FREE, GATED)]
        print(f"  {label:<28}{rates[0]:>12.0f}{rates[1]:>12.0f}")
    print(f"peak memory over {MEMORY_BARS:,} minutes")
    for count in MEMORY_ROWS:
        used, seconds = peak_memory(count)
        speed = count * MEMORY_BARS / seconds / 1e6
        print(f"  {count:>6,} rows {used:>8.0f} MiB {seconds:>8.1f} s{speed:>8.0f} M bars/s")


if __name__ == "__main__":
    main()
