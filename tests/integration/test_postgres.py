"""The ledger on a real PostgreSQL: the same rows as on SQLite, and the same safety.

A server is started in a folder of its own, on a socket in that folder and on no port.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, Phase, given, settings

from live import kill_switch
from live.ledger import Ledger, open_ledger, tables
from live.parity import compare
from research.errors import LedgerError
from tests.backtest.paper import TableTargets, dump, fresh_ledger, scratch_folder
from tests.backtest.test_parity_property import Story, live_through, stories
from tests.failure_modes.test_crash_at_every_statement import (
    SCENES,
    Fuse,
    Killed,
    at_every_point,
)
from tests.failure_modes.test_races import ARTEFACT, CANDLES, END, FIRST, START, poll
from tests.unit.test_ledger import config_on

ROOT = Path(__file__).resolve().parents[2]


def _initdb() -> str | None:
    places = [*os.environ["PATH"].split(os.pathsep)]
    places += sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    return shutil.which("initdb", path=os.pathsep.join(places))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The folder of a running server's socket."""
    pytest.importorskip("psycopg", reason="needs the extra postgres (psycopg)")
    initdb = _initdb()
    if initdb is None:
        pytest.skip("needs PostgreSQL's initdb and pg_ctl on PATH")
    binaries = Path(initdb).resolve().parent
    folder = Path(tempfile.mkdtemp())
    # The server refuses to run as root.
    who: dict[str, Any] = {"user": "nobody"} if os.geteuid() == 0 else {}
    if who:
        shutil.chown(folder, "nobody")
    quick = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"

    def run(*given: str) -> None:
        subprocess.run(given, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=60, **who)

    data = str(folder / "data")
    run(str(binaries / "initdb"), "-D", data, "-U", "ledger", "-A", "trust", "-N")
    pg_ctl = str(binaries / "pg_ctl")
    run(pg_ctl, "-D", data, "-l", str(folder / "log"), "-o", quick, "-w", "start")
    try:
        yield str(folder)
    finally:
        run(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)


def url_in(server: str, database: str) -> str:
    return f"postgresql+psycopg://ledger@/{database}?host={server}"


@pytest.fixture(scope="module")
def new_ledger(server: str) -> Iterator[Callable[[], Ledger]]:
    """Makes new ledgers, each a copy of one that was migrated."""
    admin = sa.create_engine(url_in(server, "postgres"), isolation_level="AUTOCOMMIT")
    numbers, made = count(), []

    def database(name: str, template: str) -> str:
        with admin.connect() as conn:
            conn.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return url_in(server, name)

    open_ledger(database("migrated", "template1")).close()

    def make() -> Ledger:
        made.append(open_ledger(database(f"ledger{next(numbers)}", "migrated")))
        return made[-1]

    yield make
    for one in made:
        one.close()
    admin.dispose()


@pytest.fixture(autouse=True)
def table_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    from research.strategy import registry

    shipped = registry()
    monkeypatch.setattr(
        "research.strategy.registry", lambda: {**shipped, "TableTargets": TableTargets}
    )


def test_the_migrations_make_the_tables_of_the_models(new_ledger: Callable[[], Ledger]) -> None:
    ledger = new_ledger()
    with ledger.reading() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
    new = dump(ledger)
    with ledger.writing() as conn:
        command.downgrade(config_on(conn), "base")
    with ledger.reading() as conn:
        assert sa.inspect(conn).get_table_names() == ["alembic_version"]
    ledger.close()
    again = open_ledger(ledger.engine.url.render_as_string(hide_password=False))
    assert dump(again) == new
    again.close()


def test_paper_equals_backtest_and_the_rows_are_those_on_sqlite(
    new_ledger: Callable[[], Ledger],
) -> None:
    counts: Counter[str] = Counter()
    with scratch_folder() as folder:
        numbers = count()

        @settings(
            max_examples=12,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(stories())
        def tell(story: Story) -> None:
            paper = live_through(story, new_ledger(), counts)
            parity = compare(paper, story.artefact, story.candles)
            assert parity.equal, parity
            counts.update(parity.compared)
            twin = live_through(story, fresh_ledger(folder / f"{next(numbers)}.db"), Counter[str]())
            assert dump(paper) == dump(twin)
            paper.close()
            twin.close()

        tell()
    assert counts["fills"] > 30, counts


def test_an_interruption_at_any_statement_leaves_no_trace(
    new_ledger: Callable[[], Ledger],
) -> None:
    scene = SCENES["the drawdown trips and flattens"]

    def begun() -> Ledger:
        ledger = new_ledger()
        kill_switch.reset(ledger, "go", START, who="test")
        scene.poll(ledger, scene.since)
        return ledger

    undisturbed = begun()
    points: list[str] = []
    with at_every_point(points.append):
        scene.poll(undisturbed, scene.bar)
    expected = scene.carried_on(undisturbed)
    undisturbed.close()
    for n in range(0, len(points), 7):
        ledger = begun()
        with at_every_point(Fuse(n)), pytest.raises(Killed):
            scene.poll(ledger, scene.bar)
        assert scene.carried_on(ledger) == expected, points[n]
        ledger.close()


def test_a_connection_that_the_server_cuts_is_an_error_and_then_forgotten(
    new_ledger: Callable[[], Ledger],
) -> None:
    ledger, other = new_ledger(), new_ledger()
    kill_switch.reset(ledger, "go", START, who="test")
    poll(ledger, FIRST)
    before = dump(ledger)

    def write_and_be_cut_off() -> None:
        with ledger.writing() as conn:
            conn.exec_driver_sql("DELETE FROM interventions")
            pid = conn.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            with other.reading() as killer:
                killer.execute(sa.select(sa.func.pg_terminate_backend(pid)))
            conn.exec_driver_sql("SELECT 1")

    with pytest.raises(LedgerError, match="the database failed"):
        write_and_be_cut_off()
    assert dump(ledger) == before
    poll(ledger, END)
    parity = compare(ledger, ARTEFACT, CANDLES)
    assert parity.equal, parity


def test_a_writer_that_holds_the_lock_is_waited_for_and_then_told(
    new_ledger: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("live.ledger.store.BUSY_TIMEOUT_S", 1)
    ledger = new_ledger()
    second = Ledger(sa.create_engine(ledger.engine.url))
    before = dump(ledger)
    with ledger.writing():
        with pytest.raises(LedgerError, match="lock timeout"):
            poll(second, END)
        assert dump(second) == before, "readers do not wait"
    poll(second, END)
    second.close()


def test_a_reader_sees_one_moment(new_ledger: Callable[[], Ledger]) -> None:
    ledger = new_ledger()
    second = Ledger(sa.create_engine(ledger.engine.url))
    how_many = sa.select(sa.func.count()).select_from(tables.interventions)
    with ledger.reading() as conn:
        assert conn.execute(how_many).scalar_one() == 1
        kill_switch.reset(second, "go", START, who="test")
        assert conn.execute(how_many).scalar_one() == 1
    with ledger.reading() as conn:
        assert conn.execute(how_many).scalar_one() == 2
    second.close()


def race(url: str) -> None:
    """One of two processes that advance one account."""
    ledger = open_ledger(url)
    for now in range(FIRST, END + 1, 1_700_000):
        poll(ledger, now)
    poll(ledger, END)


def test_processes_that_race_leave_what_one_would(new_ledger: Callable[[], Ledger]) -> None:
    ledger, alone = new_ledger(), new_ledger()
    for one in (ledger, alone):
        kill_switch.reset(one, "go", START, who="test")
    url = ledger.engine.url.render_as_string(hide_password=False)
    code = f"from {__name__} import race; race({url!r})"
    running = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    complaints = [one.communicate(timeout=120)[1] for one in running]
    assert [one.returncode for one in running] == [0] * 3, "\n".join(complaints)
    poll(alone, END)
    assert dump(ledger) == dump(alone)
