"""The rows of a sweep that are done, kept on disk: a sweep that was killed goes on from there.

A folder is one sweep's: ``sweep.json`` says which (a digest of strategy, code, combinations,
candles and account), and each finished chunk is a file ``rows-<SHA-256>.npy`` whose name is the
hash of its bytes: figures, the equity at the course's marks, and after it the daily returns where
they were asked for. A file that is not what it was when it was written, or lacks returns that are
wanted, counts as not there: its rows are computed again. All is float64 as the sweep computed it,
so that a resumed frame is the same frame.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import talib

from research.account import Account
from research.candles import CandleSet, Floats
from research.code_hash import code_hashes
from research.daily_file import DailyFile
from research.durable import write_whole
from research.errors import InputError
from research.metrics import Metrics
from research.rows import Row
from research.sketch import Sketch
from research.strategy import Strategy

__all__ = ["KeptRows", "kept_rows", "sweep_digest"]

RECORD = "sweep.json"
COLUMNS = ("position", *Metrics._fields, "halted")


def sweep_digest(
    strategy: type[Strategy],
    chosen: Sequence[Strategy],
    candles: CandleSet,
    account: Account,
    start: int | None,
) -> str:
    """SHA-256 of all that the rows of a sweep depend on.

    Rows are kept by their position among the ``chosen``, so those themselves are what counts, not
    the grid, draw or constraint that they come from.
    Raises InputError for a strategy without a file of its own, whose code cannot be told.
    """
    rows = hashlib.sha256()
    for one in chosen:
        rows.update(f"{one.parameters()!r}\n".encode())
    said = {
        "strategy": f"{strategy.__module__}.{strategy.__name__} {strategy.version}",
        "code": code_hashes((strategy.__module__, "research.rows")),
        "libraries": {"numpy": np.__version__, "talib": talib.__version__},
        "rows": rows.hexdigest(),
        "candles": candles.digest(),
        "account": account.model_dump(mode="json"),
        "start": start,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class KeptRows:
    """The folder of one sweep; several threads may write to it."""

    folder: Path

    def read(
        self,
        sketch: Sketch | None = None,
        initial_cash: float = 1.0,
        returns: DailyFile | None = None,
    ) -> dict[int, Row]:
        """Every sound row by its position in the sweep's order; ``sketch`` and ``returns`` take
        their own."""
        start = len(COLUMNS) + (0 if sketch is None else sketch.marks)
        rows: dict[int, Row] = {}
        for path in sorted(self.folder.glob("rows-*.npy")):
            raw = path.read_bytes()
            if path.stem != f"rows-{hashlib.sha256(raw).hexdigest()}":
                continue
            table = np.load(io.BytesIO(raw))
            positions = table[:, 0].astype(int).tolist()
            if returns is not None:
                if table.shape[1] != start + len(returns.days):
                    continue
                returns.put(positions, table[:, start:])
            if sketch is not None:
                sketch.put(positions, table[:, len(COLUMNS) : start], initial_cash)
            for position, *figures, halted in table[:, : len(COLUMNS)].tolist():
                rows[int(position)] = Row(_figures(figures), bool(halted))
        return rows

    def keep(self, positions: Sequence[int], rows: Sequence[Row], *notes: Floats | None) -> None:
        """Write one finished chunk, whole or not at all; ``notes`` are its equity at the marks
        (rows x marks) and, where they are wanted, its daily returns (rows x days)."""
        table = [
            [position, *row.figures, row.halted]
            for position, row in zip(positions, rows, strict=True)
        ]
        sink = io.BytesIO()
        figures = np.array(table, np.float64).reshape(len(rows), len(COLUMNS))
        np.save(sink, np.hstack([figures, *(one for one in notes if one is not None)]))
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
            "it holds the rows of another sweep: "
            "other candles, combinations, account, code or libraries",
            field="resume",
            value=str(folder),
            expected="the folder of this very sweep",
            remedy="Name another folder, or remove this one.",
        )
    return KeptRows(folder)


def _figures(values: Sequence[float]) -> Metrics:
    figures = Metrics._make(values)
    return figures._replace(trades=int(figures.trades))
