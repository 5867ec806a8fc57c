"""The commands `candlebook backtest` and `candlebook sweep`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from live.cli.jobs import Asked, Search, document_of, finer_candles, prepare, run_options
from live.cli.options import Project, grid_option, json_option, pass_project, writes
from live.cli.output import answer, busy, counted, table
from research.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from research.backtesting import Backtest
    from research.search import Sweep

__all__ = ["backtest", "grid_options", "sweep"]

Command = TypeVar("Command", bound=Callable[..., Any])

OUT_FILE = click.Path(dir_okay=False, path_type=Path)
OUT_FOLDER = click.Path(file_okay=False, path_type=Path)
SHOWN = 10


@click.command()
@click.argument("strategy")
@run_options
@click.option("--report", type=OUT_FILE, help="Write the run as one HTML page that works offline.")
@click.option(
    "--audit-stops",
    metavar="TIMEFRAME",
    help="Replay its stops on stored candles of this shorter timeframe, and say what differs.",
)
@json_option
@pass_project
def backtest(
    project: Project, report: Path | None, audit_stops: str | None, as_json: bool, **asked: Any
) -> None:
    """Run STRATEGY over stored candles.

    STRATEGY is a name in params/strategies.yaml, which brings parameters, symbols and timeframe
    with it, or a class or file in research/strategies/. Options overrule both.
    """
    job = prepare(project, Asked(**asked))
    fine = None if audit_stops is None else finer_candles(project, job, audit_stops)
    with busy("running"):
        run = job.backtest()
        said = [repr(run), *_halt_text(run)]
        audit = None if fine is None else run.audit_stops(fine)
        if audit is not None:
            said.append(f"\n{audit!r}")
        if report is not None:
            with writes("--report", report):
                said.append(f"\nReport: {run.report(report)}")
    summary = None if audit is None else audit.summary()
    document = document_of(run) | {"report": report, "stop_audit": summary}
    answer(as_json, document, *said)


def _halt_text(run: Backtest) -> list[str]:
    """How much of the window a run stood still for, if it halted; a table hides that."""
    if run.halted_at is None:
        return []
    closes = run.tape.close_time
    still = int((closes > run.halted_at.timestamp() * 1000).sum())
    text = (
        f"No entry after that: {still / len(closes):.0%} of the window went untraded, and the "
        "figures are those of a run that stopped. params/risk_limits.yaml holds the limit."
    )
    return [click.style(text, fg="yellow", bold=True)]


def grid_options(command: Command) -> Command:
    """Adds ``--grid`` and ``--metric``."""
    metric = click.option(
        "--metric", default="sharpe", show_default=True, help="The figure that ranks the runs."
    )
    return grid_option(metric(command))


def search_options(command: Command) -> Command:
    """Adds the options that say how combinations are chosen: the fields of ``Search``."""
    options = (
        click.option("--draws", type=click.IntRange(1), help="Try so many, drawn at random."),
        click.option(
            "--tpe", type=click.IntRange(1), help="Try so many, proposed by Optuna's TPE."
        ),
        click.option(
            "--seed", type=click.IntRange(0), help="Of --draws or --tpe: the same gives the same."
        ),
        click.option(
            "--constraint",
            metavar="COMPARISON",
            multiple=True,
            help='Leave out what breaks it, such as "fast * 2 <= slow"; repeatable.',
        ),
        click.option(
            "--resume",
            type=OUT_FOLDER,
            help="A folder that keeps finished rows: the same sweep goes on from there.",
        ),
        click.option(
            "--returns", type=OUT_FOLDER, help="A folder that takes every row's daily returns."
        ),
        click.option(
            "--on",
            help="Compute elsewhere: dask or ray (processes of this machine), or a cluster's "
            "address, such as tcp://host:8786 (Dask) or ray://host:10001.",
        ),
        click.option("--workers", type=int, help="Processes to start for --on dask or ray."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("strategy")
@run_options
@grid_options
@search_options
@click.option(
    "--top",
    type=click.IntRange(1),
    help=f"How many to show (default: {SHOWN}); with --csv or --returns, to keep the full equity "
    "of, in a Parquet file beside it.",
)
@click.option("--csv", type=OUT_FILE, help="Write every combination to this file.")
@json_option
@pass_project
def sweep(project: Project, as_json: bool, **given: Any) -> None:
    """Run STRATEGY for every combination of a grid.

    Or for some of them: --draws, --tpe. Each row equals its single backtest. STRATEGY is named as
    for `candlebook backtest`.
    """
    grid, metric, top, csv = (given.pop(name) for name in ("grid", "metric", "top", "csv"))
    search = Search(**{spec.name: given.pop(spec.name) for spec in fields(Search)})
    if not grid:
        raise InputError(
            "nothing to vary", field="--grid", remedy="Name values: --grid fast=5:60:5."
        )
    job = prepare(project, Asked(**given))
    found = job.sweep(grid, metric, search)
    ranked = found.frame.iloc[found.ranked(metric)].head(top or SHOWN)
    files = _written(found, metric, top, csv)
    document = {
        "strategy": found.strategy.__name__,
        "symbols": found.candles.symbols,
        "timeframe": found.candles.timeframe,
        "runs": len(found),
        "skipped": found.skipped,
        "metric": metric,
        "best": found.best(metric).parameters(),
        "rows": ranked.reset_index().to_dict("records"),
        **files,
    }
    answer(as_json, document, *_shown(found, ranked, metric, files))


def _written(
    found: Sweep, metric: str, top: int | None, csv: Path | None
) -> dict[str, Path | None]:
    """Write what was asked for; where each of it is, or None."""
    from research.durable import write_whole

    if csv is not None:
        with writes("--csv", csv):
            write_whole(csv, found.frame.to_csv())
    beside, equity = csv or found.returns, None
    if top is not None and beside is not None:
        equity = beside.with_name(f"{beside.stem}.top.parquet")
        with writes("--top", equity):
            write_whole(equity, _equity_file(found.top(top, metric)))
    return {"csv": csv, "returns": found.returns, "equity": equity}


def _equity_file(equity: pd.DataFrame) -> bytes:
    """A Parquet file: close times and a column a combination, named fast=5 slow=20."""
    names = [str(name) for name in equity.columns.names]
    titles = [
        " ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        for values in equity.columns
    ]
    raw: bytes = equity.set_axis(titles, axis="columns").to_parquet()
    return raw


def _shown(
    found: Sweep, ranked: pd.DataFrame, metric: str, files: dict[str, Path | None]
) -> list[Any]:
    from research.chart_theme import format_metric
    from research.metrics import METRICS

    figures = list(
        dict.fromkeys((metric, "total_return", "sharpe", "max_drawdown", "trades", "fees_paid"))
    )
    names = list(found.frame.index.names)
    titles = [f">{METRICS[name][0]}" for name in figures]
    columns = [*(f">{name}" for name in names), *titles, "Halted"]
    flat = ranked.reset_index()
    rows = [
        (
            *(f"{row[name]:g}" for name in names),
            *(format_metric(name, row[name]) for name in figures),
            "yes" if row["halted"] else "no",
        )
        for row in flat.to_dict("records")
    ]
    skipped = f", {found.skipped:,} that are not allowed" if found.skipped else ""
    symbols = ", ".join(found.candles.symbols)
    title = (
        f"{found.strategy.__name__} on {symbols}, {found.candles.timeframe}: "
        f"{counted(len(found), 'combination')}{skipped}\n"
    )
    luck = "The best of many is partly luck: look at its neighbours before you promote it."
    titles_of = {
        "csv": "Every combination",
        "returns": "Daily returns of all",
        "equity": f"Equity of the best {len(ranked):,}",
    }
    written = [f"{titles_of[name]}: {path}" for name, path in files.items() if path is not None]
    return [title, table(columns, rows), f"\n{luck}", *_halts(found), *written]


def _halts(found: Sweep) -> list[str]:
    """How many rows are those of a run that stopped."""
    halted = int(found.frame["halted"].sum())
    said = f"{halted:,} of {len(found):,} reached the drawdown limit and stood still from then on."
    return [said] if halted else []
