"""Chunks on Ray: processes of this machine, a head that is there, or the Ray already connected."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from research.cluster.chunk import REMEDY, Found, compute_chunk
from research.cluster.losses import ALONE_SECONDS, chunk_lost, nobody_left
from research.cluster.processes import child_environment, environment_of
from research.errors import ClusterError, InputError, WorkerDiffers

__all__ = ["ray_crew"]

LOOPBACK: Final = "127.0.0.1"
# Ray refuses a smaller store.
SMALLEST_STORE: Final = 80 * 2**20
# Deaths of a worker that one chunk may survive.
RETRIES: Final = 3
# Ray gives itself 30 seconds, which a busy machine may not have.
STARTS: Final = 3
# Ray binds every interface of a Linux machine unless it thinks that there are no clusters.
ALONE: Final = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
UNWATCHED: Final = {"RAY_USAGE_STATS_ENABLED": "0"}


@contextlib.contextmanager
def ray_crew(address: str | None, workers: int | None, size: int) -> Iterator[RayCrew]:
    """The workers at ``address``, of the Ray that is connected, or so many processes started here.

    ``size`` are the bytes that all chunks have in common. Raises ClusterError where no Ray answers
    or starts, InputError for one asked for beside the one that this process is connected to.
    """
    import ray

    if ray.is_initialized():
        if address is not None or workers is not None:
            raise InputError(
                "this process is connected to a Ray already",
                field="on",
                value=address or "ray",
                expected='on="ray" without workers, which uses it',
                remedy="Or ray.shutdown() first.",
            )
        yield RayCrew(ray, "ray")
        return
    with _stopping_as_before(), environment_of(UNWATCHED):
        if address is not None:
            _connect(ray, address)
        else:
            _start(ray, workers or os.cpu_count() or 1, max(SMALLEST_STORE, 3 * size))
        try:
            yield RayCrew(ray, address or "ray")
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _stopping_as_before() -> Iterator[None]:
    """Ray takes SIGTERM for itself; afterwards it means what it meant before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _without_notices(logger: str) -> Iterator[None]:
    notices = logging.getLogger(logger)
    before = notices.level
    notices.setLevel(logging.ERROR)
    try:
        yield
    finally:
        notices.setLevel(before)


def _connect(ray: Any, address: str) -> None:
    try:
        with warnings.catch_warnings(), _without_notices("ray.client_builder"):
            warnings.simplefilter("ignore")  # the same is said in the error
            ray.init(address, log_to_driver=False)
    except Exception as err:
        raise ClusterError(
            f"no Ray answered ({type(err).__name__}: {err})",
            field=address,
            remedy="Start one with `ray start --head --ray-client-server-port=10001`; does it want "
            "a token? Then set RAY_AUTH_MODE=token here.",
        ) from err


def _start(ray: Any, workers: int, store: int) -> None:
    """A Ray of this machine alone: so many workers, loopback only, no dashboard, no statistics.

    Raises ClusterError where it does not start or would listen to other machines.
    """
    for attempt in range(1, STARTS + 1):
        try:
            _init_alone(ray, workers, store)
            break
        except Exception as err:
            ray.shutdown()
            if attempt == STARTS:
                raise ClusterError(
                    f"Ray did not start ({type(err).__name__}: {err})",
                    field="on",
                    value="ray",
                    remedy='Is the machine very busy? on="dask" starts in a fraction of the time.',
                ) from err
    heard = {node["NodeManagerAddress"] for node in ray.nodes()}
    if heard != {LOOPBACK}:
        ray.shutdown()
        raise ClusterError(
            "Ray would listen to other machines",
            field="on",
            value=sorted(heard),
            expected=LOOPBACK,
            remedy="Start Ray yourself and name it by address.",
        )


def _init_alone(ray: Any, workers: int, store: int) -> None:
    constants = ray._private.ray_constants
    clusters, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False
    try:
        with environment_of(child_environment(**ALONE)), _without_notices("ray._private"):
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                object_store_memory=store,
                _node_ip_address=LOOPBACK,
            )
    finally:
        constants.ENABLE_RAY_CLUSTER = clusters


@dataclass(frozen=True)
class RayCrew:
    """The workers behind a connected Ray."""

    ray: Any
    address: str

    def workers(self) -> int:
        """How many tasks are computed at once."""
        return int(self.ray.cluster_resources().get("CPU", 0))

    def computed(
        self, key: str, common: bytes, chunks: Sequence[bytes]
    ) -> Generator[tuple[int, Found]]:
        """The rows of each chunk by its position, as they are done; closed early, it cancels."""
        shared = [self.ray.put(common)]  # in a list: a worker asks for it once, not with each chunk
        task = self.ray.remote(max_retries=RETRIES)(_chunk)
        left = {task.remote(key, shared, one): i for i, one in enumerate(chunks)}
        try:
            while left:
                done = self._next(list(left))
                position = left.pop(done)
                yield position, self._result(done)
        finally:
            for one in left:
                # By force: interrupted within an import, a process would go on with half a module.
                self.ray.cancel(one, force=True)

    def _next(self, left: list[Any]) -> Any:
        alone_since = time.monotonic()
        while True:
            with self._lost():
                done, _ = self.ray.wait(left, num_returns=1, timeout=1)
                if done:
                    return done[0]
                if self.workers():
                    alone_since = time.monotonic()
            if time.monotonic() - alone_since > ALONE_SECONDS:
                raise nobody_left(self.address)

    def _result(self, done: Any) -> Found:
        try:
            with self._lost():
                found: Found = self.ray.get(done)
        except self.ray.exceptions.RayTaskError as err:
            if isinstance(err.cause, ImportError):
                raise WorkerDiffers(
                    f"it lacks code of the sweep: {err.cause}",
                    field=f"process {err.pid} on {err.ip}",
                    remedy=REMEDY,
                ) from err
            raise err.cause from err
        return found

    @contextlib.contextmanager
    def _lost(self) -> Iterator[None]:
        """Raises ClusterError for whatever is Ray's own failure."""
        try:
            yield
        except self.ray.exceptions.RayTaskError:
            raise
        except (self.ray.exceptions.RayError, ConnectionError) as err:
            raise chunk_lost(err, self.address) from err


def _chunk(key: str, shared: list[Any], chunk: bytes) -> Found:
    import ray

    def common() -> bytes:
        found: bytes = ray.get(shared[0])
        return found

    return compute_chunk(key, common, chunk)
