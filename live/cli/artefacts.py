"""The commands about artefacts: promote, verify, reproduce, list; what may run, and whether."""

from __future__ import annotations

import math
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from live.cli.evidence import judged
from live.cli.jobs import Asked, Search, prepare, run_options
from live.cli.options import Project, json_option, me, pass_project, who_option
from live.cli.output import answer, busy, counted, table
from live.cli.runs import grid_options, search_options
from research.errors import ArtefactTampered

if TYPE_CHECKING:
    from research.candles import CandleSet
    from research.promotion import Artefact

__all__ = ["artefacts", "promote", "reproduce", "verify"]


@click.command()
@click.argument("name")
@click.option("--strategy", required=True, help="As `candlebook backtest` takes it.")
@run_options
@click.option("--from-sweep", is_flag=True, help="Promote the best combination of --grid.")
@grid_options
@search_options
@click.option("--why", required=True, help="Why it is promoted, in words.")
@click.option("--override", metavar="REASON", help="Promote it although checks fail; it is kept.")
@click.option("--unjudged", is_flag=True, help="Check nothing; needs --override.")
@click.option("--replace", is_flag=True, help="Replace the artefact of that name.")
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    help="How long it may run (default: life_days of promotion.yaml).",
)
@who_option
@json_option
@pass_project
def promote(project: Project, name: str, as_json: bool, **given: Any) -> None:
    """Judge a strategy, and freeze what passes as NAME.

    It becomes params/promoted/NAME.yaml; params/promotion.yaml says what it must show. `candlebook
    paper run NAME` then runs it. Strategy, parameters, limits, costs, candles and code are hashed:
    what changes later is refused by name.
    """
    from research.promotion import promote, require_promotable, require_runnable

    taken = ("from_sweep", "grid", "metric", "why", "override", "unjudged", "replace", "days")
    from_sweep, grid, metric, why, override, unjudged, replace, days = map(given.pop, taken)
    who = given.pop("who")
    if from_sweep != bool(grid):
        raise click.UsageError("--from-sweep and --grid belong together: give both or neither.")
    # Before the sweep, which may take minutes.
    words = {"why": why, "override": override, "unjudged": unjudged, "replace": replace}
    require_promotable(name, folder=project.promoted, **words)
    search = Search(**{spec.name: given.pop(spec.name) for spec in fields(Search)})
    job = prepare(project, Asked(**given))
    require_runnable(job.strategy, job.account, name)
    found = job.sweep(grid, metric, search) if grid else None
    with busy("running"):
        run = job.backtest() if found is None else found.run(found.best(metric))
    evidence = None if unjudged else judged(found or run, metric, project.settings.promotion)
    artefact = promote(
        evidence or run,
        name,
        folder=project.promoted,
        who=me(who),
        rows_tried=1 if found is None else len(found),
        life_days=days,
        **words,
    )
    warnings = artefact.warnings
    after = _bars_after(project, artefact)
    said = [
        f"Promoted {name}: {artefact.strategy.build()!r} on {', '.join(run.symbols)}, "
        f"{artefact.market.timeframe}, until {artefact.expires_at}.",
        _figures(artefact),
        *([] if artefact.judgement is None else map(str, artefact.judgement.verdicts)),
        str(project.promoted / f"{name}.yaml"),
        *(f"Warning: {one}" for one in warnings),
        _next_steps(artefact, after),
    ]
    document = _document(artefact) | {"warnings": warnings, "bars_after_window": after}
    answer(as_json, document, *said)


REPLAYED_BARS = 48


def _bars_after(project: Project, artefact: Artefact) -> int:
    """How many stored bars lie after the research window."""
    from research.candles import timeframe_ms, utc_ms

    stored, end = project.stored_until(artefact.market), utc_ms(artefact.window.end)
    return 0 if stored is None else max(0, stored - end) // timeframe_ms(artefact.market.timeframe)


def _figures(artefact: Artefact) -> str:
    from research.chart_theme import format_metric
    from research.metrics import METRICS

    named = ", ".join(
        f"{METRICS[name][0]} {format_metric(name, math.nan if value is None else value)}"
        for name, value in artefact.metrics.items()
        if name in ("total_return", "sharpe", "max_drawdown")
    )
    window = artefact.window
    tried = counted(artefact.rows_tried, "combination")
    return f"{window.start} .. {window.end}: {named}; chosen from {tried}."


def _next_steps(artefact: Artefact, after: int) -> str:
    """What can be done with it now; a replay needs bars that it was not promoted on."""
    name = artefact.name
    lines = [
        'Next, with the kill switch of paper reset (candlebook reset --reason "..."):',
        f"  candlebook paper run {name}",
    ]
    if "synthetic" in artefact.market.source:
        lines = ["Made-up candles: it can be replayed, and trades no market."]
    if not after:
        none = "No stored bar lies after its window, so there is nothing to replay it on yet; "
        return "\n".join([*lines, f"{none}promote it with an earlier --end for that."])
    lines += [
        f"To replay it first, on the {counted(after, 'stored bar')} after its window:",
        '  candlebook reset --replay --reason "..."',
        f"  candlebook paper replay {name} --bars {min(after, REPLAYED_BARS)}",
    ]
    return "\n".join(lines)


@click.command()
@click.argument("name")
@json_option
@pass_project
def verify(project: Project, name: str, as_json: bool) -> None:
    """Check that NAME is still what was promoted.

    File, code, libraries and candles must be as they were, and it must not have expired.
    `candlebook reproduce NAME` runs its backtest again, too.
    """
    artefact, _ = _verified(project, name)
    said = (
        f"{name} is what was promoted on {artefact.promoted_at}: file, {len(artefact.code)} "
        f"modules of code, libraries and candles. It may run until {artefact.expires_at}."
    )
    answer(as_json, _document(artefact), said)


@click.command()
@click.argument("name")
@json_option
@pass_project
def reproduce(project: Project, name: str, as_json: bool) -> None:
    """Verify NAME and run its backtest again.

    From the file alone: every order, every fill and every figure must be as they were, to the bit.
    """
    from research.promotion import reproduce

    with busy("running its backtest again"):
        artefact, candles = _verified(project, name)
        run = reproduce(artefact, candles)
    said = (
        f"{name} is what was promoted on {artefact.promoted_at}, and its backtest came out the "
        f"same again: {len(run.order_list):,} orders, {len(run.fill_list):,} fills, "
        f"{len(artefact.metrics)} figures. Digest {artefact.digests['orders'][:12]}."
    )
    document = {"orders": len(run.order_list), "digest": artefact.digests["orders"]}
    answer(as_json, _document(artefact) | document, said)


def _verified(project: Project, name: str) -> tuple[Artefact, CandleSet]:
    """The artefact, once it is what was promoted and has not expired, and candles for it."""
    from research.candles import utc_ms
    from research.promotion import load_artefact
    from research.promotion import verify as require_valid

    artefact = load_artefact(name, project.promoted)
    market, start = artefact.market, utc_ms(artefact.window.start)
    candles = project.history.load(
        market.symbols, market.timeframe, start, exchange=market.exchange
    )
    require_valid(artefact, candles, _now())
    return artefact, candles


@click.command()
@json_option
@pass_project
def artefacts(project: Project, as_json: bool) -> None:
    """List what is promoted.

    `candlebook verify NAME` checks one against code and candles, which takes longer.
    """
    names = sorted(path.stem for path in project.promoted.glob("*.yaml"))
    documents = [_read(project, name) for name in names]
    if not documents:
        answer(as_json, {"artefacts": []}, "Nothing is promoted. `candlebook promote` does it.")
        return
    columns = (
        *("name", "strategy", "symbols", "timeframe", "promoted", "expires"),
        *("evidence", "state"),
    )
    rows = [
        (
            *(one["name"], _call(one), " ".join(one.get("symbols", ())), one.get("timeframe")),
            *(_date(one.get("promoted_at")), _date(one.get("expires_at"))),
            *(_evidence(project, one), one["state"]),
        )
        for one in documents
    ]
    answer(as_json, {"artefacts": documents}, table(columns, rows))


def _read(project: Project, name: str) -> dict[str, Any]:
    """One artefact as its file says; one that was tampered with is listed as such."""
    from research.promotion import load_artefact

    try:
        return _document(load_artefact(name, project.promoted))
    except ArtefactTampered as err:
        return {"name": name, "state": "tampered", "message": str(err)}


def _evidence(project: Project, document: dict[str, Any]) -> str | None:
    """How it came to be promoted, in a word or two."""
    if "judgement" not in document:
        return None
    judgement, override = document["judgement"], document["override"]
    if judgement is None:
        return "not judged"
    passed = "passed" if override is None else f"overridden: {', '.join(override['failed'])}"
    ledger = (judgement["head"] or {}).get("ledger")
    return passed if ledger == project.settings.trials_name else f"{passed} (by {ledger})"


def _date(text: str | None) -> str | None:
    return None if text is None else text[:10]


def _call(document: dict[str, Any]) -> str | None:
    if "strategy" not in document:
        return None
    given = ", ".join(f"{name}={value}" for name, value in document["parameters"].items())
    return f"{document['strategy']}({given})"


def _document(artefact: Artefact) -> dict[str, Any]:
    from research.candles import utc_ms

    expired = _now() >= utc_ms(artefact.expires_at)
    return {
        "name": artefact.name,
        "state": "expired" if expired else "sealed",
        "strategy": artefact.strategy.name,
        "parameters": artefact.strategy.parameters,
        "exchange": artefact.market.exchange,
        "symbols": artefact.market.symbols,
        "timeframe": artefact.market.timeframe,
        "source": artefact.market.source,
        "window": artefact.window.model_dump(),
        "promoted_at": artefact.promoted_at,
        "expires_at": artefact.expires_at,
        "who": artefact.who,
        "why": artefact.why,
        "rows_tried": artefact.rows_tried,
        "judgement": None if artefact.judgement is None else artefact.judgement.model_dump(),
        "override": None if artefact.override is None else artefact.override.model_dump(),
        "metrics": artefact.metrics,
        "seal": artefact.seal,
    }


def _now() -> int:
    return int(time.time() * 1000)
