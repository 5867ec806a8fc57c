"""The task of a sweep: what a worker process does to a chunk, wherever it runs.

It unpacks what all chunks of a sweep have in common once, shows once that it computes what the
asking process computes, and keeps bars and indicators for the chunks that follow.
"""

from __future__ import annotations

import importlib.metadata
import os
import pickle
import platform
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from research.account import Account
from research.candles import CandleSet, Floats
from research.code_hash import code_hashes
from research.errors import CandlebookError, InputError, WorkerDiffers
from research.indicators import Bank
from research.rows import Course, Row, course_of, figures_of_rows
from research.strategy import Strategy

__all__ = [
    "Common",
    "Found",
    "code_of",
    "compute_chunk",
    "forget",
    "libraries",
    "packed",
    "worker_name",
]

CORE: Final = ("research.rows", "research.cluster.chunk")
LIBRARIES: Final = ("numpy", "pandas", "numba", "llvmlite", "TA-Lib")
REMEDY: Final = "Give every worker the project and the libraries of this process, and restart it."


class Found(NamedTuple):
    """A chunk that is done: its rows, their equity at the course's marks (rows x marks), and their
    daily returns (rows x days) where asked for."""

    rows: list[Row]
    marked: Floats
    daily: Floats | None


@dataclass(frozen=True, eq=False)
class Common:
    """What all chunks of a sweep have in common.

    ``code`` are digests by module, ``libraries`` versions by name; ``control`` holds a few
    strategies of the sweep with the rows that the asking process found for them.
    """

    candles: CandleSet
    account: Account
    start: int | None
    bank_bytes: int
    code: Mapping[str, str]
    libraries: Mapping[str, str]
    control: tuple[tuple[Strategy, Row], ...]
    wants_daily: bool = False


@dataclass(frozen=True)
class _Ready:
    """A sweep for which this process has shown that it may compute."""

    key: str
    course: Course
    account: Account
    bank: Bank
    wants_daily: bool


# One sweep at a time: the next one takes the place of the last.
_ready: list[_Ready] = []
_ONE_AT_A_TIME = threading.Lock()

# A long-lived worker goes on with the code that it has loaded, whatever becomes of the files, so
# that a module counts as it was when this process first looked.
_seen: dict[str, str] = {}


def compute_chunk(key: str, common: Callable[[], bytes], chunk: bytes) -> Found:
    """The rows of the strategies packed in ``chunk``, in their order.

    ``key`` names the sweep; ``common`` is asked for the packed ``Common`` when this process first
    hears of it. Raises WorkerDiffers where this process would compute something else, and what a
    strategy raises.
    """
    with _ONE_AT_A_TIME:
        if not _ready or _ready[0].key != key:
            _ready[:] = [_prepared(key, _unpacked(common()))]
        ready = _ready[0]
    strategies = _unpacked(chunk)
    daily = np.empty((len(strategies), len(ready.course.day_ends))) if ready.wants_daily else None
    marked = np.empty((len(strategies), len(ready.course.marks)))
    rows = figures_of_rows(
        strategies, ready.course, ready.account, ready.bank, lambda: None, daily, marked
    )
    return Found(rows, marked, daily)


def forget(key: str) -> None:
    """Let go of the bars and indicators of a sweep that is over."""
    with _ONE_AT_A_TIME:
        _ready[:] = [one for one in _ready if one.key != key]


def worker_name() -> str:
    """How messages call this process."""
    return f"process {os.getpid()} on {platform.node()}"


def libraries() -> dict[str, str]:
    """Versions of Python and of the libraries that figures come from."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **versions}


def code_of(strategy: type[Strategy]) -> dict[str, str]:
    """Digests of the modules that a row of ``strategy`` comes from, as they were first seen here.

    A class of a notebook, or one whose file cannot be hashed, counts without its module: the first
    is sent whole, and for the second the control rows speak.
    """
    try:
        return _digests((*CORE, strategy.__module__))
    except InputError:
        return _digests(CORE)


def _digests(modules: tuple[str, ...]) -> dict[str, str]:
    found = code_hashes(modules)
    return {name: _seen.setdefault(name, digest) for name, digest in found.items()}


def packed(value: Any, what: str) -> bytes:
    """``value`` as bytes; classes of a notebook or a function are packed whole.

    Raises InputError, which names ``what``, for something that cannot be sent.
    """
    try:
        import cloudpickle  # comes with Dask
    except ImportError:
        from ray import cloudpickle
    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as err:
        raise InputError(
            f"it cannot be sent to another process: {type(err).__name__}: {err}",
            field=what,
            remedy="Put the strategy into a file of its own in research/strategies/.",
        ) from err


def _unpacked(raw: bytes) -> Any:
    try:
        return pickle.loads(raw)  # noqa: S301 - from the process that this worker works for
    except (ImportError, AttributeError) as err:
        raise WorkerDiffers(
            f"it lacks code of the sweep: {err}", field=worker_name(), remedy=REMEDY
        ) from err


def _prepared(key: str, common: Common) -> _Ready:
    """Raises WorkerDiffers for other libraries, other code or other figures, in that order."""
    _require_same("version of", common.libraries, libraries())
    try:
        _require_same("code of", common.code, _digests(tuple(common.code)))
    except CandlebookError as err:
        if isinstance(err, WorkerDiffers):
            raise
        raise WorkerDiffers(str(err), field=worker_name(), remedy=REMEDY) from err
    course = course_of(common.candles, common.start, common.account)
    bank = Bank(common.bank_bytes)
    for strategy, wanted in common.control:
        (found,) = figures_of_rows([strategy], course, common.account, bank)
        # Text of a float is exact, tells 0 from -0, and NaN equals itself.
        here, there = _said(found), _said(wanted)
        _require_same(f"{strategy!r}:", there, here)
    return _Ready(key, course, common.account, bank, common.wants_daily)


def _said(row: Row) -> dict[str, str]:
    figures = {name: repr(value) for name, value in row.figures._asdict().items()}
    return {**figures, "halted": repr(row.halted)}


def _require_same(what: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> None:
    for name, value in wanted.items():
        if found.get(name) != value:
            raise WorkerDiffers(
                f"another {what} {name}" if what.endswith("of") else f"{what} another {name}",
                field=worker_name(),
                value=found.get(name),
                expected=value,
                remedy=REMEDY,
            )
