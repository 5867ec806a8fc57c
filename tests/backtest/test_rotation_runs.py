"""Rotation through the whole of research: what it holds, sweeps, promotion; parity is elsewhere."""

from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import talib

from research.account import Account, Limits, Stops
from research.backtesting import backtest
from research.candles import CandleSet, Floats, Gap, utc_ms
from research.history import History
from research.metrics import Metrics
from research.promotion import promote, reproduce
from research.search import Sweep, sweep
from research.strategies.momentum_rotation import MomentumRotation
from research.synthetic import synthetic_candles

HOUR = 3_600_000
START = utc_ms("2024")
BUSY = Account(
    limits=Limits(max_position_pct=100, max_drawdown_pct=60, max_daily_loss_pct=5),
    stops=Stops(stop_loss_pct=8, trailing_stop_pct=12),
    filters=None,
)
FREE = Account(limits=None, fee_rate=0.0, slippage_bps=0.0, filters=None)
GRID: dict[str, Any] = {
    "lookback": [24, 100],
    "top": [1, 2],
    "rebalance_every": [1, 24],
    "floor": [-100.0, 0.0],
}


@pytest.fixture(scope="module")
def candles() -> CandleSet:
    """Three symbols: one whole, one that begins late, one without a day in between."""
    whole = synthetic_candles(("AAAUSDT", "BBBUSDT", "CCCUSDT"), "1h", START, 2_000)
    first, late, holed = whole
    gap = Gap("CCCUSDT", int(holed.ts[900]), int(holed.ts[924]), "an outage")
    rest = holed.rows(924, 2_000)
    columns = ("ts", "open", "high", "low", "close", "volume")
    joined = (np.append(getattr(holed, n)[:900], getattr(rest, n)) for n in columns)
    without = type(holed)("CCCUSDT", "1h", *joined)
    return CandleSet((first, late.rows(333, 2_000), without), (gap,))


def unequal(found: Sweep) -> list[str]:
    """The figures in which a row differs from its single backtest."""
    differing = []
    for strategy, (_, row) in zip(found.strategies, found.frame.iterrows(), strict=True):
        run = backtest(strategy, found.candles, found.account, trade_from=found.trade_from)
        alone = run.metrics._asdict()
        differing += [
            f"{strategy}: {name}"
            for name in Metrics._fields
            if row[name] != alone[name] and not (math.isnan(row[name]) and math.isnan(alone[name]))
        ]
    return differing


@pytest.mark.parametrize("account", [BUSY, FREE], ids=["gated", "no gate"])
def test_every_row_of_a_sweep_equals_its_single_backtest_exactly(
    candles: CandleSet, account: Account
) -> None:
    found = sweep(MomentumRotation, candles, account, **GRID)
    assert unequal(found) == []
    assert len(set(found.frame["total_return"])) > 12
    assert found.frame["trades"].min() > 3


def test_so_it_is_where_trading_starts_later(candles: CandleSet) -> None:
    start = START + 910 * HOUR + 1  # within the outage
    assert unequal(sweep(MomentumRotation, candles, BUSY, trade_from=start, **GRID)) == []


def test_so_it_is_on_real_candles_with_the_real_outage(shared_history: History) -> None:
    real = shared_history.load(["BTCUSDT", "ETHUSDT", "SOLUSDT"], "1h", "2023-02-01", "2023-05-01")
    # 2023-03-24 13:00 is missing: a bar of the clock for nobody, and every 14th hour a rebalance.
    found = sweep(
        MomentumRotation, real, BUSY, lookback=[50, 168], rebalance_every=[14], top=[1, 2]
    )
    assert unequal(found) == []


@dataclass(frozen=True)
class Careless(MomentumRotation):
    """Wrong: its quick targets rank each symbol alone."""

    def joint_target(self, candles: CandleSet) -> tuple[Floats, ...]:
        return tuple(self.targets(one).target for one in candles)


def test_quick_targets_that_are_others_would_be_noticed(candles: CandleSet) -> None:
    assert unequal(sweep(Careless, candles, BUSY, **GRID)) != []


def test_a_sweep_computes_each_momentum_once(
    candles: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: Counter[int] = Counter()
    honest = talib.ROCP

    @functools.wraps(honest)
    def counted(close: Floats, window: int) -> Floats:
        counts[window] += 1
        return honest(close, window)

    monkeypatch.setattr(talib, "ROCP", counted)
    # Two cores may both begin with the same one; one after another they could not.
    monkeypatch.setattr("research.search.ROWS_A_WORKER", 1_000)
    assert len(sweep(MomentumRotation, candles, BUSY, **GRID)) == 16
    assert counts == {24: 3, 100: 3}


def test_the_account_holds_the_strongest_alone_and_all_of_its_money_is_in_it(
    candles: CandleSet,
) -> None:
    run = backtest(MomentumRotation(lookback=100, rebalance_every=24, floor=-100.0), candles, FREE)
    held: dict[str, float] = dict.fromkeys(candles.symbols, 0.0)
    fills = run.fill_list
    for fill, following in zip(fills, [*fills[1:], None], strict=True):
        held[fill.symbol] += fill.quantity if fill.side == "BUY" else -fill.quantity
        if following is None or following.at > fill.at:
            assert sum(quantity > 0 for quantity in held.values()) == 1
    assert len(fills) > 20
    # Each is bought at the open after a rebalance, at 00:00, with what the last one was sold for.
    assert {fill.at % (24 * HOUR) for fill in fills} == {0}
    bought = [fill.notional for fill in fills if fill.side == "BUY"]
    sold = [fill.notional for fill in fills if fill.side == "SELL"]
    np.testing.assert_allclose(bought[1:], sold, rtol=0.05)


def test_a_cap_on_positions_is_a_cap_on_each_share(candles: CandleSet) -> None:
    for top, share in ((1, 0.4), (2, 0.2)):
        account = FREE.model_copy(update={"limits": Limits(max_position_pct=40)})
        run = backtest(MomentumRotation(lookback=100, top=top), candles, account)
        first = run.fill_list[0].notional
        np.testing.assert_allclose(first, share * account.initial_cash, rtol=0.05)


def test_it_is_promoted_and_its_backtest_reproduced(candles: CandleSet, tmp_path: Path) -> None:
    run = backtest(MomentumRotation(lookback=48, top=2), candles, BUSY)
    artefact = promote(
        run, "rotation", why="a test", override="a test", unjudged=True, folder=tmp_path
    )
    assert artefact.strategy.build() == run.strategy
    assert "research.strategies.momentum_rotation" in artefact.code
    assert reproduce(artefact, candles).digest() == reproduce(artefact, candles).digest()
