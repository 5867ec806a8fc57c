"""What a paper bar costs: the session's two transactions, with the ledger on disk.

Replays synthetic hours of three symbols one poll at a time; prints milliseconds a poll as the
account grows, so that growth would show.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from live import kill_switch
from live.feed import ReplayFeed
from live.ledger import open_ledger
from live.parity import compare
from live.session import Session, advance
from research.account import Account
from research.backtesting import backtest
from research.candles import utc_ms
from research.promotion import promote
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles

HISTORY, BARS, HOUR = 9_000, 600, 3_600_000


def main() -> None:
    """Print the median of each third of the polls, and the parity verdict."""
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    candles = synthetic_candles(symbols, "1h", utc_ms("2023"), HISTORY + BARS)
    first = int(candles.clock()[HISTORY])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        research = candles.between(None, first)
        run = backtest(SmaCrossover(10, 30), research, Account())
        artefact = promote(
            run, "bench", why="a benchmark", override="a test", unjudged=True, folder=folder
        )
        ledger = open_ledger(f"sqlite:///{folder / 'ledger.db'}")
        kill_switch.reset(ledger, "a benchmark", first, at=1)
        session = Session(ledger, artefact, ReplayFeed(candles), "replay")
        times = []
        for slot in range(first + HOUR, first + BARS * HOUR, HOUR):
            closed = session.feed.closed(slot + 5_000)
            started = time.perf_counter()
            advance(session, closed, slot + 5_000)
            times.append((time.perf_counter() - started) * 1000)
        third = len(times) // 3
        print(f"{'polls':<16}{'median ms':>10}{'max ms':>10}")
        for i in range(3):
            part = times[i * third : (i + 1) * third]
            label = f"{i * third} .. {(i + 1) * third - 1}"
            print(f"{label:<16}{statistics.median(part):>10.1f}{max(part):>10.1f}")
        print(compare(ledger, artefact, candles))
        ledger.close()


if __name__ == "__main__":
    main()
