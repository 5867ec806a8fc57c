"""Parity over real candles for every shipped strategy, and the cause that is named when it breaks.

Sixty days of hours of three symbols, around the outage of 2023-03-24, looked at at odd times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from live import kill_switch
from live.ledger import Ledger
from live.parity import Parity, compare, require_parity
from live.session import Session, advance
from research.account import Account, Limits, Stops
from research.backtesting import backtest
from research.candles import CandleSet, iso, utc_ms
from research.errors import ArtefactTampered, ParityBroken
from research.history import History
from research.promotion import Artefact, load_artefact, promote
from research.strategies.momentum_rotation import MomentumRotation
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import Strategy, registry
from tests.backtest.paper import HOUR, FaultyFeed, dump, fresh_ledger, scratch_folder

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
START, TRADED, END = (utc_ms(day) for day in ("2023-01-20", "2023-02-10", "2023-04-11"))
ACCOUNT = Account(
    limits=Limits(max_position_pct=40, max_daily_loss_pct=3, max_drawdown_pct=12),
    stops=Stops(stop_loss_pct=4, trailing_stop_pct=6),
    filters=None,
)


@pytest.fixture(scope="module")
def candles(shared_history: History) -> CandleSet:
    return shared_history.load(SYMBOLS, "1h", START, END)


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch_folder() as made:
        yield made


def promoted(
    strategy: Strategy, candles: CandleSet, folder: Path, account: Account = ACCOUNT
) -> Artefact:
    """Promoted on the three weeks before trading starts."""
    run = backtest(strategy, candles.between(START, TRADED), account)
    return promote(
        run,
        "paper",
        why="a test",
        override="a test",
        unjudged=True,
        folder=folder,
        who="test",
        replace=True,
    )


def started(path: Path) -> Ledger:
    ledger = fresh_ledger(path)
    kill_switch.reset(ledger, "go", TRADED - 1, who="test")
    return ledger


def poll(ledger: Ledger, artefact: Artefact, candles: CandleSet, now: int) -> None:
    feed = FaultyFeed(candles)
    session = Session(ledger, artefact, feed, "replay")
    advance(session, feed.closed(now), now, TRADED + HOUR)


# Each as it ships, and a rotation that decides often: also at the close of the missing hour.
TRADING = [*(cls() for _, cls in sorted(registry().items())), MomentumRotation(24, 2, 2)]
FEWEST_FILLS = {"BuyAndHold": 1, "MomentumRotation": 10}


@pytest.mark.parametrize("strategy", TRADING, ids=repr)
def test_every_shipped_strategy_trades_on_paper_as_in_the_backtest(
    strategy: Strategy, candles: CandleSet, folder: Path
) -> None:
    artefact, name = promoted(strategy, candles, folder), strategy.name
    ledger, once = started(folder / "paper.db"), started(folder / "once.db")
    rng, now = Random(name), TRADED + HOUR  # noqa: S311 - a schedule, not a secret
    while now < END:
        poll(ledger, artefact, candles, now)
        if rng.random() < 0.02:
            parity = compare(ledger, artefact, candles)
            assert parity.equal, parity
        now += rng.choice([rng.randrange(1, HOUR), rng.randrange(HOUR, 72 * HOUR)])
    for one in (ledger, once):
        poll(one, artefact, candles, END)
    parity = compare(ledger, artefact, candles)
    assert parity.equal, parity
    # Sixty days less the hour of the outage.
    assert parity.compared["marks"] == 60 * 24 - 1
    assert parity.compared["signals"] == 3 * (60 * 24 - 1)
    assert parity.compared["fills"] >= FEWEST_FILLS.get(name, 21)
    assert dump(ledger) == dump(once)
    # The account's own backtest, asked for in the ordinary way, says the same.
    plain = backtest(
        artefact.strategy.build(), candles, ACCOUNT, trade_from=TRADED + HOUR, name="paper"
    )
    assert plain.order_list == parity.twin.order_list
    assert plain.fill_list == parity.twin.fill_list
    ledger.close()
    once.close()


@pytest.fixture
def lived(candles: CandleSet, folder: Path) -> Iterator[tuple[Ledger, Artefact]]:
    """A week of paper trading, equal so far."""
    artefact = promoted(SmaCrossover(), candles, folder)
    ledger = started(folder / "paper.db")
    poll(ledger, artefact, candles, TRADED + 14 * 24 * HOUR)
    assert compare(ledger, artefact, candles).equal
    yield ledger, artefact
    ledger.close()


EDITS = {
    "a price": ("UPDATE fills SET price = price * 1.0000000001 WHERE place = 3", "fills.price"),
    "a fee": ("UPDATE orders SET fee = 0 WHERE fee > 0", "orders.fee"),
    "a signal": ("UPDATE signals SET confidence = 0 WHERE action = 'BUY'", "signals.confidence"),
    "cash": ("UPDATE metrics SET cash = cash + 1e-9", "marks.cash"),
    "a fill that is gone": ("DELETE FROM fills WHERE place = 0", "fills.row"),
    "a mark that is gone": (
        "DELETE FROM metrics WHERE at = (SELECT min(at) + 28800000 FROM metrics)",
        "marks.row",
    ),
}


@pytest.mark.parametrize("what", EDITS)
def test_a_ledger_that_was_edited_is_found_and_the_place_is_named(
    what: str, lived: tuple[Ledger, Artefact], candles: CandleSet
) -> None:
    ledger, artefact = lived
    statement, place = EDITS[what]
    with ledger.writing() as conn:
        conn.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        if what == "a fill that is gone":
            conn.exec_driver_sql(
                "DELETE FROM trades WHERE exit_order_id IN "
                "(SELECT order_id FROM fills WHERE place = 0)"
            )
        conn.exec_driver_sql(statement)
    parity = compare(ledger, artefact, candles)
    assert place in {f"{one.stage}.{one.field}" for one in parity.differences}
    if what != "a mark that is gone":  # then the candles behind it do not follow each other
        assert parity.cause.startswith("the ledger's rows were edited")
    with pytest.raises(ParityBroken, match=r"paper: \d+ differences, the first at: "):
        require_parity(parity)


def changed(candles: CandleSet, ts: int) -> CandleSet:
    """The same candles, one volume of the first symbol restated."""
    one = candles.series[0]
    volume = one.volume.copy()
    volume[one.ts == ts] += 1
    return replace(candles, series=(replace(one, volume=volume), *candles.series[1:]))


def cause_of(ledger: Ledger, artefact: Artefact, candles: CandleSet) -> str:
    parity: Parity = compare(ledger, artefact, candles)
    assert not parity.equal
    assert parity.cause in str(parity)
    return parity.cause


def test_candles_restated_after_the_decision_are_named(
    lived: tuple[Ledger, Artefact], candles: CandleSet
) -> None:
    bar = TRADED + 30 * HOUR
    cause = cause_of(*lived, changed(candles, bar))
    assert cause == f"the candles were restated: not what was decided on at {iso(bar + HOUR)}"


def test_candles_restated_in_the_research_window_are_named(
    lived: tuple[Ledger, Artefact], candles: CandleSet
) -> None:
    cause = cause_of(*lived, changed(candles, START + 30 * HOUR))
    assert cause.startswith(f"paper: data ({iso(START)} .. {iso(TRADED)}): changed since")


def test_another_artefact_of_the_name_is_named(
    lived: tuple[Ledger, Artefact], candles: CandleSet, folder: Path
) -> None:
    assert ACCOUNT.limits is not None
    looser = ACCOUNT.limits.model_copy(update={"max_position_pct": 80.0})
    account = ACCOUNT.model_copy(update={"limits": looser})
    other = promoted(SmaCrossover(), candles, folder, account)
    cause = cause_of(lived[0], other, candles)
    assert cause == "the account was opened by another artefact of this name"


def test_a_limit_edited_in_the_artefact_is_named_before_anything_runs(
    lived: tuple[Ledger, Artefact], folder: Path
) -> None:
    path = folder / "paper.yaml"
    text = path.read_text("utf-8")
    assert text.count("max_position_pct: 40.0") == 1
    path.write_text(text.replace("max_position_pct: 40.0", "max_position_pct: 80.0"), "utf-8")
    with pytest.raises(ArtefactTampered, match=r"paper: account\.limits"):
        load_artefact("paper", folder)


def test_code_that_changed_is_named(
    lived: tuple[Ledger, Artefact], candles: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, artefact = lived
    honest = SmaCrossover.targets

    def edited(self: SmaCrossover, candles: object) -> object:
        said = honest(self, candles)  # type: ignore[arg-type]
        return replace(said, target=1.0 - said.target)

    monkeypatch.setattr(SmaCrossover, "targets", edited)
    older = {**artefact.code, "research.strategies.sma_crossover": "0" * 64}
    cause = cause_of(ledger, artefact.model_copy(update={"code": older}), candles)
    assert cause.startswith(
        "paper: code.research.strategies.sma_crossover: changed since it was promoted"
    )


def test_a_library_that_changed_is_named(
    lived: tuple[Ledger, Artefact], candles: CandleSet
) -> None:
    ledger, artefact = lived
    with ledger.writing() as conn:
        conn.exec_driver_sql("UPDATE metrics SET cash = cash + 1")
    older = artefact.model_copy(update={"libraries": {**artefact.libraries, "numpy": "1.0"}})
    assert cause_of(ledger, older, candles).startswith("paper: libraries.numpy: changed since")
