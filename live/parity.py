"""The parity check: the paper ledger against a backtest over the same candles, bit for bit.

The backtest is given what the paper run was given: the candles it decided on, its start, and what
people did to the kill switch. Candles, signals, orders, fills, cash, equity and peak must be
equal: not close, equal. It says "equals replay": that the code is the same and nothing was lost or
added, not that a market would have filled us at these prices.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from live.ledger import Ledger, read
from live.ledger.read import AccountRow
from live.session import Plan, plan_of
from research.backtesting import Backtest, run_tape
from research.blotter import (
    Decision,
    Fill,
    Order,
    Position,
    Rows,
    Trade,
    open_rows,
    positions_of,
    round_trips,
    settled,
)
from research.candles import CandleSet, iso
from research.engine import open_phase
from research.errors import ArtefactTampered, DataError, ParityBroken, UnknownNameError
from research.promotion import Artefact, require_unchanged
from research.state import Log, State, copied, new_log
from research.tape import opening_row, tape_of

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

    Raises UnknownNameError where the ledger has no such account, DataError where the candles end
    before the ledger does.
    """
    with ledger.reading() as conn:
        account = read.account_of(conn, artefact.name)
        if account is None:
            known = ", ".join(row.account for row in read.accounts(conn))
            raise UnknownNameError(
                field="account", value=artefact.name, expected=known or "a ledger with an account"
            )
        marks = read.marks(conn, artefact.name)
        interventions = [*read.interventions(conn), artefact.expiry]
        first_seen = read.revisions(conn, artefact.name)
        paper = _Books(
            read.decisions(conn, artefact.name),
            read.orders(conn, artefact.name),
            read.fills(conn, artefact.name),
            read.trades(conn, artefact.name),
            read.positions(conn, artefact.name),
            read.last_events(conn, artefact.name),
            account.engine,
        )
    # Without a mark nothing was decided: not even the bar that closes at trade_from itself.
    end = marks[-1].at if marks else account.trade_from - 1
    _require_as_far(candles, marks, artefact.name)
    decided = candles.closed_by(end)
    plan = plan_of(artefact, decided, account.trade_from, first_seen)
    tape = plan.tape._replace(
        events=tape_of(decided, plan.targets, interventions, account.trade_from).events
    )
    run = run_tape(plan.strategy, decided, artefact.account, plan.targets, tape, artefact.name)
    twin = _twin(run, *_open_after(run, account, candles), account)
    restated = _restated(plan, marks)
    differences = [*restated, *_marks(run, marks), *_rows(paper, twin, account)]
    differences.sort(key=_by_time)
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


_STAGES = ("candles", "signals", "orders", "fills", "trades", "marks", "positions", "state")


def _by_time(one: Difference) -> tuple[bool, int, int]:
    """By time and then by stage; where the account stands now comes after how it got there."""
    return one.stage in ("positions", "state"), one.at, _STAGES.index(one.stage)


@dataclass(frozen=True)
class _Books:
    """One side of the comparison. ``events`` is the last status of each order, by id."""

    decisions: list[Decision]
    orders: list[Order]
    fills: list[Fill]
    trades: list[Trade]
    positions: list[Position]
    events: dict[str, str]
    state: State


def _require_as_far(candles: CandleSet, marks: Sequence[read.MarkRow], name: str) -> None:
    last = max((int(one.ts[-1]) + one.bar_ms for one in candles if len(one)), default=0)
    if marks and last < marks[-1].at:
        raise DataError(
            f"the candles end at {iso(last)}, the ledger at {iso(marks[-1].at)}",
            field=name,
            remedy="Bring the store up to date (candlebook history fetch), then compare again.",
        )


def _twin(run: Backtest, state: State, opened: Rows, account: AccountRow) -> _Books:
    """The backtest's books, with the open phase of the bar that has not closed yet."""
    orders = settled([*run.rows, opened])
    fills = [*run.fill_list, *opened.fills]
    return _Books(
        [one for t in range(len(run.tape.close_time)) for one in run.decisions(t)],
        orders,
        fills,
        round_trips(fills, {order.order_id: order.intent for order in orders}),
        # Positions are first written by an account's first phase.
        [] if account.cursor is None else positions_of(run.desk, state),
        {order.order_id: order.status.value for order in orders},
        state,
    )


def _open_after(run: Backtest, account: AccountRow, candles: CandleSet) -> tuple[State, Rows]:
    """The open phase that paper has done already of the bar after the last whole one.

    It was done while the bar formed, at the opens seen then, or by a process that ended between
    the phases of a bar that had closed.
    """
    state = copied(run.last)
    if account.cursor is None or account.cursor[1] != "open":
        return state, Rows()
    bar = account.cursor[0]
    if len(run.tape.close_time) and bar < int(run.tape.close_time[-1]):
        return state, Rows()  # a cursor behind its own marks was edited; what it led to shows below
    closed = {one.symbol: one.between(bar, bar + 1).open for one in candles}
    opens = account.seen_opens or {s: float(o[0]) for s, o in closed.items() if len(o)}
    row = opening_row(bar + candles.bar_ms, [opens.get(symbol) for symbol in run.symbols])
    log = Log(*(column.tolist() for column in new_log(1, len(run.symbols))))
    state = open_phase(state, row, 0, run.rules, log, 0)
    return state, open_rows(run.desk, log, 0, bar)


def _marks(run: Backtest, marks: Sequence[read.MarkRow]) -> Iterable[Difference]:
    twin = {
        int(close): {name: getattr(run.log, name)[t].item() for name in _MARKED}
        for t, close in enumerate(run.tape.close_time)
    }
    paper = {mark.at: {name: getattr(mark, name) for name in _MARKED} for mark in marks}
    for at in sorted({*twin, *paper}):
        yield from _fields(at, "", "marks", paper.get(at), twin.get(at))


_MARKED = ("cash", "equity", "peak", "day_base", "tripped")


def _rows(paper: _Books, twin: _Books, account: AccountRow) -> Iterable[Difference]:
    now = account.cursor[0] if account.cursor else account.trade_from
    left, right = _keyed(paper, now), _keyed(twin, now)
    for stage in left:
        for key in sorted({*left[stage], *right[stage]}):
            rows = left[stage].get(key), right[stage].get(key)
            yield from _fields(key[0], key[1], stage, *rows)


Keyed = dict[tuple[Any, ...], dict[str, Any]]


def _keyed(books: _Books, now: int) -> dict[str, Keyed]:
    """The rows of each stage by (time, symbol, ...)."""
    return {
        "signals": {
            (one.signal.timestamp, one.signal.symbol): dataclasses.asdict(one.signal)
            | {"target": one.target, "code": one.code}
            for one in books.decisions
        },
        "orders": {
            (one.decided_at, one.symbol, one.order_id): dataclasses.asdict(one)
            | {"last_event": books.events.get(one.order_id)}
            for one in books.orders
        },
        "fills": _numbered([((one.at, one.symbol, one.order_id), one) for one in books.fills]),
        "trades": _numbered([((one.closed_at, one.symbol), one) for one in books.trades]),
        "positions": _numbered([((now, one.symbol), one) for one in books.positions]),
        "state": {(now, ""): books.state._asdict()},
    }


def _numbered(rows: Sequence[tuple[tuple[Any, ...], Any]]) -> Keyed:
    """Rows by their key and their place among those of that key, so that a doubled one shows."""
    numbered: Keyed = {}
    seen: Counter[tuple[Any, ...]] = Counter()
    for key, row in rows:
        numbered[(*key, seen[key])] = dataclasses.asdict(row)
        seen[key] += 1
    return numbered


def _fields(
    at: int, symbol: str, stage: str, paper: dict[str, Any] | None, twin: dict[str, Any] | None
) -> Iterable[Difference]:
    if paper is None or twin is None:
        here = "there", "missing"
        yield Difference(at, symbol, stage, "row", here[paper is None], here[twin is None])
        return
    for name, value in paper.items():
        if not _same(value, twin[name]):
            yield Difference(at, symbol, stage, name, value, twin[name])


def _same(left: Any, right: Any) -> bool:
    """Equal to the bit, where NaN equals NaN."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return bool(left == right)


def _restated(plan: Plan, marks: Sequence[read.MarkRow]) -> list[Difference]:
    """The first bar whose candles are not those that paper decided on; empty where all are."""
    changed = plan.first_changed(marks)
    if changed is None:
        return []
    mark, chain = changed
    return [Difference(mark.at, "", "candles", "digest", mark.chain, chain)]


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
