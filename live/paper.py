"""One slot of paper trading: what the notebook and the command line call.

A slot is the UTC close of a bar. ``run_slot`` opens the books, verifies the promoted artefact,
brings its account up to the slot, and compares the ledger with a backtest over the same candles.
This is the edge where the wall clock is read; everything below is handed its time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pandas as pd
import sqlalchemy as sa

from live.feed import ExchangeFeed, Feed, ReplayFeed
from live.kill_switch import switch_status
from live.ledger import Ledger, open_ledger, read, tables
from live.parity import Parity, compare, require_parity
from live.session import Progress, Session, advance
from research.candles import CandleSet, iso, timeframe_ms, utc_ms
from research.errors import InputError, PromotionError
from research.exchange import MarketData
from research.history import History
from research.history_manifest import Revision
from research.promotion import Artefact, load_artefact, require_unchanged
from research.settings import Settings, load_settings
from research.workspace import history_of, market_of, promoted_folder

__all__ = [
    "MODES",
    "SHOWN_AFTER_MS",
    "SlotReport",
    "artefact_of",
    "books_now",
    "check_parity",
    "decide",
    "feed_for",
    "open_books",
    "require_parity",
    "require_slot",
    "run_slot",
    "stored_candles",
]

MODES = ("paper", "replay")
# In a replay the forming candle has shown its open this long after the bar before it closed.
SHOWN_AFTER_MS = 5_000


def open_books(settings: Settings, mode: str) -> Ledger:
    """The ledger of a mode: replays keep books of their own. Raises InputError for another mode."""
    if mode not in MODES:
        raise InputError(field="mode", value=mode, expected=f"one of {', '.join(MODES)}")
    replay = mode == "replay"
    return open_ledger(settings.replay_database_url if replay else settings.database_url)


def books_now(ledger: Ledger, mode: str) -> int:
    """The time in a ledger's world: the wall clock, or the last close that a replay has lived."""
    if mode == "paper":
        return wall_clock()
    with ledger.reading() as conn:
        last = conn.execute(sa.select(sa.func.max(tables.metrics.c.at))).scalar()
    return 0 if last is None else int(last)


def wall_clock() -> int:
    """Now, UTC milliseconds."""
    return int(time.time() * 1000)


def artefact_of(name: str, settings: Settings) -> Artefact:
    """The promoted artefact of this name; raises what ``load_artefact`` raises."""
    return load_artefact(name, promoted_folder(settings))


def feed_for(artefact: Artefact, settings: Settings, mode: str) -> Feed:
    """The candles of an artefact, from its first bar on: stored ones, topped up unless replayed.

    Raises PromotionError where an artefact made on synthetic candles is to trade a real market.
    """
    market, start = artefact.market, utc_ms(artefact.window.start)
    if mode == "replay":
        stored = stored_candles(artefact, settings)
        if settings.replay_exchange_url is None:
            return ReplayFeed(stored)
        # A store of its own: what a replay exchange says is no history of the project's.
        fetched = History(settings.data_dir / "replays" / "history")
        replayed = MarketData(market.exchange, settings.replay_exchange_url)
        return ExchangeFeed(
            *(fetched, replayed, market.exchange, market.symbols, market.timeframe, start),
            gaps=stored.gaps,
        )
    if "synthetic" in market.source:
        raise PromotionError(
            "it was promoted on synthetic candles",
            field=f"{artefact.name}: market.source",
            value=market.source,
            expected="candles of a real exchange",
            remedy="It can be replayed: candlebook paper replay.",
        )
    exchange, history = market_of(settings), history_of(settings)
    return ExchangeFeed(history, exchange, market.exchange, market.symbols, market.timeframe, start)


def stored_candles(artefact: Artefact, settings: Settings) -> CandleSet:
    """The stored candles of an artefact, from its first bar on."""
    market, start = artefact.market, utc_ms(artefact.window.start)
    return history_of(settings).load(
        market.symbols, market.timeframe, start, exchange=market.exchange
    )


def require_slot(timeframe: str, slot: int | str) -> int:
    """A slot as UTC milliseconds. Raises InputError unless it is the close of a bar."""
    moment, bar_ms = utc_ms(slot), timeframe_ms(timeframe)
    if moment % bar_ms:
        raise InputError(
            field="slot", value=iso(moment), expected=f"the UTC close of a {timeframe} bar"
        )
    return moment


@dataclass(frozen=True, repr=False)
class SlotReport:
    """What one slot did, and where the account stands after it; tables for a notebook."""

    account: str
    mode: str
    slot: int
    progress: Progress
    parity: Parity
    artefact: Artefact
    tables: dict[str, pd.DataFrame]
    restated: tuple[tuple[str, Revision], ...] = ()

    def __repr__(self) -> str:
        done = self.progress
        waiting = f"; waiting: {done.waiting}" if done.waiting else ""
        if self.restated:
            names = ", ".join(f"{symbol} {iso(one.ts)}" for symbol, one in self.restated[-3:])
            count = len(self.restated)
            waiting += f"\n{count} candles came again with other values, the first stand: {names}"
        return (
            f"{self.account} ({self.mode}), slot {iso(self.slot)}: {done.bars} bars, "
            f"{done.late_bars} of them late, {done.orders} orders, {done.fills} fills{waiting}\n"
            f"{self.parity}{self._override()}"
        )

    def _override(self) -> str:
        """Who promoted it against the evidence; nothing where it passed."""
        return f"\n{self.artefact.warnings[0]}" if self.artefact.override is not None else ""

    def signals(self, bars: int = 1) -> pd.DataFrame:
        """Signals of the last ``bars`` closes, with the gate's answer."""
        frame = self.tables["signals"]
        latest = sorted(frame["at"].unique())[-bars:]
        columns = ["symbol", "action", "confidence", "target", "reason", "code"]
        return frame[frame["at"].isin(latest)].set_index("at")[columns]

    def positions(self) -> pd.DataFrame:
        """What is held now, valued at the last close."""
        columns = ["quantity", "entry_price", "last_price", "value"]
        return self.tables["positions"].set_index("symbol")[columns]

    def orders(self, last: int = 10) -> pd.DataFrame:
        """The newest orders, with how they ended."""
        columns = ["symbol", "side", "intent", "quantity", "status", "price", "fee", "reason"]
        return (
            self.tables["orders"].sort_values("decided_at").set_index("decided_at")[columns][-last:]
        )

    def equity(self) -> pd.DataFrame:
        """Cash, equity and drawdown at every close so far."""
        marks = self.tables["metrics"].set_index("at")
        return marks.assign(drawdown=1.0 - marks["equity"] / marks["peak"])[
            ["cash", "equity", "drawdown", "tripped"]
        ]

    def limits(self) -> pd.DataFrame:
        """How much of each risk limit is used, in the limit's own unit."""
        limits, marks = self.artefact.account.limits, self.tables["metrics"]
        if limits is None or marks.empty:
            return pd.DataFrame(columns=["used", "limit"])
        last = marks.sort_values("at").iloc[-1]
        held = self.tables["positions"]
        largest = held["value"].max() / last["equity"] * 100
        rows: dict[str, tuple[float, Any]] = {
            "daily loss %": (
                max(0.0, (1 - last["equity"] / last["day_base"]) * 100),
                limits.max_daily_loss_pct,
            ),
            "drawdown %": ((1 - last["equity"] / last["peak"]) * 100, limits.max_drawdown_pct),
            "positions": (int((held["lots"] > 0).sum()), limits.max_positions),
            "largest position %": (largest, limits.max_position_pct),
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=["used", "limit"])


def run_slot(
    name: str, slot: int | str, mode: str = "paper", settings: Settings | None = None
) -> SlotReport:
    """Bring the promoted strategy ``name`` up to ``slot``, the UTC close of a bar.

    In paper mode bars that have closed since are caught up as well. Once the artefact has expired
    only exits are decided. Called again for a slot that is done, it changes nothing.

    Raises ArtefactTampered where it must not run, ExchangeError where the market cannot be
    reached, and what ``live.session.advance`` raises.
    """
    settings = settings or load_settings()
    artefact = artefact_of(name, settings)
    moment = require_slot(artefact.market.timeframe, slot)
    ledger = open_books(settings, mode)
    try:
        feed = feed_for(artefact, settings, mode)
        now = _now(feed, mode, max(moment, books_now(ledger, mode)))
        if moment > now:
            raise InputError(
                field="slot", value=iso(moment), expected=f"a close up to now, {iso(now)}"
            )
        candles, progress = decide(Session(ledger, artefact, feed, mode), moment, now)
        parity = compare(ledger, artefact, candles)
        with ledger.reading() as conn:
            shown = ("signals", "orders", "positions", "metrics", "trades", "fills")
            frames = {table: read.frame(conn, table, name) for table in shown}
        restated = tuple(feed.restated())
    finally:
        ledger.close()
    return SlotReport(name, mode, moment, progress, parity, artefact, frames, restated)


def decide(session: Session, slot: int, now: int) -> tuple[CandleSet, Progress]:
    """Ask the market, and bring the account up to ``now``; a new one starts at ``slot``.

    Returns the candles that were decided on, and what was done. Nothing is decided unless every
    symbol trades by the promoted filters, or entries are refused anyway. Raises what the feed,
    ``require_unchanged`` and ``advance`` raise; no order was made then by the bar that failed.
    """
    if not _only_exits(session.ledger, session.artefact, now):
        session.feed.require_tradable(session.artefact.account.filters or {})
    candles = session.feed.closed(now)
    require_unchanged(session.artefact, candles)
    return candles, advance(session, candles, now, slot)


def _now(feed: Feed, mode: str, lived: int) -> int:
    """The time that a slot is decided at; ``lived`` is the slot, or the last that was lived.

    The clock of a replay is its slot, and never runs backwards; over HTTP it is the exchange's.
    """
    if mode == "paper":
        return wall_clock()
    if isinstance(feed, ExchangeFeed):
        return feed.market.server_time()
    return lived + SHOWN_AFTER_MS


def _only_exits(ledger: Ledger, artefact: Artefact, now: int) -> bool:
    """Whether entries are refused anyway: then other filters cannot do any harm."""
    with ledger.reading() as conn:
        switch = switch_status(conn, now)
    return switch.tripped or switch.reducing is not None or artefact.expiry.at <= now


def check_parity(name: str, settings: Settings, mode: str) -> Parity:
    """Compare the account ``name`` with a backtest over the stored candles."""
    artefact = artefact_of(name, settings)
    candles = stored_candles(artefact, settings)
    ledger = open_books(settings, mode)
    try:
        return compare(ledger, artefact, candles)
    finally:
        ledger.close()
