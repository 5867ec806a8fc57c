"""What a command says: tables for people, or one JSON document for machines.

Results go to standard output; progress, notices and errors to standard error. In JSON, times are
ISO 8601 in UTC and a number that is not finite is null.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "answer",
    "busy",
    "counted",
    "emit",
    "moment",
    "notice",
    "plain",
    "progress",
    "since",
    "table",
]

# Wide enough that a pipe or a file never gets a table with its cells cut.
PIPE_COLUMNS = 1000

Advance = Callable[[int, int], None]


def plain(value: Any) -> Any:
    """``value`` as JSON knows it: mappings, lists, text, finite numbers, true, false, null.

    Takes dataclasses, enums, paths and numpy's scalars too. Times are for the caller to write with
    ``moment``: here a whole number is a number.
    """
    match value:
        case None | bool() | str() if not isinstance(value, Enum):
            return value
        case Enum():
            return value.value
        case int():
            return int(value)
        case float():
            return float(value) if math.isfinite(value) else None
        case Mapping():
            return {str(key): plain(one) for key, one in value.items()}
        case Path():
            return str(value)
        case _ if dataclasses.is_dataclass(value):
            names = [field.name for field in dataclasses.fields(value)]
            return {name: plain(getattr(value, name)) for name in names}
        case Iterable():
            return [plain(one) for one in value]
        case _ if hasattr(value, "item"):
            return plain(value.item())
        case _:
            return str(value)


def moment(ts: int | None) -> str | None:
    """A time in milliseconds as ISO 8601 in UTC; None stays None."""
    from research.candles import iso

    return None if ts is None else iso(ts)


def counted(number: int, noun: str) -> str:
    """``1 slot``, ``2 slots``, ``35,063 bars``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def since(ts: int) -> str:
    """From when something holds, in words; 0 is the time of books that no bar has reached."""
    return "the first bar" if ts == 0 else str(moment(ts))


def emit(document: Any) -> None:
    """Print ``document`` as JSON on standard output."""
    click.echo(json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False))


def answer(as_json: bool, document: Any, *shown: str | Table) -> None:
    """The one answer of a command: ``document`` for a machine, ``shown`` for a person."""
    if as_json:
        emit(document)
        return
    for one in shown:
        if isinstance(one, str):
            click.echo(one)
        else:
            _console().print(one)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> Table:
    """A table; the title of a column that begins with ``>`` is set flush right. None shows as -."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        side: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        made.add_column(column.lstrip(">"), justify=side, overflow="fold")
    for row in rows:
        # Text, since a reason that a person typed may look like rich's own markup.
        made.add_row(*(Text("-" if one is None else str(one)) for one in row))
    return made


def notice(text: str) -> None:
    """Something to know that is no result, on standard error."""
    click.echo(text, err=True)


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Show on a terminal that something is under way; silent elsewhere."""
    if not sys.stderr.isatty():
        yield
        return
    with _console(stderr=True).status(what):
        yield


@contextmanager
def progress(what: str, unit: str) -> Iterator[Advance]:
    """A bar on a terminal, silent elsewhere. Yields ``advance(done, total)``."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    silent = not sys.stderr.isatty()
    with Progress(
        *columns,
        console=_console(stderr=True),
        transient=True,
        disable=silent,
        redirect_stdout=False,
    ) as bar:
        task = bar.add_task(what, total=None, rate="")
        started = time.monotonic()

        def advance(done: int, total: int) -> None:
            rate = done / max(time.monotonic() - started, 1e-9)
            bar.update(task, completed=done, total=total, rate=f"{rate:,.0f} {unit}/s")

        yield advance


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_COLUMNS
    return Console(file=stream, width=width, highlight=False, emoji=False)
