"""Parity looks at the whole of the books: whatever is edited or doubled in them is found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from live import kill_switch
from live.feed import ReplayFeed
from live.ledger import Ledger
from live.parity import Parity, compare
from live.session import Session, advance
from research.account import Account, Limits
from research.backtesting import backtest
from research.candles import CandleSet, utc_ms
from research.errors import DataError
from research.promotion import Artefact, promote
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles
from tests.backtest.paper import HOUR, fresh_ledger, scratch_folder

START = utc_ms("2024-01-01")
TRADED = START + 300 * HOUR

Books = tuple[Ledger, Artefact, CandleSet]


@pytest.fixture(scope="module")
def candles() -> CandleSet:
    return synthetic_candles(("AAAUSDT", "BBBUSDT"), "1h", START, 500)


@pytest.fixture
def books(candles: CandleSet, tmp_path: Path) -> Iterator[Books]:
    """A hundred and fifty bars of paper trading, with trades that ended and a position held."""
    account = Account(limits=Limits(max_position_pct=30))
    run = backtest(SmaCrossover(3, 9), candles.between(None, TRADED), account)
    artefact = promote(
        run, "paper", why="a test", override="a test", unjudged=True, folder=tmp_path
    )
    with scratch_folder() as folder:
        ledger = fresh_ledger(folder / "paper.db")
        kill_switch.reset(ledger, "go", TRADED)
        feed = ReplayFeed(candles)
        now = TRADED + 150 * HOUR + 5_000
        advance(Session(ledger, artefact, feed, "replay"), feed.closed(now), now, TRADED + HOUR)
        parity = compare(ledger, artefact, candles)
        assert parity.equal
        assert parity.compared["fills"] > 10
        yield ledger, artefact, candles
        ledger.close()


def after(books: Books, *statements: str) -> Parity:
    ledger, artefact, candles = books
    with ledger.writing() as conn:
        for statement in statements:
            assert conn.exec_driver_sql(statement).rowcount > 0
    return compare(ledger, artefact, candles)


COPIED = "account, symbol, side, at, lots, price, quantity, notional, fee"


@pytest.mark.parametrize(
    ("statement", "stage"),
    [
        (
            f"INSERT INTO fills (order_id, part, {COPIED}, place) "  # noqa: S608 - a constant
            f"SELECT order_id, 2, {COPIED}, 9999 FROM fills WHERE place = 2",
            "fills.row",
        ),
        ("DELETE FROM fills WHERE place = 2", "fills.row"),
        ("UPDATE positions SET quantity = 123", "positions.quantity"),
        ("UPDATE positions SET lots = lots + 1", "positions.lots"),
        ("UPDATE trades SET pnl = pnl + 1", "trades.pnl"),
        ("DELETE FROM trades", "trades.row"),
        (
            "UPDATE order_events SET status = 'CANCELLED' WHERE status = 'FILLED'",
            "orders.last_event",
        ),
        ("DELETE FROM order_events", "orders.last_event"),
        ("UPDATE state SET engine = replace(engine, '\"cash\": ', '\"cash\": 1')", "state.cash"),
        (
            "UPDATE state SET engine = replace(engine, '\"tripped\": false', '\"tripped\": true')",
            "state.tripped",
        ),
    ],
)
def test_every_edit_of_the_books_is_found(books: Books, statement: str, stage: str) -> None:
    parity = after(books, statement)
    assert stage in {f"{one.stage}.{one.field}" for one in parity.differences}
    assert "the ledger" in parity.cause


def test_how_it_came_to_be_is_named_before_how_it_stands(books: Books) -> None:
    parity = after(books, "UPDATE positions SET lots = 0", "DELETE FROM fills WHERE place = 5")
    assert parity.differences[0].stage == "fills"
    assert parity.differences[-1].stage == "positions"


def test_candles_that_end_before_the_ledger_are_no_reason_to_cry_wolf(books: Books) -> None:
    ledger, artefact, candles = books
    with pytest.raises(DataError, match=r"the candles end at .*, the ledger at"):
        compare(ledger, artefact, candles.between(None, TRADED + 20 * HOUR))
