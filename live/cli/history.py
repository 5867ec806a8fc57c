"""The commands `candlebook history ...`: fill the Parquet store, look at it, check it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from live.cli.fetching import fetch
from live.cli.inventory import (
    accepted_document,
    accepted_text,
    exchanges_text,
    gap_document,
    gap_lines,
    inventory_table,
    revision_document,
    revision_lines,
    series_document,
    totals_document,
    totals_of,
    totals_table,
)
from live.cli.known_gaps import accept_known
from live.cli.options import Project, json_option, me, pass_project, time_option, who_option
from live.cli.output import answer, busy, counted, notice, progress
from live.cli.resampling import compare, resample
from research.errors import CandlebookError, DataError, InputError

if TYPE_CHECKING:
    from research.history import AppendReport, SeriesInfo
    from research.history_manifest import Revision

__all__ = ["history"]

READABLE = (".parquet", ".csv", ".zip")


@click.group()
def history() -> None:
    """Fill the store of candles, look at it, and check it."""


for _command in (fetch, resample, compare):
    history.add_command(_command)


# Import


@dataclass(frozen=True)
class _Origin:
    """What the options say about files whose names do not tell."""

    symbol: str | None
    timeframe: str | None
    exchange: str | None


@history.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--symbol", help="The symbol, where a file's name does not tell it.")
@click.option("--timeframe", help="The timeframe, where a file's name does not tell it.")
@click.option("--exchange", help="The exchange of single files (default: that of the settings).")
@json_option
@pass_project
def import_(project: Project, paths: tuple[Path, ...], as_json: bool, **origin: Any) -> None:
    """Take candles from Parquet or Binance archive files.

    Files end in .parquet, .csv or .zip. A folder is either a tree like binance/BTCUSDT/1h.parquet,
    of which --symbol and --timeframe choose a part, or a heap of such files. Outages that
    params/known_gaps.yaml lists are then accepted for what is stored. The same candles again
    change nothing.
    """
    reports: list[AppendReport] = []
    try:
        for path in paths:
            _import_path(project, path, _Origin(**origin), reports.append)
    except CandlebookError:
        if reports:
            notice(f"Stored before this one: {counted(len(reports), 'file')}.")
        raise
    accepted = accept_known(project)
    totals = totals_of(reports)
    infos = [one for one in project.history.inventory() if str(one.series) in totals]
    revisions = [
        (one.series, revision) for one in reports for revision in (*one.revisions, *one.kept_out)
    ]
    document = {
        "files": len(reports),
        "series": totals_document(totals),
        "accepted_gaps": [accepted_document(one) for one in accepted],
        "open_gaps": [accepted_document((one.series, gap)) for one in infos for gap in one.gaps],
        "restated": [revision_document(one) for one in revisions],
    }
    said = [*accepted_text(accepted), *gap_lines(infos), *revision_lines(revisions)]
    said += exchanges_text(infos, project.settings.exchange)
    answer(as_json, document, totals_table(totals), *said)


Keep = Callable[["AppendReport"], None]


def _import_path(project: Project, path: Path, origin: _Origin, keep: Keep) -> None:
    """Import a file, a heap or a tree; ``keep`` is handed the report of each file."""
    from research.history_import import import_file

    files = _files_in(path)
    if not files:
        _import_tree(project, path, origin, keep)
        return
    exchange = origin.exchange or project.settings.exchange
    with progress(f"importing {path.name}", "files") as advance:
        for done, file in enumerate(files, start=1):
            keep(import_file(project.history, file, origin.symbol, origin.timeframe, exchange))
            advance(done, len(files))


def _files_in(path: Path) -> list[Path]:
    """``path`` itself, or the files of a heap; empty for a folder that must be a tree."""
    if not path.is_dir():
        return [path]
    return sorted(one for one in path.iterdir() if one.suffix.lower() in READABLE)


def _import_tree(project: Project, path: Path, origin: _Origin, keep: Keep) -> None:
    from research.history_import import import_folder

    if origin.exchange is not None:
        raise InputError(
            f"{path} is a tree, whose folders name their exchange",
            field="--exchange",
            remedy="Leave it out, or import single files.",
        )
    symbols = None if origin.symbol is None else [origin.symbol]
    timeframes = None if origin.timeframe is None else [origin.timeframe]
    with progress(f"importing {path.name}", "files") as advance:

        def on_file(done: int, total: int, report: AppendReport) -> None:
            keep(report)
            advance(done, total)

        import_folder(project.history, path, symbols, timeframes, on_file)


# Show, verify, accept


@history.command()
@json_option
@pass_project
def show(project: Project, as_json: bool) -> None:
    """What is stored: ranges, gaps, defects, revisions."""
    infos = project.history.inventory()
    revisions = [(one.series, revision) for one in infos for revision in _revisions(project, one)]
    document = {
        "series": [series_document(one) for one in infos],
        "restated": [revision_document(one) for one in revisions],
    }
    if not infos:
        empty = "Nothing is stored yet. `candlebook history fetch` or `history import` fills it."
        answer(as_json, document, empty)
        return
    said = [*gap_lines(infos), *revision_lines(revisions)]
    answer(as_json, document, inventory_table(infos), *said)


def _revisions(project: Project, info: SeriesInfo) -> tuple[Revision, ...]:
    if not info.revisions and not info.kept_out:
        return ()
    one = info.series
    return project.history.manifest(one.exchange, one.symbol, one.timeframe).revisions


@history.command()
@click.option("--exchange", help="Only this exchange.")
@click.option("--symbol", help="Only this symbol.")
@click.option("--timeframe", help="Only this timeframe.")
@json_option
@pass_project
def verify(project: Project, as_json: bool, **chosen: str | None) -> None:
    """Read every stored byte and check it.

    Exit code 3 where something is wrong.
    """
    store = project.history
    with busy("reading every file"):
        problems = store.verify(**chosen)
    document = {
        "sound": not problems,
        "problems": [
            {"series": str(one.series), "file": one.file, "what": one.what} for one in problems
        ],
    }
    said = "\n".join(map(str, problems)) or "Sound: every file is what was written."
    answer(as_json, document, said)
    if problems:
        click.get_current_context().exit(DataError.exit_code)


@history.command("accept-gap")
@click.argument("symbol")
@click.option("--timeframe", required=True)
@time_option("--start", required=True, help="The first missing open, UTC.")
@time_option("--end", required=True, help="The first open that is there again, UTC.")
@click.option("--name", required=True, help="A name for it: a-z, 0-9 and _.")
@click.option("--why", required=True, help="Why the bars are missing, in words.")
@click.option("--exchange", help="Default: that of the settings.")
@who_option
@json_option
@pass_project
def accept_gap(project: Project, as_json: bool, **asked: Any) -> None:
    """Accept by name that bars are missing.

    Backtests and paper runs then go on over the gap; nothing is filled in.
    """
    who, exchange = me(asked.pop("who")), asked.pop("exchange")
    gap = project.history.accept_gap(exchange or project.settings.exchange, who=who, **asked)
    answer(as_json, {"accepted": gap_document(gap)}, f"Accepted: {gap}")
