"""The promoted artefact: everything a paper run needs to be the backtest that was promoted.

``params/promoted/<name>.yaml`` freezes strategy and parameters, symbols, timeframe, account (cash,
costs, limits, stops, exchange filters) and the research window, with a digest of each, of the
candles in the window, of the code that decides, and of the backtest's own orders and fills. A run
verifies all of it first and refuses with the name of what changed.
"""

from __future__ import annotations

import getpass
import hashlib
import importlib.metadata
import json
import math
import platform
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, field_validator

from research.account import Account, Frozen
from research.backtesting import Backtest, backtest
from research.candles import DAY, CandleSet, iso, utc_ms
from research.code_hash import code_hashes
from research.durable import write_whole
from research.errors import (
    ArtefactExpired,
    ArtefactTampered,
    CandlebookError,
    InputError,
    PromotionRefused,
    UnknownNameError,
)
from research.search import Sweep
from research.settings import load_settings
from research.strategy import Strategy, make_strategy
from research.workspace import promoted_folder

__all__ = [
    "Artefact",
    "load_artefact",
    "promote",
    "reproduce",
    "require_promotable",
    "require_unchanged",
    "verify",
]

NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
DEFAULT_LIFE_DAYS = 90
# What decides a trade: the modules whose import closure is hashed besides the strategy's own.
CORE = ("research.engine", "research.blotter", "research.strategy", "research.tape")
LIBRARIES = ("numpy", "TA-Lib")
SCHEMA = 1


class Chosen(Frozen):
    """Strategy class, its version and its parameters."""

    name: str
    version: int
    parameters: dict[str, int | float]

    def build(self) -> Strategy:
        return make_strategy(self.name, self.parameters)


class Market(Frozen):
    """What it trades, in the order in which cash is shared."""

    exchange: str
    symbols: tuple[str, ...]
    timeframe: str
    source: str


class Window(Frozen):
    """The research window: opens in ``[start, end)``, traded from ``trade_from`` or its start."""

    start: str
    end: str
    trade_from: str | None = None

    @field_validator("start", "end")
    @classmethod
    def _is_moment(cls, text: str) -> str:
        utc_ms(text)
        return text


class Artefact(Frozen):
    """A promoted strategy. ``digests`` by section; ``code`` by module; ``seal`` over everything."""

    schema_version: Annotated[int, Field(ge=SCHEMA, le=SCHEMA)] = SCHEMA
    name: str
    promoted_at: str
    expires_at: str
    who: str
    why: str
    rows_tried: Annotated[int, Field(ge=1)]
    strategy: Chosen
    market: Market
    window: Window
    account: Account
    metrics: dict[str, float | None]
    digests: dict[str, str]
    code: dict[str, str]
    libraries: dict[str, str]
    seal: str = ""

    def research_candles(self, candles: CandleSet) -> CandleSet:
        """The part of ``candles`` that lies in the research window."""
        return candles.between(utc_ms(self.window.start), utc_ms(self.window.end))


def promote(
    run: Backtest | Sweep,
    name: str,
    *,
    why: str,
    folder: Path | None = None,
    who: str | None = None,
    rows_tried: int | None = None,
    life_days: int = DEFAULT_LIFE_DAYS,
    replace: bool = False,
    now: int | None = None,
) -> Artefact:
    """Write ``<folder>/<name>.yaml`` from a backtest, or from a sweep's best row by Sharpe ratio.

    ``folder`` is the project's ``params/promoted`` unless given; ``rows_tried`` is how many
    combinations it was chosen from (a sweep knows). Returns the artefact.

    Raises InputError for a bad name or an empty reason, PromotionRefused where an artefact of that
    name is there already (unless ``replace``), where the run was told of kill-switch moves, or
    where the strategy's code does not lie in research/strategies/.
    """
    place = promoted_folder(load_settings()) if folder is None else folder
    require_promotable(name, why=why, folder=place, replace=replace)
    chosen = run.run(name=name) if isinstance(run, Sweep) else run
    if rows_tried is None:
        rows_tried = len(run) if isinstance(run, Sweep) else 1
    if chosen.tape.events.any():
        raise PromotionRefused(
            "this run was told of kill-switch moves, which a new account will not have",
            field=name,
            remedy="Run the backtest without interventions.",
        )
    moment = int(time.time() * 1000) if now is None else now
    artefact = _sealed(_unsealed(chosen, name, why, who, rows_tried, moment, life_days))
    _write(_path(place, name), artefact)
    return artefact


def require_promotable(name: str, *, why: str, folder: Path, replace: bool = False) -> None:
    """Raises what ``promote`` would raise for this name and reason, whatever the run."""
    path = _path(folder, name)
    if not why.strip():
        raise InputError(field="why", value=why, expected="a reason, in words")
    if path.exists() and not replace:
        raise PromotionRefused(
            "an artefact of that name is promoted already",
            field=str(path.name),
            remedy="Choose another name, or replace it knowingly (--replace, replace=True).",
        )


def _unsealed(
    run: Backtest, name: str, why: str, who: str | None, rows_tried: int, now: int, life_days: int
) -> Artefact:
    clock = run.candles.clock()
    strategy = run.strategy
    first_close, starts = int(clock[0]) + run.candles.bar_ms, int(run.tape.close_time[0])
    content: dict[str, Any] = {
        "name": name,
        "promoted_at": iso(now // 1000 * 1000),
        "expires_at": iso(now // 1000 * 1000 + life_days * DAY),
        "who": who or getpass.getuser(),
        "why": why.strip(),
        "rows_tried": rows_tried,
        "strategy": Chosen(
            name=strategy.name, version=strategy.version, parameters=strategy.parameters()
        ),
        "market": Market(
            exchange="binance",
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
        "metrics": {k: _finite(v) for k, v in run.metrics._asdict().items()},
        "code": _code_of(strategy),
        "libraries": _libraries(),
    }
    draft = Artefact(**content, digests={})
    digests = {key: _digest(value) for key, value in _sections(draft)}
    digests["data"] = run.candles.digest()
    digests["orders"] = _orders_digest(run)
    return draft.model_copy(update={"digests": digests})


def load_artefact(name: str, folder: Path) -> Artefact:
    """Read and unseal ``<folder>/<name>.yaml``; its content is not yet checked against the world.

    Raises UnknownNameError where there is none, ArtefactTampered where the file is unreadable, has
    unknown keys, or is not what was sealed.
    """
    path = _path(folder, name)
    if not path.is_file():
        known = sorted(one.stem for one in folder.glob("*.yaml"))
        raise UnknownNameError(
            field="artefact",
            value=name,
            expected=f"one of {', '.join(known)}" if known else "a promoted strategy",
            remedy="candlebook promote NAME promotes one.",
        )
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
        artefact = Artefact(**raw)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, CandlebookError) as err:
        raise ArtefactTampered(
            f"cannot be read: {err}", field=f"params/promoted/{path.name}", remedy=_AGAIN
        ) from err
    if artefact.name != name:
        raise ArtefactTampered(
            field=f"params/promoted/{path.name}: name", value=artefact.name, expected=name
        )
    for section, value in _sections(artefact):
        _require(name, section, artefact.digests.get(section), _digest(value))
    _require(name, "seal (dates, reason, digests)", artefact.seal, _sealed(artefact).seal)
    return artefact


_AGAIN = "Promote it again from a backtest, under a new name if it has an account already."


def verify(artefact: Artefact, candles: CandleSet, now: int) -> None:
    """``require_unchanged``, and that the artefact has not expired at ``now`` (UTC milliseconds).

    Raises ArtefactTampered naming the field, ArtefactExpired.
    """
    require_unchanged(artefact, candles)
    if now >= utc_ms(artefact.expires_at):
        raise ArtefactExpired(
            f"expired at {artefact.expires_at}", field=artefact.name, remedy=_AGAIN
        )


def require_unchanged(artefact: Artefact, candles: CandleSet) -> None:
    """Check an artefact against today's code, libraries and candles.

    ``candles`` must cover the research window. Raises ArtefactTampered naming the first field that
    is not as it was.
    """
    strategy = artefact.strategy.build()
    _require(artefact.name, "strategy.version", artefact.strategy.version, strategy.version)
    code = _code_of(strategy)
    for module in sorted({*code, *artefact.code}):
        _require(artefact.name, f"code.{module}", artefact.code.get(module), code.get(module))
    for library, version in _libraries().items():
        _require(artefact.name, f"libraries.{library}", artefact.libraries.get(library), version)
    if candles.symbols != artefact.market.symbols or candles.timeframe != artefact.market.timeframe:
        raise ArtefactTampered(
            field=f"{artefact.name}: market",
            value=f"{' '.join(candles.symbols)} {candles.timeframe}",
            expected=f"{' '.join(artefact.market.symbols)} {artefact.market.timeframe}",
        )
    _require(
        artefact.name,
        f"data ({artefact.window.start} .. {artefact.window.end})",
        artefact.digests.get("data"),
        artefact.research_candles(candles).digest(),
    )


def reproduce(artefact: Artefact, candles: CandleSet) -> Backtest:
    """Run the promoted backtest again; returns it. Raises ArtefactTampered where it traded
    differently from the one that was promoted."""
    run = backtest(
        artefact.strategy.build(),
        artefact.research_candles(candles),
        artefact.account,
        trade_from=artefact.window.trade_from,
        name=artefact.name,
    )
    _require(artefact.name, "orders", artefact.digests.get("orders"), _orders_digest(run))
    return run


def _orders_digest(run: Backtest) -> str:
    """Digest of what was traded, whatever the account was called."""
    sha = hashlib.sha256()
    for fill in run.fill_list:
        sha.update(
            repr((fill.symbol, fill.side, fill.at, fill.lots, fill.price, fill.fee)).encode()
        )
    for one in run.order_list:
        sha.update(repr((one.symbol, one.intent, one.decided_at, one.quantity, one.code)).encode())
    return sha.hexdigest()


def _code_of(strategy: Strategy) -> dict[str, str]:
    return code_hashes((type(strategy).__module__, *CORE))


def _libraries() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {**versions, "python": ".".join(platform.python_version_tuple()[:2])}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _sections(artefact: Artefact) -> Iterator[tuple[str, Any]]:
    """The parts of an artefact that have a digest of their own, so that a refusal can name them."""
    account = artefact.account.model_dump(mode="json")
    for key, value in account.items():
        yield f"account.{key}", value
    for key in ("strategy", "market", "window"):
        yield key, getattr(artefact, key).model_dump(mode="json")
    for key in ("metrics", "libraries", "code"):
        yield key, getattr(artefact, key)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _sealed(artefact: Artefact) -> Artefact:
    content = artefact.model_dump(mode="json", exclude={"seal"})
    return artefact.model_copy(update={"seal": _digest(content)})


def _require(name: str, what: str, expected: object, found: object) -> None:
    if expected != found:
        raise ArtefactTampered(
            "changed since it was promoted",
            field=f"{name}: {what}",
            value=found,
            expected=str(expected),
            remedy=_AGAIN,
        )


def _path(folder: Path, name: str) -> Path:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(
            field="name", value=name, expected="a-z, 0-9 and _, starting with a letter, at most 41"
        )
    return folder / f"{name}.yaml"


def _write(path: Path, artefact: Artefact) -> None:
    text = yaml.safe_dump(artefact.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_whole(path, f"# Written by `candlebook promote`. Any edit is found and refused.\n{text}")
