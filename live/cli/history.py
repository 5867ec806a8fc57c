"""The commands `candlebook history ...`: fill the Parquet store, look at it, check it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from live.cli.options import Project, json_option, me, pass_project, time_option, who_option
from live.cli.output import answer, busy, counted, moment, notice, progress, table
from research.errors import CandlebookError, DataError, InputError

if TYPE_CHECKING:
    from research.candles import Defect, Gap
    from research.history import AppendReport, SeriesInfo
    from research.history_manifest import Series

__all__ = ["history"]

KNOWN_GAPS = "params/known_gaps.yaml"
READABLE = (".parquet", ".csv", ".zip")


@click.group()
def history() -> None:
    """Fill the store of candles, look at it, and check it."""


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
    accepted = _accept_known(project)
    totals = _totals(reports)
    infos = [one for one in project.history.inventory() if str(one.series) in totals]
    document = {
        "files": len(reports),
        "series": [{"series": name, **counts} for name, counts in totals.items()],
        "accepted_gaps": [_accepted(one) for one in accepted],
        "open_gaps": [_accepted((one.series, gap)) for one in infos for gap in one.gaps],
    }
    columns = ("series", ">added", ">already there", ">revised", "new defects")
    rows = [(name, *_counts(counts)) for name, counts in totals.items()]
    said = [_accepted_text(accepted)] if accepted else []
    said += [*_gap_lines(infos), *_exchanges_text(infos, project.settings.exchange)]
    answer(as_json, document, table(columns, rows), *said)


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


def _totals(reports: Iterable[AppendReport]) -> dict[str, dict[str, Any]]:
    """What was done, summed by series."""
    totals: dict[str, dict[str, Any]] = {}
    for one in reports:
        sums = totals.setdefault(
            str(one.series),
            {"rows_added": 0, "already_there": 0, "revised": 0, "new_defects": Counter()},
        )
        sums["rows_added"] += one.rows_added
        sums["already_there"] += one.already_there
        sums["revised"] += len(one.revisions)
        sums["new_defects"] += _kinds(one.defects)
    return totals


def _kinds(defects: Iterable[Defect]) -> Counter[str]:
    return Counter(one.kind.value for one in defects)


def _counts(sums: dict[str, Any]) -> tuple[str, ...]:
    numbers = (f"{sums[name]:,}" for name in ("rows_added", "already_there", "revised"))
    return (*numbers, _listed(sums["new_defects"]))


def _listed(counts: dict[Any, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items()) or "none"


# Known outages


def _accept_known(project: Project) -> list[tuple[Series, Gap]]:
    """Accept the outages that the project's file lists; where there is no file, none."""
    from research.known_gaps import accept_known_gaps, load_known_gaps

    file = project.settings.root / KNOWN_GAPS
    if not file.exists():
        return []
    before = {one.series: one.accepted_gaps for one in project.history.inventory()}
    accept_known_gaps(project.history, load_known_gaps(file))
    return [
        (one.series, gap)
        for one in project.history.inventory()
        for gap in one.accepted_gaps
        if gap not in before.get(one.series, ())
    ]


def _accepted_text(gaps: Sequence[tuple[Series, Gap]]) -> str:
    lines = "\n".join(f"  {_placed(series, gap)}" for series, gap in gaps)
    return f"Accepted as known outages, from {KNOWN_GAPS}:\n{lines}"


def _placed(series: Series, gap: Gap) -> str:
    return f"{series.exchange} {series.timeframe} {gap}"


def _accepted(one: tuple[Series, Gap]) -> dict[str, Any]:
    series, gap = one
    return {"exchange": series.exchange, "timeframe": series.timeframe} | _gap(gap)


def _exchanges_text(infos: Sequence[SeriesInfo], used: str) -> list[str]:
    """Which exchanges came, where one did that no backtest reads."""
    counts = Counter(one.series.exchange for one in infos)
    if set(counts) <= {used}:
        return []
    named = ", ".join(f"{name} ({number} series)" for name, number in sorted(counts.items()))
    return [f"Exchanges: {named}. Backtests read {used}, the exchange of the settings."]


def _gap(gap: Gap) -> dict[str, Any]:
    ends = {"start": moment(gap.start), "end": moment(gap.end)}
    return {"symbol": gap.symbol, **ends, "name": gap.name or None}


# Fetch


@history.command()
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

    Closed candles only. It goes on where an earlier fetch stopped, asks for missing bars once
    more, and reports what is odd about the series afterwards. Known outages are accepted as by
    import.
    """
    from live.cli.fetching import fetch_series
    from research.exchange import MarketData

    settings = project.settings
    market = MarketData(settings.exchange, settings.exchange_url)
    chosen = timeframe or settings.timeframe
    done = []
    for symbol in symbols:
        with progress(f"{symbol} {chosen}", "candles") as advance:
            done.append(
                fetch_series(project.history, market, (symbol, chosen), (since, until), advance)
            )
        notice(str(done[-1]))
    accepted = _accept_known(project)
    stored = {info.series: info for info in project.history.inventory()}
    infos = [stored[one.series] for one in done if one.series in stored]
    document = {
        "series": [
            {"rows_added": one.added, "already_there": one.already_there, "revised": one.revised}
            | {"seconds": round(one.seconds, 3)}
            | (_info(stored[one.series]) if one.series in stored else {"rows": 0})
            for one in done
        ],
        "accepted_gaps": [_accepted(one) for one in accepted],
    }
    said = [_accepted_text(accepted)] if accepted else []
    answer(as_json, document, _inventory_table(infos), *_gap_lines(infos), *said)


# Show, verify, accept


@history.command()
@json_option
@pass_project
def show(project: Project, as_json: bool) -> None:
    """What is stored: ranges, gaps, defects, revisions."""
    infos = project.history.inventory()
    document = {"series": [_info(one) for one in infos]}
    if not infos:
        empty = "Nothing is stored yet. `candlebook history fetch` or `history import` fills it."
        answer(as_json, document, empty)
        return
    answer(as_json, document, _inventory_table(infos), *_gap_lines(infos))


def _inventory_table(infos: Sequence[SeriesInfo]) -> Any:
    columns = ("series", ">rows", "from", "last open", "gaps", "odd rows")
    rows = [
        (
            *(str(one.series), f"{one.rows:,}", str(moment(one.first))[:10], moment(one.last)),
            *(_gaps_text(one), _odd_text(one)),
        )
        for one in infos
    ]
    return table(columns, rows)


def _gaps_text(info: SeriesInfo) -> str:
    counts = {"open": len(info.gaps), "accepted": len(info.accepted_gaps)}
    return _listed({name: count for name, count in counts.items() if count})


def _odd_text(info: SeriesInfo) -> str:
    """Defects that are no gap, and candles that the exchange restated; the first-seen row stays."""
    counts = {kind.value: count for kind, count in info.defects.items() if kind != "gap"}
    return _listed(counts | ({"restated": info.revisions} if info.revisions else {}))


def _gap_lines(infos: Sequence[SeriesInfo], at_most: int = 10) -> list[str]:
    """The gaps that nobody has accepted, for a backtest refuses them."""
    gaps = [f"  {_placed(one.series, gap)}" for one in infos for gap in one.gaps]
    if not gaps:
        return []
    more = [f"  and {len(gaps) - at_most:,} more"] if len(gaps) > at_most else []
    head = "Gaps that nobody has accepted (candlebook history accept-gap):"
    return ["\n".join([head, *gaps[:at_most], *more])]


def _info(info: SeriesInfo) -> dict[str, Any]:
    return {
        "exchange": info.series.exchange,
        "symbol": info.series.symbol,
        "timeframe": info.series.timeframe,
        "rows": info.rows,
        "first": moment(info.first),
        "last": moment(info.last),
        "gaps": [_gap(gap) for gap in info.gaps],
        "accepted_gaps": [_gap(gap) for gap in info.accepted_gaps],
        "defects": {kind.value: count for kind, count in info.defects.items()},
        "revisions": info.revisions,
        "size_bytes": info.size_bytes,
        "sources": list(info.sources),
        "last_refresh": moment(info.last_refresh),
    }


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
    answer(as_json, {"accepted": _gap(gap)}, f"Accepted: {gap}")
