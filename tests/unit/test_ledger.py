"""The ledger's database: made by its migrations, exact about money, and deaf to nonsense."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st

from live.broker import PaperBroker
from live.ledger import Ledger, open_ledger, read, store, tables, write
from research.blotter import Decision, Ending, Fill, Order, OrderStatus, Rows
from research.errors import IllegalTransition, LedgerError, SettingsError
from research.state import State, opening_state
from research.strategy import Action, Signal
from research.tape import Move
from tests.backtest.paper import dump, emptied, fresh_ledger, scratch_folder, url_of

T0 = 1_700_000_000_000
ORDER = Order("cb-1", "AAAUSDT", Action.BUY, "entry", 0.5, T0, "because")
FILL = Fill("cb-1", "AAAUSDT", Action.BUY, T0, 5, 100.0, 0.5, 50.0, 0.05)
FILLED = Ending("cb-1", OrderStatus.FILLED, T0, 0.5, 100.0, 0.05)
SIGNAL = Signal("AAAUSDT", Action.BUY, 50.0, "SmaCrossover", T0, "because")
SILENT = Decision(SIGNAL, math.nan, "OK")


@pytest.fixture(scope="module")
def one_file() -> Iterator[Ledger]:
    with scratch_folder() as folder:
        made = fresh_ledger(folder / "ledger.db")
        yield made
        made.close()


@pytest.fixture
def ledger(one_file: Ledger) -> Ledger:
    """An empty ledger with one account, ``paper``."""
    made = emptied(one_file)
    with made.writing() as conn:
        write.add_account(conn, "paper", "s" * 64, "replay", T0, opening_state(1e4, 1), T0)
    return made


def add(ledger: Ledger, **rows: Any) -> None:
    with ledger.writing() as conn:
        write.add_rows(conn, "paper", Rows(**rows), PaperBroker(), T0)


# Migrations


def config_on(conn: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(store.MIGRATIONS))
    config.attributes["connection"] = conn
    return config


def table_names(ledger: Ledger) -> set[str]:
    with ledger.reading() as conn:
        return set(sa.inspect(conn).get_table_names())


def checks(engine: sa.Engine) -> dict[str, Any]:
    looked = sa.inspect(engine)
    return {
        name: (
            sorted((c["name"], c["sqltext"]) for c in looked.get_check_constraints(name)),
            sorted((tuple(f["constrained_columns"]), f["referred_table"])
                   for f in looked.get_foreign_keys(name)),
            looked.get_pk_constraint(name)["constrained_columns"],
        )
        for name in tables.metadata.tables
    }  # fmt: skip


def test_the_migrations_make_exactly_the_tables_of_the_models(ledger: Ledger) -> None:
    with ledger.reading() as conn:
        context = MigrationContext.configure(
            conn, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, tables.metadata) == []
    # Alembic compares neither checks nor the columns of keys.
    modelled = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    tables.metadata.create_all(modelled)
    assert checks(ledger.engine) == checks(modelled)
    modelled.dispose()


def test_down_to_nothing_and_up_again_is_a_new_ledger(ledger: Ledger) -> None:
    new = dump(emptied(ledger))
    with ledger.writing() as conn:
        command.downgrade(config_on(conn), "base")
    assert table_names(ledger) == {"alembic_version"}
    again = open_ledger(str(ledger.engine.url))
    assert dump(again) == new
    assert table_names(again) == {"alembic_version", *tables.metadata.tables}
    again.close()


def test_a_ledger_of_the_first_version_keeps_its_rows_and_takes_the_new_moves(
    ledger: Ledger,
) -> None:
    write_moves = [Move.KILL, Move.RESET]
    with ledger.writing() as conn:
        for n, move in enumerate(write_moves):
            write.add_intervention(conn, T0 + n, move, "because", "ann", T0)
        command.downgrade(config_on(conn), "0001")
    before = dump(ledger)
    with pytest.raises(LedgerError, match="CHECK"), ledger.writing() as conn:
        write.add_intervention(conn, T0 + 5, Move.REDUCE, "because", "ann", T0)
    again = open_ledger(str(ledger.engine.url))
    assert {k: v for k, v in dump(again).items() if k != "alembic_version"} == {
        k: v for k, v in before.items() if k != "alembic_version"
    }
    with again.writing() as conn:
        write.add_intervention(conn, T0 + 5, Move.REDUCE, "because", "ann", T0)
    with again.writing() as conn:
        command.downgrade(config_on(conn), "0001")
    with again.reading() as conn:
        assert read.interventions(conn)[-1].move is Move.KILL, "what cannot be said is a kill"
    again.close()


def test_opening_it_again_changes_nothing(ledger: Ledger) -> None:
    before = dump(ledger)
    for _ in range(3):
        again = open_ledger(str(ledger.engine.url))
        assert dump(again) == before
        again.close()


def test_a_ledger_of_a_later_version_is_refused_in_words(ledger: Ledger) -> None:
    with ledger.writing() as conn:
        conn.execute(sa.text("UPDATE alembic_version SET version_num = '0099'"))
    with pytest.raises(LedgerError, match="written by a later version of Candlebook"):
        open_ledger(str(ledger.engine.url))


# The database refuses


def test_an_order_may_not_come_twice(ledger: Ledger) -> None:
    add(ledger, orders=(ORDER,))
    before = dump(ledger)
    with pytest.raises(LedgerError, match=r"UNIQUE constraint failed: orders\.order_id"):
        add(ledger, orders=(ORDER,), decisions=(SILENT,))
    assert dump(ledger) == before


def test_a_signal_may_not_come_twice(ledger: Ledger) -> None:
    add(ledger, decisions=(SILENT,))
    with pytest.raises(LedgerError, match="UNIQUE constraint failed: signals"):
        add(ledger, decisions=(SILENT,))


def test_an_order_may_not_be_filled_twice(ledger: Ledger) -> None:
    add(ledger, orders=(ORDER,), fills=(FILL,), endings=(FILLED,))
    before = dump(ledger)
    with pytest.raises(LedgerError, match="order cb-1: filled, but it has ended already"):
        add(ledger, fills=(FILL,))
    with pytest.raises(IllegalTransition, match="cannot follow FILLED"):
        add(ledger, endings=(FILLED,))
    assert dump(ledger) == before


def test_an_order_that_was_never_placed_can_neither_be_filled_nor_end(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="FOREIGN KEY constraint failed"):
        add(ledger, fills=(FILL,))
    with pytest.raises(LedgerError, match="order cb-1: ended, but was never placed"):
        add(ledger, endings=(FILLED,))


def test_an_account_that_is_not_there_can_hold_nothing(ledger: Ledger) -> None:
    with (
        pytest.raises(LedgerError, match="FOREIGN KEY constraint failed"),
        ledger.writing() as conn,
    ):
        write.add_rows(conn, "nobody", Rows(orders=(ORDER,)), PaperBroker(), T0)


NONSENSE = {
    "an unknown status": ("UPDATE orders SET status = 'LOST'", "ck_orders_status"),
    "an unknown side": ("UPDATE orders SET side = 'HOLD'", "ck_orders_side"),
    "an order of nothing": (
        "UPDATE orders SET quantity = 0, filled_quantity = 0",
        "ck_orders_quantity",
    ),
    "more filled than ordered": ("UPDATE orders SET filled_quantity = 0.6", "ck_orders_filled"),
    "an unknown event": ("UPDATE order_events SET status = ''", "ck_order_events_status"),
    "a fill of negative lots": ("UPDATE fills SET lots = -5", "ck_fills_lots"),
    "a fill of no lots": ("UPDATE fills SET lots = 0", "ck_fills_lots"),
    "a fill for nothing": ("UPDATE fills SET price = 0", "ck_fills_price"),
    "a fill without a price": ("UPDATE fills SET price = NULL", "NOT NULL"),
    "a short position": ("UPDATE positions SET lots = -1", "ck_positions_lots"),
    "negative cash": ("UPDATE metrics SET cash = -0.01", "ck_metrics_cash"),
    "half tripped": ("UPDATE metrics SET tripped = 2", "ck_metrics_tripped"),
    "an unknown action": ("UPDATE signals SET action = 'WAIT'", "ck_signals_action"),
    "confidence past 100": ("UPDATE signals SET confidence = 101", "ck_signals_confidence"),
    "an unknown mode": ("UPDATE state SET mode = 'live'", "ck_state_mode"),
    "an unknown phase": ("UPDATE state SET cursor_phase = 'noon'", "ck_state_phase"),
    "an unknown move": ("UPDATE interventions SET move = 'pause'", "ck_interventions_move"),
    "an order without its account": ("UPDATE orders SET account = 'x'", "FOREIGN KEY"),
    "an account gone from under its rows": ("DELETE FROM state", "FOREIGN KEY"),
    "an order gone from under its fill": ("DELETE FROM orders", "FOREIGN KEY"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_the_database_itself_refuses(ledger: Ledger, what: str) -> None:
    add(ledger, orders=(ORDER,), fills=(FILL,), endings=(FILLED,), decisions=(SILENT,))
    with ledger.writing() as conn:
        at_once = {"account": "paper", "chain": "", "recorded_at": T0, "at": T0, "tripped": False}
        money = dict.fromkeys(("cash", "equity", "peak", "day_base"), 1.0)
        conn.execute(sa.insert(tables.metrics), at_once | money)
        conn.execute(
            sa.insert(tables.positions),
            {"account": "paper", "symbol": "AAAUSDT", "lots": 5, "quantity": 0.5,
             "entry_price": 100.0, "last_price": None, "value": 0.0, "updated_at": T0},
        )  # fmt: skip
    before = dump(ledger)
    statement, said = NONSENSE[what]
    with pytest.raises(LedgerError, match=said), ledger.writing() as conn:
        conn.execute(sa.text(statement))
    assert dump(ledger) == before


def test_what_a_reader_writes_is_undone(ledger: Ledger) -> None:
    before = dump(ledger)
    with ledger.reading() as conn:
        conn.execute(sa.text("DELETE FROM state"))
    assert dump(ledger) == before


class MuteBroker(PaperBroker):
    def place(self, order: Order) -> tuple[OrderStatus, ...]:
        return super().place(order)[:0]


class HastyBroker(PaperBroker):
    def place(self, order: Order) -> tuple[OrderStatus, ...]:
        return (*super().place(order)[:1], OrderStatus.FILLED)


@pytest.mark.parametrize(
    ("broker", "error"), [(MuteBroker(), LedgerError), (HastyBroker(), IllegalTransition)]
)
def test_a_broker_that_skips_a_status_is_refused(
    ledger: Ledger, broker: PaperBroker, error: type[LedgerError]
) -> None:
    before = dump(ledger)
    with pytest.raises(error), ledger.writing() as conn:
        write.add_rows(conn, "paper", Rows(orders=(ORDER,)), broker, T0)
    assert dump(ledger) == before


# A database that cannot be used


@pytest.mark.parametrize(
    "url",
    [
        "garbage",
        "",
        "nosuch://here",
        "oracle://here",
        "sqlite:////dev/null/below/a/file.db",
        "postgresql+psycopg://host:port/ledger",
        "sqlite:///ledger.db?timeout=soon",
    ],
)
def test_a_url_that_means_nothing_is_a_settings_error(url: str) -> None:
    with pytest.raises(SettingsError, match=r"DATABASE_URL: .*sqlite:///data/ledger\.db"):
        open_ledger(url)


def test_a_server_that_is_not_there_is_a_ledger_error_without_the_password() -> None:
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    with pytest.raises(LedgerError, match="the database failed") as told:
        open_ledger("postgresql+psycopg://ann:canary-7@127.0.0.1:1/ledger")
    assert "canary-7" not in str(told.value)


def test_a_folder_in_place_of_the_file_is_a_ledger_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="unable to open database file"):
        open_ledger(url_of(tmp_path))


@pytest.mark.parametrize("content", [b"no database at all", b"\0" * 8192, b"SQLite format 3\0junk"])
def test_a_file_of_something_else_is_a_ledger_error_and_is_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    with pytest.raises(LedgerError, match="the database failed"):
        open_ledger(url_of(path))
    assert path.read_bytes() == content


def test_rot_in_the_middle_of_the_file_is_a_ledger_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    fresh_ledger(path).close()
    pages = bytearray(path.read_bytes())
    pages[4096:] = b"\xff" * (len(pages) - 4096)
    path.write_bytes(pages)
    with pytest.raises(LedgerError, match="the database failed"):
        open_ledger(url_of(path))


def test_a_database_that_may_only_be_read_is_a_ledger_error_at_the_first_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fresh_ledger(tmp_path / "ledger.db").close()
    ledger = open_ledger(f"sqlite:///file:{tmp_path}/ledger.db?mode=ro&uri=true")
    before = dump(ledger)
    with pytest.raises(LedgerError, match="readonly database"), ledger.writing() as conn:
        write.add_account(conn, "paper", "s" * 64, "replay", T0, opening_state(1e4, 1), T0)
    assert dump(ledger) == before
    ledger.close()
    assert sorted(one.name for one in tmp_path.iterdir() if one.is_dir()) == []


def test_a_new_database_that_may_only_be_read_is_a_ledger_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    with pytest.raises(LedgerError, match="readonly database"):
        open_ledger(f"sqlite:///file:{tmp_path}/ledger.db?mode=ro&uri=true")


def test_the_folder_of_a_new_ledger_is_made(tmp_path: Path) -> None:
    open_ledger(url_of(tmp_path / "a" / "b" / "ledger.db")).close()
    assert (tmp_path / "a" / "b" / "ledger.db").is_file()


# Money, to the bit

money = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
price = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
number = st.floats(allow_nan=False, allow_infinity=False)


def bits(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    paid=st.tuples(price, money, money),
    share=st.floats(min_value=0, max_value=1),
    mark=st.tuples(money, number, number, number),
    lots=st.integers(1, 2**53),
)
def test_money_comes_back_to_the_bit(
    one_file: Ledger,
    paid: tuple[float, float, float],
    share: float,
    mark: tuple[float, float, float, float],
    lots: int,
) -> None:
    ledger = emptied(one_file)
    (cost, notional, fee), quantity = paid, paid[0]
    fill = Fill("cb-1", "AAAUSDT", Action.BUY, T0, lots, cost, quantity, notional, fee)
    order = Order("cb-1", "AAAUSDT", Action.BUY, "entry", quantity, T0, "why")
    ending = Ending("cb-1", OrderStatus.FILLED, T0, quantity, cost, fee)
    said = Decision(Signal("AAAUSDT", Action.BUY, 100 * share, "S", T0, "why"), share, "OK")
    with ledger.writing() as conn:
        write.add_account(conn, "paper", "s" * 64, "replay", T0, opening_state(1e4, 1), T0)
        rows = Rows((said,), (order,), (fill,), (ending,))
        write.add_rows(conn, "paper", rows, PaperBroker(), T0)
        row = dict(zip(("cash", "equity", "peak", "day_base"), mark, strict=True))
        fixed = {"account": "paper", "at": T0, "tripped": True, "chain": "", "recorded_at": T0}
        conn.execute(sa.insert(tables.metrics), fixed | row)
    with ledger.reading() as conn:
        (again,) = read.fills(conn, "paper")
        (placed,) = read.orders(conn, "paper")
        (heard,) = read.decisions(conn, "paper")
        (marked,) = read.marks(conn, "paper")
    assert again == fill
    assert bits(again.price, again.notional, again.fee) == bits(cost, notional, fee)
    assert bits(placed.quantity, placed.price, placed.fee) == bits(quantity, cost, fee)
    assert bits(heard.target, heard.signal.confidence) == bits(share, 100 * share)
    assert bits(marked.cash, marked.equity, marked.peak, marked.day_base) == bits(*mark)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    scalars=st.lists(number, min_size=4, max_size=4),
    columns=st.lists(st.lists(number, min_size=3, max_size=3), min_size=6, max_size=6),
    last=st.lists(number | st.just(math.nan), min_size=3, max_size=3),
    counts=st.lists(
        st.lists(st.integers(-(2**53), 2**53), min_size=3, max_size=3), min_size=7, max_size=7
    ),
    day=st.integers(-1, 100_000),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_the_engines_state_comes_back_to_the_bit(
    scalars: list[float],
    columns: list[list[float]],
    last: list[float],
    counts: list[list[int]],
    day: int,
    flags: tuple[bool, bool],
) -> None:
    cash, equity, peak, base = scalars
    acted, volume, entry, high, flow, value = columns
    state = State(
        cash, equity, peak, day, base, flags[0], flags[1],
        *counts[:4], acted, last, volume, entry, high, counts[4], flow, *counts[5:], value,
    )  # fmt: skip
    again = read.state_from_json(read.state_to_json(state))
    assert bits(*scalars, *acted, *last, *volume, *entry, *high, *flow, *value) == bits(
        again.cash, again.equity, again.peak, again.day_base,
        *again.acted, *again.last, *again.volume, *again.entry, *again.high, *again.flow,
        *again.day_value,
    )  # fmt: skip
    assert again._replace(last=[]) == state._replace(last=[])


def test_a_state_that_is_no_number_is_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        read.state_to_json(opening_state(math.inf, 1))


def test_a_missing_target_comes_back_as_missing(ledger: Ledger) -> None:
    add(ledger, decisions=(SILENT,))
    with ledger.reading() as conn:
        (heard,) = read.decisions(conn, "paper")
    assert math.isnan(heard.target)
    assert heard.signal == SIGNAL
