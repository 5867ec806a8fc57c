"""A sweep out of one machine: its chunks of rows as tasks on Dask or Ray, equal to local rows.

A chunk is a pure function of strategies, candles and account (``research.rows``), so that it may be
computed anywhere, in any order, and again where a worker died. What may not happen is that another
worker computes something else: every process first shows that its code and libraries are those of
this one and that it finds the very figures that were computed here for a few of the rows.

Nothing is started, connected to or imported before a sweep asks for it. What is started here
listens on loopback alone, tells nobody anything and is gone when the sweep is over.
"""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

from research.account import Account
from research.candles import CandleSet
from research.cluster.chunk import Common, Found, code_of, libraries, packed
from research.errors import InputError
from research.indicators import Bank
from research.rows import Course, course_of, figures_of_rows
from research.strategy import Strategy

__all__ = ["Job", "Place", "place_of", "rows_a_chunk", "rows_on_cluster"]

# Half a second of work or more, beside which the few milliseconds that a task costs are nothing.
BARS_A_CHUNK: Final = 100_000_000
# What daily returns and marks may weigh in one answer.
BYTES_AN_ANSWER: Final = 8 * 2**20
# So many that the workers end at about the same time, and that little is lost by an interruption.
CHUNKS_A_WORKER: Final = 8
DASK_SCHEMES: Final = ("tcp", "tls")
RAY_SCHEMES: Final = ("ray",)


@dataclass(frozen=True)
class Place:
    """Where chunks are computed: ``workers`` processes started here, or a cluster's ``address``."""

    kind: str
    address: str | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Job:
    """The rows of a sweep and what they are computed from; ``start`` in UTC milliseconds.

    ``wants_daily``: their daily returns as well.
    """

    strategies: tuple[Strategy, ...]
    candles: CandleSet
    account: Account
    start: int | None
    bank_bytes: int
    wants_daily: bool = False


class Crew(Protocol):
    """The workers of an open cluster."""

    def workers(self) -> int:
        """How many tasks are computed at once."""

    def computed(
        self, key: str, common: bytes, chunks: Sequence[bytes]
    ) -> Generator[tuple[int, Found]]:
        """The rows of each chunk by its position, as they are done; closed early, it cancels."""


def place_of(on: str | None, workers: int | None = None) -> Place | None:
    """What ``on`` and ``workers`` of a sweep mean; None for the threads of this process.

    ``dask`` and ``ray`` start that many worker processes here (None: one a core), or take the Ray
    that this process is connected to. ``tcp://host:8786`` or ``tls://`` is a Dask scheduler,
    ``ray://host:10001`` a Ray head; these have workers of their own. Raises InputError for anything
    else, and where the extra that it takes is not installed.
    """
    if on is None:
        if workers is not None:
            raise InputError(
                field="workers", value=workers, expected="None, or a cluster named by on=..."
            )
        return None
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int)):
        raise InputError(field="workers", value=workers, expected="a whole number from 1")
    if workers is not None and workers < 1:
        raise InputError(field="workers", value=workers, expected="a whole number from 1")
    kind = on if on in ("dask", "ray") else _kind_of(on)
    _require_installed(kind, address=kind != on)
    if kind == on:
        return Place(kind, None, workers)
    if workers is not None:
        raise InputError(
            field="workers",
            value=workers,
            expected=f"None: the cluster at {on} has workers of its own",
        )
    return Place(kind, on)


def _kind_of(on: object) -> str:
    """``dask`` or ``ray``, by the scheme of an address. Raises InputError for what is none."""
    try:
        parts = urlsplit(on) if isinstance(on, str) else urlsplit("")
        whole = bool(parts.hostname and parts.port)
    except ValueError:  # no port of 16 bits, or half an IPv6 address
        parts, whole = urlsplit(""), False
    if whole and parts.scheme in (*DASK_SCHEMES, *RAY_SCHEMES):
        return "ray" if parts.scheme in RAY_SCHEMES else "dask"
    raise InputError(
        field="on",
        value=on,
        expected='"dask" or "ray" (a cluster on this machine), or an address with its port: '
        "tcp://host:8786, tls://host:8786 (Dask), ray://host:10001 (Ray)",
    )


def _require_installed(kind: str, address: bool) -> None:
    if importlib.util.find_spec("distributed" if kind == "dask" else "ray") is None:
        raise InputError(
            f"{kind.capitalize()} is not installed",
            field="on",
            remedy=f"Install the extra: pip install 'candlebook[{kind}]', or make install.",
        )
    if kind == "ray" and address and importlib.util.find_spec("grpc") is None:
        raise InputError(
            "Ray is installed without its client",
            field="on",
            remedy="pip install 'ray[client]', or run on a node of the cluster: "
            'ray.init("auto"), then on="ray".',
        )


def rows_a_chunk(rows: int, bars: int, workers: int, days: int = 0) -> int:
    """How many rows make a chunk: at most a good task's work, and enough chunks for everybody.

    ``days`` is how many daily returns and marks come back with each row.
    """
    fair = -(-rows // (CHUNKS_A_WORKER * max(workers, 1)))
    light = BYTES_AN_ANSWER // (8 * days) if days else fair
    return max(1, min(BARS_A_CHUNK // max(bars, 1), light, fair))


def rows_on_cluster(
    place: Place, job: Job, positions: Sequence[int]
) -> Generator[tuple[Sequence[int], Found]]:
    """The rows at ``positions`` of the job, chunk by chunk, as they are done.

    A chunk whose worker died is computed again. Whatever ends the iteration early cancels the rest;
    what was started for it is ended, and a cluster given by address goes on.

    Raises InputError for a strategy that cannot be sent, ClusterError for a cluster that is not
    there or loses all its workers, WorkerDiffers for a worker that would compute something else,
    and what the strategy itself raises.
    """
    course = course_of(job.candles, job.start, job.account)
    key, common = uuid.uuid4().hex, packed(_common(job, course, positions), "the sweep")
    days = len(course.marks) + (len(course.day_ends) if job.wants_daily else 0)
    bars = sum(len(one) for one in job.candles)
    with _opened(place, len(common)) as crew:
        size = rows_a_chunk(len(positions), bars, crew.workers(), days)
        chunks = [positions[first : first + size] for first in range(0, len(positions), size)]
        sent = [
            packed(tuple(job.strategies[i] for i in chunk), job.strategies[chunk[0]].name)
            for chunk in chunks
        ]
        with closing(crew.computed(key, common, sent)) as done:
            for i, found in done:
                yield chunks[i], found


def _opened(place: Place, size: int) -> AbstractContextManager[Crew]:
    if place.kind == "dask":
        from research.cluster.on_dask import dask_crew

        return dask_crew(place.address, place.workers or os.cpu_count() or 1)
    from research.cluster.on_ray import ray_crew

    return ray_crew(place.address, place.workers, size)


def _common(job: Job, course: Course, positions: Sequence[int]) -> Common:
    """What every chunk needs, with the rows that a worker has to find as they were found here."""
    chosen = sorted({positions[0], positions[len(positions) // 2], positions[-1]})
    control = [job.strategies[i] for i in chosen]
    rows = figures_of_rows(control, course, job.account, Bank(job.bank_bytes))
    return Common(
        candles=job.candles,
        account=job.account,
        start=job.start,
        bank_bytes=job.bank_bytes,
        code=code_of(type(control[0])),
        libraries=libraries(),
        control=tuple(zip(control, rows, strict=True)),
        wants_daily=job.wants_daily,
    )
