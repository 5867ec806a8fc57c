"""The commands that run a promoted strategy: `paper run`, `paper replay`, `parity`, `demo`."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import click

from live.cli.books import has_books, tripped_notice
from live.cli.options import Project, json_option, pass_project, time_option
from live.cli.output import answer, busy, counted, emit, moment, notice, plain, progress
from research.errors import InputError, ParityBroken, UnknownNameError

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
    _warn_if_tripped(project, "paper", name, ended.slot)
    said = f"{name}, slot {moment(ended.slot)}: {ended.status} in {ended.seconds:.1f} s"
    if ended.status == "waiting":
        said += "; a candle is missing, and the next run tries again"
    answer(as_json, _run_document(ended), f"{said}\n{ended.report}")


@paper.command()
@click.argument("name")
@click.option("--bars", type=click.IntRange(1), required=True, help="How many bar closes.")
@time_option(
    "--from",
    "start",
    help="The first bar close, UTC (default: where the account stopped, else the last BARS).",
)
@click.option(
    "--http", "over_http", is_flag=True, help="Fetch the candles from a look-alike exchange."
)
@json_option
@pass_project
def replay(
    project: Project, name: str, bars: int, start: int | None, over_http: bool, as_json: bool
) -> None:
    """Live through stored bars as if they were happening now.

    They must lie after the window that NAME was promoted on. Replays have books of their own, with
    a kill switch of their own: `candlebook reset --replay`. With --http a look-alike of the
    exchange serves the stored candles on this machine, and every run fetches them from there, as a
    paper run would; so it is where CANDLEBOOK_REPLAY_EXCHANGE_URL names one that runs already.
    """
    from live import runner

    if start is None:
        _require_bars_left(project, name, bars)
    done: list[Run] = []
    with progress(f"replaying {name}", "runs") as advance:

        def on_run(one: Run) -> None:
            done.append(one)
            if len(done) == 1:
                _warn_if_tripped(project, "replay", name, one.slot)
            advance(len(done), bars)

        runs = runner.replay(name, start, bars, project.settings, on_run, over_http)
    counts = Counter(one.status for one in runs)
    said = (
        f"{name}: {counted(len(runs), 'slot')}, {moment(runs[0].slot)} .. {moment(runs[-1].slot)}: "
        f"{', '.join(f'{count} {status}' for status, count in counts.items())}, "
        f"{sum(one.seconds for one in runs):.1f} s\n{runs[-1].report}"
    )
    answer(as_json, {"runs": [_run_document(one) for one in runs]}, said)


def _warn_if_tripped(project: Project, mode: str, name: str, slot: int) -> None:
    said = tripped_notice(project.settings, mode, name, slot)
    if said is not None:
        notice(said)


def _require_bars_left(project: Project, name: str, bars: int) -> None:
    """Raises InputError where the account of a replay has not that many stored bars before it."""
    from live.ledger import read
    from live.paper import artefact_of, open_books
    from research.candles import timeframe_ms

    artefact = artefact_of(name, project.settings)
    if not has_books(project.settings, "replay"):
        return
    with closing(open_books(project.settings, "replay")) as ledger, ledger.reading() as conn:
        marks = read.marks(conn, name)
    stored = project.stored_until(artefact.market)
    if not marks or stored is None:
        return
    bar_ms = timeframe_ms(artefact.market.timeframe)
    left = max(0, (stored - marks[-1].at) // bar_ms)
    if left < bars:
        reached = "has reached the last stored bar" if not left else "nears the last stored bar"
        raise InputError(
            f"{name} {reached} ({moment(stored)})",
            field="--bars",
            value=bars,
            expected=f"at most {left}" if left else "stored bars to replay",
            remedy="`candlebook history fetch` brings more; to begin anew, remove the books of "
            "replays, data/replay.db.",
        )


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
    from live.paper import artefact_of, check_parity

    mode = "replay" if replay else "paper"
    artefact_of(name, project.settings)  # a wrong name is told before anything is looked for
    with busy("running the backtest"):
        try:
            if not has_books(project.settings, mode):
                raise UnknownNameError(field="account")
            found = check_parity(name, project.settings, mode)
        except UnknownNameError as err:
            if err.field != "account":
                raise
            raise _never_ran(name, replay) from err
    answer(as_json, _parity_document(found), str(found))
    if not found.equal:
        click.get_current_context().exit(ParityBroken.exit_code)


def _never_ran(name: str, replay: bool) -> InputError:
    here, other = ("replay", "paper") if replay else ("paper", "replay")
    options = "" if replay else " --replay"
    return UnknownNameError(
        f"no {here} run of {name} yet",
        field="account",
        remedy=f"candlebook paper {'replay' if replay else 'run'} {name} makes one; {other} runs "
        f"are compared by candlebook parity {name}{options}.",
    )


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


@click.command(short_help="Walk the whole path, from candles to parity.")
@json_option
@pass_project
def demo(project: Project, as_json: bool) -> None:
    """From candles to parity; from Binance, or synthetic where no exchange is in reach.

    Candles that CANDLEBOOK_SHARED names or that are stored come first. It works in data/demo,
    starts afresh each time, and touches nothing else but params/promoted/sma_demo.yaml.
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
