"""The paper session: brings one account up to now, one phase of one bar a transaction.

    candles -> targets -> [open: fills] -> [close: stops, mark, gate, orders] -> ledger

The fold is the engine's own. This module only decides *when* a phase may run, and writes what the
phase left behind. It may be killed at any moment and started as often as one likes: the cursor in
the ledger says what is done, a phase that is done already is left alone, and bars that were missed
are caught up one by one, as the backtest would have lived through them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from live.broker import Broker, PaperBroker
from live.feed import Feed
from live.ledger import Ledger, read, write
from live.ledger.read import AccountRow, MarkRow
from research.blotter import Desk, Said, close_rows, open_rows, said_at
from research.candles import CandleSet, Gap, Ints, iso, require_sound
from research.engine import close_phase
from research.errors import (
    ArtefactTampered,
    CandlesRejected,
    CursorError,
    DataError,
    ExchangeError,
    GapNotAccepted,
    LedgerError,
)
from research.promotion import Artefact
from research.risk import rules_for
from research.state import Log, copied, new_log, opening_state
from research.strategy import Strategy, Targets, compute_targets
from research.tape import (
    Tape,
    candle_positions,
    event_between,
    opening_row,
    row_of,
    tape_of,
)

__all__ = ["Plan", "Progress", "Session", "advance", "plan_of"]


@dataclass(frozen=True)
class Session:
    """What a paper run is made of; ``mode`` is ``paper`` or ``replay``."""

    ledger: Ledger
    artefact: Artefact
    feed: Feed
    mode: str = "paper"
    broker: Broker = field(default_factory=PaperBroker)


@dataclass(frozen=True)
class Progress:
    """What one call did. ``waiting`` says in words what the next bar waits for, if anything."""

    bars: int
    late_bars: int
    orders: int
    fills: int
    cursor: str
    waiting: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything about the bars so far that does not change while they are lived through.

    ``tape`` starts at the account's first bar; ``position[t, s]`` is the candle of symbol ``s`` at
    bar ``t``, -1 where it is absent.
    """

    strategy: Strategy
    candles: CandleSet
    desk: Desk
    targets: tuple[Targets, ...]
    tape: Tape
    opens: Ints
    position: Ints

    def said(self, t: int) -> list[Said | None]:
        """What the strategy said at bar ``t``, one entry a symbol."""
        return said_at(self.strategy, self.targets, self.position[t])

    def chained(self, chain: str, t: int) -> str:
        """The digest of every candle decided on up to bar ``t``, from the one before.

        The first covers the candles before it too: they have warmed the indicators.
        """
        sha = hashlib.sha256(chain.encode())
        if t == 0:
            sha.update(self.candles.between(None, int(self.opens[0])).digest().encode())
        for one, i in zip(self.candles, self.position[t], strict=True):
            if i >= 0:
                row = (one.open[i], one.high[i], one.low[i], one.close[i], one.volume[i])
                sha.update(struct.pack("<q5d", one.ts[i], *row))
            else:
                sha.update(b"absent")
        return sha.hexdigest()

    def first_changed(self, marks: Sequence[MarkRow]) -> tuple[MarkRow, str] | None:
        """The first mark whose candles are not those that it was decided on, with their chain."""
        chain = ""
        for t, mark in enumerate(marks):
            closes_then = t < len(self.opens) and int(self.tape.close_time[t]) == mark.at
            chain = self.chained(chain, t) if closes_then else ""
            if chain != mark.chain:
                return mark, chain
        return None


def plan_of(
    artefact: Artefact,
    candles: CandleSet,
    trade_from: int,
    first_seen: dict[tuple[int, str], float],
) -> Plan:
    """Targets and tape for an account that trades from ``trade_from``.

    ``first_seen`` are opens that were acted on and restated later: the run keeps what it saw.
    """
    strategy = artefact.strategy.build()
    targets = compute_targets(strategy, candles)
    tape = tape_of(candles, targets, (), trade_from, artefact.account.volatility_bars)
    opens: Ints = tape.close_time - candles.bar_ms
    for (bar, symbol), price in first_seen.items():
        t = int(np.searchsorted(opens, bar))
        if t < len(opens) and opens[t] == bar:
            tape.open[t, candles.symbols.index(symbol)] = price
    desk = Desk(
        artefact.name, strategy.name, candles.symbols, rules_for(artefact.account, candles.symbols)
    )
    position = candle_positions(candles, tape)
    return Plan(strategy, candles, desk, targets, tape, opens, position)


def advance(
    session: Session, candles: CandleSet, now: int, trade_from: int | None = None
) -> Progress:
    """Bring the account up to ``now`` (UTC milliseconds); returns what was done.

    ``candles`` are the feed's closed ones, from the artefact's first bar on; whether the artefact
    may run is for the caller to check first (``research.promotion.verify``). ``trade_from`` is
    where a new account starts, flat (default: the last close before ``now``); an account that is
    there already keeps its own.

    Raises CandlesRejected, GapNotAccepted for a hole that nobody has accepted, DataError for
    candles that changed after they were decided on, ArtefactTampered where the account belongs to
    another artefact. Phases that were done before the error stay done.
    """
    for one in candles:
        require_sound(one, now)
    bar_ms = candles.bar_ms
    account = _open_account(session, now, now - now % bar_ms if trade_from is None else trade_from)
    with session.ledger.reading() as conn:
        first_seen = read.revisions(conn, account.account)
    plan = plan_of(session.artefact, candles, account.trade_from, first_seen)
    _require_chain(session, account, plan)
    if len(plan.opens):  # later gaps are found bar by bar: what comes before them is decided first
        candles.between(None, int(plan.opens[0]) + bar_ms).require_gaps_accepted()

    bars = late = orders = fills = 0
    for t in _bars_to_do(account, plan):
        hole = _hole(plan, account, t)
        if hole is not None:
            return _progress(session, bars, late, orders, fills, hole)
        filled = _do_open(session, plan, t, row_of(plan.tape, t), {}, now)
        placed, stopped = _do_close(session, plan, t, now)
        bars, late = bars + 1, late + (now - int(plan.tape.close_time[t]) >= bar_ms)
        orders, fills = orders + placed, fills + filled + stopped
    waiting = _overdue(plan, account, now)
    try:
        fills += _open_forming(session, plan, account, now)
    except (ExchangeError, CandlesRejected) as err:
        # Nothing is lost: the open phase is done from the closed candle as well.
        waiting = f"{waiting}; {err}" if waiting else str(err)
    return _progress(session, bars, late, orders, fills, waiting)


def _overdue(plan: Plan, account: AccountRow, now: int) -> str:
    """What is missing at the end, in words, where a bar should have closed by now."""
    bar_ms = plan.candles.bar_ms
    if not len(plan.opens):
        first_close = -(-account.trade_from // bar_ms) * bar_ms
        return f"no candle closes at {iso(first_close)} yet" if first_close <= now else ""
    last = int(plan.tape.close_time[-1])
    return f"no candle has closed since {iso(last)}" if last + bar_ms <= now else ""


def _progress(
    session: Session, bars: int, late: int, orders: int, fills: int, waiting: str
) -> Progress:
    with session.ledger.reading() as conn:
        account = read.account_of(conn, session.artefact.name)
    cursor = account.position if account else "nothing yet"
    return Progress(bars, late, orders, fills, cursor, waiting)


def _open_account(session: Session, now: int, trade_from: int) -> AccountRow:
    """The account's row, made where it is missing; refused where it belongs to something else."""
    artefact = session.artefact
    with session.ledger.writing() as conn:
        account = read.account_of(conn, artefact.name)
        if account is None:
            state = opening_state(artefact.account.initial_cash, len(artefact.market.symbols))
            write.add_account(
                conn, artefact.name, artefact.seal, session.mode, trade_from, state, now
            )
            account = read.account_of(conn, artefact.name)
    if account is None:
        raise LedgerError("the account could not be written", field=artefact.name)
    if account.seal != artefact.seal:
        raise ArtefactTampered(
            "the account was opened by another artefact of this name",
            field=f"{artefact.name}: seal",
            value=artefact.seal,
            expected=account.seal,
            remedy="Promote under a new name: a new strategy is a new account.",
        )
    if account.mode != session.mode:
        raise LedgerError(
            field=f"account {artefact.name}: mode",
            value=session.mode,
            expected=account.mode,
            remedy="Replays keep a ledger of their own (CANDLEBOOK_REPLAY_DATABASE_URL).",
        )
    return account


def _require_chain(session: Session, account: AccountRow, plan: Plan) -> None:
    """The candles that were decided on must still be the ones in the store, as far as they go.

    Another process may have seen more than this one: what this one lacks it cannot decide on.
    """
    with session.ledger.reading() as conn:
        marks = read.marks(conn, account.account)
    changed = plan.first_changed(marks[: len(plan.opens)])
    if changed is not None:
        raise DataError(
            "the candles that were decided on have changed since",
            field=f"{account.account}: bar closing at {iso(changed[0].at)}",
            remedy="Restore data/history from a backup; candlebook history verify looks for "
            "rot, candlebook parity names the first difference.",
        )


def _bars_to_do(account: AccountRow, plan: Plan) -> Iterator[int]:
    """Positions of the bars whose close is not yet done."""
    first = 0
    if account.cursor is not None:
        bar, phase = account.cursor
        first = int(np.searchsorted(plan.opens, bar, side="left" if phase == "open" else "right"))
    return iter(range(first, len(plan.opens)))


def _hole(plan: Plan, account: AccountRow, t: int) -> str | None:
    """What keeps bar ``t`` from being decided: a symbol whose candle has not come yet, in words.

    Raises GapNotAccepted where bars are missing before ones that are there.
    """
    bar_ms, bar = plan.candles.bar_ms, int(plan.opens[t])
    first_open = -(-account.trade_from // bar_ms) * bar_ms - bar_ms
    expected = int(plan.opens[t - 1]) + bar_ms if t else min(first_open, bar)
    for missing in range(expected, bar + 1, bar_ms):
        for one in plan.candles:
            i = int(np.searchsorted(one.ts, missing))
            if i < len(one) and one.ts[i] == missing:
                continue
            gap = Gap(one.symbol, missing, missing + bar_ms)
            if any(known.covers(gap) for known in plan.candles.gaps):
                continue
            if i == len(one):
                return f"{one.symbol} has no candle for {iso(missing)} yet"
            if i == 0:
                continue  # the symbol was not yet traded
            raise GapNotAccepted(
                "the bar is missing, so nothing is decided from there on",
                field=f"{one.symbol} {one.timeframe} at {iso(missing)}",
                remedy="Accept the gap by name (candlebook history accept-gap) or fetch the "
                "candles (candlebook history fetch).",
            )
    return None


def _do_open(
    session: Session, plan: Plan, t: int, row: Tape, seen_opens: dict[str, float], now: int
) -> int:
    """The open phase of bar ``t``; returns the number of fills, 0 where it was done already."""
    bar = int(plan.opens[t]) if t < len(plan.opens) else row.close_time[0] - plan.candles.bar_ms
    name = session.artefact.name
    with session.ledger.writing() as conn:
        account = _next(read.account_of(conn, name), (bar, "open"), _before(plan, t, "open"))
        if account is None:
            return 0
        log = _empty_log(plan)
        state = session.broker.fill(copied(account.engine), row, plan.desk.rules, log)
        rows = open_rows(plan.desk, log, 0, bar)
        write.add_rows(conn, name, rows, session.broker, now)
        write.set_positions(conn, name, plan.desk, state, bar)
        write.move_cursor(conn, name, (bar, "open"), state, seen_opens, account.chain, now)
    return len(rows.fills)


def _do_close(session: Session, plan: Plan, t: int, now: int) -> tuple[int, int]:
    """The close phase of bar ``t``; returns orders placed and stops filled."""
    bar, close = int(plan.opens[t]), int(plan.tape.close_time[t])
    name = session.artefact.name
    with session.ledger.writing() as conn:
        account = _next(read.account_of(conn, name), (bar, "close"), (bar, "open"))
        if account is None:
            return 0, 0
        for symbol, first_seen in account.seen_opens.items():
            s = plan.desk.symbols.index(symbol)
            if not plan.tape.present[t, s]:
                raise DataError(
                    "orders were filled at the open that it showed while it formed",
                    field=f"{symbol} {plan.candles.timeframe} at {iso(bar)}",
                    value="no candle",
                    expected="the closed candle",
                    remedy="Fetch it again (candlebook history fetch).",
                )
            later = float(plan.tape.open[t, s])
            if later != first_seen:
                write.add_revision(conn, name, symbol, bar, first_seen, later, now)
                plan.tape.open[t, s] = first_seen
        previous = int(plan.tape.close_time[t - 1]) if t else None
        event = event_between(
            [*read.interventions(conn, up_to=close), session.artefact.expiry], previous, close
        )
        row = row_of(plan.tape, t)._replace(events=[event])
        log = _empty_log(plan)
        state = close_phase(copied(account.engine), row, 0, plan.desk.rules, log, 0)
        rows = close_rows(plan.desk, log, 0, close, plan.said(t))
        chain = plan.chained(account.chain, t)
        write.add_rows(conn, name, rows, session.broker, now)
        write.set_positions(conn, name, plan.desk, state, close)
        write.add_mark(conn, name, log, close, chain, now)
        write.move_cursor(conn, name, (bar, "close"), state, {}, chain, now)
    return len(rows.orders), len(rows.fills)


def _open_forming(session: Session, plan: Plan, account: AccountRow, now: int) -> int:
    """The open phase of the candle forming now, once every symbol's has shown its open."""
    bar_ms = plan.candles.bar_ms
    bar = now - now % bar_ms
    last = int(plan.opens[-1]) if len(plan.opens) else None
    if last != bar - bar_ms or bar + bar_ms < account.trade_from:
        return 0
    seen = session.feed.forming(now)
    opens = {symbol: price for symbol, (ts, price) in seen.items() if ts == bar}
    if set(opens) != set(plan.desk.symbols):
        return 0
    row = opening_row(bar + bar_ms, [opens[symbol] for symbol in plan.desk.symbols])
    return _do_open(session, plan, len(plan.opens), row, opens, now)


def _before(plan: Plan, t: int, phase: str) -> tuple[int, str] | None:
    if phase == "close":
        return int(plan.opens[t]), "open"
    return (int(plan.opens[t - 1]), "close") if t else None


def _next(
    account: AccountRow | None, phase: tuple[int, str], before: tuple[int, str] | None
) -> AccountRow | None:
    """The account if ``phase`` is its next one, None if that is done already.

    Raises CursorError where a phase between would be skipped.
    """
    if account is None:
        raise LedgerError("the account has gone from the ledger", field=f"bar {iso(phase[0])}")
    if account.cursor == before:
        return account
    if account.cursor is not None and _rank(account.cursor) >= _rank(phase):
        return None
    raise CursorError(
        field=f"account {account.account}: cursor",
        value=account.position,
        expected="nothing yet" if before is None else f"{iso(before[0])} {before[1]}",
        remedy="Another process moved it, or bars are missing; run it again.",
    )


def _rank(cursor: tuple[int, str]) -> tuple[int, int]:
    return cursor[0], read.PHASES.index(cursor[1])


def _empty_log(plan: Plan) -> Log:
    return Log(*(column.tolist() for column in new_log(1, len(plan.desk.symbols))))
