"""Several processes on one account, one that holds the lock and sleeps, and books that disagree.

Whatever happens, the ledger ends as that of one undisturbed process, or a typed error says why not
and nothing was written.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live import kill_switch
from live.ledger import Ledger, open_ledger, read
from live.parity import compare
from live.session import Progress, Session, advance
from research.account import Account, Limits
from research.candles import COLUMNS, CandleSet, Gap, iso
from research.errors import (
    ArtefactTampered,
    CandlesRejected,
    CursorError,
    DataError,
    GapNotAccepted,
    LedgerError,
)
from research.strategies.sma_crossover import SmaCrossover
from tests.backtest.paper import (
    HOUR,
    START,
    FaultyFeed,
    artefact_of,
    dump,
    dump_at,
    fresh_ledger,
    market,
    scratch_folder,
    url_of,
)

ROOT = Path(__file__).resolve().parents[2]
BARS = 24
CANDLES = market(seed=11, bars=BARS, symbols=2, coarse=False)
ACCOUNT = Account(
    limits=Limits(max_position_pct=60, max_daily_loss_pct=100, max_drawdown_pct=100), filters=None
)
ARTEFACT = artefact_of(SmaCrossover(fast=2, slow=3), CANDLES, ACCOUNT)
FIRST, END = START + 4 * HOUR, START + BARS * HOUR


def poll(ledger: Ledger, now: int, candles: CandleSet = CANDLES, **feed: Any) -> Progress:
    shown = FaultyFeed(candles, **feed)
    return advance(Session(ledger, ARTEFACT, shown, "replay"), shown.closed(now), now, FIRST)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """What one process leaves behind."""
    with scratch_folder() as folder:
        ledger = fresh_ledger(folder / "paper.db")
        kill_switch.reset(ledger, "go", START, who="test")
        poll(ledger, END)
        parity = compare(ledger, ARTEFACT, CANDLES)
        ledger.close()
        assert parity.equal, parity
        assert parity.compared["fills"] > 8
        return dump_at(folder / "paper.db")


@pytest.fixture
def path() -> Iterator[Path]:
    with scratch_folder() as folder:
        yield folder / "paper.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    made = fresh_ledger(path)
    kill_switch.reset(made, "go", START, who="test")
    yield made
    made.close()


# Several processes


def meet(folder: Path, where: str, me: int, all_of_us: int) -> None:
    """Waits until every process has come to ``where``."""
    (folder / f"{where}-{me}").touch()
    deadline = time.monotonic() + 30
    while len(list(folder.glob(f"{where}-*"))) < all_of_us:
        if time.monotonic() > deadline:
            raise TimeoutError(where)
        time.sleep(0.0005)


def work(folder: Path, me: int, all_of_us: int, rounds: int) -> None:
    """One of the processes: in every round it makes or opens the ledger and advances to the end."""
    for n in range(rounds):
        rng = np.random.default_rng([n, me])
        meet(folder, f"round{n}", me, all_of_us)
        ledger = open_ledger(url_of(folder / f"{n}.db"))
        meet(folder, f"open{n}", me, all_of_us)
        if me == 0:
            kill_switch.reset(ledger, "go", START, who="test")
        meet(folder, f"reset{n}", me, all_of_us)
        now = FIRST
        while now < END:
            poll(ledger, now)
            now += int(rng.integers(1, 4 * HOUR))
        poll(ledger, END)
        ledger.close()


def make(folder: Path, me: int, all_of_us: int, rounds: int) -> None:
    """One of the processes: opens a ledger that is not there yet, just when the rest do."""
    for n in range(rounds):
        meet(folder, f"round{n}", me, all_of_us)
        open_ledger(url_of(folder / f"{n}.db")).close()


def race(doing: str, folder: Path, count: int, rounds: int) -> None:
    """Runs ``doing`` in ``count`` processes at once; all must end well."""
    code = (
        f"from {__name__} import {doing}; from pathlib import Path; {doing}(Path({str(folder)!r})"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", f"{code}, {me}, {count}, {rounds})"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for me in range(count)
    ]
    complaints = [one.communicate(timeout=200)[1] for one in running]
    assert [one.returncode for one in running] == [0] * count, "\n".join(complaints)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_that_race_leave_what_one_would(count: int, undisturbed: dict[str, Any]) -> None:
    with scratch_folder() as folder:
        race("work", folder, count, rounds=5)
        for n in range(5):
            assert dump_at(folder / f"{n}.db") == undisturbed, f"round {n}"


def test_processes_that_make_the_same_ledger_at_once_all_get_it() -> None:
    with scratch_folder() as folder:
        race("make", folder, 4, rounds=20)
        new = dump_at(folder / "0.db")
        assert [row[2] for row in new["interventions"]] == ["kill"]
        assert all(dump_at(folder / f"{n}.db") == new for n in range(20))


def hold(path: Path) -> None:
    """A process that takes the write lock, writes something and says so; then waits to be told."""
    ledger = open_ledger(url_of(path))
    with ledger.writing() as conn:
        conn.exec_driver_sql("DELETE FROM interventions")
        print("held", flush=True)  # noqa: T201 - the parent reads it
        sys.stdin.readline()
        raise SystemExit("it changed its mind")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
@pytest.mark.parametrize("fate", ["goes on and fails", "is killed in its sleep"])
def test_while_the_lock_holder_sleeps_others_get_an_error_and_readers_read(
    fate: str, path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = fresh_ledger(path)
    kill_switch.reset(ledger, "go", START, who="test")
    poll(ledger, END - 6 * HOUR)
    before = dump(ledger)
    ledger.close()
    code = f"from {__name__} import hold; from pathlib import Path; hold(Path({str(path)!r}))"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGSTOP)
        monkeypatch.setattr("live.ledger.store.BUSY_TIMEOUT_S", 0.2)
        ledger = open_ledger(url_of(path))
        with pytest.raises(LedgerError, match="database is locked"):
            poll(ledger, END)
        with pytest.raises(LedgerError, match="database is locked"):
            kill_switch.kill(ledger, "stop", END)
        assert dump(ledger) == before
        if fate == "is killed in its sleep":
            holder.kill()
        else:
            os.kill(holder.pid, signal.SIGCONT)
            holder.communicate("\n", timeout=30)
        assert holder.wait(30) != 0
    poll(ledger, END)
    assert dump(ledger) == undisturbed
    ledger.close()


# Books that do not belong to what comes


def test_another_artefact_of_this_name_is_refused(ledger: Ledger) -> None:
    poll(ledger, START + 12 * HOUR)
    before = dump(ledger)
    other = ARTEFACT.model_copy(update={"seal": "0" * 64})
    feed = FaultyFeed(CANDLES)
    with pytest.raises(ArtefactTampered, match=r"paper: seal: .* opened by another artefact"):
        advance(Session(ledger, other, feed, "replay"), feed.closed(END), END)
    assert dump(ledger) == before


def test_a_replay_and_a_paper_run_may_not_share_an_account(ledger: Ledger) -> None:
    poll(ledger, START + 12 * HOUR)
    before = dump(ledger)
    feed = FaultyFeed(CANDLES)
    with pytest.raises(LedgerError, match='account paper: mode: expected replay, got "paper"'):
        advance(Session(ledger, ARTEFACT, feed, "paper"), feed.closed(END), END)
    assert dump(ledger) == before


def test_a_cursor_where_no_bar_is_raises_rather_than_skip(ledger: Ledger) -> None:
    poll(ledger, START + 12 * HOUR)
    with ledger.writing() as conn:
        conn.exec_driver_sql("UPDATE state SET cursor_bar = cursor_bar - 1")
    before = dump(ledger)
    with pytest.raises(CursorError, match=r"account paper: cursor: expected .*Z close, got"):
        poll(ledger, END)
    assert dump(ledger) == before


@pytest.mark.parametrize("cursor", ["cursor_bar = cursor_bar - 3600000", "cursor_phase = 'open'"])
def test_a_cursor_set_back_doubles_nothing(ledger: Ledger, cursor: str) -> None:
    silent = {(one.symbol, int(ts)): None for one in CANDLES for ts in one.ts}
    poll(ledger, START + 12 * HOUR, shown=silent)
    with ledger.writing() as conn:
        conn.exec_driver_sql(f"UPDATE state SET {cursor}")  # noqa: S608 - a constant of the test
    before = dump(ledger)
    with pytest.raises(LedgerError, match=r"UNIQUE constraint failed|cannot follow"):
        poll(ledger, END, shown=silent)
    again = dump(ledger)
    assert [again[table] for table in ("signals", "metrics")] == [
        before[table] for table in ("signals", "metrics")
    ]
    assert len(again["orders"]) == len(before["orders"])
    assert len({row[0] for row in again["fills"]}) == len(again["fills"]), "an order filled twice"
    assert not compare(ledger, ARTEFACT, CANDLES).equal or again == before


def test_an_account_that_went_missing_is_told(ledger: Ledger, monkeypatch: Any) -> None:
    poll(ledger, START + 12 * HOUR)
    real, calls = read.account_of, iter(range(3))
    monkeypatch.setattr(
        "live.ledger.read.account_of",
        lambda *given: real(*given) if next(calls, None) == 0 else None,
    )
    with pytest.raises(LedgerError, match="the account has gone from the ledger"):
        poll(ledger, END)


# Candles that are not what they were


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("bar", [0, 3, 4, 11], ids=lambda t: f"bar {t}")
def test_a_candle_that_changed_after_it_was_decided_on_is_named(
    ledger: Ledger, column: str, bar: int
) -> None:
    poll(ledger, START + 12 * HOUR)
    before = dump(ledger)
    one = CANDLES.series[1]
    values = getattr(one, column).copy()
    inside = (one.low[bar] + one.high[bar]) / 2
    changes = {"open": inside, "close": inside, "high": one.high[bar] + 1, "low": one.low[bar] - 1}
    values[bar] = changes.get(column, values[bar] + 1)
    assert values[bar] != getattr(one, column)[bar]
    changed = CandleSet((CANDLES.series[0], replace(one, **{column: values})))
    # What has warmed the indicators counts with the first bar that was decided.
    named = iso(max(START + (bar + 1) * HOUR, FIRST))
    with pytest.raises(DataError, match=f"paper: bar closing at {named}: .*have changed since"):
        poll(ledger, END, changed)
    assert dump(ledger) == before
    found = [str(each) for each in compare(ledger, ARTEFACT, changed).differences]
    assert sum(each.startswith(f"{named}, candles.digest: ") for each in found) == 1


def test_a_clock_that_goes_back_decides_nothing_and_accuses_nobody(
    ledger: Ledger, undisturbed: dict[str, Any]
) -> None:
    poll(ledger, START + 12 * HOUR)
    before = dump(ledger)
    for hours in (11, 4, 3, 1):
        assert poll(ledger, START + hours * HOUR).bars == 0
        assert dump(ledger) == before
    poll(ledger, END)
    assert dump(ledger) == undisturbed


def without(symbols: tuple[str, ...], bar: int, gaps: tuple[Gap, ...] = ()) -> CandleSet:
    parts = []
    for one in CANDLES:
        kept = np.ones(BARS, bool)
        kept[bar] = one.symbol not in symbols
        columns = {name: getattr(one, name)[kept] for name in ("ts", *COLUMNS)}
        parts.append(replace(one, **columns))
    return CandleSet(tuple(parts), gaps)


@pytest.mark.parametrize("symbols", [("AAAUSDT",), ("BBBUSDT",), ("AAAUSDT", "BBBUSDT")])
def test_a_gap_that_nobody_accepted_stops_all_decisions_behind_it(
    ledger: Ledger, symbols: tuple[str, ...]
) -> None:
    missing = START + 10 * HOUR
    with pytest.raises(GapNotAccepted, match=f"{symbols[0]} 1h at {iso(missing)}: .*accept-gap"):
        poll(ledger, END, without(symbols, 10))
    with ledger.reading() as conn:
        assert read.marks(conn, "paper")[-1].at == missing, "all before the gap is decided"
    before = dump(ledger)
    with pytest.raises(GapNotAccepted):
        poll(ledger, END, without(symbols, 10))
    assert dump(ledger) == before
    gaps = tuple(Gap(symbol, missing, missing + HOUR, "outage") for symbol in symbols)
    accepted = without(symbols, 10, gaps)
    poll(ledger, END, accepted)
    parity = compare(ledger, ARTEFACT, accepted)
    assert parity.equal, parity
    assert parity.bars == BARS - 3 - (len(symbols) == 2)


def test_a_gap_in_what_warms_the_indicators_stops_the_first_decision(ledger: Ledger) -> None:
    with pytest.raises(GapNotAccepted, match=f"BBBUSDT 1h at {iso(START + HOUR)}"):
        poll(ledger, END, without(("BBBUSDT",), 1))
    with ledger.reading() as conn:
        assert read.marks(conn, "paper") == []


def test_a_symbol_that_lags_is_waited_for_by_name(
    ledger: Ledger, undisturbed: dict[str, Any]
) -> None:
    late = {("BBBUSDT", START + 9 * HOUR): 90 * 60_000}
    here = poll(ledger, START + 10 * HOUR, late=late)
    assert here.cursor == f"{iso(START + 8 * HOUR)} close"
    assert here.waiting == f"BBBUSDT has no candle for {iso(START + 9 * HOUR)} yet"
    still = poll(ledger, START + 11 * HOUR, late=late)
    assert (still.bars, still.waiting) == (0, here.waiting)
    came = poll(ledger, START + 12 * HOUR, late=late)
    assert (came.bars, came.late_bars, came.waiting) == (3, 2, "")
    poll(ledger, END)
    assert dump(ledger) == undisturbed


def test_an_exchange_that_shows_nothing_new_is_told(ledger: Ledger) -> None:
    poll(ledger, START + 10 * HOUR)
    end = {(one.symbol, START + 10 * HOUR): 99 * HOUR for one in CANDLES}
    here = poll(ledger, START + 12 * HOUR, late=end)
    assert here.bars == 0
    assert here.waiting == f"no candle has closed since {iso(START + 10 * HOUR)}"


def test_a_candle_traded_on_while_it_formed_must_not_vanish(
    ledger: Ledger, undisturbed: dict[str, Any]
) -> None:
    poll(ledger, START + 10 * HOUR + 5_000)
    before = dump(ledger)
    gap = Gap("BBBUSDT", START + 10 * HOUR, START + 11 * HOUR, "outage")
    with pytest.raises(DataError, match=f"BBBUSDT 1h at {iso(gap.start)}: orders were filled"):
        poll(ledger, END, without(("BBBUSDT",), 10, (gap,)))
    assert dump(ledger) == before
    poll(ledger, END)
    assert dump(ledger) == undisturbed


@pytest.mark.parametrize("column", ["open", "high", "low", "close"])
def test_an_unsound_candle_is_refused_before_anything_is_written(
    ledger: Ledger, column: str
) -> None:
    poll(ledger, START + 10 * HOUR)
    before = dump(ledger)
    one = CANDLES.series[0]
    values = getattr(one, column).copy()
    values[15] = np.nan
    broken = CandleSet((replace(one, **{column: values}), CANDLES.series[1]))
    with pytest.raises(CandlesRejected, match=f"non_finite at {iso(START + 15 * HOUR)}"):
        poll(ledger, END, broken)
    assert dump(ledger) == before
