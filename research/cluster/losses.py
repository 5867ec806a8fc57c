"""How a cluster that loses what a sweep needs is told of, whichever kind it is."""

from __future__ import annotations

from typing import Final

from research.errors import ClusterError

__all__ = ["ALONE_SECONDS", "chunk_lost", "nobody_left"]

# How long a cluster may be without any worker (they restart, machines come and go).
ALONE_SECONDS: Final = 60


def chunk_lost(err: BaseException, address: str) -> ClusterError:
    """The error for a chunk whose workers died, however often it was tried."""
    return ClusterError(
        f"a chunk was lost with every worker that tried it: {err}",
        field=address,
        remedy="Does a worker run out of memory? knowledge/sweeps_on_many_machines.md has "
        "what one takes.",
    )


def nobody_left(address: str) -> ClusterError:
    """The error for a cluster that has been without a worker for ``ALONE_SECONDS``."""
    return ClusterError(f"no worker is left since {ALONE_SECONDS} seconds", field=address)
