"""How the store of candles is shown: the table of series, their gaps, what came again or late.

Takes what ``research.history`` reports and gives tables, lines and JSON documents; reads nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from live.cli.output import moment, table

if TYPE_CHECKING:
    from rich.table import Table

    from research.candles import Defect, Gap
    from research.history import AppendReport, SeriesInfo
    from research.history_manifest import Revision, Series

__all__ = [
    "accepted_document",
    "accepted_text",
    "defect_lines",
    "exchanges_text",
    "gap_document",
    "gap_lines",
    "inventory_table",
    "listed",
    "placed",
    "revision_document",
    "revision_lines",
    "series_document",
    "totals_document",
    "totals_of",
    "totals_table",
]

AT_MOST = 10
VALUES = ("open", "high", "low", "close", "volume")


def listed(counts: dict[Any, int]) -> str:
    """``2 open, 1 accepted``; ``none`` where there is nothing to count."""
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items()) or "none"


# What is stored


def inventory_table(infos: Sequence[SeriesInfo]) -> Table:
    """One line a series: rows, range, gaps, candles without trades, when it was last asked for.

    At most 120 columns wide for names as they come (binance_2021/BTCUSDT/15m). What was restated or
    kept out is told below it, by ``revision_lines``.
    """
    columns = ("series", ">rows", "from", "last open", "gaps", ">no trades", "last refresh")
    rows = [
        (
            *(str(one.series), f"{one.rows:,}", str(moment(one.first))[:10], moment(one.last)),
            *(_gaps_text(one), _silent_text(one), _to_the_minute(one.last_refresh)),
        )
        for one in infos
    ]
    return table(columns, rows)


def _gaps_text(info: SeriesInfo) -> str:
    counts = {"open": len(info.gaps), "accepted": len(info.accepted_gaps)}
    return listed({name: count for name, count in counts.items() if count})


def _silent_text(info: SeriesInfo) -> str:
    """Candles without trades: the only ones that are odd and may be stored."""
    return f"{sum(count for kind, count in info.defects.items() if kind != 'gap'):,}"


def _to_the_minute(ts: int | None) -> str | None:
    return None if ts is None else moment(ts // 60_000 * 60_000)


def series_document(info: SeriesInfo) -> dict[str, Any]:
    """All that is known of a series, for machines."""
    return {
        "exchange": info.series.exchange,
        "symbol": info.series.symbol,
        "timeframe": info.series.timeframe,
        "rows": info.rows,
        "first": moment(info.first),
        "last": moment(info.last),
        "gaps": [gap_document(gap) for gap in info.gaps],
        "accepted_gaps": [gap_document(gap) for gap in info.accepted_gaps],
        "defects": {kind.value: count for kind, count in info.defects.items()},
        "revisions": info.revisions,
        "kept_out": info.kept_out,
        "size_bytes": info.size_bytes,
        "sources": list(info.sources),
        "last_refresh": moment(info.last_refresh),
    }


# Gaps


def placed(series: Series, gap: Gap) -> str:
    """A gap with the exchange and timeframe that it is of."""
    return f"{series.exchange} {series.timeframe} {gap}"


def gap_document(gap: Gap) -> dict[str, Any]:
    """A gap for machines; its name is null where nobody has accepted it."""
    ends = {"start": moment(gap.start), "end": moment(gap.end)}
    return {"symbol": gap.symbol, **ends, "name": gap.name or None}


def accepted_document(one: tuple[Series, Gap]) -> dict[str, Any]:
    """A gap for machines, with the exchange and timeframe that it is of."""
    series, gap = one
    return {"exchange": series.exchange, "timeframe": series.timeframe} | gap_document(gap)


def gap_lines(infos: Sequence[SeriesInfo]) -> list[str]:
    """The gaps that nobody has accepted, for a backtest refuses them."""
    gaps = [placed(one.series, gap) for one in infos for gap in one.gaps]
    return _lines("Gaps that nobody has accepted (candlebook history accept-gap):", gaps)


def _lines(head: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    more = [f"  and {len(items) - AT_MOST:,} more"] if len(items) > AT_MOST else []
    return ["\n".join([head, *(f"  {one}" for one in items[:AT_MOST]), *more])]


def accepted_text(
    accepted: Sequence[tuple[Series, Gap]], known_from: str = "params/known_gaps.yaml"
) -> list[str]:
    """The gaps that were accepted just now, since people know of the outage; none says nothing."""
    lines = [placed(series, gap) for series, gap in accepted]
    return _lines(f"Accepted as known outages, from {known_from}:", lines)


def defect_lines(defects: Sequence[tuple[Series, Defect]]) -> list[str]:
    """What is odd about candles that are new, but for gaps, which ``gap_lines`` tells."""
    lines = [f"{series} {one}" for series, one in defects if one.kind.value != "gap"]
    return _lines("Odd but true:", lines)


def exchanges_text(infos: Sequence[SeriesInfo], used: str) -> list[str]:
    """Which exchanges came, where one did that no backtest reads."""
    counts = Counter(one.series.exchange for one in infos)
    if set(counts) <= {used}:
        return []
    named = ", ".join(f"{name} ({number} series)" for name, number in sorted(counts.items()))
    return [f"Exchanges: {named}. Backtests read {used}, the exchange of the settings."]


# What came again, or too late


def revision_lines(revisions: Sequence[tuple[Series, Revision]]) -> list[str]:
    """Candles that were restated, and those that came for an accepted gap; neither is read."""
    restated = [
        f"{series} {moment(one.ts)}: {_changes(one)}"
        for series, one in revisions
        if one.first_seen is not None
    ]
    late = [
        f"{series} {moment(one.ts)}: close {one.later[3]!r}"
        for series, one in revisions
        if one.first_seen is None
    ]
    return [
        *_lines("Restated later; the row that was seen first stays:", restated),
        *_lines("Came after their bar was accepted as missing, and were kept out:", late),
    ]


def _changes(one: Revision) -> str:
    """``close 1.5 -> 1.6, volume 3.0 -> 4.0``."""
    pairs = zip(VALUES, one.first_seen or (), one.later, strict=True)
    return ", ".join(f"{name} {a!r} -> {b!r}" for name, a, b in pairs if a != b)


def revision_document(one: tuple[Series, Revision]) -> dict[str, Any]:
    """The same for machines; ``first_seen`` is null where the bar was accepted as missing."""
    series, revision = one
    return {
        "series": str(series),
        "open_time": moment(revision.ts),
        "first_seen": _by_name(revision.first_seen),
        "later": _by_name(revision.later),
        "at": moment(revision.at),
    }


def _by_name(values: Sequence[float] | None) -> dict[str, float] | None:
    return None if values is None else dict(zip(VALUES, values, strict=True))


# What was appended

COUNTS = ("rows_added", "already_there", "revised", "kept_out")


def totals_of(reports: Iterable[AppendReport]) -> dict[str, dict[str, Any]]:
    """What was done, summed by series."""
    totals: dict[str, dict[str, Any]] = {}
    for one in reports:
        empty: dict[str, Any] = dict.fromkeys(COUNTS, 0) | {"new_defects": Counter()}
        sums = totals.setdefault(str(one.series), empty)
        counts = (one.rows_added, one.already_there, len(one.revisions), len(one.kept_out))
        for name, count in zip(COUNTS, counts, strict=True):
            sums[name] += count
        sums["new_defects"] += Counter(defect.kind.value for defect in one.defects)
    return totals


def totals_document(totals: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The same for machines."""
    return [{"series": name, **counts} for name, counts in totals.items()]


def totals_table(totals: dict[str, dict[str, Any]]) -> Table:
    """The same for people; a column for what was kept out only where something was."""
    late = any(sums["kept_out"] for sums in totals.values())
    names = COUNTS if late else COUNTS[:-1]
    heads = {"rows_added": "added"}
    columns = [f">{heads.get(name, name.replace('_', ' '))}" for name in names]
    rows = [
        (series, *(f"{sums[name]:,}" for name in names), listed(sums["new_defects"]))
        for series, sums in totals.items()
    ]
    return table(("series", *columns, "new defects"), rows)
