"""Every fault of an exchange x (fetch, refresh, paper run), over HTTP: `make faults` for a table.

The exchange is the replay exchange on loopback, the client is the project's own through ccxt. Each
scenario has a store and books of its own, copied from ones that know no fault. A fault must end as
EXPECTED says, within the deadline; no order may come of it, no false row may be stored, and once it
has passed the next poll must leave the store and the books as if it had never been.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live import kill_switch
from live.feed import ExchangeFeed
from live.ledger import Ledger, open_ledger
from live.paper import decide
from live.replay import DATA_FAULTS, FAULTS, Fault, ReplayExchange
from live.session import Session
from research.account import Account, Filters
from research.candles import Candles, CandleSet
from research.errors import CandlebookError, HistoryMissing
from research.exchange import MarketData
from research.fetching import top_up
from research.history import History, Series
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles
from tests.backtest.paper import artefact_of, dump, fresh_ledger, scratch_folder, url_of

HOUR = 3_600_000
START = 1_704_067_200_000  # 2024-01-01
SYMBOLS = ("BTCUSDT", "ETHUSDT")
BARS = 80
FILTERS = dict.fromkeys(SYMBOLS, Filters(lot_step="0.00001", tick="0.01", min_notional="5"))
# A second after a close: the candle that forms has traded.
SHOWN = 5_000
# Beyond the deadline of each request: what is done around it.
SLACK_S = 2.0

OPERATIONS = ("fetch", "refresh", "paper")
REFUSED, WAITS, RECORDED, UNTOUCHED = "refused", "waits", "recorded", "not asked"

# What is not plainly refused with a typed error. Bars that the exchange withholds are no wrong
# data: the store then ends early or has a gap that is asked for again, and no bar is decided. A
# candle that is restated after it was seen is recorded, and the first-seen values stand.
EXPECTED: dict[tuple[str, str], str] = {
    ("gap", "fetch"): RECORDED,
    ("stale_tail", "fetch"): WAITS,
    ("halted", "fetch"): WAITS,
    ("halted", "refresh"): WAITS,
    ("changed_filters", "fetch"): UNTOUCHED,
    ("changed_filters", "refresh"): UNTOUCHED,
    ("restated", "refresh"): RECORDED,
    ("restated", "paper"): RECORDED,
}
# A restated candle that nobody has seen before cannot be told from a true one.
LEFT_OUT = {("restated", "fetch")}
# Which row of an answer a data fault hits, where it is not the one before the last.
ROWS = {"restated": 1, "gap": -3}


@dataclass(frozen=True)
class Outcome:
    """How one scenario ended: what it came to, the error, the seconds, and what was wrong."""

    kind: str
    operation: str
    endpoint: str
    came_to: str
    error: str
    seconds: float
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class World:
    """The exchange, the true candles, and a store and books that have lived up to ``slot``."""

    exchange: ReplayExchange
    truth: CandleSet
    folder: Path
    slot: int
    deadline_s: float

    def market(self) -> MarketData:
        return MarketData(base_url=self.exchange.url, deadline_s=self.deadline_s)


@contextmanager
def world(deadline_s: float) -> Iterator[World]:
    """An exchange on loopback, with books that are one slot short of an order."""
    truth = synthetic_candles(SYMBOLS, "1h", START, BARS)
    with scratch_folder() as folder:
        slot = _slot_of_an_order(truth, folder)
        with ReplayExchange([truth], FILTERS, slot + SHOWN) as exchange:
            yield World(exchange, truth, folder, slot, deadline_s)


def session_in(world: World, folder: Path, ledger: Ledger) -> Session:
    """A paper session on the store in ``folder``."""
    feed = ExchangeFeed(
        History(folder / "history"), world.market(), "binance", SYMBOLS, "1h", START
    )
    return Session(ledger, artefact(world.truth), feed)


def artefact(truth: CandleSet) -> Any:
    window = truth.between(START, START + 20 * HOUR)
    return artefact_of(SmaCrossover(fast=2, slow=5), window, Account(filters=FILTERS))


@dataclass(frozen=True)
class StoredFeed:
    """The true candles, without an exchange: how the books of a world come to be."""

    truth: CandleSet

    def closed(self, now: int) -> CandleSet:
        return self.truth.closed_by(now)

    def require_tradable(self, filters: Any) -> None:
        """Always."""

    def forming(self, now: int) -> dict[str, tuple[int, float]]:
        bar = now - now % HOUR
        rows = self.truth.between(bar, bar + HOUR)
        return {one.symbol: (bar, float(one.open[0])) for one in rows}


def _slot_of_an_order(truth: CandleSet, folder: Path) -> int:
    """Live until the slot before one at which orders are placed; leaves store and books there."""
    ledger = fresh_ledger(folder / "before.db")
    feed: Any = StoredFeed(truth)
    session = Session(ledger, artefact(truth), feed)
    first = START + 25 * HOUR
    kill_switch.reset(ledger, "a test", first - 1, who="test")
    for slot in range(first, START + (BARS - 5) * HOUR, HOUR):
        ledger.close()
        shutil.copy(folder / "before.db", folder / "previous.db")
        _, progress = decide(session, slot, slot + SHOWN)
        if slot > START + 40 * HOUR and progress.orders:
            break
    else:
        raise AssertionError("this market never trades: choose another")
    ledger.close()
    shutil.move(folder / "before.db", folder / "after.db")
    shutil.move(folder / "previous.db", folder / "before.db")
    history = History(folder / "history")
    for one in truth.closed_by(slot - HOUR):
        history.append("binance", one, "binance", slot)
    return slot


def run(
    world: World, kind: str, operation: str, endpoint: str | None, seconds: float | None = None
) -> Outcome:
    """One scenario: the fault, what came of it, and the clean poll after it."""
    fault = Fault(kind, endpoint, row=ROWS.get(kind, -2), seconds=seconds)
    with scratch_folder() as folder:
        if operation != "fetch":
            shutil.copytree(world.folder / "history", folder / "history")
        shutil.copy(world.folder / "before.db", folder / "ledger.db")
        ledger = open_ledger(url_of(folder / "ledger.db"))
        try:
            return _scenario(world, folder, ledger, fault, operation)
        finally:
            world.exchange.clear_faults()
            ledger.close()


def _scenario(world: World, folder: Path, ledger: Ledger, fault: Fault, operation: str) -> Outcome:
    rows, books = _rows(folder), dump(ledger)
    world.exchange.inject(fault)
    came_to, error, seconds, asked = _act(world, folder, ledger, operation)
    wrong = list(_false_rows(world.truth, folder))
    expected = EXPECTED.get((fault.kind, operation), REFUSED)
    if came_to != expected:
        wrong.append(f"came to {came_to!r}, not {expected!r} {error}")
    if came_to == REFUSED and _rows(folder) != rows:
        wrong.append("rows were stored all the same")
    # A restated candle changes nothing: the bar is decided on what was seen first.
    if operation == "paper" and expected != RECORDED and dump(ledger)["orders"] != books["orders"]:
        wrong.append("orders were placed")
    longest = (asked + 1) * world.deadline_s + SLACK_S
    if seconds > longest:
        wrong.append(f"took {seconds:.1f} s, more than {longest:.1f} s")
    world.exchange.clear_faults()
    wrong += _recovered(world, folder, ledger, operation)
    where = fault.endpoint or "all"
    return Outcome(fault.kind, operation, where, came_to, error, seconds, tuple(wrong))


def _act(world: World, folder: Path, ledger: Ledger, operation: str) -> tuple[str, str, float, int]:
    """What came of one operation under the fault; and how many questions had been answered."""
    world.exchange.requests.clear()
    started = time.monotonic()
    error, waiting = "", ""
    try:
        if operation == "paper":
            session = session_in(world, folder, ledger)
            waiting = decide(session, world.slot, world.slot + SHOWN)[1].waiting
        else:
            _fetch(world, folder)
    except CandlebookError as err:
        error = type(err).__name__
    seconds = time.monotonic() - started
    # A question that is asked again has no deadline of its own.
    asked = len({(path, *sorted(query.items())) for _, path, query in world.exchange.requests})
    if error:
        return REFUSED, error, seconds, asked
    return _quiet_end(world, folder, operation, waiting), waiting, seconds, asked


def _quiet_end(world: World, folder: Path, operation: str, waiting: str) -> str:
    """What an operation without an error left: gaps or revisions on record, an early end, all."""
    store = History(folder / "history")
    for one in SYMBOLS:
        manifest = store.manifest("binance", one, "1h")
        if manifest.gaps or manifest.revisions:
            return RECORDED
    short = any(len(_stored(folder, one.symbol)) < len(one) for one in _closed(world))
    return WAITS if short or waiting else UNTOUCHED


def _closed(world: World) -> CandleSet:
    return world.truth.closed_by(world.slot + SHOWN)


def _fetch(world: World, folder: Path) -> None:
    market = world.market()
    now = market.server_time()
    for symbol in SYMBOLS:
        for _ in top_up(
            History(folder / "history"), market, Series("binance", symbol, "1h"), (START, now), now
        ):
            pass  # each page is stored as it comes


def _stored(folder: Path, symbol: str) -> Candles | None:
    try:
        return History(folder / "history").read("binance", symbol, "1h")
    except HistoryMissing:
        return None


def _rows(folder: Path) -> dict[str, str]:
    """The digest of every stored series."""
    found = ((symbol, _stored(folder, symbol)) for symbol in SYMBOLS)
    return {symbol: one.digest() for symbol, one in found if one is not None}


def _false_rows(truth: CandleSet, folder: Path) -> Iterator[str]:
    """Stored rows that are not the exchange's own."""
    for true in truth:
        stored = _stored(folder, true.symbol)
        if stored is None:
            continue
        kept = {int(ts): i for i, ts in enumerate(true.ts)}
        here = [kept.get(int(ts), -1) for ts in stored.ts]
        for name in ("open", "high", "low", "close", "volume"):
            column, own = getattr(true, name), getattr(stored, name)
            if any(i < 0 or column[i] != value for i, value in zip(here, own, strict=True)):
                yield f"a false {name} of {true.symbol} was stored"


def _recovered(world: World, folder: Path, ledger: Ledger, operation: str) -> list[str]:
    """What still differs, after one clean poll, from a world without the fault."""
    try:
        if operation == "paper":
            decide(session_in(world, folder, ledger), world.slot, world.slot + SHOWN)
        else:
            _fetch(world, folder)
    except CandlebookError as err:
        return [f"the next poll still fails: {err}"]
    wrong = []
    if _rows(folder) != {one.symbol: one.digest() for one in _closed(world)}:
        wrong.append("the store is not what it is without the fault")
    if operation == "paper":
        clean = open_ledger(url_of(world.folder / "after.db"))
        try:
            there, here = dump(clean), dump(ledger)
        finally:
            clean.close()
        wrong += [f"table {name} differs" for name in there if there[name] != here[name]]
    return wrong


def scenarios(every_endpoint: bool) -> Iterator[tuple[str, str, str | None]]:
    """(kind, operation, endpoint): transport faults on candles alone, or on all questions too."""
    for kind in FAULTS:
        for operation in OPERATIONS:
            if (kind, operation) in LEFT_OUT:
                continue
            if kind in DATA_FAULTS:
                yield kind, operation, None
                continue
            yield kind, operation, "klines"
            if every_endpoint:
                yield kind, operation, None


def main() -> int:
    """Print the table; 1 where a scenario did not end as it must."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds a request (1)")
    asked = parser.parse_args()
    bad = total = orders = 0
    with world(asked.deadline) as made:
        print(f"{'fault':<20}{'on':<8}{'fetch':<28}{'refresh':<28}{'paper run':<28}recovered")
        rows: dict[tuple[str, str], dict[str, Outcome]] = {}
        for kind, operation, endpoint in scenarios(every_endpoint=True):
            found = run(made, kind, operation, endpoint)
            total, bad = total + 1, bad + bool(found.wrong)
            orders += "orders were placed" in found.wrong
            rows.setdefault((kind, found.endpoint), {})[operation] = found
            if operation == OPERATIONS[-1]:
                _print_row(rows[kind, found.endpoint])
    print(f"{total} scenarios, {bad} not as they must be, {orders} with orders")
    return 1 if bad else 0


def _print_row(outcomes: dict[str, Outcome]) -> None:
    one = next(iter(outcomes.values()))
    cells = []
    for operation in OPERATIONS:
        found = outcomes.get(operation)
        text = "-" if found is None else f"{found.error or found.came_to} {found.seconds:.1f} s"
        cells.append(
            text
            if found is None or found.came_to == REFUSED
            else f"{found.came_to} {found.seconds:.1f} s"
        )
    wrong = [text for found in outcomes.values() for text in found.wrong]
    print(
        f"{one.kind:<20}{one.endpoint:<8}"
        + "".join(f"{cell:<28}" for cell in cells)
        + ("NO" if wrong else "yes")
    )
    for text in wrong:
        print(f"    {text}")


if __name__ == "__main__":
    sys.exit(main())
