"""The kernels alone on one core, and the memory of a large sweep.

*Every bar* takes a full step at each bar; *skipping* is what a sweep runs, whatever the strategy
and the rules. Each without the gate, with the six core checks, and with the full gate; limits are
wide enough that no account is halted, since a halted one has nothing to do. Rates are bars of all
combinations a second, over a spread of the grid; the fastest of several runs each, compiled before.

The peaks of memory are those of a process that sweeps a year of minutes, from the store on.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from research import metrics, rows
from research.account import Account, Filters, Limits, TradingHours
from research.candles import CandleSet
from research.compiled import compile_kernel
from research.engine import KERNEL_MODULES, step
from research.metrics import Tally, opening_tally, tally_bar
from research.risk import Rules, rules_for
from research.state import Log, State, as_arrays, clear_row, new_log, opening_state
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import compute_targets
from research.stretch import new_scratch
from research.tape import Tape, tape_of
from tests.bench.market import BARS, SYMBOL, candles_in, fill_store

REPEATS = 12
SPREAD = {
    "1h": ((5, 50), (10, 100), (20, 200), (44, 290)),
    "1m": ((5, 200), (30, 500), (60, 800), (104, 1190)),
}
MEMORY_ROWS = (1_000, 10_000)
FILTERS = {"BTCUSDT": Filters(lot_step="0.00001", tick="0.01")}
WIDE = {"max_daily_loss_pct": 50, "max_drawdown_pct": 100}


def no_gate() -> Account:
    return Account(limits=None, filters=FILTERS)


def core_checks() -> Account:
    """Kill switch, trading hours, daily loss, drawdown, position count, position size."""
    return Account(limits=Limits(**WIDE), filters=FILTERS)


def full_gate() -> Account:
    """Every rule that there is, each set, none so narrow that trading stops."""
    hours = TradingHours(start="00:30", end="24:00")
    further = {
        "max_position_usd": 1_000,
        "max_daily_loss_usd": 5_000,
        "min_fresh_bars": 24,
        "cooldown_minutes": 60,
        "max_exposure_pct": 90,
        "max_exposure_pct_by_symbol": {SYMBOL: 50},
        "max_orders_per_day": 100,
        "max_daily_turnover_pct": 10_000,
        "price_collar_pct": 10,
        "target_volatility_pct": 100,
    }
    limits = Limits(**WIDE, **further, trading_hours=hours)
    return Account(limits=limits, filters=FILTERS, volume_share_pct=50)


ACCOUNTS = {"no gate": no_gate, "six core checks": core_checks, "full gate": full_gate}


def every_bar(state: State, tape: Tape, rules: Rules, log: Log, tally: Tally) -> tuple[Tally, bool]:
    """A full step at every bar, in the subset of Python that numba compiles."""
    for t in range(len(tape.close_time)):
        clear_row(log, 0)
        state = step(state, tape, t, rules, log, 0)
        tally = tally_bar(tally, log, 0, rules)
    return tally, state.tripped


def rate(kernel: Callable[..., Any], candles: CandleSet, account: Account, skips: bool) -> float:
    """Bars a second of one core over the spread of the grid; raises where a run was halted."""
    seconds = 0.0
    spread = SPREAD[candles.timeframe]
    for fast, slow in spread:
        strategy = SmaCrossover(fast, slow)
        tape = tape_of(
            candles, compute_targets(strategy, candles), volatility_bars=account.volatility_bars
        )
        rules, log = as_arrays(rules_for(account, candles.symbols)), new_log(1, 1)
        room = (new_scratch(len(tape.close_time)),) if skips else ()
        best = float("inf")
        for _ in range(REPEATS):
            state = as_arrays(opening_state(account.initial_cash, 1))
            tally = as_arrays(opening_tally(account.initial_cash, 1))
            started = time.perf_counter()
            *_, tripped = kernel(state, tape, *room, rules, log, tally)
            best = min(best, time.perf_counter() - started)
            if tripped:
                raise RuntimeError(f"{strategy!r} was halted: its rate would say little")
        seconds += best
    return len(spread) * len(tape.close_time) / seconds


def peak_memory(folder: Path, count: int) -> tuple[float, float]:
    """MiB at the peak, and seconds, of a sweep of ``count`` rows over a year of minutes."""
    command = [sys.executable, "-m", "tests.bench.year_of_minutes", str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    used, seconds = done.stdout.split()
    return float(used), float(seconds)


def main() -> dict[str, Any]:
    """Print rates and peaks, and return them."""
    modules = (*KERNEL_MODULES, metrics, sys.modules[__name__])
    kernels = (
        ("every bar", compile_kernel(every_bar, modules), False),
        ("skipping", rows._compiled_row(), True),
    )
    found: dict[str, Any] = {"rates": {}, "memory": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"one core, million bars a second{'':<3}", *(f"{one:>16}" for one in ACCOUNTS))
        for timeframe in SPREAD:
            source = fill_store(folder, timeframe)
            candles = candles_in(folder, timeframe)
            for label, kernel, skips in kernels:
                rates = [rate(kernel, candles, one(), skips) / 1e6 for one in ACCOUNTS.values()]
                words = f"{label}, {source} {timeframe}"
                found["rates"][words] = dict(zip(ACCOUNTS, rates, strict=True))
                print(f"  {words:<32}", *(f"{one:>16.0f}" for one in rates), flush=True)
        print(f"peak memory, {BARS['1m']:,} {source} minutes")
        for count in MEMORY_ROWS:
            used, seconds = peak_memory(folder, count)
            speed = count * BARS["1m"] / seconds / 1e6
            found["memory"].append({"rows": count, "MiB": used, "seconds": seconds})
            print(f"  {count:>6,} rows {used:>8.0f} MiB {seconds:>8.1f} s{speed:>8.0f} M bars/s")
        first, last = (one["MiB"] for one in found["memory"])
        print(f"  {last / first - 1:+.1%} from {MEMORY_ROWS[0]:,} to {MEMORY_ROWS[1]:,} rows")
    return found


if __name__ == "__main__":
    main()
