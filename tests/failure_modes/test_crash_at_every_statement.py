"""A process that dies at any SQL statement loses nothing and doubles nothing.

A run is watched from outside: at every statement, before and after it and before every COMMIT, the
bytes on disk are copied as a killed process would leave them. Each copy is then opened and carried
on, and must end as the ledger of the run that nobody disturbed. The same again with the process
dying in Python at that statement, and for some statements with a real SIGKILL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from live import kill_switch
from live.ledger import Ledger, open_ledger
from live.parity import compare
from live.session import Session, advance
from research.account import Account, Limits, Stops
from research.candles import Candles, CandleSet
from research.errors import CandlebookError
from research.promotion import Artefact
from research.strategies.sma_crossover import SmaCrossover
from tests.backtest.paper import (
    HOUR,
    START,
    FaultyFeed,
    Killed,
    artefact_of,
    dump,
    fresh_ledger,
    scratch_folder,
    url_of,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch_folder() as made:
        yield made


# Points at which a process may die: a statement, before or after; a commit.


@contextmanager
def at_every_point(act: Callable[[str], None]) -> Iterator[None]:
    """Calls ``act`` before and after every statement of any engine, and before every commit."""

    def before(_c: Any, _k: Any, statement: str, *_: Any) -> None:
        act(f"before {statement}")

    def after(_c: Any, _k: Any, statement: str, *_: Any) -> None:
        act(f"after {statement}")

    def commit(_conn: Any) -> None:
        act("before COMMIT")

    hooks = {"before_cursor_execute": before, "after_cursor_execute": after, "commit": commit}
    for name, hook in hooks.items():
        event.listen(Engine, name, hook)
    try:
        yield
    finally:
        for name, hook in hooks.items():
            event.remove(Engine, name, hook)


@contextmanager
def photographed(path: Path, album: Path) -> Iterator[list[tuple[str, Path]]]:
    """Copies of the ledger's files at every point, in order; cp, since closing a file of ours
    would drop the locks that SQLite holds on it."""
    photos: list[tuple[str, Path]] = []

    def shoot(where: str) -> None:
        copy = album / f"{len(photos)}.db"
        names = {path.with_name(path.name + end): end for end in ("", "-wal")}
        for name, end in names.items():
            if name.exists():
                subprocess.run(["cp", name, f"{copy}{end}"], check=True)
        photos.append((where, copy))

    with at_every_point(shoot):
        yield photos


class Fuse:
    """Kills the process, as Python sees it, at the ``n``-th point."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, _where: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


# The bars in which something happens.


def series(symbol: str, closes: list[float]) -> Candles:
    count = len(closes)
    opens = [closes[0], *closes[:-1]]
    ts = [START + t * HOUR for t in range(count)]
    highs = [max(pair) for pair in zip(opens, closes, strict=True)]
    lows = [min(pair) for pair in zip(opens, closes, strict=True)]
    return Candles(symbol, "1h", ts, opens, highs, lows, closes, [1.0] * count)


@dataclass(frozen=True)
class Scene:
    """A run whose poll at bar ``bar`` is the one of interest; the poll before was at ``since``.

    A poll at a bar closes it, and fills what it decided at the open of the next, forming one.
    """

    account: Account
    closes: tuple[float, ...]
    since: int
    bar: int
    restated: bool = False

    @property
    def candles(self) -> CandleSet:
        twice = [2 * close for close in self.closes]
        return CandleSet((series("AAAUSDT", list(self.closes)), series("BBBUSDT", twice)))

    @property
    def artefact(self) -> Artefact:
        return artefact_of(SmaCrossover(fast=2, slow=3), self.candles, self.account)

    def poll(self, ledger: Ledger, bar: int) -> None:
        now, forming = START + bar * HOUR, START + self.since * HOUR
        shown = {("AAAUSDT", forming): self.closes[self.since - 1] * 1.01}
        feed = FaultyFeed(self.candles, shown if self.restated else {})
        session = Session(ledger, self.artefact, feed, "replay")
        advance(session, feed.closed(now), now, START + HOUR)

    def begun(self, path: Path) -> Ledger:
        """A ledger that has lived up to the poll before the one of interest."""
        ledger = fresh_ledger(path)
        kill_switch.reset(ledger, "go", START, who="test")
        self.poll(ledger, self.since)
        return ledger

    def carried_on(self, ledger: Ledger) -> dict[str, list[tuple[Any, ...]]]:
        """The ledger's dump after the poll of interest and one at the end."""
        self.poll(ledger, self.bar)
        self.poll(ledger, len(self.closes))
        parity = compare(ledger, self.artefact, self.candles)
        assert parity.equal, parity
        return dump(ledger)


FREE = Account(limits=None, filters=None)
STOPPED = Account(limits=None, filters=None, stops=Stops(stop_loss_pct=3))
ARMED = Account(
    limits=Limits(
        max_drawdown_pct=5, max_position_pct=50, max_daily_loss_pct=100, on_trip="flatten"
    ),
    filters=None,
)
RISING = (100.0, 100.0, 100.0, 101.0, 103.0, 105.0, 107.0)
FALLING = (100.0, 100.0, 100.0, 104.0, 106.0, 99.0, 90.0, 80.0, 70.0)
SCENES = {
    "an entry is decided and filled": Scene(FREE, RISING, 3, 4),
    "nothing happens": Scene(FREE, RISING, 5, 6),
    "an open is restated": Scene(FREE, RISING, 4, 5, restated=True),
    "an exit closes a trade": Scene(FREE, FALLING, 5, 6),
    "a stop acts": Scene(STOPPED, FALLING, 5, 6),
    "the drawdown trips and flattens": Scene(ARMED, FALLING, 5, 6),
    "three missed bars are caught up": Scene(FREE, FALLING, 4, 7),
}
# What the poll of interest adds to the ledger: orders, fills, trades, revisions.
ADDS = {
    "an entry is decided and filled": (2, 1, 0, 0),
    "nothing happens": (0, 0, 0, 0),
    "an open is restated": (0, 0, 0, 1),
    "an exit closes a trade": (1, 1, 1, 0),
    "a stop acts": (1, 1, 1, 0),
    "the drawdown trips and flattens": (2, 2, 2, 0),
    "three missed bars are caught up": (1, 1, 1, 0),
}


def sizes(ledger: Ledger) -> list[int]:
    rows = dump(ledger)
    return [len(rows[table]) for table in ("orders", "fills", "trades", "revisions")]


@pytest.mark.parametrize("name", SCENES)
def test_killed_at_any_statement_the_ledger_ends_as_if_nothing_had_been(
    name: str, folder: Path
) -> None:
    scene = SCENES[name]
    ledger = scene.begun(folder / "paper.db")
    before = sizes(ledger)
    with photographed(folder / "paper.db", folder) as photos:
        scene.poll(ledger, scene.bar)
    added = tuple(after - b for after, b in zip(sizes(ledger), before, strict=True))
    assert added == ADDS[name]
    expected = scene.carried_on(ledger)
    ledger.close()
    assert sum(where == "before COMMIT" for where, _ in photos) >= 3
    for where, photo in photos:
        survivor = open_ledger(url_of(photo))
        assert scene.carried_on(survivor) == expected, where
        survivor.close()


@pytest.mark.parametrize("name", SCENES)
def test_an_interruption_at_any_statement_leaves_no_trace(name: str, folder: Path) -> None:
    scene = SCENES[name]
    ledger = scene.begun(folder / "paper.db")
    ledger.close()
    before = (folder / "paper.db").read_bytes()
    points: list[str] = []
    with at_every_point(points.append):
        scene.poll(ledger, scene.bar)
    expected = scene.carried_on(ledger)
    ledger.close()
    for n, where in enumerate(points):
        path = folder / f"{n}.db"
        path.write_bytes(before)
        ledger = open_ledger(url_of(path))
        with at_every_point(Fuse(n)), pytest.raises(Killed) as held:
            scene.poll(ledger, scene.bar)
        # The very same process may go on, as a notebook does that still holds the traceback.
        assert scene.carried_on(ledger) == expected, where
        assert held.traceback
        ledger.close()


def die_at_every_point(name: str, folder: Path) -> None:
    """For every point a child that kills itself there; run in a process without threads."""
    scene = SCENES[name]
    before = (folder / "begun.db").read_bytes()
    for n in range(int((folder / "points").read_text())):
        path = folder / f"{n}.db"
        path.write_bytes(before)
        child = os.fork()
        if child == 0:
            left = iter(range(n))
            with at_every_point(
                lambda _, left=left: (
                    next(left, None) is None and os.kill(os.getpid(), signal.SIGKILL)
                )
            ):
                scene.poll(open_ledger(url_of(path)), scene.bar)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            raise AssertionError(f"point {n}: ended with {status} before it could be killed")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_real_sigkill_at_any_statement_loses_and_doubles_nothing(folder: Path) -> None:
    name = "the drawdown trips and flattens"
    scene = SCENES[name]
    ledger = scene.begun(folder / "begun.db")
    ledger.close()
    (folder / "whole.db").write_bytes((folder / "begun.db").read_bytes())
    points: list[str] = []
    with at_every_point(points.append):
        whole = open_ledger(url_of(folder / "whole.db"))  # the child opens its ledger, too
        scene.poll(whole, scene.bar)
    expected = scene.carried_on(whole)
    whole.close()
    (folder / "points").write_text(str(len(points)))
    code = (
        f"from {__name__} import die_at_every_point; from pathlib import Path; "
        f"die_at_every_point({name!r}, Path({str(folder)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    for n, where in enumerate(points):
        survivor = open_ledger(url_of(folder / f"{n}.db"))
        assert scene.carried_on(survivor) == expected, where
        survivor.close()


def schema(ledger: Ledger) -> list[tuple[Any, ...]]:
    with ledger.reading() as conn:
        rows = conn.exec_driver_sql("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2")
        return [tuple(row) for row in rows]


def test_killed_while_the_ledger_is_made_it_is_made_the_next_time(folder: Path) -> None:
    with photographed(folder / "new.db", folder) as photos:
        ledger = open_ledger(url_of(folder / "new.db"))
    expected, tables = dump(ledger), schema(ledger)
    assert [row[2] for row in expected["interventions"]] == ["kill"]
    assert len(photos) > 40
    ledger.close()
    for where, photo in photos:
        survivor = open_ledger(url_of(photo))
        assert (dump(survivor), schema(survivor)) == (expected, tables), where
        survivor.close()


def test_interrupted_while_the_ledger_is_made_it_is_made_the_next_time(folder: Path) -> None:
    points: list[str] = []
    with at_every_point(points.append):
        ledger = open_ledger(url_of(folder / "new.db"))
    expected, tables = dump(ledger), schema(ledger)
    ledger.close()
    for n, where in enumerate(points):
        url = url_of(folder / f"{n}.db")
        with at_every_point(Fuse(n)), pytest.raises(Killed):
            open_ledger(url)
        survivor = open_ledger(url)
        assert (dump(survivor), schema(survivor)) == (expected, tables), where
        survivor.close()


def test_a_ledger_that_committed_each_statement_would_be_caught(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The negative control: without transactions some photo must not carry on.
    scene = SCENES["the drawdown trips and flattens"]
    monkeypatch.setattr("live.ledger.store._sqlite_begin", lambda _conn: None)
    ledger = scene.begun(folder / "paper.db")
    with photographed(folder / "paper.db", folder) as photos:
        scene.poll(ledger, scene.bar)
    expected = scene.carried_on(ledger)
    ledger.close()
    broken = 0
    for _, photo in photos:
        survivor = open_ledger(url_of(photo))
        try:
            broken += scene.carried_on(survivor) != expected
        except (CandlebookError, AssertionError):
            broken += 1
        finally:
            survivor.close()
    assert broken > 10
