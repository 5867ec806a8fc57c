"""The engine against a second simulator written from the design alone: every cell of every log.

``oracle.py`` is slow and naive on purpose. Equality is exact: the same bits, no tolerance.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research.account import Account, Filters, Limits, Stops
from research.candles import utc_ms
from research.engine import fold
from research.state import Log, State, opening_state
from research.tape import Intervention, Move
from tests.backtest.oracle import Bar, simulate
from tests.backtest.oracle_columns import as_columns, as_state
from tests.backtest.worlds import World, random_world, world_of

worlds = st.randoms(use_true_random=False).map(random_world)
SLOW_TO_DRAW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


def run(world: World, *, compiled: bool) -> tuple[State, Log]:
    start = opening_state(world.account.initial_cash, len(world.series))
    return fold(start, world.tape(), world.rules(), compiled=compiled)


def differences(world: World, state: State, log: Log) -> list[str]:
    """Where engine and oracle part, the first bar of each column; empty when they agree."""
    story, book = simulate(
        world.account, world.series, world.bar_ms, world.interventions, world.trade_from
    )
    closes = [int(one) for one in world.tape().close_time]
    found = []
    for name, expected in as_columns(story, closes, len(world.series)).items():
        column = getattr(log, name)
        assert (column.dtype, column.shape) == (expected.dtype, expected.shape), name
        if not np.array_equal(column, expected):
            t = int(np.argwhere(column != expected)[0][0])
            found.append(f"{name} at bar {t}: engine {column[t]!r}, oracle {expected[t]!r}")
    for name, wanted in as_state(book).items():
        if not np.array_equal(
            np.array(getattr(state, name), float), np.array(wanted, float), equal_nan=True
        ):
            found.append(f"state.{name}: engine {getattr(state, name)!r}, oracle {wanted!r}")
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW_TO_DRAW)
@given(worlds)
def test_the_interpreted_engine_does_exactly_what_the_oracle_does(world: World) -> None:
    assert differences(world, *run(world, compiled=False)) == []


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW_TO_DRAW)
@given(worlds)
def test_the_compiled_engine_does_exactly_what_the_oracle_does(world: World) -> None:
    assert differences(world, *run(world, compiled=True)) == []


def test_the_same_thousand_worlds_agree_on_every_machine() -> None:
    for seed in range(1_000):
        world = world_of(seed)
        assert differences(world, *run(world, compiled=True)) == [], f"seed {seed}"


@pytest.mark.parametrize("compiled", [False, True])
def test_long_runs_of_many_bars_agree(compiled: bool) -> None:
    for seed in range(20):
        world = world_of(seed, most_bars=600)
        assert differences(world, *run(world, compiled=compiled)) == [], f"seed {seed}"


def test_real_hours_over_an_outage_agree(shared: Path) -> None:
    # Ten weeks with the outage of 2023-03-24 13:00 in the middle, which a whole symbol misses.
    span = slice("2023-02-15", "2023-04-30")
    series = {}
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
        rows = pd.read_parquet(shared / "history" / "binance" / symbol / "1h.parquet")
        rows = rows.set_index("ts").loc[span]
        trend = rows["close"].rolling(20).mean() - rows["close"].rolling(50).mean()
        rows["target"] = (trend > 0).astype(float).where(trend.notna())
        series[symbol] = {
            utc_ms(row.Index): Bar(row.open, row.high, row.low, row.close, row.target)
            for row in rows.itertuples()
        }
    del series["SOLUSDT"][utc_ms("2023-03-10T00:00")]
    filters = Filters(lot_step=Decimal("0.00001"), min_notional=Decimal(10))
    world = World(
        account=Account(
            limits=Limits(max_position_pct=60, max_drawdown_pct=8, max_positions=2),
            stops=Stops(stop_loss_pct=3, take_profit_pct=6, trailing_stop_pct=4),
            filters=dict.fromkeys(series, filters),
        ),
        series=series,
        interventions=(
            Intervention(utc_ms("2023-03-24T13:20"), Move.KILL),
            Intervention(utc_ms("2023-03-27T08:00"), Move.RESET),
        ),
    )
    for compiled in (False, True):
        state, log = run(world, compiled=compiled)
        assert np.count_nonzero(log.fill_lots) > 50
        assert differences(world, state, log) == []
