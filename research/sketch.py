"""A sketch of a run: its equity at no more than 256 marks of the calendar, to compare runs by.

The calendar is cut into periods of 1, 2, 4, 8, ... UTC days that are counted from 1970-01-01; a run
uses the shortest of them of which its bars touch no more than ``MOST_MARKS``. A *mark* is the last
close within a period, so that each is the end of a day too. Periods of one length lie within those
of the next: runs over other windows are compared on the longer of two lengths, and there period by
period. The return of a run's first period is measured from its initial cash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from research.candles import DAY, Floats, Ints

__all__ = ["DIGEST_BYTES", "MOST_MARKS", "Sketch", "blank_sketch", "coarser", "marks_of"]

MOST_MARKS: Final = 256
LEAST_MARKS: Final = 16
# What the returns of one sketch may weigh: with more rows than fit, its periods become longer.
MOST_BYTES: Final = 256 * 2**20
DIGEST_BYTES: Final = 16


@dataclass(frozen=True, eq=False)
class Sketch:
    """The period returns of some rows of one course.

    ``buckets`` is the number of each period since 1970-01-01, ``returns`` float32, rows x periods;
    ``digests``, rows x 16 bytes, are of the equity at the marks as it was, in float64: rows with
    the same are the same run. ``columns`` says which of a course's marks end its periods; the two
    closes, UTC milliseconds, are those of the course's first and last bar.
    """

    step_days: int
    buckets: Ints
    returns: npt.NDArray[np.float32]
    digests: npt.NDArray[np.uint8]
    columns: Ints
    marks: int
    first_close: int
    last_close: int

    def put(self, positions: Sequence[int], equity: Floats, initial_cash: float) -> None:
        """The rows at ``positions``, of whose equity at the course's marks (positions x marks) this
        takes what it needs. Several threads may put rows."""
        at = np.asarray(positions, np.int64)
        ends = equity[:, self.columns]
        before = np.hstack([np.full((len(ends), 1), initial_cash), ends[:, :-1]])
        self.returns[at] = ends / before - 1.0
        whole = np.ascontiguousarray(equity, "<f8")
        said = b"".join(hashlib.blake2b(row, digest_size=DIGEST_BYTES).digest() for row in whole)
        self.digests[at] = np.frombuffer(said, np.uint8).reshape(len(whole), DIGEST_BYTES)

    def first(self, rows: int) -> Sketch:
        """The sketch of its first ``rows`` rows alone."""
        return replace(self, returns=self.returns[:rows], digests=self.digests[:rows])


def marks_of(close_time: Ints) -> Ints:
    """Positions of a run's marks among its closes, UTC milliseconds."""
    return _ends(close_time, _step(close_time, MOST_MARKS))


def blank_sketch(close_time: Ints, rows: int) -> Sketch:
    """Room for the sketches of ``rows`` runs over these closes."""
    fine = marks_of(close_time)
    most = max(LEAST_MARKS, min(MOST_MARKS, MOST_BYTES // (4 * max(rows, 1))))
    step = _step(close_time, most)
    ends = _ends(close_time, step)
    return Sketch(
        step_days=step,
        buckets=close_time[ends] // (DAY * step),
        returns=np.zeros((rows, len(ends)), np.float32),
        digests=np.zeros((rows, DIGEST_BYTES), np.uint8),
        columns=np.searchsorted(fine, ends),
        marks=len(fine),
        first_close=int(close_time[0]),
        last_close=int(close_time[-1]),
    )


def coarser(
    buckets: Ints, returns: npt.NDArray[Any], times: int
) -> tuple[Ints, npt.NDArray[np.float32]]:
    """The same rows in periods that are ``times`` as long: their numbers, and rows x periods."""
    if times == 1:
        return buckets, np.asarray(returns, np.float32)
    longer = buckets // times
    first = np.flatnonzero(np.append(True, longer[1:] != longer[:-1])[: len(longer)])
    growth = np.multiply.reduceat(returns.astype(np.float64) + 1.0, first, axis=1)
    return longer[first], (growth - 1.0).astype(np.float32)


def _step(close_time: Ints, most: int) -> int:
    """Days of a period: the least power of two with which there are at most ``most`` periods."""
    step = 1
    while close_time[-1] // (DAY * step) - close_time[0] // (DAY * step) >= most:
        step *= 2
    return step


def _ends(close_time: Ints, step: int) -> Ints:
    periods = close_time // (DAY * step)
    return np.flatnonzero(np.append(periods[1:] != periods[:-1], True)).astype(np.int64)
