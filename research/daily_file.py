"""The daily returns of every row of a search, in a folder, for statistics that read all of them.

``returns-<SHA-256>.npy`` is one float64 matrix, rows x days, whose name is the hash of its bytes;
``returns.json`` names it and says which days and parameters. Rows arrive in any order while the
search runs and go straight to disk. The record is written last: a folder holds either a whole set
of returns or, to a reader, what it held before.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from research.candles import Floats
from research.durable import sync_folder, write_whole
from research.errors import Busy, CorruptHistory, InputError

__all__ = ["DailyFile", "DailyReturns", "read_returns", "writing_returns"]

RECORD: Final = "returns.json"
LOCK: Final = ".lock"
OURS: Final = re.compile(r"returns\.json|returns-[0-9a-f]{64}\.npy|\.returns.*\.tmp|\.lock")
# The head of a .npy file of format 1.0, kept at one length so that rows can be written before
# their number is known. numpy.lib.format describes it.
HEAD_BYTES: Final = 128
BLOCK_BYTES: Final = 2**20


class DailyReturns(NamedTuple):
    """``days`` (UTC midnights), ``matrix`` (rows x days, mapped from disk), ``parameters`` (one row
    a combination, in the matrix's order)."""

    days: pd.DatetimeIndex
    matrix: Floats
    parameters: pd.DataFrame


@dataclass(frozen=True)
class DailyFile:
    """A matrix that is being written; several threads may ``put`` rows."""

    folder: Path
    temporary: Path
    handle: int
    days: pd.DatetimeIndex
    filled: set[int]

    def put(self, positions: Sequence[int], daily: Floats) -> None:
        """The returns of the rows at these positions; ``daily`` is positions x days."""
        width = 8 * len(self.days)
        rows = np.ascontiguousarray(daily, "<f8").reshape(len(positions), len(self.days))
        for position, row in zip(positions, rows, strict=True):
            _write_at(self.handle, row.tobytes(), HEAD_BYTES + width * position)
        self.filled.update(positions)

    def finish(self, parameters: pd.DataFrame, about: Mapping[str, Any]) -> None:
        """Publish the matrix: a row for each row of ``parameters``, all of which were put.

        ``about`` goes into the record as it is.
        """
        if self.filled != set(range(len(parameters))):
            raise ValueError(f"{len(self.filled)} rows were put, {len(parameters)} are to be there")
        shape = (len(parameters), len(self.days))
        _write_at(self.handle, _head(shape), 0)
        os.ftruncate(self.handle, HEAD_BYTES + 8 * shape[0] * shape[1])
        os.fsync(self.handle)
        digest = _digest(self.temporary)
        matrix = self.folder / f"returns-{digest}.npy"
        self.temporary.replace(matrix)
        sync_folder(self.folder)
        said = {
            "about": dict(about),
            "sha256": digest,
            "shape": shape,
            "days": [str(day.date()) for day in self.days],
            "parameters": {str(name): parameters[name].tolist() for name in parameters},
        }
        write_whole(self.folder / RECORD, _sealed(said))
        _sweep(self.folder, keep=matrix)


@contextmanager
def writing_returns(folder: Path, days: pd.DatetimeIndex) -> Iterator[DailyFile]:
    """A matrix over ``days`` to put rows into; gone without a trace unless it is finished.

    Returns that the folder held before stay until then. Raises InputError for a folder that holds
    something else, Busy while another search writes to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _require_ours(folder)
        held = FileLock(folder / LOCK).acquire(timeout=0)
    except Timeout as err:
        raise Busy("another search is writing to it", field=f"returns {folder}") from err
    except OSError as err:
        raise InputError(
            field="returns",
            value=f"{folder} ({err.strerror})",
            expected="a folder that can be written",
        ) from err
    with held:
        _sweep(folder, keep=None)
        yield from _opened(folder, days)


def _require_ours(folder: Path) -> None:
    if not all(OURS.fullmatch(path.name) for path in folder.iterdir()):
        raise InputError(
            field="returns",
            value=str(folder),
            expected="an empty folder, or one of daily returns",
            remedy="Name another folder.",
        )


def _opened(folder: Path, days: pd.DatetimeIndex) -> Iterator[DailyFile]:
    temporary = folder / f".returns-{secrets.token_hex(8)}.tmp"
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        yield DailyFile(folder, temporary, handle, days, set())
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def read_returns(path: str | Path, *, verify: bool = True) -> DailyReturns:
    """The daily returns in a folder that a search wrote them to.

    The matrix is mapped: what is not looked at is not read, once ``verify`` has compared all of its
    bytes with its hash. Raises InputError where there is no finished set, CorruptHistory for bytes
    that are not what was written.
    """
    folder = Path(path)
    record = folder / RECORD
    if not record.is_file():
        raise InputError(
            field="returns",
            value=str(folder),
            expected="a folder of daily returns",
            remedy="sweep(..., returns=folder) writes one, and only when it comes to its end.",
        )
    said = _unsealed(record)
    matrix = folder / f"returns-{said['sha256']}.npy"
    if not matrix.is_file() or (verify and _digest(matrix) != said["sha256"]):
        raise CorruptHistory("not what was written", field=str(matrix), remedy="Search again.")
    days = pd.DatetimeIndex(said["days"], name="day").as_unit("ms").tz_localize("UTC")
    return DailyReturns(days, np.load(matrix, mmap_mode="r"), pd.DataFrame(said["parameters"]))


def _write_at(handle: int, raw: bytes, offset: int) -> None:
    while raw:
        written = os.pwrite(handle, raw, offset)
        raw, offset = raw[written:], offset + written


def _head(shape: tuple[int, int]) -> bytes:
    said = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", HEAD_BYTES - 10)
    return start + said.ljust(HEAD_BYTES - 11) + b"\n"


def _digest(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            sha.update(block)
    return sha.hexdigest()


def _sealed(said: Mapping[str, Any]) -> str:
    body = json.dumps(said, sort_keys=True)
    seal = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({"seal": seal, **said}, sort_keys=True) + "\n"


def _unsealed(record: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(record.read_text("utf-8"))
        seal = said.pop("seal")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as err:
        raise CorruptHistory(f"it cannot be read ({err})", field=str(record)) from err
    if hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest() != seal:
        raise CorruptHistory("not what was written", field=str(record), remedy="Search again.")
    return said


def _sweep(folder: Path, keep: Path | None) -> None:
    """Remove what a search left that did not finish, and, once ``keep`` stands, the one before."""
    for path in folder.glob(".returns*.tmp"):
        path.unlink(missing_ok=True)
    for path in folder.glob("returns-*.npy"):
        if keep is not None and path != keep:
            path.unlink()
