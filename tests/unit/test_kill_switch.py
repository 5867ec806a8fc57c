"""The kill switch: tripped until a person says otherwise, and never in a person's way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from live import kill_switch
from live.ledger import Ledger, open_ledger, read
from live.parity import compare
from live.session import Session, advance
from research.account import Account, Limits
from research.candles import Candles, CandleSet, iso
from research.errors import InputError, LedgerError
from research.promotion import Artefact
from research.strategies.sma_crossover import SmaCrossover
from research.tape import Move
from tests.backtest.paper import (
    HOUR,
    START,
    FaultyFeed,
    artefact_of,
    fresh_ledger,
    scratch_folder,
    url_of,
)

# Rises until an entry is held, then falls by more than the drawdown limit, then rises again.
CLOSES = [100.0, 100, 100, 104, 108, 112, 100, 90, 80, 90, 100, 110, 120]
OPENS = [100.0, *CLOSES[:-1]]
CANDLES = CandleSet(
    (
        Candles(
            "AAAUSDT",
            "1h",
            [START + t * HOUR for t in range(len(CLOSES))],
            OPENS,
            [max(pair) for pair in zip(OPENS, CLOSES, strict=True)],
            [min(pair) for pair in zip(OPENS, CLOSES, strict=True)],
            CLOSES,
            [1.0] * len(CLOSES),
        ),
    )
)


def artefact(*, armed: bool = True, name: str = "paper") -> Artefact:
    limits = Limits(
        max_position_pct=100,
        max_daily_loss_pct=100,
        max_drawdown_pct=10,
        kill_switch_armed=armed,
    )
    account = Account(limits=limits, filters=None)
    made = artefact_of(SmaCrossover(fast=2, slow=3), CANDLES, account)
    return made.model_copy(update={"name": name})


def live_to(ledger: Ledger, bar: int, one: Artefact) -> None:
    """Up to the close of bar ``bar``; no forming candle is seen."""
    now = START + (bar + 1) * HOUR
    silent = FaultyFeed(CANDLES, {("AAAUSDT", int(ts)): None for ts in CANDLES["AAAUSDT"].ts})
    advance(Session(ledger, one, silent, "replay"), silent.closed(now), now, START + HOUR)


def codes(ledger: Ledger, account: str = "paper") -> list[str]:
    with ledger.reading() as conn:
        return [f"{d.signal.action.value} {d.code}" for d in read.decisions(conn, account)]


EVER = START + 10_000 * HOUR


def status(ledger: Ledger, now: int = EVER) -> kill_switch.SwitchStatus:
    with ledger.reading() as conn:
        return kill_switch.switch_status(conn, now)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with scratch_folder() as folder:
        made = fresh_ledger(folder / "paper.db")
        yield made
        made.close()


def test_a_new_ledger_is_tripped_and_no_entry_passes(ledger: Ledger) -> None:
    assert status(ledger).tripped
    live_to(ledger, 5, artefact())
    assert [one for one in codes(ledger) if "HOLD" not in one] == ["BUY KILL_SWITCH"]
    with ledger.reading() as conn:
        assert read.orders(conn, "paper") == []


def test_a_reset_lets_trading_start_from_its_moment_on(ledger: Ledger) -> None:
    assert kill_switch.reset(ledger, "checked the figures", START, who="ann") == START
    live_to(ledger, 5, artefact())
    assert "BUY OK" in codes(ledger)
    now = status(ledger)
    assert not now.tripped
    assert (now.last.move, now.last.reason, now.last.who) == (
        Move.RESET,
        "checked the figures",
        "ann",
    )


def test_a_move_that_is_still_to_come_is_planned_and_does_not_count_yet(ledger: Ledger) -> None:
    later = START + 50 * HOUR
    kill_switch.reset(ledger, "go", START)
    kill_switch.kill(ledger, "the week-end", START, at=later)
    before, after = status(ledger, later - 1), status(ledger, later)
    assert (before.tripped, [one.at for one in before.planned]) == (False, [later])
    assert (after.tripped, after.planned) == (True, ())


def test_a_plain_reset_acts_at_once_and_leaves_a_planned_kill(ledger: Ledger) -> None:
    kill_switch.reset(ledger, "go", START)
    kill_switch.kill(ledger, "the week-end", START, at=START + 50 * HOUR)
    kill_switch.kill(ledger, "a doubt", START + HOUR)
    assert kill_switch.reset(ledger, "no doubt", START + 2 * HOUR) == START + 2 * HOUR
    assert not status(ledger, START + 3 * HOUR).tripped
    assert status(ledger, START + 50 * HOUR).tripped


def test_a_person_without_a_name_on_this_machine_can_kill(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 54321")

    monkeypatch.setattr("getpass.getuser", nameless)
    kill_switch.kill(ledger, "stop", START)
    assert status(ledger).last.who == f"uid {os.getuid()}"


@pytest.mark.parametrize("reason", ["", "  ", "\n\t"])
@pytest.mark.parametrize(
    "move",
    [kill_switch.kill, kill_switch.reset, kill_switch.reduce_only, kill_switch.resume],
)
def test_a_move_without_a_reason_is_refused(ledger: Ledger, move: object, reason: str) -> None:
    with pytest.raises(InputError, match="expected a reason, in words"):
        move(ledger, reason, START)  # type: ignore[operator]
    assert status(ledger).tripped


def test_the_database_itself_refuses_a_move_without_a_reason(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="ck_interventions_reason"), ledger.writing() as conn:
        conn.exec_driver_sql(
            "INSERT INTO interventions (at, move, reason, who, recorded_at) "
            "VALUES (1, 'reset', '', 'ann', 1)"
        )
    assert status(ledger).tripped


@pytest.mark.parametrize("at", [None, 0, START - 99 * HOUR, START + 4 * HOUR, START + 99 * HOUR])
def test_a_kill_is_never_refused_whatever_its_time(ledger: Ledger, at: int | None) -> None:
    kill_switch.reset(ledger, "go", START)
    live_to(ledger, 4, artefact())
    decided = START + 5 * HOUR
    effective = kill_switch.kill(ledger, "stop", decided, at=at)
    assert effective == max(decided + 1, at or 0)
    assert status(ledger).tripped
    live_to(ledger, 12, artefact())
    parity = compare(ledger, artefact(), CANDLES)
    assert parity.equal, parity


def test_a_reset_in_the_decided_past_is_refused_and_changes_nothing(ledger: Ledger) -> None:
    kill_switch.reset(ledger, "go", START)
    live_to(ledger, 4, artefact())
    kill_switch.kill(ledger, "stop", START + 5 * HOUR)
    for at in (0, START + 2 * HOUR, START + 5 * HOUR):
        with pytest.raises(InputError, match=f"after {iso(START + 5 * HOUR)}"):
            kill_switch.reset(ledger, "again", START + 6 * HOUR, at=at)
    assert status(ledger).tripped


def test_a_reset_without_a_time_comes_after_everything_decided(ledger: Ledger) -> None:
    live_to(ledger, 4, artefact())
    # The clock that says now may lag behind the one that closed the bar.
    assert kill_switch.reset(ledger, "go", START) == START + 5 * HOUR + 1


def test_a_kill_neither_waits_for_a_reset_to_come_nor_is_undone_by_it(ledger: Ledger) -> None:
    kill_switch.reset(ledger, "go, but not before the weekend is over", START, at=START + 6 * HOUR)
    assert kill_switch.kill(ledger, "no, stop", START + HOUR) == START + HOUR
    assert status(ledger).tripped
    live_to(ledger, 12, artefact())
    with ledger.reading() as conn:
        assert all(mark.tripped for mark in read.marks(conn, "paper"))
    assert "BUY OK" not in codes(ledger)


def test_a_kill_holds_over_restarts_until_a_person_resets_it() -> None:
    with scratch_folder() as folder:
        fresh_ledger(folder / "paper.db").close()
        for bar in range(12):
            ledger = open_ledger(url_of(folder / "paper.db"))
            assert status(ledger).tripped
            live_to(ledger, bar, artefact())
            ledger.close()
        ledger = open_ledger(url_of(folder / "paper.db"))
        assert {one for one in codes(ledger) if one.startswith("BUY")} == {"BUY KILL_SWITCH"}
        ledger.close()


def test_a_kill_is_global_and_an_automatic_trip_is_the_accounts_own(ledger: Ledger) -> None:
    kill_switch.reset(ledger, "go", START)
    live_to(ledger, 8, artefact())
    live_to(ledger, 8, artefact(armed=False, name="other"))
    now = status(ledger)
    assert not now.tripped, "no person has tripped it"
    assert now.tripped_accounts == ("paper",)
    kill_switch.kill(ledger, "stop", START + 9 * HOUR)
    live_to(ledger, 12, artefact(armed=False, name="other"))
    assert status(ledger).tripped
    assert status(ledger).tripped_accounts == ("paper",), "the other was tripped by a person"


def test_armed_trips_by_itself_and_disarmed_only_refuses(ledger: Ledger) -> None:
    kill_switch.reset(ledger, "go", START)
    live_to(ledger, 12, artefact())
    live_to(ledger, 12, artefact(armed=False, name="other"))
    with ledger.reading() as conn:
        assert [m.tripped for m in read.marks(conn, "paper")][-5:] == [True] * 5
        assert not any(m.tripped for m in read.marks(conn, "other"))
    assert "BUY KILL_SWITCH" in codes(ledger)
    assert "BUY DRAWDOWN" in codes(ledger, "other")
    assert "BUY KILL_SWITCH" not in codes(ledger, "other")


def test_a_reset_clears_an_automatic_trip_and_the_peak_starts_anew(ledger: Ledger) -> None:
    kill_switch.reset(ledger, "go", START)
    live_to(ledger, 8, artefact())
    assert status(ledger).tripped_accounts == ("paper",)
    kill_switch.reset(ledger, "looked at it", START + 9 * HOUR)
    live_to(ledger, 9, artefact())
    assert status(ledger).tripped_accounts == ()
    with ledger.reading() as conn:
        before, after = read.marks(conn, "paper")[-2:]
    assert before.tripped
    assert not after.tripped
    assert after.peak == after.equity < before.peak
    live_to(ledger, 12, artefact())
    assert codes(ledger)[-4:].count("BUY OK") == 1
    parity = compare(ledger, artefact(), CANDLES)
    assert parity.equal, parity


def test_a_ledger_that_cannot_be_read_gives_no_answer(tmp_path: Path) -> None:
    ledger = fresh_ledger(tmp_path / "paper.db")
    with ledger.writing() as conn:
        conn.exec_driver_sql("DROP TABLE interventions")
    with pytest.raises(LedgerError, match="no such table"):
        status(ledger)
    with pytest.raises(LedgerError, match="no such table"):
        live_to(ledger, 5, artefact())
    ledger.close()


def test_reduce_only_refuses_entries_and_moves_neither_switch_nor_peak(ledger: Ledger) -> None:
    one = artefact(armed=False)
    kill_switch.reset(ledger, "go", START)
    kill_switch.reduce_only(ledger, "a doubt", START)
    live_to(ledger, 9, one)
    assert "BUY REDUCE_ONLY" in codes(ledger)
    assert not any(said.endswith("OK") for said in codes(ledger) if said.startswith("BUY"))
    now = status(ledger)
    assert not now.tripped
    assert now.reducing is not None
    assert now.reducing.reason == "a doubt"
    kill_switch.resume(ledger, "no doubt", START + 10 * HOUR)
    assert status(ledger).reducing is None
    live_to(ledger, 12, one)
    assert compare(ledger, one, CANDLES).equal


def test_a_kill_knows_nothing_of_reduce_only_and_a_resume_does_not_reset(ledger: Ledger) -> None:
    kill_switch.kill(ledger, "stop", START)
    kill_switch.reduce_only(ledger, "a doubt", START + 1)
    kill_switch.resume(ledger, "no doubt", START + 2)
    assert status(ledger).tripped
    kill_switch.reset(ledger, "go", START + 3)
    assert not status(ledger).tripped
    kill_switch.reduce_only(ledger, "again", START + 4, at=START + 5 * HOUR)
    assert status(ledger, START + HOUR).reducing is None
    assert [one.move for one in status(ledger, START + HOUR).planned] == [Move.REDUCE]


def test_a_resume_cannot_reach_back_and_reduce_only_is_never_refused(ledger: Ledger) -> None:
    kill_switch.reset(ledger, "go", START)
    live_to(ledger, 5, artefact())
    decided = START + 6 * HOUR
    assert kill_switch.reduce_only(ledger, "stop", decided, at=START) == decided + 1
    with pytest.raises(InputError, match="--at: expected a time after"):
        kill_switch.resume(ledger, "go", decided, at=START)
