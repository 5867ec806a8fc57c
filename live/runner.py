"""Runs the paper notebook by papermill: one slot, one lock, one folder, all or nothing.

A run's key is (account, slot). Its folder ``data/runs/<account>/<slot>/`` (``data/replays/...``)
holds ``report.ipynb``, published by rename when every cell has passed, and ``status.json``. A
notebook that failed is kept under another name, never as the report. A slot counts as done when
its status says so *and* the ledger has been marked up to it; it is then left alone.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout

from live.ledger import Ledger, read, tables
from live.paper import (
    MODES,
    SHOWN_AFTER_MS,
    artefact_of,
    open_books,
    require_slot,
    stored_candles,
    wall_clock,
)
from research.candles import iso, timeframe_ms, utc_ms
from research.durable import sync_folder, write_whole
from research.errors import Busy, InputError, RunFailed
from research.promotion import Artefact
from research.settings import Settings, load_settings
from research.variables import environment_with

__all__ = ["Run", "current_slot", "replay", "run"]

NOTEBOOK = Path("notebooks") / "paper_trading.ipynb"
FOLDERS = {"paper": "runs", "replay": "replays"}
CELL_TIMEOUT_S = 300
# A socket's path holds 107 characters, and a kernel's name takes 50 of them.
LONGEST_SOCKET_FOLDER = 55


@dataclass(frozen=True)
class Run:
    """One run of one slot; ``folder`` holds its files.

    ``status`` is ``done``, ``already done``, ``failed``, or ``waiting`` where the notebook ran but
    the slot could not be decided yet: a candle is missing, and the next run tries again.
    """

    account: str
    slot: int
    mode: str
    status: str
    folder: Path
    attempt: int = 0
    seconds: float = 0.0
    message: str = ""

    @property
    def report(self) -> Path:
        """The executed notebook."""
        return self.folder / "report.ipynb"


def current_slot(timeframe: str, now: int) -> int:
    """The last bar close at or before ``now`` (UTC milliseconds)."""
    return now - now % timeframe_ms(timeframe)


def run(
    name: str, slot: int | str | None = None, mode: str = "paper", settings: Settings | None = None
) -> Run:
    """Execute the paper notebook for one slot (default: the last bar close); returns the Run.

    Raises Busy where another process runs this account, RunFailed where the notebook did not
    finish (its output is kept), InputError for a slot that is no bar close.
    """
    settings = settings or load_settings()
    if mode not in MODES:
        raise InputError(field="mode", value=mode, expected=f"one of {', '.join(MODES)}")
    artefact = artefact_of(name, settings)
    timeframe = artefact.market.timeframe
    moment = require_slot(
        timeframe, current_slot(timeframe, wall_clock()) if slot is None else slot
    )
    home = settings.data_dir / FOLDERS[mode] / name
    home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home / ".lock", timeout=0):
            return _run_locked(artefact, moment, mode, settings, home)
    except Timeout:
        raise Busy(
            "another run of this account is under way",
            field=f"{name} ({mode})",
            remedy="Wait for it to end, or look at candlebook status.",
        ) from None


def _run_locked(artefact: Artefact, slot: int, mode: str, settings: Settings, home: Path) -> Run:
    name, folder = artefact.name, home / iso(slot).replace(":", "")
    ledger = open_books(settings, mode)
    try:
        if _is_done(ledger, name, slot, folder):
            return Run(name, slot, mode, "already done", folder)
        folder.mkdir(exist_ok=True)
        started = time.monotonic()
        attempt = _begin(ledger, name, slot)
        status, failure = "failed", "interrupted"
        try:
            failure = _execute(settings, folder, name, slot, mode, attempt)
            decided = _is_decided(ledger, name, slot)
            status = "failed" if failure else "done" if decided else "waiting"
        finally:
            seconds = round(time.monotonic() - started, 3)
            ended = Run(name, slot, mode, status, folder, attempt, seconds, failure)
            _finish(ledger, ended)
    finally:
        ledger.close()
    if failure:
        raise RunFailed(
            failure,
            field=f"{name} ({mode}), slot {iso(slot)}",
            remedy=f"What there is of the notebook is kept in {folder}.",
        )
    return ended


def _is_done(ledger: Ledger, name: str, slot: int, folder: Path) -> bool:
    try:
        said = json.loads((folder / "status.json").read_text("utf-8"))["status"]
    except (FileNotFoundError, ValueError, KeyError):
        return False
    return said == "done" and _is_decided(ledger, name, slot)


def _is_decided(ledger: Ledger, name: str, slot: int) -> bool:
    """Whether the ledger holds the decision of this slot, or of a later one."""
    with ledger.reading() as conn:
        table = tables.metrics
        marked = conn.execute(
            sa.select(sa.func.max(table.c.at)).where(table.c.account == name)
        ).scalar()
    return marked is not None and int(marked) >= slot


def _begin(ledger: Ledger, name: str, slot: int) -> int:
    """Note that a run begins, and that an earlier one never ended; returns the attempt."""
    table = tables.runs
    key = (table.c.account == name) & (table.c.slot == slot)
    with ledger.writing() as conn:
        conn.execute(
            sa.update(table).where(key & (table.c.status == "running")),
            {"status": "failed", "message": "interrupted", "finished_at": wall_clock()},
        )
        last = conn.execute(sa.select(sa.func.max(table.c.attempt)).where(key)).scalar()
        attempt = 1 if last is None else int(last) + 1
        conn.execute(
            sa.insert(table),
            {
                "account": name,
                "slot": slot,
                "attempt": attempt,
                "status": "running",
                "started_at": wall_clock(),
                "finished_at": None,
                "message": "",
            },
        )
    return attempt


def _finish(ledger: Ledger, ended: Run) -> None:
    """Note how a run ended, in the ledger and then in its ``status.json``."""
    table = tables.runs
    with ledger.writing() as conn:
        conn.execute(
            sa.update(table).where(
                table.c.account == ended.account,
                table.c.slot == ended.slot,
                table.c.attempt == ended.attempt,
            ),
            {"status": ended.status, "message": ended.message, "finished_at": wall_clock()},
        )
    status = {
        "account": ended.account,
        "slot": iso(ended.slot),
        "mode": ended.mode,
        "status": ended.status,
        "attempt": ended.attempt,
        "seconds": ended.seconds,
        "message": ended.message,
    }
    write_whole(ended.folder / "status.json", json.dumps(status, indent=2) + "\n")


def _execute(
    settings: Settings, folder: Path, name: str, slot: int, mode: str, attempt: int
) -> str:
    """Run the notebook into ``folder``; returns what went wrong, empty if nothing did."""
    # papermill is imported here, since it takes half a second that `status` need not wait for.
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.WARNING)
    partial = folder / ".partial.ipynb"
    parameters = {"account": name, "slot": iso(slot), "mode": mode}
    try:
        papermill.execute_notebook(
            settings.root / NOTEBOOK,
            partial,
            parameters=_allowed(parameters),
            cwd=settings.root,
            progress_bar=False,
            execution_timeout=CELL_TIMEOUT_S,
            **_kernel_options(),
        )
    except PapermillExecutionError as err:
        _keep(partial, folder, attempt)
        return f"{err.ename}: {err.evalue}"
    except (DeadKernelError, TimeoutError) as err:
        _keep(partial, folder, attempt)
        return f"the kernel did not finish: {err}"
    except Exception as err:  # noqa: BLE001 - whatever papermill meets is a failed run
        _keep(partial, folder, attempt)
        return f"the notebook could not be run: {type(err).__name__}: {err}"
    partial.replace(folder / "report.ipynb")
    sync_folder(folder)
    return ""


def _keep(partial: Path, folder: Path, attempt: int) -> None:
    """A notebook that failed keeps what it has, under a name that says so."""
    if partial.exists():
        partial.replace(folder / f"failed-{attempt}.ipynb")


def _kernel_options() -> dict[str, Any]:
    """Talk to the kernel over sockets in a private folder, where the system has such sockets.

    The default is TCP on loopback, which any user of the machine can listen to.
    """
    from jupyter_core.paths import jupyter_runtime_dir
    from traitlets.config import Config

    quiet = {"extra_arguments": ["--IPKernelApp.log_level=CRITICAL"]}
    if os.name != "posix" or len(jupyter_runtime_dir()) > LONGEST_SOCKET_FOLDER:
        return quiet
    return {**quiet, "config": Config({"KernelManager": {"transport": "ipc"}})}


# papermill turns parameters into code and stores them all in the output: known names, plain values.
_PARAMETERS = {"account", "slot", "mode"}


def _allowed(parameters: dict[str, Any]) -> dict[str, str]:
    for key, value in parameters.items():
        if key not in _PARAMETERS or not isinstance(value, str):
            raise InputError(
                field=f"notebook parameter {key}",
                value=value,
                expected=f"text for one of {', '.join(sorted(_PARAMETERS))}",
            )
    return parameters


def replay(
    name: str,
    first_slot: int | None,
    bars: int,
    settings: Settings | None = None,
    on_run: Callable[[Run], None] | None = None,
    over_http: bool = False,
) -> list[Run]:
    """Run ``bars`` consecutive slots of stored history through the notebook, one after another.

    ``first_slot`` is the first bar close, UTC milliseconds; None takes the last ``bars`` closes in
    the store, or goes on where an account has stopped. With ``over_http`` a replay exchange on
    loopback serves the stored candles, and each slot fetches them from there, as a paper run does;
    so it is where the settings name a replay exchange that runs already. Raises InputError where
    the store does not reach so far.
    """
    settings = settings or load_settings()
    if bars < 1:
        raise InputError(field="bars", value=bars, expected="at least one bar")
    artefact = artefact_of(name, settings)
    slots = _slots(artefact, settings, first_slot, bars)
    runs = []
    with _exchange(artefact, settings, slots[0], over_http) as move_clock:
        for slot in slots:
            move_clock(slot + SHOWN_AFTER_MS)
            runs.append(run(name, slot, "replay", settings))
            if on_run is not None:
                on_run(runs[-1])
    return runs


@contextmanager
def _exchange(
    artefact: Artefact, settings: Settings, first_slot: int, over_http: bool
) -> Iterator[Callable[[int], None]]:
    """What the runs of a replay ask; yields what moves its clock (UTC milliseconds)."""
    # What another replay exchange once said, with its faults, is no part of this replay.
    shutil.rmtree(settings.data_dir / "replays" / "history", ignore_errors=True)
    if over_http:
        from live.replay import ReplayExchange

        if artefact.market.exchange != "binance":
            raise InputError(
                field="--http",
                value=artefact.market.exchange,
                expected="candles of binance, whose REST the replay exchange speaks",
            )
        candles = stored_candles(artefact, settings)
        filters = {name: artefact.account.filters_for(name) for name in candles.symbols}
        with (
            ReplayExchange([candles], filters, first_slot) as exchange,
            environment_with({"CANDLEBOOK_REPLAY_EXCHANGE_URL": exchange.url}),
        ):
            yield exchange.clock.set
    elif settings.replay_exchange_url is not None:
        from live.replay.control import set_clock

        yield partial(set_clock, settings.replay_exchange_url)
    else:
        yield lambda _: None


def _slots(artefact: Artefact, settings: Settings, first_slot: int | None, bars: int) -> list[int]:
    """The closes to live through: stored ones, after the research window and the account."""
    bar_ms = timeframe_ms(artefact.market.timeframe)
    clock = stored_candles(artefact, settings).clock()
    closes = [int(ts) + bar_ms for ts in clock]
    done = _last_slot(artefact, settings)
    earliest = max(utc_ms(artefact.window.end), 0 if done is None else done + bar_ms)
    after = [close for close in closes if close >= earliest]
    if first_slot is None:
        slots = after[:bars] if done is not None else after[-bars:]
    else:
        start = require_slot(artefact.market.timeframe, first_slot)
        slots = [close for close in closes if close >= start][:bars]
    if len(slots) < bars or slots[0] < earliest:
        reach = f"{iso(after[0])} .. {iso(after[-1])}" if after else "none left"
        began = (
            "the account goes on from its last bar" if done else "its research window ends first"
        )
        raise InputError(
            field=f"replay of {artefact.name}",
            value=f"{bars} bars from {iso(first_slot)}" if first_slot else f"{bars} bars",
            expected=f"stored closes from {iso(earliest)} on ({reach}): {began}",
            remedy="Fetch or import later candles, or promote with an earlier --end.",
        )
    return slots


def _last_slot(artefact: Artefact, settings: Settings) -> int | None:
    ledger = open_books(settings, "replay")
    try:
        with ledger.reading() as conn:
            marks = read.marks(conn, artefact.name)
    finally:
        ledger.close()
    return marks[-1].at if marks else None
