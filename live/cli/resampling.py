"""The commands `candlebook history resample` and `compare`: longer bars out of shorter ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from live.cli.inventory import (
    accepted_document,
    accepted_text,
    revision_document,
    revision_lines,
    totals_document,
    totals_of,
    totals_table,
)
from live.cli.options import Project, json_option, pass_project
from live.cli.output import answer, busy, moment, notice, table
from research.errors import CandlebookError, DataError, HistoryMissing

if TYPE_CHECKING:
    from research.resampling import Difference

__all__ = ["compare", "resample"]

SHOWN = 20


@click.command()
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@click.option("--from", "finer", required=True, help="The stored timeframe, such as 1m.")
@click.option("--to", "longer", required=True, help="The longer one, such as 4h.")
@json_option
@pass_project
def resample(
    project: Project, symbols: tuple[str, ...], finer: str, longer: str, as_json: bool
) -> None:
    """Make bars of a longer timeframe out of stored ones, and store them.

    Bars that are stored already stay. A first or last bar that the shorter ones do not cover is
    left out; nothing is filled in. Gaps that are accepted in the shorter series are accepted in
    the longer one, where bars of it are missing.
    """
    from research.history import Series
    from research.resampling import store_resampled

    exchange, done = project.settings.exchange, []
    try:
        with busy(f"resampling {finer} to {longer}"):
            for one in symbols:
                series = Series(exchange, one, finer)
                done.append(store_resampled(project.history, series, longer))
    except CandlebookError:
        if done:
            notice(f"Stored before this one: {', '.join(str(one.report.series) for one in done)}.")
        raise
    totals = totals_of(one.report for one in done)
    accepted = [(one.report.series, gap) for one in done for gap in one.accepted]
    revisions = [
        (one.report.series, each)
        for one in done
        for each in (*one.report.revisions, *one.report.kept_out)
    ]
    document = {
        "series": totals_document(totals),
        "accepted_gaps": [accepted_document(one) for one in accepted],
        "restated": [revision_document(one) for one in revisions],
    }
    said = [*accepted_text(accepted, f"the {finer} series"), *revision_lines(revisions)]
    answer(as_json, document, totals_table(totals), *said)


@click.command()
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@click.option("--from", "finer", required=True, help="The stored timeframe to resample.")
@click.option("--to", "longer", required=True, help="The stored timeframe to compare with.")
@json_option
@pass_project
def compare(
    project: Project, symbols: tuple[str, ...], finer: str, longer: str, as_json: bool
) -> None:
    """Check that shorter bars make up the exchange's own longer ones, bit for bit.

    Exit code 3 where they do not: then one of the two series was restated, or lacks candles.
    """
    import numpy as np

    from research.history import Series
    from research.resampling import find_differences
    from research.resampling import resample as resampled

    exchange, found = project.settings.exchange, []
    for symbol in symbols:
        made = resampled(project.history.read(exchange, symbol, finer), longer)
        own = project.history.read(exchange, symbol, longer)
        common = int(np.isin(made.ts, own.ts).sum())
        if not common:  # nothing compared is nothing shown
            series = Series(exchange, symbol, longer)
            raise HistoryMissing(
                f"no bar of it can be made from {finer}, so there is nothing to compare",
                field=str(series),
                remedy=f"Store both over the same time: {series.fetch_command}",
            )
        found.append((symbol, common, find_differences(made, own)))
    document = {
        "series": [
            {"symbol": symbol, "bars": bars, "differences": len(differences)}
            | {"first_differences": [_document(one) for one in differences[:SHOWN]]}
            for symbol, bars, differences in found
        ]
    }
    rows = [(symbol, f"{bars:,}", f"{len(differences):,}") for symbol, bars, differences in found]
    told = [f"{symbol} {one}" for symbol, _, differences in found for one in differences[:SHOWN]]
    heads = ("symbol", f">bars of {longer} compared", ">values that differ")
    answer(as_json, document, table(heads, rows), *told)
    if any(differences for *_, differences in found):
        click.get_current_context().exit(DataError.exit_code)


def _document(one: Difference) -> dict[str, Any]:
    return {"open_time": moment(one.ts), "column": one.column} | {
        "resampled": one.ours,
        "stored": one.theirs,
    }
