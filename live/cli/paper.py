"""The commands that run a promoted strategy: `paper run`, `paper replay`, `parity`, `demo`."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from live.cli.options import Project, json_option, pass_project, time_option
from live.cli.output import answer, busy, emit, moment, notice, plain, progress
from research.errors import ParityBroken

if TYPE_CHECKING:
    from live.parity import Parity
    from live.runner import Run

__all__ = ["demo", "paper", "parity"]

# A broken account differs at every bar from the first difference on: a few tell the story.
SHOWN_DIFFERENCES = 20


@click.group()
def paper() -> None:
    """Run a promoted strategy through the paper notebook."""


@paper.command()
@click.argument("name")
@time_option("--slot", help="The bar close to run up to, UTC (default: the last).")
@json_option
@pass_project
def run(project: Project, name: str, slot: int | None, as_json: bool) -> None:
    """Bring NAME up to a bar close; a slot that is done is left alone.

    Missed bars are caught up one by one. This is what a scheduler calls after every close.
    """
    from live import runner

    with busy(f"running {name}"):
        ended = runner.run(name, slot, "paper", project.settings)
    said = f"{name}, slot {moment(ended.slot)}: {ended.status} in {ended.seconds:.1f} s"
    answer(as_json, _run_document(ended), f"{said}\n{ended.report}")


@paper.command()
@click.argument("name")
@click.option("--bars", type=click.IntRange(1), required=True, help="How many bar closes.")
@time_option(
    "--from",
    "start",
    help="The first bar close, UTC (default: where the account stopped, else the last BARS).",
)
@json_option
@pass_project
def replay(project: Project, name: str, bars: int, start: int | None, as_json: bool) -> None:
    """Live through stored bars as if they were happening now.

    Replays have books of their own, with a kill switch of their own: `candlebook reset --replay`.
    """
    from live import runner

    done: list[Run] = []
    with progress(f"replaying {name}", "runs") as advance:

        def on_run(one: Run) -> None:
            done.append(one)
            advance(len(done), bars)

        runs = runner.replay(name, start, bars, project.settings, on_run)
    counts = Counter(one.status for one in runs)
    said = (
        f"{name}: {len(runs)} slots, {moment(runs[0].slot)} .. {moment(runs[-1].slot)}: "
        f"{', '.join(f'{count} {status}' for status, count in counts.items())}, "
        f"{sum(one.seconds for one in runs):.1f} s\n{runs[-1].report}"
    )
    answer(as_json, {"runs": [_run_document(one) for one in runs]}, said)


def _run_document(one: Run) -> dict[str, Any]:
    return {**plain(one), "slot": moment(one.slot), "report": str(one.report)}


@click.command()
@click.argument("name")
@click.option("--replay", is_flag=True, help="The books of replays.")
@json_option
@pass_project
def parity(project: Project, name: str, replay: bool, as_json: bool) -> None:
    """Compare the ledger of NAME with a backtest, bit for bit.

    Exit code 7 where they differ.
    """
    from live.paper import check_parity

    with busy("running the backtest"):
        found = check_parity(name, project.settings, "replay" if replay else "paper")
    answer(as_json, _parity_document(found), str(found))
    if not found.equal:
        click.get_current_context().exit(ParityBroken.exit_code)


def _parity_document(found: Parity) -> dict[str, Any]:
    return {
        "account": found.account,
        "equal": found.equal,
        "bars": found.bars,
        "compared": found.compared,
        "differences": len(found.differences),
        "first_differences": [
            {**plain(one), "at": moment(one.at)} for one in found.differences[:SHOWN_DIFFERENCES]
        ],
        "cause": found.cause or None,
    }


@click.command()
@json_option
@pass_project
def demo(project: Project, as_json: bool) -> None:
    """Walk the whole path without a network, history to parity.

    It works in data/demo, in books of its own, and starts afresh each time.
    """
    from live.demo import run_demo

    # Standard output is the document's alone; what the demo tells on its way goes beside it.
    told = notice if as_json else click.echo
    with ExitStack() as bars:
        advance = None

        def on_slot(done: int, total: int) -> None:
            nonlocal advance
            if advance is None:
                advance = bars.enter_context(progress("paper slots", "slots"))
            advance(done, total)
            if done == total:
                bars.close()

        ended = run_demo(None if project.home is None else project.settings, told, on_slot)
    if as_json:
        emit(
            {
                "source": ended.source,
                "parameters": ended.best.strategy.parameters(),
                "metrics": ended.best.metrics._asdict(),
                "artefact": ended.artefact.name,
                "runs": len(ended.runs),
                "parity": _parity_document(ended.parity),
                "report": ended.report,
            }
        )
