"""Chunks on Dask: a cluster of this machine's processes, or a scheduler that is there already."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final

from research.cluster.chunk import REMEDY, Found, compute_chunk, forget, worker_name
from research.cluster.losses import ALONE_SECONDS, chunk_lost, nobody_left
from research.cluster.processes import child_environment
from research.errors import ClusterError, WorkerDiffers

__all__ = ["dask_crew"]

CONNECT_SECONDS: Final = 15
START_SECONDS: Final = 60
LOOPBACK: Final = "127.0.0.1"


@contextlib.contextmanager
def dask_crew(address: str | None, workers: int) -> Iterator[DaskCrew]:
    """The workers at ``address``, or so many processes started for as long as this lasts.

    Raises ClusterError where no cluster answers in time, WorkerDiffers for a worker that cannot
    load the task.
    """
    import distributed

    with contextlib.ExitStack() as stack:
        where = address or stack.enter_context(_scheduler(distributed))
        started = None
        if address is None:
            started = stack.enter_context(_worker_processes(where, workers))
        client = stack.enter_context(_connected(distributed, where))
        _wait_for_workers(client, where, workers if address is None else 1, started)
        _require_project(client)
        yield DaskCrew(client, where, lasting=address is not None)


@contextlib.contextmanager
def _scheduler(distributed: Any) -> Iterator[str]:
    """A scheduler in this process, on loopback; yields its address."""
    cluster = distributed.LocalCluster(
        n_workers=0,
        processes=True,
        host=LOOPBACK,
        dashboard_address=f"{LOOPBACK}:0",
        scheduler_kwargs={"dashboard": False},
        silence_logs=50,
    )
    try:
        yield cluster.scheduler_address
    finally:
        cluster.close()


@contextlib.contextmanager
def _worker_processes(address: str, workers: int) -> Iterator[_Started]:
    """So many workers of one thread, restarted where they die.

    They are started as a command, not forked or spawned from here: a script of three lines need not
    guard its main module, and Ctrl-C reaches this process alone. Without the scheduler they end.
    """
    # -P: the folder in which this process was started is no place to look for modules.
    command = [sys.executable, "-P", "-m", "distributed.cli.dask_worker", address]
    command += ["--nworkers", str(workers), "--nthreads", "1", "--memory-limit", "0"]
    command += ["--host", LOOPBACK, "--no-dashboard", "--dashboard-address", f"{LOOPBACK}:0"]
    command += ["--death-timeout", str(START_SECONDS)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(  # noqa: S603 - this interpreter and Dask's own command
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=child_environment(),
            start_new_session=True,
        )
        try:
            yield _Started(process, said)
        finally:
            process.terminate()
            try:
                process.wait(CONNECT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(frozen=True)
class _Started:
    """Worker processes, and the file that holds what they said."""

    process: subprocess.Popen[bytes]
    said: Any

    def last_words(self) -> str | None:
        """The end of what they said where they have ended, else None."""
        if self.process.poll() is None:
            return None
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"


@contextlib.contextmanager
def _connected(distributed: Any, address: str) -> Iterator[Any]:
    try:
        with ThreadPoolExecutor(1) as pool:  # a notebook's thread has an event loop already
            pool.submit(asyncio.run, _greet(distributed, address)).result()
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except Exception as err:  # whatever answers there, it is no scheduler
        raise ClusterError(
            f"no Dask scheduler answers ({type(err).__name__}: {err})".replace(": )", ")"),
            field=address,
            remedy="Start one with `dask scheduler`, and workers with `dask worker ADDRESS`.",
        ) from err
    try:
        yield client
    finally:
        client.close()


async def _greet(distributed: Any, address: str) -> None:
    """A handshake within the time; a client waits for ever for one that says nothing."""
    security = distributed.Security().get_connection_args("client")
    greeting = distributed.comm.connect(address, timeout=CONNECT_SECONDS, **security)
    comm = await asyncio.wait_for(greeting, CONNECT_SECONDS)
    await comm.close()


def _wait_for_workers(client: Any, address: str, wanted: int, started: _Started | None) -> None:
    until = time.monotonic() + START_SECONDS
    while len(client.nthreads()) < wanted:
        ended = started.last_words() if started else None
        if ended is not None or time.monotonic() > until:
            raise ClusterError(
                f"its workers ended: {ended}" if ended else f"no worker in {START_SECONDS} seconds",
                field=address,
                remedy=None if started else f"Start workers with `dask worker {address}`.",
            )
        time.sleep(0.05)


def _require_project(client: Any) -> None:
    """Raises WorkerDiffers for the first worker that cannot load the task."""
    for worker, answer in client.run(worker_name, on_error="return").items():
        if isinstance(answer, Exception):
            raise WorkerDiffers(
                f"it cannot load the task: {type(answer).__name__}: {answer}",
                field=worker,
                remedy=REMEDY,
            ) from answer


@dataclass(frozen=True)
class DaskCrew:
    """The workers behind a connected Dask client; ``lasting`` ones are there after the sweep."""

    client: Any
    address: str
    lasting: bool

    def workers(self) -> int:
        """How many tasks are computed at once."""
        return sum(self.client.nthreads().values())

    def computed(
        self, key: str, common: bytes, chunks: Sequence[bytes]
    ) -> Generator[tuple[int, Found]]:
        """The rows of each chunk by its position, as they are done; closed early, it cancels."""
        import dask

        with dask.config.set({"distributed.admin.large-graph-warning-threshold": 2**60}):
            # A task, not scattered data: who lost it can compute it again.
            shared = self.client.submit(_as_it_is, common, pure=False)
            tasks = [self.client.submit(_chunk, key, shared, one, pure=False) for one in chunks]
        arrived: SimpleQueue[Any] = SimpleQueue()
        left = {task.key: i for i, task in enumerate(tasks)}
        for task in tasks:
            task.add_done_callback(arrived.put)
        try:
            while left:
                task = self._next(arrived)
                position = left.pop(task.key)
                yield position, self._result(task)
                tasks[position] = None  # lets the cluster forget it
        finally:
            self.client.cancel([task for task in tasks if task is not None])
            if self.lasting:
                with contextlib.suppress(OSError, TimeoutError):  # else it is gone by itself
                    self.client.run(forget, key, on_error="ignore")

    def _next(self, arrived: SimpleQueue[Any]) -> Any:
        alone_since = time.monotonic()
        while True:
            try:
                return arrived.get(timeout=1)
            except Empty:
                if self._has_workers():
                    alone_since = time.monotonic()
                elif time.monotonic() - alone_since > ALONE_SECONDS:
                    raise nobody_left(self.address) from None

    def _has_workers(self) -> bool:
        with contextlib.suppress(OSError, TimeoutError):
            return self.client.status == "running" and bool(self.client.nthreads())
        return False

    def _result(self, task: Any) -> Found:
        from distributed import KilledWorker

        try:
            found: Found = task.result()
        except (KilledWorker, CancelledError) as err:
            raise chunk_lost(err, self.address) from err
        except ImportError as err:
            raise WorkerDiffers(
                f"a worker lacks code of the sweep: {err}", field=self.address, remedy=REMEDY
            ) from err
        return found


def _as_it_is(raw: bytes) -> bytes:
    return raw


def _chunk(key: str, common: bytes, chunk: bytes) -> Found:
    return compute_chunk(key, lambda: common, chunk)
