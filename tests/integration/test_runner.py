"""The runner: real kernels under papermill, one slot at a time, all or nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import sqlalchemy as sa
from filelock import FileLock

from live import kill_switch, paper, runner
from live.ledger import read, tables
from live.paper import open_books
from research.account import Account, Limits
from research.backtesting import backtest
from research.candles import CandleSet, iso, utc_ms
from research.errors import Busy, InputError, RunFailed, UnknownNameError
from research.history import History
from research.promotion import promote
from research.settings import Settings, load_settings
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles

ROOT = Path(__file__).resolve().parents[2]
SYMBOLS = ("BTCUSDT", "ETHUSDT")
HOUR = 3_600_000
FIRST = utc_ms("2024-02-01")


@pytest.fixture(scope="module")
def candles() -> CandleSet:
    return synthetic_candles(SYMBOLS, "1h", utc_ms("2024-01-01"), 31 * 24 + 40)


@pytest.fixture
def project(tmp_path: Path, candles: CandleSet, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A project of its own: parameters, notebooks, candles, one promoted strategy."""
    for folder in ("params", "notebooks"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("promoted", ".ipynb*")
        )
    monkeypatch.setenv("CANDLEBOOK_HOME", str(tmp_path))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    settings = load_settings()
    history = History(settings.data_dir / "history")
    for one in candles:
        history.append("binance", one, "synthetic")
    account = Account(limits=Limits(max_position_pct=30))
    run = backtest(SmaCrossover(3, 12), candles.between(None, FIRST - HOUR), account)
    promote(
        run,
        "trend",
        why="a test",
        override="a test",
        unjudged=True,
        folder=tmp_path / "params" / "promoted",
    )
    books = open_books(settings, "replay")
    kill_switch.reset(books, "a test", FIRST - 1, at=FIRST - 1)
    books.close()
    return settings


def runs(settings: Settings) -> list[tuple[str, int, str, str]]:
    books = open_books(settings, "replay")
    with books.reading() as conn:
        rows = conn.execute(
            sa.select(tables.runs).order_by(tables.runs.c.slot, tables.runs.c.attempt)
        )
        found = [(iso(r.slot), r.attempt, r.status, r.message) for r in rows]
    books.close()
    return found


def test_consecutive_slots_leave_reports_and_a_ledger_that_equals_the_backtest(
    project: Settings,
) -> None:
    done = runner.replay("trend", FIRST, 3, project)
    assert [one.status for one in done] == ["done"] * 3
    for one in done:
        notebook = nbformat.read(one.report, as_version=4)
        assert "0 differences" in notebook.cells[-1].outputs[0].text
        assert json.loads((one.folder / "status.json").read_text())["status"] == "done"
        assert sorted(p.name for p in one.folder.iterdir()) == ["report.ipynb", "status.json"]
    parity = paper.check_parity("trend", project, "replay")
    assert parity.equal
    assert parity.bars == 3

    before = runs(project)
    again = runner.run("trend", FIRST, "replay", project)
    assert (again.status, runs(project)) == ("already done", before)
    goes_on = runner.replay("trend", None, 1, project)
    assert [one.slot for one in goes_on] == [FIRST + 3 * HOUR]


def test_a_status_file_alone_does_not_make_a_slot_done(project: Settings) -> None:
    folder = project.data_dir / "replays" / "trend" / iso(FIRST).replace(":", "")
    folder.mkdir(parents=True)
    (folder / "status.json").write_text('{"status": "done"}')
    assert runner.run("trend", FIRST, "replay", project).status == "done"
    assert runs(project) == [(iso(FIRST), 1, "done", "")]


def spoil(settings: Settings, source: str) -> None:
    path = settings.root / "notebooks" / "paper_trading.ipynb"
    notebook = nbformat.read(path, as_version=4)
    next(cell for cell in notebook.cells if cell.id == "run").source = source
    nbformat.write(notebook, path)


def test_a_notebook_that_fails_is_kept_as_failed_and_tried_again(project: Settings) -> None:
    path = project.root / "notebooks" / "paper_trading.ipynb"
    sound = path.read_bytes()
    spoil(project, "raise ValueError('planted')")
    with pytest.raises(RunFailed, match="ValueError: planted"):
        runner.run("trend", FIRST, "replay", project)
    folder = project.data_dir / "replays" / "trend" / iso(FIRST).replace(":", "")
    assert sorted(p.name for p in folder.iterdir()) == ["failed-1.ipynb", "status.json"]
    path.write_bytes(sound)
    assert runner.run("trend", FIRST, "replay", project).attempt == 2
    assert [row[2:] for row in runs(project)] == [("failed", "ValueError: planted"), ("done", "")]


def test_a_killed_kernel_is_a_failed_run(project: Settings) -> None:
    spoil(project, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(RunFailed, match="kernel"):
        runner.run("trend", FIRST, "replay", project)
    assert [row[2] for row in runs(project)] == ["failed"]


def test_a_run_that_was_killed_is_noted_by_the_next(project: Settings) -> None:
    books = open_books(project, "replay")
    runner._begin(books, "trend", FIRST)
    books.close()
    assert runner.run("trend", FIRST, "replay", project).attempt == 2
    assert [row[2:] for row in runs(project)] == [("failed", "interrupted"), ("done", "")]


def test_a_tampered_artefact_does_not_run_and_the_report_says_which_field(
    project: Settings,
) -> None:
    history = History(project.data_dir / "history")
    folder = history.root
    shutil.rmtree(folder)
    other = synthetic_candles(SYMBOLS, "1h", utc_ms("2024-01-01"), 31 * 24 + 40, seed=8)
    for one in other:
        history.append("binance", one, "synthetic")
    with pytest.raises(RunFailed, match=r"ArtefactTampered: trend: data"):
        runner.run("trend", FIRST, "replay", project)
    books = open_books(project, "replay")
    with books.reading() as conn:
        assert read.accounts(conn) == []
    books.close()


def test_two_runs_of_one_account_do_not_overlap(project: Settings) -> None:
    home = project.data_dir / "replays" / "trend"
    home.mkdir(parents=True)
    with FileLock(home / ".lock"), pytest.raises(Busy, match="another run"):
        runner.run("trend", FIRST, "replay", project)
    assert runs(project) == []


@pytest.mark.parametrize(
    ("slot", "error", "words"),
    [
        (FIRST + 1, InputError, "the UTC close of a 1h bar"),
        ("yesterday-ish", InputError, "a UTC date or time"),
    ],
)
def test_a_slot_that_is_no_bar_close_is_refused(
    project: Settings, slot: int | str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        runner.run("trend", slot, "replay", project)


def test_names_modes_and_ranges_are_checked_at_the_door(project: Settings) -> None:
    with pytest.raises(UnknownNameError, match="expected one of trend"):
        runner.run("trand", FIRST, "replay", project)
    with pytest.raises(InputError, match="mode"):
        runner.run("trend", FIRST, "live", project)
    with pytest.raises(InputError, match=r"from 2024-01-31T23:00Z on \(.*2024-02-02T16:00Z\)"):
        runner.replay("trend", FIRST, 42, project)
    with pytest.raises(InputError, match="its research window ends first"):
        runner.replay("trend", FIRST - 9 * HOUR, 1, project)
    with pytest.raises(InputError, match="at least one bar"):
        runner.replay("trend", FIRST, 0, project)


def test_only_known_plain_parameters_reach_the_notebook() -> None:
    assert runner._allowed({"account": "a", "slot": "b", "mode": "c"})
    for bad in ({"account": "a", "os": "b"}, {"account": 1}, {"slot": "x", "x=1;import os": "y"}):
        with pytest.raises(InputError, match="notebook parameter"):
            runner._allowed(bad)


def test_an_artefact_made_on_synthetic_candles_never_meets_a_real_market(
    project: Settings,
) -> None:
    with pytest.raises(RunFailed, match="promoted on synthetic candles"):
        runner.run("trend", None, "paper", project)


def test_a_slot_whose_candle_is_missing_waits_and_is_decided_by_the_next_run(
    project: Settings, candles: CandleSet
) -> None:
    later = project.data_dir / "later"
    (project.data_dir / "history").rename(later)
    history = History(project.data_dir / "history")
    for one in candles.between(None, FIRST + HOUR):
        history.append("binance", one, "synthetic")
    assert runner.run("trend", FIRST, "replay", project).status == "done"
    behind = runner.run("trend", FIRST + 2 * HOUR, "replay", project)
    assert behind.status == "waiting"
    shutil.rmtree(history.root)
    later.rename(history.root)
    assert runner.run("trend", FIRST + 2 * HOUR, "replay", project).status == "done"
    assert [row[2] for row in runs(project)] == ["done", "waiting", "done"]
    assert paper.check_parity("trend", project, "replay").equal


def test_a_new_account_before_its_first_candle_waits_and_says_so(
    project: Settings, candles: CandleSet
) -> None:
    beyond = int(candles.clock()[-1]) + 2 * HOUR
    waiting = runner.run("trend", beyond, "replay", project)
    assert waiting.status == "waiting"
    notebook = nbformat.read(waiting.report, as_version=4)
    said = next(cell for cell in notebook.cells if cell.id == "run").outputs[0].data["text/plain"]
    assert "no candle closes at 2024-02-02T17:00Z yet" in said


def test_an_earlier_slot_of_a_replay_changes_nothing(project: Settings) -> None:
    runner.replay("trend", FIRST, 2, project)
    earlier = paper.run_slot("trend", FIRST, "replay", project)
    assert (earlier.progress.bars, earlier.parity.equal) == (0, True)


def test_an_expired_artefact_decides_only_exits_and_equals_its_backtest(
    project: Settings, candles: CandleSet
) -> None:
    account = Account(limits=Limits(max_position_pct=30))
    run = backtest(SmaCrossover(3, 12), candles.between(None, FIRST - HOUR), account)
    expiry = FIRST + 12 * HOUR
    folder = project.root / "params" / "promoted"
    promote(
        run,
        "short",
        why="a test",
        override="a test",
        unjudged=True,
        folder=folder,
        now=expiry - 86_400_000,
        life_days=1,
    )
    whole = paper.run_slot("short", FIRST, "replay", project)
    assert whole.progress.bars == 1
    report = paper.run_slot("short", FIRST + 36 * HOUR, "replay", project)
    assert report.parity.equal
    signals = report.tables["signals"]
    late = signals[signals["at"] >= pd.Timestamp(expiry, unit="ms", tz="UTC")]
    bought = late[late["action"] == "BUY"]
    assert len(bought) > 0
    assert set(bought["code"]) == {"EXPIRED"}
    assert set(late[late["action"] == "SELL"]["code"]) == {"OK"}


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_notebook_that_is_missing_or_broken_is_a_failed_run(
    project: Settings, content: str | None
) -> None:
    path = project.root / "notebooks" / "paper_trading.ipynb"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(RunFailed, match="the notebook could not be run"):
        runner.run("trend", FIRST, "replay", project)
    assert [row[2] for row in runs(project)] == ["failed"]


def test_an_interrupted_run_is_noted_as_failed(
    project: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.run("trend", FIRST, "replay", project)
    assert [row[2:] for row in runs(project)] == [("failed", "interrupted")]
