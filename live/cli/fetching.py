"""The command `candlebook history fetch`: asks for what the store lacks, goes on where it stopped.

Times are opens in UTC milliseconds, ranges ``[start, end)``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from live.cli.inventory import (
    accepted_document,
    accepted_text,
    defect_lines,
    gap_lines,
    inventory_table,
    revision_document,
    revision_lines,
    series_document,
)
from live.cli.known_gaps import accept_known
from live.cli.options import Project, json_option, pass_project, time_option
from live.cli.output import answer, counted, moment, notice, progress
from research.errors import CandlebookError, CandlesRejected, ExchangeError, InputError

if TYPE_CHECKING:
    from research.candles import Defect
    from research.exchange import MarketData
    from research.history import AppendReport, History, Series, SeriesInfo
    from research.history_manifest import Manifest, Revision

__all__ = ["fetch"]

DEFAULT_DAYS = 365
# A fetch may wait for the next minute's share of questions, or out a short ban.
PATIENCE_S = 150.0


@dataclass(frozen=True)
class Fetched:
    """What one series' fetch brought; ``span`` is what was asked for, cut at the last close."""

    series: Series
    span: tuple[int, int]
    reports: tuple[AppendReport, ...]
    seconds: float

    @property
    def added(self) -> int:
        return sum(one.rows_added for one in self.reports)

    @property
    def already_there(self) -> int:
        return sum(one.already_there for one in self.reports)

    @property
    def revisions(self) -> list[tuple[Series, Revision]]:
        """Candles that came with other values, or for bars that were accepted as missing."""
        return [
            (self.series, revision)
            for one in self.reports
            for revision in (*one.revisions, *one.kept_out)
        ]

    @property
    def defects(self) -> list[tuple[Series, Defect]]:
        """Gaps and odd candles that the stored series did not have before."""
        return [(self.series, defect) for one in self.reports for defect in one.defects]

    def __str__(self) -> str:
        rate = (self.added + self.already_there) / max(self.seconds, 1e-9)
        revised = f", {len(self.revisions)} restated" if self.revisions else ""
        return (
            f"{self.series}: {self.added:,} candles added{revised} in {self.seconds:.1f} s "
            f"({rate:,.0f}/s)"
        )


@click.command()
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@click.option("--timeframe", help="1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d (default: settings).")
@time_option("--since", help="First open, UTC (default: the first stored, else a year ago).")
@time_option("--until", help="Up to this open, UTC, exclusive (default: now).")
@json_option
@pass_project
def fetch(
    project: Project,
    symbols: tuple[str, ...],
    timeframe: str | None,
    since: int | None,
    until: int | None,
    as_json: bool,
) -> None:
    """Fetch from the exchange what the store lacks.

    Closed candles only. It goes on where an earlier fetch stopped, asks for missing bars and for
    the last stored ones once more, and reports what is odd: gaps, candles without trades, candles
    that came with other values (the first-seen ones stay). Known outages are accepted as by
    import. Where one symbol's candles are refused, the others are fetched all the same.
    """
    from research.workspace import market_of

    market = market_of(project.settings, PATIENCE_S, _tell_wait)
    chosen = timeframe or project.settings.timeframe
    done: list[Fetched] = []
    refused: list[CandlesRejected] = []
    for symbol in symbols:
        try:
            with progress(f"{symbol} {chosen}", "candles") as advance:
                done.append(
                    _fetch_series(
                        project.history, market, (symbol, chosen), (since, until), advance
                    )
                )
        except CandlesRejected as err:
            refused.append(err)
            notice(f"{symbol} is left as it was: {err}")
            continue
        notice(str(done[-1]))
    accepted = accept_known(project)
    stored = {info.series: info for info in project.history.inventory()}
    short = [line for one in done for line in _short_lines(market, one, stored.get(one.series))]
    document = {
        "series": [_document(one, stored.get(one.series)) for one in done],
        "restated": [revision_document(one) for fetched in done for one in fetched.revisions],
        "accepted_gaps": [accepted_document(one) for one in accepted],
        "refused": [str(err) for err in refused],
        "short": short,
    }
    infos = [stored[one.series] for one in done if one.series in stored]
    said = [
        *gap_lines(infos),
        *defect_lines([defect for one in done for defect in one.defects]),
        *revision_lines([revision for one in done for revision in one.revisions]),
        *accepted_text(accepted),
        *short,
    ]
    answer(as_json, document, inventory_table(infos), *said)
    if refused:
        click.get_current_context().exit(CandlesRejected.exit_code)


def _tell_wait(seconds: float, why: str) -> None:
    notice(f"waiting {seconds:.0f} s: {why}")


def _document(one: Fetched, info: SeriesInfo | None) -> dict[str, Any]:
    counts = {"rows_added": one.added, "already_there": one.already_there}
    counts |= {"revised": len(one.revisions)}
    return (
        counts
        | {"seconds": round(one.seconds, 3)}
        | (series_document(info) if info else {"rows": 0})
    )


def _short_lines(market: MarketData, one: Fetched, info: SeriesInfo | None) -> list[str]:
    """Where the exchange had less than was asked for, and whether it still trades the symbol."""
    if info is None:
        return [f"{one.series}: the exchange has no candle of that time."]
    from research.candles import timeframe_ms

    lines = []
    bar_ms = timeframe_ms(one.series.timeframe)
    if info.first > -(-one.span[0] // bar_ms) * bar_ms:
        lines.append(f"{one.series} begins at {moment(info.first)}: the exchange has none before.")
    if info.last + bar_ms < one.span[1]:
        lines.append(
            f"{one.series} is stale: its last candle opens at {moment(info.last)}, "
            f"{moment(one.span[1] - bar_ms)} was expected. {_status(market, one.series.symbol)}"
        )
    return lines


def _status(market: MarketData, symbol: str) -> str:
    try:
        return f"The exchange lists it as {market.listings([symbol])[symbol].status}."
    except CandlebookError as err:
        return str(err)


def _fetch_series(
    history: History,
    market: MarketData,
    named: tuple[str, str],
    asked: tuple[int | None, int | None],
    advance: Callable[[int, int], None],
) -> Fetched:
    """Store what ``research.fetching.lacking`` names; every page is kept as soon as it is there.

    ``named`` is symbol and timeframe, ``asked`` first open and end (None: the first stored or a
    year ago; now). ``advance`` is told how many of how many bars are behind. Raises InputError,
    ExchangeError, CandlesRejected; pages before the error stay stored.
    """
    from research.candles import iso, timeframe_ms
    from research.fetching import lacking, manifest_of, top_up
    from research.history import Series

    started = time.monotonic()
    series, bar_ms = Series(market.exchange, *named), timeframe_ms(named[1])
    manifest = manifest_of(history, series)
    now = market.server_time()
    # No candle that opens later has closed by the exchange's clock.
    closed = now - now % bar_ms
    since = asked[0] if asked[0] is not None else _default_since(manifest, closed)
    until = closed if asked[1] is None else min(asked[1], closed)
    if since >= until:
        raise InputError(
            field="--since", value=iso(since), expected=f"a time before {iso(until)}, UTC"
        )
    ranges = lacking(manifest, since, until)
    total = sum(-(-(end - start) // bar_ms) for start, end in ranges)
    reports: list[AppendReport] = []
    try:
        for reached, report in top_up(history, market, series, (since, until), now):
            reports.append(report)
            advance(_behind(ranges, reached) // bar_ms, total)
    except (ExchangeError, CandlesRejected):
        added = sum(one.rows_added for one in reports)
        if added:
            notice(f"{counted(added, 'candle')} stored; the same command goes on from there.")
        raise
    return Fetched(series, (since, until), tuple(reports), time.monotonic() - started)


def _behind(ranges: Sequence[tuple[int, int]], reached: int) -> int:
    return sum(min(reached, end) - start for start, end in ranges if start < reached)


def _default_since(manifest: Manifest | None, closed: int) -> int:
    return closed - DEFAULT_DAYS * 86_400_000 if manifest is None else manifest.months[0].first
