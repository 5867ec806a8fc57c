"""The command `candlebook judge`: is it an edge or luck?"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from live.cli.jobs import Asked, Search, document_of, prepare, run_options
from live.cli.options import Project, json_option, pass_project, writes
from live.cli.output import answer, busy
from live.cli.runs import OUT_FILE, grid_options, search_options

if TYPE_CHECKING:
    from research.backtesting import Backtest
    from research.evidence.judge import Evidence
    from research.params import Thresholds
    from research.search import Sweep

__all__ = ["judge", "judged"]


@click.command()
@click.argument("strategy")
@run_options
@grid_options
@search_options
@click.option("--report", type=OUT_FILE, help="Write it, with charts, as one HTML page.")
@json_option
@pass_project
def judge(project: Project, report: Path | None, as_json: bool, **given: Any) -> None:
    """Say whether STRATEGY shows an edge or luck.

    With --grid the best row of a sweep is judged, as what it is: the best of many. All that was
    ever tried on its market counts (`candlebook trials`). params/promotion.yaml says what
    `candlebook promote` demands. STRATEGY is named as for `candlebook backtest`.
    """
    grid, metric = given.pop("grid"), given.pop("metric")
    search = Search(**{spec.name: given.pop(spec.name) for spec in fields(Search)})
    job = prepare(project, Asked(**given))
    with busy("running"):
        found = job.sweep(grid, metric, search) if grid else job.backtest()
    evidence = judged(found, metric, project.settings.promotion)
    said = [repr(evidence)]
    if report is not None:
        with writes("--report", report):
            said.append(f"\nReport: {evidence.report(report)}")
    judgement = evidence.judgement
    document = {
        "passed": judgement.passed,
        "failed": judgement.failed,
        **document_of(evidence.run),
        **judgement.model_dump(mode="json"),
        "report": report,
    }
    answer(as_json, document, *said)


def judged(found: Backtest | Sweep, metric: str, thresholds: Thresholds) -> Evidence:
    """What there is to say of a run or of the best row of a sweep."""
    from research.evidence.judge import judge

    with busy("judging"):
        return judge(found, metric=metric, thresholds=thresholds)
