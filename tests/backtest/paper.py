"""What the tests of paper trading are made of: random markets, a feed with faults, a quick ledger.

A market is made of one number, so that hypothesis draws structure and not prices. Ledgers are
copies of one that was migrated once; they live in memory where the machine has a folder for that.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from live.ledger import Ledger, open_ledger, tables
from research.account import Account
from research.backtesting import backtest
from research.candles import Candles, CandleSet, find_gaps, iso, utc_ms
from research.promotion import Artefact, Chosen, promote
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import Strategy, Targets, param

HOUR = 3_600_000
START = utc_ms("2024-03-01T20:00")  # so that a day begins soon
SYMBOLS = ("AAAUSDT", "BBBUSDT", "CCCUSDT")
# What a test may not compare: when a row was written, by the clock of the machine.
WRITTEN_AT = {"recorded_at", "updated_at"}


def scratch() -> Path:
    """A new folder of the test's own, in memory where that is possible."""
    memory = Path("/dev/shm")  # noqa: S108 - a fresh folder is made inside it
    return Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """The same, removed at the end."""
    folder = scratch()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@cache
def _empty_ledger() -> bytes:
    with scratch_folder() as folder:
        open_ledger(url_of(folder / "new.db")).close()
        return (folder / "new.db").read_bytes()


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def fresh_ledger(path: Path) -> Ledger:
    """A new, migrated ledger at ``path``; migrations ran once, for all of them."""
    path.write_bytes(_empty_ledger())
    return open_ledger(url_of(path))


def emptied(ledger: Ledger) -> Ledger:
    """The same ledger as if it were new; its engine stays, with all that it has compiled."""
    again = reconnected(ledger)
    path = Path(str(ledger.engine.url.database))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(_empty_ledger())
    return again


def reconnected(ledger: Ledger) -> Ledger:
    """Another Ledger on the same file, with connections of its own."""
    ledger.close()
    return Ledger(ledger.engine)


class Killed(BaseException):
    """The process is gone: nothing in the project may catch this."""


@dataclass(frozen=True)
class DyingLedger(Ledger):
    """A ledger whose process dies at the end of its ``lives``-th writing transaction."""

    lives: Iterator[int] = field(default_factory=lambda: iter(()))

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with super().writing() as conn:
            yield conn
            if next(self.lives, None) is None:
                raise Killed


def dump(ledger: Ledger) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, in order of key, without the time at which it was written."""
    with ledger.reading() as conn:
        return {
            table.name: [
                tuple(row)
                for row in conn.execute(
                    sa.select(*(c for c in table.c if c.name not in WRITTEN_AT)).order_by(
                        *table.primary_key
                    )
                )
            ]
            for table in tables.metadata.sorted_tables
        }


def dump_at(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The dump of the ledger in a file."""
    ledger = open_ledger(url_of(path))
    try:
        return dump(ledger)
    finally:
        ledger.close()


@cache
def promoted() -> Artefact:
    """One artefact that was really promoted; ``artefact_of`` varies it."""
    candles = market(seed=1, bars=30, symbols=1)
    run = backtest(SmaCrossover(fast=2, slow=4), candles, Account(filters=None))
    with scratch_folder() as folder:
        return promote(
            run,
            "paper",
            why="a test",
            override="a test",
            unjudged=True,
            folder=folder,
            who="test",
            now=START,
        )


def artefact_of(strategy: Strategy, candles: CandleSet, account: Account) -> Artefact:
    """An artefact that trades ``candles``, without promoting it again."""
    chosen = Chosen(name=strategy.name, version=strategy.version, parameters=strategy.parameters())
    traded = promoted().market.model_copy(
        update={"symbols": candles.symbols, "timeframe": candles.timeframe}
    )
    clock = candles.clock()
    window = promoted().window.model_copy(
        update={"start": iso(int(clock[0])), "end": iso(int(clock[-1]) + candles.bar_ms)}
    )
    update = {"strategy": chosen, "market": traded, "account": account, "window": window}
    digests = {**promoted().digests, "data": candles.digest()}
    return promoted().model_copy(update={**update, "digests": digests})


@dataclass(frozen=True)
class TableTargets(Strategy):
    """Targets out of a table: what is wanted at a time of a symbol depends on nothing else.

    The table is a hash of ``table``, symbol and time, over levels that include partial exposure
    and NaN.
    """

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = ("the table says so", "the table says so, too")
    LEVELS: ClassVar[tuple[float, ...]] = (np.nan, np.nan, np.nan, 0, 0, 0.25, 1 / 3, 0.7, 1, 1)

    table: int = param(0, low=0, high=2**31)

    @property
    def warmup(self) -> int:
        return 0

    def targets(self, candles: Candles) -> Targets:
        salt = sum(map(ord, candles.symbol)) * 7919 + self.table
        mixed = (candles.ts // candles.bar_ms + salt * 104_729) * 2_654_435_761 % 2**32
        mixed = (mixed ^ (mixed >> 15)) * 2_246_822_519 % 2**32
        levels = np.array(self.LEVELS)[(mixed >> 12) % len(self.LEVELS)]
        return Targets(levels, (mixed % 101).astype(np.float64), mixed % 2)


def market(
    seed: int, bars: int, symbols: int, *, absent: float = 0.0, coarse: bool = True
) -> CandleSet:
    """Random hours of ``symbols`` symbols; each missing run of bars is accepted by name.

    Half of the fun is a coarse grid of prices, on which limits and stops are met exactly.
    """
    rng = np.random.default_rng(seed)
    grid = START + HOUR * np.arange(bars)
    outage = rng.random(bars) < absent / 3
    series, gaps = [], []
    for symbol in SYMBOLS[:symbols]:
        # The last bar is always there: what is absent at the end is late, not missing.
        here = ~(outage | (rng.random(bars) < absent))
        here[-1] = True
        series.append(_walk(rng, symbol, grid[here], coarse))
        gaps += [replace(gap, name="outage") for gap in find_gaps(series[-1])]
    return CandleSet(tuple(series), tuple(gaps))


def _walk(rng: np.random.Generator, symbol: str, ts: Any, coarse: bool) -> Candles:
    wild = float(rng.choice([1, 3, 8]))

    def moves() -> Any:
        drawn = rng.uniform(-wild, wild, len(ts))
        return np.round(drawn) if coarse else drawn

    jumps = np.where(rng.random(len(ts)) < 0.5, moves(), 0.0)
    bodies = moves()
    close = np.maximum(100 + np.cumsum(jumps + bodies), 20.0)
    opened = np.maximum(close - bodies, 20.0)
    high = np.maximum(opened, close) + np.abs(moves())
    low = np.minimum(opened, close) - np.minimum(np.abs(moves()), 10)
    return Candles(symbol, "1h", ts, opened, high, low, close, rng.uniform(0, 9, len(ts)))


@dataclass(frozen=True)
class FaultyFeed:
    """Candles as an exchange shows them on a bad day; every fault is one that it may recover from.

    ``shown`` says what open a candle shows while it forms (by symbol and bar; None: not yet, and
    where it says nothing the true one); ``late`` by how many milliseconds a closed candle comes
    too late, and every later one of its symbol behind it.
    """

    candles: CandleSet
    shown: dict[tuple[str, int], float | None] = field(default_factory=dict)
    late: dict[tuple[str, int], int] = field(default_factory=dict)

    def closed(self, now: int) -> CandleSet:
        there = self.candles.closed_by(now)
        parts = []
        for one in there:
            stop = len(one)
            for i, ts in enumerate(one.ts):
                if int(ts) + HOUR + self.late.get((one.symbol, int(ts)), 0) > now:
                    stop = i
                    break
            parts.append(one.rows(0, stop))
        return CandleSet(tuple(parts), there.gaps, there.source)

    def forming(self, now: int) -> dict[str, tuple[int, float]]:
        opens = {}
        for one in self.candles:
            i = int(np.searchsorted(one.ts, now, side="right")) - 1
            if i < 0 or one.ts[i] + one.bar_ms <= now:
                continue
            bar = int(one.ts[i])
            price = self.shown.get((one.symbol, bar), float(one.open[i]))
            if price is not None:
                opens[one.symbol] = (bar, price)
        return opens
