"""The promoted artefact: a frozen file that says all that a run depends on, with a digest of each.

``params/promoted/<name>.yaml`` holds strategy and parameters, symbols, timeframe, account (cash,
costs, limits, stops, exchange filters), the research window and the figures of its backtest. A
digest of every part and a seal over all of them are checked whenever it is read; whether the world
is still as it was is checked in ``promotion``. Times are UTC texts, shares are fractions.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import Field, field_validator

from research.account import Account, Frozen
from research.candles import CandleSet, utc_ms
from research.durable import write_whole
from research.errors import ArtefactTampered, CandlebookError, InputError, UnknownNameError
from research.evidence.verdicts import Judgement, Override
from research.strategy import Strategy, make_strategy
from research.tape import Intervention, Move

__all__ = [
    "PROMOTE_AGAIN",
    "Artefact",
    "Chosen",
    "Market",
    "Window",
    "artefact_path",
    "digest",
    "load_artefact",
    "require_same",
    "sealed",
    "sections",
    "write_artefact",
]

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")
SCHEMA: Final = 2
PROMOTE_AGAIN: Final = (
    "Promote it again from a backtest, under a new name if it has an account already."
)


class Chosen(Frozen):
    """Strategy class, its version and its parameters."""

    name: str
    version: int
    parameters: dict[str, int | float]

    def build(self) -> Strategy:
        """The strategy. Raises InputError, UnknownNameError, ParameterError where it cannot be."""
        return make_strategy(self.name, self.parameters)

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.name}({given})"


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
    """A promoted strategy. ``digests`` by section; ``code`` by module; ``seal`` over everything.

    ``metrics`` are those of its backtest (None where undefined); ``halted_at`` is when the kill
    switch tripped in it, or None. ``judgement`` is what was found of it, ``override`` who promoted
    it in spite of that; it has the one, the other, or both.
    """

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
    halted_at: str | None
    judgement: Judgement | None
    override: Override | None
    digests: dict[str, str]
    code: dict[str, str]
    libraries: dict[str, str]
    seal: str = ""

    @property
    def expiry(self) -> Intervention:
        """What its expiry means to a run: from then on only exits are decided."""
        return Intervention(utc_ms(self.expires_at), Move.EXPIRE, "the artefact has expired")

    @property
    def warnings(self) -> list[str]:
        """What speaks against the backtest behind it, a sentence each; none is an empty list."""
        told = []
        if self.override is not None:
            against = (
                f"against {', '.join(self.override.failed)}"
                if self.judgement is not None
                else "without having been judged"
            )
            told.append(f"Promoted by {self.override.who} {against}: {self.override.why}")
        if self.halted_at is not None:
            told.append(
                f"Its backtest halted at {self.halted_at}: the kill switch tripped, and nothing "
                "was bought from then on."
            )
        total = self.metrics.get("total_return")
        if total is not None and total < 0:
            told.append(f"Its backtest lost money: {total:+.2%}.")
        if not self.metrics.get("trades"):
            told.append("Its backtest ended no trade: the figures say nothing of the strategy.")
        return told

    def research_candles(self, candles: CandleSet) -> CandleSet:
        """The part of ``candles`` that lies in the research window."""
        return candles.between(utc_ms(self.window.start), utc_ms(self.window.end))

    def __repr__(self) -> str:
        return (
            f"Artefact({self.name}: {self.strategy} on {', '.join(self.market.symbols)} "
            f"{self.market.timeframe}, promoted {self.promoted_at} by {self.who}, expires "
            f"{self.expires_at}, seal {self.seal[:12]})"
        )

    __str__ = __repr__

    def _repr_html_(self) -> str:
        total = self.metrics.get("total_return")
        rows = (
            ("Strategy", f"{self.strategy}, version {self.strategy.version}"),
            ("Market", f"{', '.join(self.market.symbols)} {self.market.timeframe}"),
            ("Candles", f"{self.market.source}, {self.window.start} .. {self.window.end}"),
            ("Total return", "–" if total is None else f"{total:+.2%}"),
            ("Chosen from", f"{self.rows_tried:,} tried"),
            ("Judged", _judged(self.judgement)),
            ("Promoted", f"{self.promoted_at} by {self.who}: {self.why}"),
            ("Expires", self.expires_at),
            ("Seal", self.seal[:12]),
            *(("Note", warning) for warning in self.warnings),
        )
        cells = "".join(
            f'<tr><th style="text-align:left">{key}</th>'
            f'<td style="text-align:left">{escape(value)}</td></tr>'
            for key, value in rows
        )
        return f"<table><caption><b>{escape(self.name)}</b></caption>{cells}</table>"


def _judged(judgement: Judgement | None) -> str:
    if judgement is None:
        return "no"
    asked = [one for one in judgement.verdicts if one.passed is not None]
    ledger = "" if judgement.head is None else f", by the ledger {judgement.head.ledger}"
    tries = f"{judgement.trials:,} tries, {judgement.effective_trials:,} of them different{ledger}"
    if judgement.passed:
        return f"passed all {len(asked)} checks, after {tries}"
    return f"failed {', '.join(judgement.failed)}, after {tries}"


def load_artefact(name: str, folder: Path) -> Artefact:
    """Read and unseal ``<folder>/<name>.yaml``; its content is not yet checked against the world.

    Raises UnknownNameError where there is none, ArtefactTampered where the file is unreadable, has
    unknown keys, or is not what was sealed.
    """
    path = artefact_path(folder, name)
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
        if not isinstance(raw, dict):
            raise TypeError("it is no mapping of keys to values")
        artefact = Artefact(**raw)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, CandlebookError) as err:
        raise ArtefactTampered(
            f"cannot be read: {err}", field=f"params/promoted/{path.name}", remedy=PROMOTE_AGAIN
        ) from err
    if artefact.name != name:
        raise ArtefactTampered(
            field=f"params/promoted/{path.name}: name", value=artefact.name, expected=name
        )
    for section, value in sections(artefact):
        require_same(name, section, artefact.digests.get(section), digest(value))
    require_same(name, "seal (dates, reason, digests)", artefact.seal, sealed(artefact).seal)
    return artefact


def write_artefact(path: Path, artefact: Artefact) -> None:
    """Write the file, whole or not at all."""
    text = yaml.safe_dump(artefact.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_whole(
        path, f"# Written by `candlebook promote`. Any changed value is found and refused.\n{text}"
    )


def artefact_path(folder: Path, name: str) -> Path:
    """``<folder>/<name>.yaml``. Raises InputError for a name that is none."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(
            field="name", value=name, expected="a-z, 0-9 and _, starting with a letter, at most 41"
        )
    return folder / f"{name}.yaml"


def sections(artefact: Artefact) -> Iterator[tuple[str, Any]]:
    """The parts of an artefact that have a digest of their own, so that a refusal can name them."""
    account = artefact.account.model_dump(mode="json")
    for key, value in account.items():
        yield f"account.{key}", value
    for key in ("strategy", "market", "window"):
        yield key, getattr(artefact, key).model_dump(mode="json")
    for key in ("judgement", "override"):
        part = getattr(artefact, key)
        yield key, None if part is None else part.model_dump(mode="json")
    for key in ("metrics", "libraries", "code"):
        yield key, getattr(artefact, key)


def digest(value: Any) -> str:
    """SHA-256 of a value that JSON can hold."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(artefact: Artefact) -> Artefact:
    """The artefact with its seal: a digest of everything else in it."""
    content = artefact.model_dump(mode="json", exclude={"seal"})
    return artefact.model_copy(update={"seal": digest(content)})


def require_same(name: str, what: str, expected: object, found: object) -> None:
    """Raises ArtefactTampered naming the artefact and the field where the two differ."""
    if expected != found:
        raise ArtefactTampered(
            "changed since it was promoted",
            field=f"{name}: {what}",
            value=found,
            expected=str(expected),
            remedy=PROMOTE_AGAIN,
        )
