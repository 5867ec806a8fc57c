"""Promotion: a backtest becomes a file that paper trading runs, and only while nothing changed.

``promote`` judges a run and freezes it with digests of its candles, of the code that decides, and
of its own orders and fills; what does not pass it refuses, unless a person overrides that with a
reason. ``verify`` checks all of it against today's libraries, code and candles and names what
changed first; ``reproduce`` runs the promoted backtest again. Times are UTC.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from research.account import Account
from research.artefact import (
    PROMOTE_AGAIN,
    Artefact,
    Chosen,
    Market,
    Window,
    artefact_path,
    digest,
    load_artefact,
    require_same,
    sealed,
    sections,
    write_artefact,
)
from research.backtesting import Backtest, rerun
from research.candles import DAY, CandleSet, iso, utc_ms
from research.code_hash import code_hashes
from research.errors import ArtefactExpired, ArtefactTampered, InputError, PromotionRefused
from research.evidence.verdicts import Judgement, Override
from research.metrics import finite
from research.search import Sweep
from research.settings import load_settings, user_name
from research.strategy import Strategy, registry
from research.workspace import promoted_folder

if TYPE_CHECKING:
    from research.evidence.judge import Evidence

__all__ = [
    "Artefact",
    "Chosen",
    "Market",
    "load_artefact",
    "promote",
    "reproduce",
    "require_promotable",
    "require_runnable",
    "require_unchanged",
    "verify",
]

# What decides a trade: the modules whose import closure is hashed besides the strategy's own.
CORE: Final = ("research.engine", "research.blotter", "research.strategy", "research.tape")
LONGEST_LIFE: Final = 3650
LIBRARIES: Final = ("numpy", "TA-Lib")


def promote(
    what: Backtest | Sweep | Evidence,
    name: str,
    *,
    why: str,
    override: str | None = None,
    unjudged: bool = False,
    folder: Path | None = None,
    who: str | None = None,
    rows_tried: int | None = None,
    life_days: int | None = None,
    replace: bool = False,
    now: int | None = None,
) -> Artefact:
    """Write ``<folder>/<name>.yaml`` from a run that passes; returns the artefact.

    ``what`` is what ``judge`` said, or a backtest or sweep (its best row by Sharpe ratio), which is
    judged first. Either way the thresholds of promotion.yaml decide, and the ledger of trials as it
    is now. ``override`` is a person's reason to promote it although a check fails, which excuses
    anything but a look-ahead; with ``unjudged`` nothing is checked, which needs one. It is kept
    where it was needed, and shown wherever the artefact is. ``folder`` is the project's
    ``params/promoted``, ``life_days`` that of promotion.yaml unless given; ``rows_tried`` is how
    many combinations it was chosen from (a sweep knows).

    Raises InputError for a bad name, an empty reason, what is neither a backtest nor a sweep, and
    a strategy that does not lie in research/strategies/ or takes names from the package
    ``research`` itself; PromotionRefused where a check fails, where an artefact of that name is
    there already (unless ``replace``), where the run had no limits, or where it was told of
    kill-switch moves.
    """
    from research.evidence.judge import Evidence, judge

    settings = load_settings()
    place = promoted_folder(settings) if folder is None else folder
    require_promotable(
        name, why=why, folder=place, replace=replace, override=override, unjudged=unjudged
    )
    if not isinstance(what, Backtest | Sweep | Evidence):
        raise InputError(
            field="what",
            value=what,
            expected="what judge(...), backtest(...) or sweep(...) returned",
        )
    run = what.run(name=name) if isinstance(what, Sweep) else what
    run = run.run if isinstance(run, Evidence) else run
    _require_runnable(run, name)
    judgement = None
    if not unjudged:
        asked = settings.promotion
        if isinstance(what, Evidence):
            judgement = what.as_of_now(asked).judgement
        else:
            judgement = judge(what, thresholds=asked).judgement
    paper = _Paper(
        name=name,
        why=why.strip(),
        who=who or user_name(),
        now=(int(time.time() * 1000) if now is None else now) // 1000 * 1000,
        life_days=_days(life_days, settings.promotion.life_days),
        rows_tried=rows_tried or _rows(what),
    )
    decision = _decision(paper, judgement, override)
    artefact = sealed(_unsealed(run, paper, judgement, decision))
    write_artefact(artefact_path(place, name), artefact)
    return artefact


def _days(given: int | None, default: int) -> int:
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= LONGEST_LIFE:
        raise InputError(
            field="life_days", value=given, expected=f"a whole number from 1 to {LONGEST_LIFE}"
        )
    return given


def _rows(what: Backtest | Sweep | Evidence) -> int:
    """How many combinations it was chosen from."""
    found = what if isinstance(what, Backtest | Sweep) else what.sweep
    return len(found) if isinstance(found, Sweep) else 1


@dataclass(frozen=True)
class _Paper:
    """What is written on an artefact beside the run and what was found of it."""

    name: str
    why: str
    who: str
    now: int
    life_days: int
    rows_tried: int


def _decision(paper: _Paper, judgement: Judgement | None, override: str | None) -> Override | None:
    """A person's override, where one is needed. Raises PromotionRefused where none was given."""
    failed = () if judgement is None else judgement.failed
    if judgement is not None and not failed:
        return None
    refusals = () if judgement is None else judgement.refusals
    if any(one.check == "look-ahead" and one.value for one in refusals):
        (said,) = (one.said for one in refusals if one.check == "look-ahead")
        raise PromotionRefused(f"{said} Nobody may override that", field=paper.name)
    if override is None:
        said = "".join(f"\n  {one.check}: {one.said}" for one in refusals)
        raise PromotionRefused(
            f"it fails {', '.join(failed)}{said}\n",
            field=paper.name,
            remedy='A person may promote it all the same: --override "...", override="...".',
        )
    return Override(who=paper.who, at=iso(paper.now), why=override.strip(), failed=failed)


def require_promotable(
    name: str,
    *,
    why: str,
    folder: Path,
    replace: bool = False,
    override: str | None = None,
    unjudged: bool = False,
) -> None:
    """Raises what ``promote`` would raise for these, whatever the run."""
    path = artefact_path(folder, name)
    if not why.strip():
        raise InputError(field="why", value=why, expected="a reason, in words")
    if override is not None and not override.strip():
        raise InputError(field="override", value=override, expected="a reason, in words")
    if unjudged and override is None:
        raise InputError(
            "what is not judged is promoted on a person's word alone",
            field="override",
            expected="a reason, in words",
        )
    if path.exists() and not replace:
        raise PromotionRefused(
            "an artefact of that name is promoted already",
            field=str(path.name),
            remedy="Choose another name, or replace it knowingly (--replace, replace=True).",
        )


def require_runnable(cls: type[Strategy], account: Account, name: str) -> None:
    """Raises what ``promote`` would raise for this class and account: paper trading must find the
    one, and run under the limits of the other."""
    found = registry().get(cls.__name__)
    if found is None or (found.__module__, found.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise InputError(
            field="strategy",
            value=f"{cls.__module__}.{cls.__qualname__}",
            expected="a strategy that lies in research/strategies/",
            remedy="Put it into a file of its own in research/strategies/, then run it from there.",
        )
    if account.limits is None:
        raise PromotionRefused(
            "this run had no limits, and paper trading runs under limits",
            field=name,
            remedy="Run the backtest with limits: Account(limits=Limits(...)).",
        )


def _require_runnable(run: Backtest, name: str) -> None:
    """The run is one that paper trading can repeat: its strategy is found, its gate was on."""
    require_runnable(type(run.strategy), run.account, name)
    if run.tape.events.any():
        raise PromotionRefused(
            "this run was told of kill-switch moves, which a new account will not have",
            field=name,
            remedy="Run the backtest without interventions.",
        )


def _unsealed(
    run: Backtest,
    paper: _Paper,
    judgement: Judgement | None,
    override: Override | None,
) -> Artefact:
    clock = run.candles.clock()
    strategy = run.strategy
    first_close, starts = int(clock[0]) + run.candles.bar_ms, int(run.tape.close_time[0])
    content: dict[str, Any] = {
        "name": paper.name,
        "promoted_at": iso(paper.now),
        "expires_at": iso(paper.now + paper.life_days * DAY),
        "who": paper.who,
        "why": paper.why,
        "rows_tried": paper.rows_tried,
        "strategy": Chosen(
            name=strategy.name, version=strategy.version, parameters=strategy.parameters()
        ),
        "market": Market(
            exchange=run.candles.exchange,
            symbols=run.symbols,
            timeframe=run.candles.timeframe,
            source=run.candles.source,
        ),
        "window": Window(
            start=iso(int(clock[0])),
            end=iso(int(clock[-1]) + run.candles.bar_ms),
            trade_from=None if starts == first_close else iso(starts),
        ),
        "account": run.account,
        "metrics": {k: finite(v) for k, v in run.metrics._asdict().items()},
        "halted_at": None if run.halted_at is None else iso(utc_ms(run.halted_at)),
        "judgement": judgement,
        "override": override,
        "code": code_hashes((type(strategy).__module__, *CORE)),
        "libraries": _libraries(),
    }
    draft = Artefact(**content, digests={})
    digests = {key: digest(value) for key, value in sections(draft)}
    digests["data"] = run.candles.digest()
    digests["orders"] = run.digest(named=False)
    return draft.model_copy(update={"digests": digests})


def verify(artefact: Artefact, candles: CandleSet, now: int) -> None:
    """``require_unchanged``, and that the artefact has not expired at ``now`` (UTC milliseconds).

    Raises ArtefactTampered naming the field, ArtefactExpired.
    """
    require_unchanged(artefact, candles)
    if now >= utc_ms(artefact.expires_at):
        raise ArtefactExpired(
            f"expired at {artefact.expires_at}", field=artefact.name, remedy=PROMOTE_AGAIN
        )


def require_unchanged(artefact: Artefact, candles: CandleSet) -> None:
    """Check an artefact against today's libraries, code, strategy and candles, in that order.

    ``candles`` must cover the research window. Raises ArtefactTampered naming the first field that
    is not as it was.
    """
    for library, version in _libraries().items():
        require_same(
            artefact.name, f"libraries.{library}", artefact.libraries.get(library), version
        )
    _require_code(artefact)
    _require_strategy(artefact)
    require_same(
        artefact.name,
        "market",
        _described(artefact.market.exchange, artefact.market.symbols, artefact.market.timeframe),
        _described(candles.exchange, candles.symbols, candles.timeframe),
    )
    require_same(
        artefact.name,
        f"data ({artefact.window.start} .. {artefact.window.end})",
        artefact.digests.get("data"),
        artefact.research_candles(candles).digest(),
    )


def _require_code(artefact: Artefact) -> None:
    try:
        code = code_hashes(artefact.code)
    except InputError as err:  # a module is gone, or cannot be read any more
        raise ArtefactTampered(
            str(err), field=f"{artefact.name}: code", remedy=PROMOTE_AGAIN
        ) from err
    for module in sorted({*code, *artefact.code}):
        require_same(artefact.name, f"code.{module}", artefact.code.get(module), code.get(module))


def _require_strategy(artefact: Artefact) -> None:
    chosen = artefact.strategy
    try:
        strategy = chosen.build()
    except InputError as err:
        raise ArtefactTampered(
            str(err), field=f"{artefact.name}: strategy", remedy=PROMOTE_AGAIN
        ) from err
    module = type(strategy).__module__
    if module not in artefact.code:
        raise ArtefactTampered(
            field=f"{artefact.name}: strategy.name",
            value=f"{chosen.name} in {module}",
            expected=f"{chosen.name} in one of the modules that were promoted",
            remedy=PROMOTE_AGAIN,
        )
    require_same(artefact.name, "strategy.version", chosen.version, strategy.version)


def _described(exchange: str, symbols: tuple[str, ...], timeframe: str) -> str:
    return f"{exchange} {' '.join(symbols)} {timeframe}"


def reproduce(artefact: Artefact, candles: CandleSet) -> Backtest:
    """Run the promoted backtest again; returns it. Raises ArtefactTampered where it traded
    otherwise than the one that was promoted, or came to other figures."""
    run = rerun(
        artefact.strategy.build(),
        artefact.research_candles(candles),
        artefact.account,
        trade_from=artefact.window.trade_from,
        name=artefact.name,
    )
    require_same(artefact.name, "orders", artefact.digests.get("orders"), run.digest(named=False))
    for key, value in run.metrics._asdict().items():
        require_same(artefact.name, f"metrics.{key}", artefact.metrics.get(key), finite(value))
    return run


def _libraries() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {**versions, "python": ".".join(platform.python_version_tuple()[:2])}
