"""The rows of a sweep that are done, kept on disk: a sweep that was killed goes on from there.

A folder is one sweep's: ``sweep.json`` says which (a digest of strategy, code, grid, candles and
account), and each finished chunk is a file ``rows-<SHA-256>.npy`` whose name is the hash of its
bytes. A file that is not what it was when it was written counts as not there: its rows are computed
again. Figures are float64 as the sweep computed them, so that a resumed frame is the same frame.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import talib

from research.account import Account
from research.candles import CandleSet
from research.code_hash import code_hashes
from research.durable import write_whole
from research.errors import InputError
from research.metrics import Metrics
from research.rows import Row
from research.strategy import Strategy

__all__ = ["KeptRows", "kept_rows", "sweep_digest"]

RECORD = "sweep.json"
COLUMNS = ("position", *Metrics._fields, "halted")


def sweep_digest(
    strategy: type[Strategy],
    grid: Mapping[str, Sequence[int | float]],
    candles: CandleSet,
    account: Account,
    start: int | None,
) -> str:
    """SHA-256 of all that the rows of a sweep depend on.

    Raises InputError for a strategy without a file of its own, whose code cannot be told.
    """
    said = {
        "strategy": f"{strategy.__module__}.{strategy.__name__} {strategy.version}",
        "code": code_hashes((strategy.__module__, "research.rows")),
        "libraries": {"numpy": np.__version__, "talib": talib.__version__},
        "grid": {name: list(values) for name, values in grid.items()},
        "candles": candles.digest(),
        "account": account.model_dump(mode="json"),
        "start": start,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class KeptRows:
    """The folder of one sweep; several threads may write to it."""

    folder: Path

    def read(self) -> dict[int, Row]:
        """Every sound row by its position in the sweep's order."""
        rows: dict[int, Row] = {}
        for path in sorted(self.folder.glob("rows-*.npy")):
            raw = path.read_bytes()
            if path.stem != f"rows-{hashlib.sha256(raw).hexdigest()}":
                continue
            for position, *figures, halted in np.load(io.BytesIO(raw)).tolist():
                rows[int(position)] = Row(_figures(figures), bool(halted))
        return rows

    def keep(self, positions: Sequence[int], rows: Sequence[Row]) -> None:
        """Write one finished chunk, whole or not at all."""
        table = [
            [position, *row.figures, row.halted]
            for position, row in zip(positions, rows, strict=True)
        ]
        sink = io.BytesIO()
        np.save(sink, np.array(table, np.float64).reshape(len(rows), len(COLUMNS)))
        raw = sink.getvalue()
        write_whole(self.folder / f"rows-{hashlib.sha256(raw).hexdigest()}.npy", raw)


def kept_rows(folder: Path, digest: str) -> KeptRows:
    """The folder as that of the sweep with this digest; made where it is not there.

    Raises InputError for a folder that is another sweep's, or holds something else.
    """
    record = folder / RECORD
    if not record.exists():
        # What a kill left of the record's own first write is nobody's, and in nobody's way.
        if folder.exists() and not all(one.match(f".{RECORD}-*.tmp") for one in folder.iterdir()):
            raise InputError(
                field="resume", value=str(folder), expected="an empty folder, or one of a sweep"
            )
        write_whole(record, json.dumps({"digest": digest, "columns": COLUMNS}, indent=1) + "\n")
    try:
        known = json.loads(record.read_text("utf-8"))["digest"]
    except (OSError, ValueError, TypeError, KeyError) as err:
        raise InputError(f"it cannot be read ({err})", field=str(record)) from err
    if known != digest:
        raise InputError(
            "it holds the rows of another sweep: other candles, grid, account, code or libraries",
            field="resume",
            value=str(folder),
            expected="the folder of this very sweep",
            remedy="Name another folder, or remove this one.",
        )
    return KeptRows(folder)


def _figures(values: Sequence[float]) -> Metrics:
    figures = Metrics._make(values)
    return figures._replace(trades=int(figures.trades))
