"""A second, naive stop audit: plain dictionaries of candles and the rule as the page states it.

Reads a run's fills as its blotter shows them and walks each trade candle by candle. Nothing of the
engine, of the replay or of the audit is used here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from research.account import Account
from research.backtesting import Backtest
from research.blotter import Fill
from research.candles import Candles, CandleSet
from research.strategy import Action

PRICE_STOPS = ("stop_loss", "trailing_stop", "take_profit")


class Ohlc(NamedTuple):
    open: float
    high: float
    low: float
    close: float


@dataclass
class Story:
    """A trade: fills at opens by time, and how it ended; ``lots`` and prices as they go."""

    symbol: str
    fills: list[Fill] = field(default_factory=list)
    end: Fill | None = None
    intent: str = "open"


@dataclass(frozen=True)
class Verdict:
    """What should stand in the audit's row; the last five are None where it is not covered."""

    symbol: str
    opened_at: int
    finding: str
    both_inside: bool
    pnl: float
    fine_exit: str | None = None
    fine_bar: int | None = None
    fine_at: int | None = None
    fine_price: float | None = None
    fine_pnl: float | None = None


def table_of(candles: Candles) -> dict[int, Ohlc]:
    columns = (candles.open, candles.high, candles.low, candles.close)
    rows = zip(*(one.tolist() for one in columns), strict=True)
    return dict(zip(candles.ts.tolist(), (Ohlc(*row) for row in rows), strict=True))


def stories(run: Backtest) -> list[Story]:
    """Every trade, in order of its first fill, then of symbols."""
    done: list[Story] = []
    for symbol in run.symbols:
        story, held = Story(symbol), 0
        for fill in run.fill_list:
            if fill.symbol != symbol:
                continue
            held += fill.lots if fill.side is Action.BUY else -fill.lots
            if held:
                story.fills.append(fill)
                continue
            story.end, story.intent = fill, run.intents[fill.order_id]
            done.append(story)
            story = Story(symbol)
        if held:
            done.append(story)
    return sorted(done, key=lambda one: (one.fills[0].at, run.symbols.index(one.symbol)))


@dataclass
class Walk:
    """A position that goes through candles one by one."""

    account: Account
    symbol: str
    lots: int = 0
    entry: float = 0.0
    high: float = 0.0

    def fill(self, fill: Fill) -> None:
        if fill.side is Action.SELL:
            self.lots -= fill.lots
            return
        if self.lots:
            whole = self.lots + fill.lots
            self.entry = (self.entry * self.lots + fill.price * fill.lots) / whole
        else:
            self.entry = fill.price
        self.lots += fill.lots
        self.high = max(self.high, fill.price)

    def levels(self) -> tuple[float, float, float]:
        stops = self.account.stops
        loss = self.entry * (1 - (stops.stop_loss_pct or 100) / 100)
        trail = self.high * (1 - (stops.trailing_stop_pct or 100) / 100)
        goal = math.inf
        if stops.take_profit_pct is not None:
            goal = self.entry * (1 + stops.take_profit_pct / 100)
        return loss, trail, goal

    def candle(self, one: Ohlc) -> tuple[str, float] | None:
        """The stop that the candle meets and the price of the sale; None where there is none."""
        loss, trail, goal = self.levels()
        stop = max(loss, trail)
        name = "stop_loss" if loss >= trail else "trailing_stop"
        slip = 1 - self.account.slippage_bps / 10_000
        self.high = max(self.high, one.high)
        if one.open <= stop:
            met = name, one.open * slip
        elif one.open >= goal:
            met = "take_profit", one.open
        elif one.low <= stop:
            met = name, stop * slip
        elif one.high >= goal:
            met = "take_profit", goal
        else:
            return None
        filters = self.account.filters_for(self.symbol)
        quantity = self.lots * filters.lot_step
        small = quantity < max(filters.min_quantity, filters.lot_step)
        return None if small or float(quantity) * met[1] < filters.min_notional else met

    def holds_both(self, one: Ohlc) -> bool:
        loss, trail, goal = self.levels()
        stop = max(loss, trail)
        return stop < one.open < goal and one.low <= stop and one.high >= goal


def verdicts(run: Backtest, fine: CandleSet) -> Iterator[Verdict]:
    """What an audit of ``run`` on ``fine`` should say, one verdict a trade."""
    bars_of = {one.symbol: table_of(one) for one in run.candles}
    fine_of = {one.symbol: table_of(one) for one in fine}
    for story in stories(run):
        coarse, known = bars_of[story.symbol], fine_of.get(story.symbol, {})
        bars = _bars(run, story, coarse)
        parts = range(0, run.candles.bar_ms, fine.bar_ms)
        covered = all(bar + part in known for bar in bars for part in parts)
        both = _both_inside(run, story, bars, coarse)
        close = coarse[bars[-1]].close
        pnl = _pnl(run, story, story.fills, story.end, close)
        first = story.fills[0].at
        if not covered:
            yield Verdict(story.symbol, first, "not covered", both, pnl)
            continue
        stopped = _stopped(run, story, bars, known, fine.bar_ms)
        yield _judged(run, story, bars, close, both, pnl, stopped)


def _bars(run: Backtest, story: Story, coarse: dict[int, Ohlc]) -> list[int]:
    """Opens of the bars in which stops could act."""
    end = math.inf
    if story.end is not None:
        # A stop is timed at its bar's close, an order at its bar's open.
        end = story.end.at
    return [ts for ts in sorted(coarse) if story.fills[0].at <= ts < end]


def _both_inside(run: Backtest, story: Story, bars: list[int], coarse: dict[int, Ohlc]) -> bool:
    if story.intent not in ("stop_loss", "trailing_stop"):
        return False
    walk = Walk(run.account, story.symbol)
    for bar in bars:
        _fill_at(walk, story, bar)
        if bar == bars[-1]:
            return walk.holds_both(coarse[bar])
        walk.candle(coarse[bar])
    raise AssertionError("a trade without bars")


def _fill_at(walk: Walk, story: Story, bar: int) -> None:
    for fill in story.fills:
        if fill.at == bar:
            walk.fill(fill)


def _stopped(
    run: Backtest, story: Story, bars: list[int], known: dict[int, Ohlc], fine_ms: int
) -> tuple[int, int, str, float, int] | None:
    """Bar, time, stop, price and lots of the first stop on the finer candles."""
    walk = Walk(run.account, story.symbol)
    for bar in bars:
        _fill_at(walk, story, bar)
        for ts in range(bar, bar + run.candles.bar_ms, fine_ms):
            met = walk.candle(known[ts])
            if met is not None:
                return bar, ts + fine_ms, *met, walk.lots
    return None


def _judged(
    run: Backtest,
    story: Story,
    bars: list[int],
    close: float,
    both: bool,
    pnl: float,
    stopped: tuple[int, int, str, float, int] | None,
) -> Verdict:
    head = (story.symbol, story.fills[0].at)
    by_stop = story.intent in PRICE_STOPS
    if stopped is None and by_stop:
        held = _pnl(run, story, story.fills, None, close)
        words = "stopped on the run's bars only"
        return Verdict(*head, words, both, pnl, "held", bars[-1], None, close, held)
    if stopped is None:
        end = story.end
        bar, at = (bars[-1], None) if end is None else (end.at, end.at)
        price = close if end is None else end.price
        return Verdict(*head, "same", both, pnl, story.intent, bar, at, price, pnl)
    bar, at, intent, price, lots = stopped
    quantity = float(lots * run.account.filters_for(story.symbol).lot_step)
    taken = [one for one in story.fills if one.at <= bar]
    fine_pnl = _pnl(run, story, taken, None, 0.0) + quantity * price * (1 - run.account.fee_rate)
    finding = "stopped on the finer candles only"
    if by_stop:
        assert story.end is not None
        others = (
            (bar != bars[-1], "other bar"),
            (intent != story.intent, "other stop"),
            (price != story.end.price, "other price"),
        )
        finding = next((word for differs, word in others if differs), "same")
    return Verdict(*head, finding, both, pnl, intent, bar, at, price, fine_pnl)


def _pnl(run: Backtest, story: Story, fills: list[Fill], end: Fill | None, close: float) -> float:
    """Profit of these fills after fees; what is left is worth ``close``."""
    step = run.account.filters_for(story.symbol).lot_step
    money, left = 0.0, Decimal(0)
    for fill in [*fills, *([] if end is None else [end])]:
        bought = fill.side is Action.BUY
        money += -fill.notional - fill.fee if bought else fill.notional - fill.fee
        left += step * (fill.lots if bought else -fill.lots)
    return money + float(left) * close
