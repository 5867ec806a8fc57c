"""The command `candlebook trials`: what was ever tried, and whether the record of it is whole."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from live.cli.options import Project, json_option, pass_project, symbols_option
from live.cli.output import answer, busy, counted, moment, table

if TYPE_CHECKING:
    from research.trial_ledger import Head, TrialLedger
    from research.trials import Effective, Trials

__all__ = ["trials"]


@click.command()
@symbols_option
@click.option("--timeframe", help="Those on this timeframe alone, such as 1h.")
@click.option("--check", is_flag=True, help="Verify the record: every byte, and that none is gone.")
@json_option
@pass_project
def trials(
    project: Project,
    symbols: tuple[str, ...] | None,
    timeframe: str | None,
    check: bool,
    as_json: bool,
) -> None:
    """Show what was ever tried, by strategy and market.

    Every backtest and every row of a sweep counts, whoever ran it from where: the best of many is
    partly luck. With --symbols, what was tried on any of them.
    """
    from research.trial_ledger import TrialLedger

    with closing(TrialLedger(project.settings.trials)) as ledger:
        if check:
            _check(project, ledger, as_json)
            return
        with busy("Comparing what was tried"):
            found = ledger.trials(None, symbols, timeframe)
            effective = found.effective()
    document = {
        "ledger": ledger.path,
        "batches": found.batches,
        "runs": found.runs,
        "trials": found.raw,
        "effective": effective.number,
        "by_strategy": [_entry(row) for row in found.by_strategy.to_dict("records")],
    }
    answer(as_json, document, *_shown(found, effective))


def _heads(project: Project) -> tuple[dict[str, Head], list[str]]:
    """Where this ledger ended when each promoted artefact was judged by it, and a word on each that
    was judged by another, or whose file cannot be trusted to say."""
    from research.errors import ArtefactTampered
    from research.promotion import load_artefact
    from research.trial_ledger import Head

    found, unread = {}, []
    for path in sorted(project.promoted.glob("*.yaml")):
        try:
            judgement = load_artefact(path.stem, project.promoted).judgement
        except ArtefactTampered:
            unread.append(f"{path.stem} (its file was changed)")
            continue
        head = None if judgement is None else judgement.head
        if head is not None and head.ledger == project.settings.trials_name:
            found[path.stem] = Head(head.number, head.digest)
        elif head is not None:
            unread.append(f"{path.stem} (judged by {head.ledger})")
    return found, unread


def _check(project: Project, ledger: TrialLedger, as_json: bool) -> None:
    from research.errors import LedgerError

    head = ledger.check()
    known, unread = _heads(project)
    for name, one in known.items():
        if not ledger.holds(one):
            raise LedgerError(
                f"not the one that {name} was judged by: its batch {one.number:,} is missing or "
                "another than it was",
                field=str(ledger.path),
            )
    document = {
        "ledger": ledger.path,
        "batches": head.number,
        "head": head.digest,
        "artefacts": list(known),
        "unread": unread,
    }
    noun = "batch" if head.number == 1 else "batches"
    said = [f"{ledger.path}: {head.number:,} {noun}, as recorded and none missing."]
    if known:
        said.append(f"It holds all that {', '.join(known)} was judged by.")
    if unread:
        said.append(f"Not asked: {', '.join(unread)}.")
    answer(as_json, document, *said, f"Head: {head.digest}")


def _entry(row: dict[Any, Any]) -> dict[str, Any]:
    return {
        "strategy": row["strategy"],
        "symbols": row["symbols"].split(),
        "timeframe": row["timeframe"],
        "batches": row["batches"],
        "trials": row["trials"],
        "best_sharpe": row["best_sharpe"],
        "last": moment(int(row["last"].value // 1_000_000)),
    }


def _shown(found: Trials, effective: Effective) -> list[Any]:
    if not found.raw:
        return ["Nothing was tried yet."]
    columns = ("strategy", "symbols", "timeframe", ">batches", ">trials", ">best Sharpe", "last")
    rows = []
    for row in map(_entry, found.by_strategy.to_dict("records")):
        best = row["best_sharpe"]
        rows.append(
            (
                *(row["strategy"], " ".join(row["symbols"]), row["timeframe"]),
                *(f"{row['batches']:,}", f"{row['trials']:,}"),
                *("-" if best != best else f"{best:.2f}", row["last"]),
            )
        )
    said = (
        f"{counted(found.raw, 'trial')} in {found.runs:,} runs; "
        f"{effective.number:,} different by their returns"
    )
    return [table(columns, rows), said]
