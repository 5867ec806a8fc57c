"""One side of the comparison, a process of its own: ``python side.py NAME FOLDER``.

It tells a line that it is ready, then runs the grid once for every line that it reads, and answers
each with a line of JSON: ``seconds`` from candles to sorted figures, ``simulation`` (of these, the
simulation alone, where it can be told apart), ``peak`` memory in MiB so far, ``rows`` done, and
``total_return`` of each. FOLDER holds the candles (prices.npy, hours.parquet, store) and grid.json.

An SMA crossover without a gate, all cash in or out, filled at the next open with slippage and fee.
This file runs in the peers' interpreter too, so that it imports nothing that a side does not need.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CASH, FEE, SLIPPAGE = 10_000.0, 0.001, 0.0005
HOURS_A_YEAR = 365 * 24
Answer = dict[str, Any]
Run = Callable[[], Answer]


def candlebook(folder: Path, pairs: list[tuple[int, int]]) -> Run:
    """Our sweep, from the store to the sorted frame; every byte that is read is checked."""
    from research.account import Account
    from research.history import History
    from research.search import sweep
    from research.strategies.sma_crossover import SmaCrossover

    account = Account(initial_cash=CASH, fee_rate=FEE, slippage_bps=SLIPPAGE * 1e4, limits=None)
    fast, slow = (sorted({pair[k] for pair in pairs}) for k in (0, 1))

    def run() -> Answer:
        candles = History(folder / "store").load(["BTCUSDT"], "1h")
        found = sweep(SmaCrossover, candles, account, progress=False, fast=fast, slow=slow)
        found.frame.sort_values("sharpe", ascending=False)
        return {"total_return": found.frame["total_return"].tolist()}

    return run


def vectorbt(engine: str, folder: Path, pairs: list[tuple[int, int]]) -> Run:
    """vectorbt as its documentation shows: indicators and portfolio of all rows, broadcast."""
    import pandas as pd
    import vectorbt as vbt

    vbt.settings["engine"] = engine

    def run() -> Answer:
        if engine == "numba":
            frame = pd.read_parquet(folder / "hours.parquet").set_index("ts")
        else:  # no reader of Parquet is installed beside it
            frame = _frame(folder)
        close = frame["close"]
        fast = vbt.MA.run(close, [pair[0] for pair in pairs]).ma.to_numpy().reshape(len(close), -1)
        slow = vbt.MA.run(close, [pair[1] for pair in pairs]).ma.to_numpy().reshape(len(close), -1)
        signal = np.zeros(fast.shape, bool)
        signal[1:] = ((fast > slow) & ~np.isnan(slow))[:-1]
        started = time.perf_counter()
        portfolio = vbt.Portfolio.from_signals(
            close,
            entries=signal,
            exits=~signal,
            price=np.broadcast_to(frame["open"].to_numpy()[:, None], signal.shape),
            fees=FEE,
            slippage=SLIPPAGE,
            init_cash=CASH,
            freq="1h",
        )
        simulation = time.perf_counter() - started
        total = portfolio.total_return().to_numpy()
        figures = pd.DataFrame(
            {
                "total_return": total,
                "sharpe": portfolio.sharpe_ratio().to_numpy(),
                "sortino": portfolio.sortino_ratio().to_numpy(),
                "max_drawdown": portfolio.max_drawdown().to_numpy(),
                "cagr": portfolio.annualized_return().to_numpy(),
                "win_rate": portfolio.trades.win_rate().to_numpy(),
                "profit_factor": portfolio.trades.profit_factor().to_numpy(),
            }
        )
        figures.sort_values("sharpe", ascending=False)
        return {"simulation": simulation, "total_return": total.tolist()}

    return run


def numpy_by_hand(folder: Path, pairs: list[tuple[int, int]]) -> Run:
    """Plain numpy, a row at a time, averages kept: what one writes in an afternoon."""

    def run() -> Answer:
        _, opened, _, _, close = np.load(folder / "prices.npy")
        average = {window: _average(close, window) for pair in pairs for window in pair}
        rows = [
            _figures_by_hand(opened, close, average[fast] > average[slow]) for fast, slow in pairs
        ]
        table = np.array(rows)
        table[np.argsort(-table[:, 1])]
        return {"total_return": table[:, 0].tolist()}

    return run


def _average(close: np.ndarray, window: int) -> np.ndarray:
    sums = np.cumsum(np.insert(close, 0, 0.0))
    average = np.full(len(close), np.nan)
    average[window - 1 :] = (sums[window:] - sums[:-window]) / window
    return average


def _average_or_zero(close: np.ndarray, window: int) -> np.ndarray:
    """Zero where it is not ready: backtesting.py begins one bar late after an indicator's NaN."""
    return np.nan_to_num(_average(close, window))


def _figures_by_hand(opened: np.ndarray, close: np.ndarray, above: np.ndarray) -> list[float]:
    """Total return, Sharpe, Sortino, drawdown, CAGR, win rate and profit factor of one row."""
    held = np.append(False, above[:-1])  # decided at a close, held from the next open on
    was_held = np.append(False, held[:-1])
    enters, leaves = held & ~was_held, was_held & ~held
    before = np.append(close[0], close[:-1])
    growth = np.where(held, close / before, 1.0)
    cost = opened * ((1.0 + SLIPPAGE) * (1.0 + FEE))
    gain = opened * ((1.0 - SLIPPAGE) * (1.0 - FEE))
    growth[enters] = close[enters] / cost[enters]
    growth[leaves] = gain[leaves] / before[leaves]
    equity = np.cumprod(growth)
    change = growth - 1.0
    year = np.sqrt(HOURS_A_YEAR)
    sharpe = change.mean() / change.std(ddof=1) * year
    sortino = change.mean() / np.sqrt((np.minimum(change, 0.0) ** 2).mean()) * year
    drawdown = (1.0 - equity / np.maximum.accumulate(np.maximum(equity, 1.0))).max()
    cagr = equity[-1] ** (HOURS_A_YEAR / len(close)) - 1.0
    exits = np.flatnonzero(leaves)
    entries = np.flatnonzero(enters)[: len(exits)]
    stake = np.where(entries > 0, equity[entries - 1], 1.0)
    profit = stake * (gain[exits] / cost[entries] - 1.0)
    won, lost = profit[profit > 0.0].sum(), -profit[profit <= 0.0].sum()
    win_rate = (profit > 0.0).mean() if len(profit) else np.nan
    factor = won / lost if lost > 0.0 else np.nan
    return [equity[-1] - 1.0, sharpe, sortino, drawdown, cagr, win_rate, factor]


def backtesting_py(folder: Path, pairs: list[tuple[int, int]]) -> Run:
    """backtesting.py as its documentation shows, one run a row.

    It charges no spread at the exit: commission and spread are such that both sides cost the same
    as elsewhere. It trades whole units, here of 1e-8, as its FractionalBacktest does.
    """
    from backtesting import Strategy
    from backtesting.lib import FractionalBacktest

    commission = 1.0 - (1.0 - SLIPPAGE) * (1.0 - FEE)
    spread = (1.0 + SLIPPAGE) * (1.0 + FEE) / (1.0 + commission) - 1.0

    class Crossover(Strategy):  # type: ignore[misc]
        fast = 20
        slow = 50

        def init(self) -> None:
            close = np.asarray(self.data.Close)
            self.quick = self.I(_average_or_zero, close, self.fast)
            self.lazy = self.I(_average_or_zero, close, self.slow)

        def next(self) -> None:
            if 0.0 < self.lazy[-1] < self.quick[-1]:
                if not self.position:
                    self.buy()
            elif self.position:
                self.position.close()

    def run() -> Answer:
        frame = _frame(folder).rename(columns=str.capitalize)
        test = FractionalBacktest(frame, Crossover, cash=CASH, commission=commission, spread=spread)
        rows = [test.run(fast=fast, slow=slow) for fast, slow in pairs]
        return {"total_return": [row["Return [%]"] / 100 for row in rows]}

    return run


def _frame(folder: Path) -> Any:
    import pandas as pd

    ts, *prices = np.load(folder / "prices.npy")
    index = pd.DatetimeIndex(ts.astype("datetime64[ms]"))
    columns = dict(zip(("open", "high", "low", "close"), prices, strict=True))
    columns["volume"] = np.ones(len(ts))
    return pd.DataFrame(columns, index=index)


SIDES: dict[str, Callable[[Path, list[tuple[int, int]]], Run]] = {
    "candlebook": candlebook,
    "vectorbt, numba": lambda folder, pairs: vectorbt("numba", folder, pairs),
    "vectorbt, Rust": lambda folder, pairs: vectorbt("rust", folder, pairs),
    "numpy by hand": numpy_by_hand,
    "backtesting.py": backtesting_py,
}


def main(name: str, folder: Path) -> None:
    """Run the grid for every line on standard input."""
    warnings.simplefilter("ignore")
    grid = json.loads((folder / "grid.json").read_text())[name]
    run = SIDES[name](folder, [(fast, slow) for fast, slow in grid])
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        answer = run()
        answer["seconds"] = time.perf_counter() - started
        answer["rows"] = len(grid)
        gc.collect()  # vectorbt's objects refer to one another, and hold gigabytes
        answer["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
