"""The parity check: the paper ledger against a backtest over the same candles, bit for bit.

The backtest is given what the paper run was given: the candles it decided on, its start, and what
people did to the kill switch. Candles, signals, orders, fills, cash, equity and peak must be
equal: not close, equal. It says "equals replay": that the code is the same and nothing was lost or
added, not that a market would have filled us at these prices.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from live.ledger import Ledger, read
from live.ledger.read import AccountRow
from live.session import Plan, plan_of
from research.backtesting import Backtest, run_tape
from research.blotter import Decision, Fill, Order, Rows, open_rows, settled
from research.candles import CandleSet, iso
from research.engine import open_phase
from research.errors import ArtefactTampered, ParityBroken, UnknownNameError
from research.promotion import Artefact, require_unchanged
from research.state import Log, copied, new_log
from research.tape import Tape, tape_of

__all__ = ["Difference", "Parity", "compare", "require_parity"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where ledger and backtest differ. ``at`` is the time of the row, UTC ms."""

    at: int
    symbol: str
    stage: str
    field: str
    paper: Any
    backtest: Any

    def __str__(self) -> str:
        where = f" {self.symbol}" if self.symbol else ""
        return (
            f"{iso(self.at)}{where}, {self.stage}.{self.field}: paper {self.paper!r}, "
            f"backtest {self.backtest!r}"
        )


@dataclass(frozen=True)
class Parity:
    """The verdict. ``compared`` counts rows by stage; ``cause`` explains the first difference.

    ``twin`` is the backtest that the ledger was held against.
    """

    account: str
    bars: int
    compared: dict[str, int]
    differences: tuple[Difference, ...]
    twin: Backtest = field(repr=False, compare=False)
    cause: str = ""

    @property
    def equal(self) -> bool:
        return not self.differences

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {stage}" for stage, count in self.compared.items())
        text = (
            f"{self.account}: {len(self.differences)} differences in {self.bars:,} bars ({counts})"
        )
        if self.equal:
            return f"{text}. Paper equals replay."
        return f"{text}\nfirst: {self.differences[0]}\ncause: {self.cause}"


def compare(ledger: Ledger, artefact: Artefact, candles: CandleSet) -> Parity:
    """Compare the account of ``artefact`` with a backtest over ``candles`` (the whole history).

    Raises UnknownNameError where the ledger has no such account.
    """
    with ledger.reading() as conn:
        account = read.account_of(conn, artefact.name)
        if account is None:
            known = ", ".join(row.account for row in read.accounts(conn))
            raise UnknownNameError(
                field="account", value=artefact.name, expected=known or "a ledger with an account"
            )
        marks = read.marks(conn, artefact.name)
        interventions = read.interventions(conn)
        first_seen = read.revisions(conn, artefact.name)
        paper = _PaperRows(
            read.decisions(conn, artefact.name),
            read.orders(conn, artefact.name),
            read.fills(conn, artefact.name),
        )
    # Without a mark nothing was decided: not even the bar that closes at trade_from itself.
    end = marks[-1].at if marks else account.trade_from - 1
    decided = candles.closed_by(end)
    plan = plan_of(artefact, decided, account.trade_from, first_seen)
    tape = plan.tape._replace(
        events=tape_of(decided, plan.targets, interventions, account.trade_from).events
    )
    run = run_tape(plan.strategy, decided, artefact.account, plan.targets, tape, artefact.name)
    opened = _open_after(run, account, candles)
    twin = _PaperRows(
        [one for t in range(len(tape.close_time)) for one in run.decisions(t)],
        settled([*run.rows, opened]),
        [*run.fill_list, *opened.fills],
    )
    restated = _restated(plan, marks)
    differences = [*restated, *_marks(run, marks), *_rows(paper, twin)]
    differences.sort(key=lambda one: (one.at, _STAGES.index(one.stage)))
    compared = {
        "signals": len(twin.decisions),
        "orders": len(twin.orders),
        "fills": len(twin.fills),
        "marks": len(tape.close_time),
    }
    cause = ""
    if differences:
        cause = _cause(artefact, candles, account, restated)
    return Parity(artefact.name, len(tape.close_time), compared, tuple(differences), run, cause)


def require_parity(parity: Parity) -> None:
    """Raises ParityBroken naming the first difference and its cause."""
    if not parity.equal:
        first = parity.differences[0]
        raise ParityBroken(
            str(first),
            field=f"{parity.account}: {len(parity.differences)} differences, the first at",
            remedy=parity.cause,
        )


_STAGES = ("candles", "signals", "orders", "fills", "marks")


@dataclass(frozen=True)
class _PaperRows:
    decisions: list[Decision]
    orders: list[Order]
    fills: list[Fill]


def _open_after(run: Backtest, account: AccountRow, candles: CandleSet) -> Rows:
    """The open phase that paper has done already of the bar after the last whole one.

    It was done while the bar formed, at the opens seen then, or by a process that ended between
    the phases of a bar that had closed.
    """
    if account.cursor is None or account.cursor[1] != "open":
        return Rows()
    bar = account.cursor[0]
    if len(run.tape.close_time) and bar < int(run.tape.close_time[-1]):
        return Rows()  # a cursor behind its own marks was edited; what it led to shows below
    closed = {one.symbol: one.between(bar, bar + 1).open for one in candles}
    opens = account.seen_opens or {s: float(o[0]) for s, o in closed.items() if len(o)}
    prices = [opens.get(symbol, math.nan) for symbol in run.symbols]
    present = [symbol in opens for symbol in run.symbols]
    row = Tape([bar], [prices], None, None, None, [present], None, None)
    log = Log(*(column.tolist() for column in new_log(1, len(run.symbols))))
    open_phase(copied(run.last), row, 0, run.rules, log, 0)
    return open_rows(run.desk, log, 0, bar)


def _marks(run: Backtest, marks: Sequence[read.MarkRow]) -> Iterable[Difference]:
    twin = {
        int(close): {name: getattr(run.log, name)[t].item() for name in _MARKED}
        for t, close in enumerate(run.tape.close_time)
    }
    paper = {mark.at: {name: getattr(mark, name) for name in _MARKED} for mark in marks}
    for at in sorted({*twin, *paper}):
        yield from _fields(at, "", "marks", paper.get(at), twin.get(at))


_MARKED = ("cash", "equity", "peak", "day_base", "tripped")


def _rows(paper: _PaperRows, twin: _PaperRows) -> Iterable[Difference]:
    def decision(one: Decision) -> tuple[Any, dict[str, Any]]:
        signal = dataclasses.asdict(one.signal)
        key = (one.signal.timestamp, one.signal.symbol)
        return key, {**signal, "target": one.target, "code": one.code}

    def order(one: Order) -> tuple[Any, dict[str, Any]]:
        return (one.decided_at, one.symbol, one.order_id), dataclasses.asdict(one)

    def fill(one: Fill) -> tuple[Any, dict[str, Any]]:
        return (one.at, one.symbol, one.order_id), dataclasses.asdict(one)

    for stage, keyed in (("signals", decision), ("orders", order), ("fills", fill)):
        rows = {"signals": "decisions"}.get(stage, stage)
        left = dict(keyed(one) for one in getattr(paper, rows))
        right = dict(keyed(one) for one in getattr(twin, rows))
        for key in sorted({*left, *right}):
            yield from _fields(key[0], key[1], stage, left.get(key), right.get(key))


def _fields(
    at: int, symbol: str, stage: str, paper: dict[str, Any] | None, twin: dict[str, Any] | None
) -> Iterable[Difference]:
    if paper is None or twin is None:
        here = "there", "missing"
        yield Difference(at, symbol, stage, "row", here[paper is None], here[twin is None])
        return
    for name, value in paper.items():
        other = twin[name]
        both_nan = isinstance(value, float) and math.isnan(value) and math.isnan(other)
        if value != other and not both_nan:
            yield Difference(at, symbol, stage, name, value, other)


def _restated(plan: Plan, marks: Sequence[read.MarkRow]) -> list[Difference]:
    """The first bar whose candles are not those that paper decided on; empty where all are."""
    chain = ""
    for t, mark in enumerate(marks):
        closes_then = t < len(plan.opens) and int(plan.tape.close_time[t]) == mark.at
        chain = plan.chained(chain, t) if closes_then else ""
        if chain != mark.chain:
            return [Difference(mark.at, "", "candles", "digest", mark.chain, chain)]
    return []


def _cause(
    artefact: Artefact, candles: CandleSet, account: AccountRow, restated: Sequence[Difference]
) -> str:
    """Why they differ, from the most telling evidence down."""
    if account.seal != artefact.seal:
        return "the account was opened by another artefact of this name"
    try:
        require_unchanged(artefact, candles)
    except ArtefactTampered as err:
        return str(err)
    if restated:
        at = iso(restated[0].at)
        return f"the candles were restated: not what was decided on at {at}"
    return "the ledger's rows were edited, or the engine was interrupted and went on differently"
