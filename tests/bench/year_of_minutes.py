"""A sweep over a year of made-up minutes, for a process whose memory is measured."""

from __future__ import annotations

from research.account import Account
from research.candles import utc_ms
from research.search import sweep
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles

BARS = 525_600


def sweep_of(rows: int) -> None:
    """``rows`` combinations, a hundred fast windows times so many slow ones."""
    candles = synthetic_candles(("BTCUSDT",), "1m", utc_ms("2024"), BARS)
    fast = range(5, 105)
    slow = range(200, 200 + 10 * (rows // len(fast)), 10)
    account = Account(limits=None)
    sweep(SmaCrossover, candles, account, progress=False, fast=fast, slow=slow)
