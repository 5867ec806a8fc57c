"""The commands `candlebook backtest` and `candlebook sweep`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from live.cli.jobs import Asked, document_of, prepare, run_options
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


@click.command()
@click.argument("strategy")
@run_options
@click.option("--report", type=OUT_FILE, help="Write the run as one HTML page that works offline.")
@json_option
@pass_project
def backtest(project: Project, report: Path | None, as_json: bool, **asked: Any) -> None:
    """Run STRATEGY over stored candles.

    STRATEGY is a name in params/strategies.yaml, which brings parameters, symbols and timeframe
    with it, or a class or file in research/strategies/. Options overrule both.
    """
    job = prepare(project, Asked(**asked))
    with busy("running"):
        run = job.backtest()
        said = [repr(run), *_halt_text(run)]
        if report is not None:
            with writes("--report", report):
                said.append(f"\nReport: {run.report(report)}")
    document = document_of(run) | {"report": report}
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


@click.command()
@click.argument("strategy")
@run_options
@grid_options
@click.option(
    "--top", type=click.IntRange(1), default=10, show_default=True, help="How many to show."
)
@click.option("--csv", type=OUT_FILE, help="Write every combination to this file.")
@click.option(
    "--resume",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder that keeps finished rows: the same sweep goes on from there.",
)
@click.option(
    "--on",
    help="Compute elsewhere: dask or ray (processes of this machine), or a cluster's address, "
    "such as tcp://host:8786 (Dask) or ray://host:10001.",
)
@click.option("--workers", type=int, help="Processes to start for --on dask or ray.")
@json_option
@pass_project
def sweep(project: Project, as_json: bool, **given: Any) -> None:
    """Run STRATEGY for every combination of a grid.

    Each row equals its single backtest. STRATEGY is named as for `candlebook backtest`.
    """
    grid, metric, top, csv = (given.pop(name) for name in ("grid", "metric", "top", "csv"))
    resume, on, workers = (given.pop(name) for name in ("resume", "on", "workers"))
    if not grid:
        raise InputError(
            "nothing to vary", field="--grid", remedy="Name values: --grid fast=5:60:5."
        )
    job = prepare(project, Asked(**given))
    found = job.sweep(grid, metric, resume, on=on, workers=workers)
    best = found.best(metric)
    if csv is not None:
        from research.durable import write_whole

        with writes("--csv", csv):
            write_whole(csv, found.frame.to_csv())
    ranked = _ranked(found, metric).head(top)
    document = {
        "strategy": found.strategy.__name__,
        "symbols": found.candles.symbols,
        "timeframe": found.candles.timeframe,
        "runs": len(found),
        "skipped": found.skipped,
        "metric": metric,
        "best": best.parameters(),
        "rows": ranked.reset_index().to_dict("records"),
        "csv": csv,
    }
    answer(as_json, document, *_shown(found, ranked, metric, csv))


def _ranked(found: Sweep, metric: str) -> pd.DataFrame:
    """Best first, and of equals the first in the grid's order, as ``Sweep.best`` chooses."""
    upwards = metric == "max_drawdown"
    return found.frame.sort_values(metric, ascending=upwards, kind="stable", na_position="last")


def _shown(found: Sweep, ranked: pd.DataFrame, metric: str, csv: Path | None) -> list[Any]:
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
    skipped = f", {found.skipped:,} that the strategy does not allow" if found.skipped else ""
    symbols = ", ".join(found.candles.symbols)
    title = (
        f"{found.strategy.__name__} on {symbols}, {found.candles.timeframe}: "
        f"{counted(len(found), 'combination')}{skipped}\n"
    )
    luck = "The best of many is partly luck: look at its neighbours before you promote it."
    written = [] if csv is None else [f"Every combination: {csv}"]
    return [title, table(columns, rows), f"\n{luck}", *_halts(found), *written]


def _halts(found: Sweep) -> list[str]:
    """How many rows are those of a run that stopped."""
    halted = int(found.frame["halted"].sum())
    said = f"{halted:,} of {len(found):,} reached the drawdown limit and stood still from then on."
    return [said] if halted else []
