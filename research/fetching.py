"""Fills the store from the exchange: asks for what is lacking, keeps every page at once.

Times are opens in UTC milliseconds, ranges ``[start, end)``.
"""

from __future__ import annotations

from collections.abc import Iterator

from research.candles import Candles, timeframe_ms
from research.errors import HistoryMissing
from research.exchange import MarketData
from research.history import AppendReport, History, Series
from research.history_manifest import Manifest

__all__ = ["Range", "lacking", "manifest_of", "top_up"]

Range = tuple[int, int]

# So many of the last stored candles are asked for again, to notice what was restated.
OVERLAP_BARS = 5


def manifest_of(history: History, series: Series) -> Manifest | None:
    """What is on record about a series, None where nothing is stored."""
    try:
        return history.manifest(series.exchange, series.symbol, series.timeframe)
    except HistoryMissing:
        return None


def lacking(manifest: Manifest | None, since: int, until: int) -> list[Range]:
    """What to ask for, in order of time: all that is missing in ``[since, until)``.

    Gaps that nobody has accepted are asked for again, and so are the last OVERLAP_BARS bars, so
    that a candle that was restated is noticed.
    """
    if manifest is None:
        return [(since, until)] if since < until else []
    first, last = manifest.months[0].first, manifest.months[-1].last
    overlap = max(first, last - (OVERLAP_BARS - 1) * timeframe_ms(manifest.series.timeframe))
    holes = [(gap.start, min(gap.end, overlap)) for gap in manifest.open_gaps()]
    wanted = [(since, first), *holes, (overlap, until)]
    cut = [(max(start, since), min(end, until)) for start, end in wanted]
    return [(start, end) for start, end in cut if start < end]


def top_up(
    history: History, market: MarketData, series: Series, span: Range, now: int
) -> Iterator[tuple[int, AppendReport]]:
    """Fetch what ``span`` lacks and store it; yields each page's end and report.

    Only candles that had closed at ``now`` (the exchange's clock) are stored. Raises ExchangeError,
    CandlesRejected; pages before the error stay stored.
    """
    manifest, bar_ms = manifest_of(history, series), timeframe_ms(series.timeframe)
    last = -1 if manifest is None else manifest.months[-1].last
    for start, end in lacking(manifest, *span):
        # With its neighbours, against which its first and last candle are judged. What another
        # process has stored since is not asked for.
        first, stop = start - bar_ms, min(end + bar_ms, max(span[1], end))
        stored = _stored(history, series, first, min(stop, last + 1))
        begin = start if stored is None else min(start, int(stored.ts[0]))
        address = (series.symbol, series.timeframe, begin, stop)
        for page in market.closed_candles(*address, stored, now):
            closed = page.closed_by(now)
            if len(closed):
                report = history.append(series.exchange, closed, series.exchange, now)
                yield int(closed.ts[-1]) + closed.bar_ms, report


def _stored(history: History, series: Series, start: int, end: int) -> Candles | None:
    """The stored candles in ``[start, end)``; None where there are none."""
    try:
        return history.read(series.exchange, series.symbol, series.timeframe, start, end)
    except HistoryMissing:
        return None
