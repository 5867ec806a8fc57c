"""Random small markets and accounts in which every rule of the engine gets its turn.

A world is everything that a run reads. Half of the worlds live on a coarse grid of round prices
without costs, so that limits and stops are met *exactly* as often as they are passed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random
from typing import Any

import numpy as np

from research.account import WEEKDAYS, Account, Filters, Limits, Stops, TradingHours
from research.candles import Candles, CandleSet, timeframe_ms, utc_ms
from research.risk import Rules, rules_for
from research.strategy import Targets
from research.tape import Intervention, Move, Tape, tape_of, yearly_volatility
from tests.backtest.oracle import Bar, simulate

NEVER_ABSENT = 0.0


@dataclass(frozen=True)
class World:
    """One run's inputs: bars by symbol and open time, the account, what people did."""

    account: Account
    series: dict[str, dict[int, Bar]]
    timeframe: str = "1h"
    interventions: tuple[Intervention, ...] = ()
    trade_from: int | None = None

    @property
    def bar_ms(self) -> int:
        return timeframe_ms(self.timeframe)

    def rules(self) -> Rules:
        return rules_for(self.account, list(self.series))

    def tape(self) -> Tape:
        candles = CandleSet(tuple(self._candles(symbol) for symbol in self.series))
        targets = [
            Targets(
                np.array([bar.target for _, bar in sorted(one.items())], np.float64),
                np.zeros(len(one)),
                np.zeros(len(one), np.int64),
            )
            for one in self.series.values()
        ]
        window = self.account.volatility_bars
        return tape_of(candles, targets, self.interventions, self.trade_from, window)

    def with_volatility(self) -> World:
        """The same world whose bars know their symbol's volatility, where its limits want it."""
        if not self.account.volatility_bars:
            return self
        series = {}
        for symbol, one in self.series.items():
            known = yearly_volatility(self._candles(symbol), self.account.volatility_bars)
            rows = zip(sorted(one.items()), known.tolist(), strict=True)
            series[symbol] = {ts: replace(bar, volatility=value) for (ts, bar), value in rows}
        return replace(self, series=series)

    def _candles(self, symbol: str) -> Candles:
        rows = sorted(self.series[symbol].items())
        prices = [np.array([getattr(bar, n) for _, bar in rows], np.float64) for n in PRICES]
        ts = np.array([ts for ts, _ in rows], np.int64)
        return Candles(symbol, self.timeframe, ts, *prices)


PRICES = ("open", "high", "low", "close", "volume")


def world_of(seed: int, most_bars: int = 40) -> World:
    """The same world for the same seed, on every machine."""
    return random_world(Random(seed), most_bars)  # noqa: S311 - nothing secret depends on it


def random_world(rng: Random, most_bars: int = 40) -> World:
    timeframe = rng.choice(["15m", "1h", "1h", "4h", "4h", "12h", "1d"])
    bar_ms = timeframe_ms(timeframe)
    start = utc_ms("2024-01-01") + rng.randrange(0, 96) * bar_ms
    opens = [start + t * bar_ms for t in range(rng.randint(2, most_bars))]
    symbols = ["AAA", "BBB", "CCC", "DDD"][: rng.randint(1, 4)]
    coarse = rng.random() < 0.5
    absent = rng.choice([NEVER_ABSENT, NEVER_ABSENT, 0.15, 0.4])
    series = {symbol: _random_series(rng, opens, coarse, absent) for symbol in symbols}
    trade_from = rng.choice([None, None, None, rng.choice(opens) + rng.choice([0, 1, bar_ms])])
    world = World(
        account=_random_account(rng, symbols, coarse),
        series=series,
        timeframe=timeframe,
        interventions=_random_interventions(rng, opens, bar_ms),
        trade_from=trade_from,
    ).with_volatility()
    if rng.random() < 0.3:
        world = _sharing_volume(rng, world)
    return _met_exactly(rng, world) if rng.random() < 0.4 else world


def _sharing_volume(rng: Random, world: World) -> World:
    """The same world whose orders fill as far as a share of a candle's volume goes.

    Half of the volumes allow a few lots exactly, the others a part of all that cash could buy.
    """
    share = rng.choice([1, 10, 50, 100])
    update = {"volume_share_pct": share, "unfilled": rng.choice(["wait", "wait", "cancel"])}
    series = {}
    for symbol, one in world.series.items():
        lot = float(world.account.filters_for(symbol).lot_step)
        all_in = world.account.initial_cash / next(iter(one.values())).close
        series[symbol] = {}
        for ts, bar in one.items():
            room = rng.choice([lot * rng.randint(0, 9), all_in * rng.choice([0, 0.1, 0.3, 1, 9])])
            series[symbol][ts] = replace(bar, volume=room * 100 / share)
    return replace(world, account=world.account.model_copy(update=update), series=series)


def _met_exactly(rng: Random, world: World) -> World:
    """The same world under a loss limit that some bar of it meets to the last bit, if one does."""
    account, limits = world.account, world.account.limits
    if limits is None:
        return world
    story, _ = simulate(account, world.series, world.bar_ms, world.interventions, world.trade_from)
    found: list[dict[str, float]] = []
    for mark in story.marks:
        lost, fallen = mark.day_base - mark.equity, mark.peak - mark.equity
        percent = 100 * fallen / mark.peak
        if lost > 0:
            found.append({"max_daily_loss_usd": lost, "max_daily_loss_pct": 100.0})
        if percent > 0 and percent / 100 * mark.peak == fallen:
            found.append({"max_drawdown_pct": percent})
    if not found:
        return world
    pinned = limits.model_copy(update=rng.choice(found))
    return replace(world, account=account.model_copy(update={"limits": pinned}))


def _random_series(
    rng: Random, opens: Sequence[int], coarse: bool, absent: float
) -> dict[int, Bar]:
    close = float(rng.choice([100, 100, 1_000, 10]))
    unit = close / 100
    wild = rng.choice([1, 3, 8])
    target = math.nan if rng.random() < 0.3 else 0.0
    bars: dict[int, Bar] = {}
    for ts in opens:

        def move(calm: float = 1.0, wild: int = wild) -> float:
            if coarse:
                return unit * rng.randint(-wild, wild)
            return unit * wild * calm * rng.uniform(-1, 1)

        opened = max(unit, close + (move() if rng.random() < 0.4 else 0.0))
        closed = max(unit, opened + move())
        high = max(opened, closed) + abs(move())
        low = max(unit / 2, min(opened, closed) - abs(move()))
        if rng.random() < 0.45:
            target = rng.choice([math.nan, 0.0, 0.0, 0.25, 0.5, 1.0, 1.0, rng.random()])
        if rng.random() >= absent:
            bars[ts] = Bar(opened, high, low, closed, target)
            close = closed
    if not bars:
        bars[opens[0]] = Bar(close, close, close, close, target)
    return bars


def _random_interventions(
    rng: Random, opens: Sequence[int], bar_ms: int
) -> tuple[Intervention, ...]:
    moments = [
        rng.choice(opens) + rng.choice([bar_ms, bar_ms, bar_ms + 1, bar_ms // 2, -5 * bar_ms])
        for _ in range(rng.choice([0, 0, 0, 2, 8]))
    ]
    if moments and rng.random() < 0.3:
        moments = [moments[0]] * len(moments)  # several acts in one instant
    usual, held_back = [Move.KILL, Move.RESET], [Move.REDUCE, Move.RESUME]
    moves = rng.choice([usual, usual, usual, [*usual, *held_back], held_back])
    acts = [Intervention(at, rng.choice(moves)) for at in moments]
    if rng.random() < 0.15:
        acts.append(Intervention(rng.choice(opens) + rng.choice([0, bar_ms]), Move.EXPIRE))
    return tuple(acts)


def _random_account(rng: Random, symbols: Sequence[str], coarse: bool) -> Account:
    pick = rng.choice
    free = coarse and rng.random() < 0.7
    stops = Stops(
        stop_loss_pct=pick([None, None, 1, 2, 5, 10]),
        take_profit_pct=pick([None, None, 1, 2, 5, 10]),
        trailing_stop_pct=pick([None, None, 1, 2, 5, 10]),
        time_stop_minutes=pick([*[None] * 9, 60, 239, 240, 1_440, 5_000]),
    )
    limits = None if rng.random() < 0.2 else _random_limits(rng, symbols)
    if limits is not None and stops.stop_loss_pct is stops.trailing_stop_pct is None:
        limits = limits.model_copy(update={"risk_per_trade_pct": None})
    return Account(
        initial_cash=pick([1_000, 10_000] if free else [1e-3, 7, 100, 1_000, 10_000, 1e9]),
        fee_rate=0 if free else pick([0, 0.001, 0.000_75, 0.05]),
        slippage_bps=0 if free else pick([0, 5, 1, 300]),
        limits=limits,
        stops=stops,
        filters=None if rng.random() < 0.3 else {one: _random_filters(rng) for one in symbols},
    )


def _random_limits(rng: Random, symbols: Sequence[str]) -> Limits:
    pick = rng.choice
    seldom = rng.random() < 0.7
    own = {one: pick([0.5, 3, 20, 60]) for one in symbols if rng.random() < 0.5}

    def maybe(*values: float) -> Any:
        return None if seldom or rng.random() < 0.6 else pick(values)

    loose = rng.random() < 0.5
    return Limits(
        max_position_pct=pick([5, 30, 50, 100, 100]),
        max_position_usd=pick([None, None, 50, 400, 1_000]),
        max_daily_loss_pct=100 if loose else pick([0.1, 0.5, 1, 2]),
        max_daily_loss_usd=None if loose else pick([None, 1, 20, 100]),
        max_drawdown_pct=100 if rng.random() < 0.4 else pick([0.5, 1, 2, 5]),
        max_positions=pick([1, 1, 2, 3, 5]),
        trading_hours=_random_hours(rng) if rng.random() < 0.25 else TradingHours(),
        kill_switch_armed=pick([True, True, False]),
        on_trip=pick(["hold", "flatten"]),
        min_fresh_bars=maybe(2, 3, 5),
        cooldown_minutes=maybe(60, 239, 240, 1_440, 3_000),
        max_exposure_pct=pick([*[None] * 9, 0.5, 1, 20, 40]),
        max_exposure_pct_by_symbol=maybe(own) if own else None,
        max_orders_per_day=maybe(1, 2, 3, 5),
        max_daily_turnover_pct=maybe(5, 50, 50, 100, 100, 100),
        price_collar_pct=maybe(1, 2, 5),
        risk_per_trade_pct=maybe(0.5, 1, 2),
        target_volatility_pct=maybe(10, 60, 200),
        volatility_bars=pick([2, 5]),
    )


def _random_hours(rng: Random) -> TradingHours:
    start, end = rng.sample(["00:00", "04:00", "08:30", "12:00", "16:00", "20:00", "24:00"], 2)
    days = rng.sample(WEEKDAYS, rng.randint(3, 7))
    return TradingHours(start=start, end=end, days=tuple(days))


def _random_filters(rng: Random) -> Filters:
    step = Decimal(rng.choice(["0.00000001", "0.001", "0.1", "0.3", "1", "5"]))
    return Filters(
        lot_step=step,
        min_quantity=step * rng.choice([0, 0, 1, 2, 7]),
        max_quantity=rng.choice([Decimal(1_000_000), 1_000 * step, 9 * step]),
        min_notional=Decimal(rng.choice([0, 0, 5, 10, 120, 450, 900])),
        min_trade_size=step * rng.choice([0, 0, 1, 3]),
    )
