"""One backtest and a small sweep of SMA crossover, beside vectorbt used as its documentation shows.

Same candles, same parameters, fee and slippage, no risk gate (vectorbt has none), fills at the
next open on both sides; the final equities are printed, so that a reader sees the same run.
Interleaved, warm, medians. vectorbt computes all combinations in one broadcast.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import vectorbt as vbt

from research.account import Account
from research.backtesting import backtest
from research.candles import Candles, CandleSet, utc_ms
from research.search import sweep
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles

HOURS = 35_064
REPEATS = 5
FAST, SLOW = range(5, 45, 5), range(50, 250, 50)
ACCOUNT = Account(limits=None)


def ours_one(candles: CandleSet) -> float:
    """Final equity of one backtest with all its metrics."""
    return backtest(SmaCrossover(20, 50), candles, ACCOUNT).metrics.final_equity


def vectorbt_one(one: Candles) -> float:
    """The same by vectorbt: signals shifted to the next open."""
    return float(np.max(_portfolio(one, [20], [50]).final_value()))


def ours_sweep(candles: CandleSet) -> float:
    """Best final equity of the grid."""
    found = sweep(SmaCrossover, candles, ACCOUNT, progress=False, fast=FAST, slow=SLOW)
    return float(found.frame["final_equity"].max())


def vectorbt_sweep(one: Candles) -> float:
    """The same by vectorbt, with the same figures computed."""
    pairs = [(fast, slow) for fast in FAST for slow in SLOW]
    run = _portfolio(one, [p[0] for p in pairs], [p[1] for p in pairs])
    run.sharpe_ratio(), run.sortino_ratio(), run.max_drawdown(), run.annualized_return()
    run.trades.win_rate(), run.trades.profit_factor()
    return float(np.max(run.final_value()))


def _portfolio(one: Candles, fast: list[int], slow: list[int]) -> vbt.Portfolio:
    frame = one.frame()
    quick, lazy = vbt.MA.run(frame["close"], fast), vbt.MA.run(frame["close"], slow)
    quick_ma, lazy_ma = (ma.ma.to_numpy().reshape(len(one), -1) for ma in (quick, lazy))
    above, ready = quick_ma > lazy_ma, ~np.isnan(lazy_ma)
    signal = np.zeros_like(above)
    signal[1:] = (above & ready)[:-1]
    price = np.repeat(frame["open"].to_numpy()[:, None], signal.shape[1], axis=1)
    return vbt.Portfolio.from_signals(
        frame["close"],
        entries=signal,
        exits=~signal,
        price=price,
        fees=ACCOUNT.fee_rate,
        slippage=ACCOUNT.slippage_bps / 10_000,
        init_cash=ACCOUNT.initial_cash,
        freq="1h",
    )


def main() -> None:
    """Print medians and ratios of both, and both results."""
    candles = synthetic_candles(("BTCUSDT",), "1h", utc_ms("2022"), HOURS)
    one = candles["BTCUSDT"]
    pairs: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "one backtest": (lambda: ours_one(candles), lambda: vectorbt_one(one)),
        f"sweep of {len(FAST) * len(SLOW)}": (
            lambda: ours_sweep(candles),
            lambda: vectorbt_sweep(one),
        ),
    }
    print(f"{HOURS:,} bars{'ours s':>16}{'vectorbt s':>12}{'ratio':>8}   final equity of each")
    for label, (ours, theirs) in pairs.items():
        values = ours(), theirs()
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(REPEATS):
            for side, call in zip(times, (ours, theirs), strict=True):
                started = time.perf_counter()
                call()
                side.append(time.perf_counter() - started)
        mine, other = (statistics.median(side) for side in times)
        print(
            f"{label:<16}{mine:>12.4f}{other:>12.4f}{other / mine:>7.1f}x"
            f"   {values[0]:,.4f}  {values[1]:,.4f}"
        )


if __name__ == "__main__":
    main()
