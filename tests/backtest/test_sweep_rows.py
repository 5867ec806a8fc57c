"""Every figure of every row of a sweep is its single backtest's: a thousand rows, and more.

NaN equals NaN, and nothing else is forgiven: the comparison is ``==``, never "close to".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from research import rows, stretch
from research.account import Account, Limits, Stops
from research.backtesting import backtest
from research.candles import CandleSet
from research.metrics import Metrics
from research.risk import CODES
from research.search import Sweep, sweep
from research.strategies.rsi_reversal import RsiReversal
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import Strategy, registry
from research.synthetic import synthetic_candles
from tests.backtest.referee import EVERY_LIMIT, EVERY_STOP, TEN, accepting_gaps, real_hours

THREE = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
STOPS = Stops(stop_loss_pct=4, trailing_stop_pct=6, take_profit_pct=9)
LIMITED = Account(limits=Limits(max_position_pct=40, max_drawdown_pct=50), stops=STOPS)
# 40 x 25 windows; each pair of them is allowed.
THOUSAND = {"fast": range(5, 45), "slow": range(50, 175, 5)}
FEW = {"fast": (5, 20), "slow": (30, 50, 90)}

Figures = dict[str, float]


@pytest.fixture(scope="module")
def ten(shared: Path) -> CandleSet:
    return real_hours(shared, TEN)


@pytest.fixture(scope="module")
def made_up() -> CandleSet:
    return synthetic_candles(THREE, "1h", "2023", 3_000)


@pytest.fixture(params=["made up", "real"])
def three(request: pytest.FixtureRequest) -> CandleSet:
    """Three symbols, whichever candles there are."""
    name = "ten" if request.param == "real" else "made_up"
    return chosen(request.getfixturevalue(name), THREE)


def chosen(candles: CandleSet, symbols: Sequence[str]) -> CandleSet:
    return accepting_gaps([candles[symbol] for symbol in symbols], candles.source)


def figures(strategy: Strategy, candles: CandleSet, account: Account) -> Figures:
    """What a single backtest says, all of it as numbers."""
    run = backtest(strategy, candles, account)
    return {**run.metrics._asdict(), "halted": float(run.halted_at is not None)}


def single_backtests(found: Sweep) -> list[Figures]:
    return [figures(one, found.candles, found.account) for one in found.strategies]


def unequal(frame: pd.DataFrame, alone: Sequence[Figures]) -> list[str]:
    """Every cell of a sweep's frame that is not its backtest's, as ``row.column``."""
    assert list(frame.columns) == [*Metrics._fields, "halted"]
    assert len(frame) == len(alone)
    return [
        f"{row}.{name}"
        for name in frame.columns
        for row, (mine, single) in enumerate(zip(frame[name].tolist(), alone, strict=True))
        if mine != single[name] and not (math.isnan(mine) and math.isnan(single[name]))
    ]


# --- a thousand rows


def test_a_thousand_rows_over_four_real_years_are_a_thousand_backtests(ten: CandleSet) -> None:
    found = sweep(SmaCrossover, chosen(ten, ["BTCUSDT"]), LIMITED, **THOUSAND)
    assert len(found) == 1_000
    assert found.frame["total_return"].nunique() == 1_000
    assert unequal(found.frame, single_backtests(found)) == []


def test_a_thousand_rows_over_made_up_candles_are_a_thousand_backtests(made_up: CandleSet) -> None:
    found = sweep(SmaCrossover, chosen(made_up, ["ETHUSDT"]), LIMITED, **THOUSAND)
    assert len(found) == 1_000
    assert found.frame["total_return"].nunique() > 900
    assert unequal(found.frame, single_backtests(found)) == []


# --- every strategy, every symbol, several symbols in one account


def grid_of(kind: type[Strategy]) -> dict[str, Any]:
    """A few values of every parameter: the default one and larger ones, within bounds."""
    factors = (1.0, 1.3, 1.9) if len(fields(kind)) < 3 else (1.0, 1.6)
    return {
        spec.name: [
            type(spec.default)(min(spec.default * factor, spec.metadata["high"]))
            for factor in factors
        ]
        for spec in fields(kind)
    }


PARAMETRIC = {name: kind for name, kind in registry().items() if fields(kind)}


def test_every_strategy_that_has_parameters_is_swept_here() -> None:
    assert set(registry()) - set(PARAMETRIC) == {"BuyAndHold"}


@pytest.mark.parametrize(
    "account",
    [Account(stops=STOPS), Account(limits=None, stops=STOPS)],
    ids=["default limits", "no gate"],
)
@pytest.mark.parametrize("name", PARAMETRIC)
def test_rows_of_every_strategy_with_stops_on_three_symbols(
    three: CandleSet, name: str, account: Account
) -> None:
    found = sweep(PARAMETRIC[name], three, account, **grid_of(PARAMETRIC[name]))
    assert len(found) >= 3
    assert found.frame["trades"].max() > 20
    assert unequal(found.frame, single_backtests(found)) == []


@pytest.mark.parametrize("account", [Account(), LIMITED], ids=["default limits", "stops"])
@pytest.mark.parametrize("symbol", TEN)
def test_rows_of_each_real_symbol(ten: CandleSet, symbol: str, account: Account) -> None:
    found = sweep(SmaCrossover, chosen(ten, [symbol]), account, **FEW)
    assert found.frame["trades"].min() > 0
    assert unequal(found.frame, single_backtests(found)) == []


def test_every_limit_there_is_has_a_value_here() -> None:
    """``kill_switch_armed`` is on unless it is switched off."""
    for given in (EVERY_LIMIT, EVERY_STOP):
        assert set(type(given).model_fields) - given.model_fields_set <= {"kill_switch_armed"}


@pytest.mark.parametrize("kind", [SmaCrossover, RsiReversal])
def test_rows_under_every_limit_there_is(three: CandleSet, kind: type[Strategy]) -> None:
    account = Account(limits=EVERY_LIMIT, stops=EVERY_STOP)
    found = sweep(kind, three, account, **grid_of(kind))
    assert unequal(found.frame, single_backtests(found)) == []
    runs = [backtest(one, three, account).log for one in found.strategies]
    codes = {CODES[int(code)][0] for log in runs for code in np.unique(log.code)}
    codes |= {CODES[int(code)][0] for log in runs for code in np.unique(log.fill_code)}
    assert len(codes) > 5, codes


def test_rows_of_ten_real_symbols_in_one_account(ten: CandleSet) -> None:
    crowd = Limits(max_position_pct=20, max_positions=4, max_drawdown_pct=60, on_trip="flatten")
    found = sweep(SmaCrossover, ten, Account(limits=crowd, stops=STOPS), **FEW)
    assert unequal(found.frame, single_backtests(found)) == []
    assert set(found.frame["halted"]) == {True}


# --- the comparison notices


@pytest.fixture(scope="module")
def few(made_up: CandleSet) -> tuple[Sweep, list[Figures]]:
    found = sweep(SmaCrossover, made_up, LIMITED, **FEW)
    return found, single_backtests(found)


@pytest.mark.parametrize("name", [*Metrics._fields, "halted"])
def test_one_figure_off_by_its_last_bit_is_noticed(
    few: tuple[Sweep, list[Figures]], name: str
) -> None:
    frame, alone = few[0].frame.copy(), few[1]
    assert unequal(frame, alone) == []
    value = frame[name].iloc[2]
    frame[name] = frame[name].astype(np.float64)
    frame.iloc[2, frame.columns.get_loc(name)] = np.nextafter(float(value), math.inf)
    assert unequal(frame, alone) == [f"2.{name}"]


def test_rows_that_changed_places_are_noticed(few: tuple[Sweep, list[Figures]]) -> None:
    found, alone = few
    rolled = found.frame.iloc[[*range(1, len(found)), 0]]
    assert {f"{row}.sharpe" for row in range(len(found))} <= set(unequal(rolled, alone))


def test_a_fee_that_differs_in_its_last_bit_is_noticed(few: tuple[Sweep, list[Figures]]) -> None:
    found, alone = few
    dearer = LIMITED.model_copy(update={"fee_rate": float(np.nextafter(0.001, 1.0))})
    other = sweep(SmaCrossover, found.candles, dearer, **FEW)
    assert {f"{row}.fees_paid" for row in range(len(found))} <= set(unequal(other.frame, alone))


def test_a_sweep_that_forgets_one_bar_in_a_quiet_stretch_is_noticed(
    few: tuple[Sweep, list[Figures]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel interpreted, since a compiled one cannot be broken while it runs."""
    found, alone = few
    run_row, real = rows._run_row, stretch._idle
    monkeypatch.setattr(rows, "_compiled_row", lambda: run_row)
    sane = sweep(SmaCrossover, found.candles, LIMITED, fast=[5], slow=[30])
    assert unequal(sane.frame, alone[:1]) == []
    monkeypatch.setattr(stretch, "_idle", lambda tally, bars: real(tally, bars - 1))
    broken = sweep(SmaCrossover, found.candles, LIMITED, fast=[5], slow=[30])
    assert "0.sharpe" in unequal(broken.frame, alone[:1])
