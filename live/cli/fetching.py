"""A fetch that asks the exchange only for what the store lacks, and goes on where it stopped.

Times are opens in UTC milliseconds, ranges ``[start, end)``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from live.cli.output import notice
from research.candles import DAY, iso, timeframe_ms
from research.errors import CandlebookError, InputError

if TYPE_CHECKING:
    from research.exchange import MarketData
    from research.history import History, Series
    from research.history_manifest import Manifest

__all__ = ["Fetched", "fetch_series"]

DEFAULT_DAYS = 365


@dataclass(frozen=True)
class Fetched:
    """What one fetch brought."""

    series: Series
    added: int
    already_there: int
    revised: int
    seconds: float

    def __str__(self) -> str:
        rate = self.added / max(self.seconds, 1e-9)
        revised = f", {self.revised} revised" if self.revised else ""
        return (
            f"{self.series}: {self.added:,} candles added{revised} in {self.seconds:.1f} s "
            f"({rate:,.0f}/s)"
        )


def fetch_series(
    history: History,
    market: MarketData,
    named: tuple[str, str],
    span: tuple[int | None, int | None],
    advance: Callable[[int, int], None],
) -> Fetched:
    """Store what ``research.fetching.lacking`` names; every page is kept as soon as it is there.

    ``named`` is symbol and timeframe, ``span`` first open and end (None: the first stored or a
    year ago; now). ``advance`` is told how many of how many bars are behind. Raises InputError,
    ExchangeError, CandlesRejected; pages before the error stay stored.
    """
    from research.fetching import lacking, manifest_of, top_up
    from research.history import Series

    started = time.monotonic()
    series, bar_ms = Series(market.exchange, *named), timeframe_ms(named[1])
    manifest = manifest_of(history, series)
    now = market.server_time()
    # No candle that opens later has closed by the exchange's clock.
    closed = now - now % bar_ms
    since = span[0] if span[0] is not None else _default_since(manifest, closed)
    until = closed if span[1] is None else min(span[1], closed)
    if since >= until:
        raise InputError(
            field="--since", value=iso(since), expected=f"a time before {iso(until)}, UTC"
        )
    ranges = lacking(manifest, since, until)
    total = sum(-(-(end - start) // bar_ms) for start, end in ranges)
    added = there = revised = 0
    try:
        for reached, report in top_up(history, market, series, (since, until), now):
            added, there = added + report.rows_added, there + report.already_there
            revised += len(report.revisions)
            behind = sum(min(reached, end) - start for start, end in ranges if start < reached)
            advance(behind // bar_ms, total)
    except CandlebookError:
        if added:
            notice(f"{added:,} candles are stored; the same command goes on from there.")
        raise
    return Fetched(series, added, there, revised, time.monotonic() - started)


def _default_since(manifest: Manifest | None, closed: int) -> int:
    return closed - DEFAULT_DAYS * DAY if manifest is None else manifest.months[0].first
