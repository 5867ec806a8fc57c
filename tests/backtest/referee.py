"""What vectorbt makes of our orders, and of the same signals: a referee that somebody else wrote.

vectorbt is imported when it is first asked, since that takes seconds. Its defaults that bite are
set here, and only here: ``min_size`` (1e-8, below which it drops an order) is 0, and where lots
count its ``size_granularity`` is a power of two: it rounds by ``size // step * step`` in binary
floats, which is exact for such a step and loses a lot of a decimal one more often than not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import talib

from research.account import WEEKDAYS, Account, Filters, Limits, Stops, TradingHours
from research.backtesting import Backtest
from research.candles import Candles, CandleSet, find_gaps
from research.settings import load_settings

__all__ = [
    "AGREED",
    "EVERY_LIMIT",
    "EVERY_STOP",
    "TEN",
    "accepting_gaps",
    "account_of",
    "by_orders",
    "by_signals",
    "disagreements",
    "lot_of",
    "real_hours",
    "whole_lots",
    "worst_difference",
]

AGREED = 1e-9
TEN = (
    *("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT"),
    *("ADAUSDT", "DOGEUSDT", "AVAXUSDT", "LINKUSDT", "DOTUSDT"),
)

# Limits and stops that are all there, and all of which act on hours.
EVERY_LIMIT = Limits(
    max_position_pct=40,
    max_position_usd=5_000,
    max_daily_loss_pct=1.5,
    max_daily_loss_usd=140,
    max_drawdown_pct=40,
    max_positions=2,
    trading_hours=TradingHours(start="01:00", end="23:00", days=WEEKDAYS[:6]),
    on_trip="flatten",
    min_fresh_bars=24,
    cooldown_minutes=360,
    max_exposure_pct=45,
    max_exposure_pct_by_symbol={"BTCUSDT": 30, "ETHUSDT": 20},
    max_orders_per_day=4,
    max_daily_turnover_pct=80,
    price_collar_pct=0.02,
    risk_per_trade_pct=1,
    target_volatility_pct=30,
    volatility_bars=100,
)
EVERY_STOP = Stops(
    stop_loss_pct=3, take_profit_pct=5, trailing_stop_pct=4, time_stop_minutes=48 * 60
)


def worst_difference(run: Backtest, equity: Any) -> float:
    """The largest relative difference between the run's equity and the referee's; NaN counts."""
    theirs = np.asarray(equity)
    assert theirs.shape == run.log.equity.shape
    difference = np.abs(theirs / run.log.equity - 1.0)
    return math.inf if np.isnan(difference).any() else float(difference.max())


def account_of(symbols: Sequence[str], limits: Limits | None, stops: Stops) -> Account:
    """The project's own fees, slippage and lots of the exchange, under other limits and stops."""
    settings = load_settings(Path(__file__).resolve().parents[2], {})
    return settings.account(symbols).model_copy(update={"limits": limits, "stops": stops})


def accepting_gaps(series: list[Candles], source: str) -> CandleSet:
    """Candles of which somebody accepted every gap."""
    return CandleSet(tuple(series), tuple(g for one in series for g in find_gaps(one)), source)


def real_hours(shared: Path, symbols: tuple[str, ...]) -> CandleSet:
    """Four years of real hours, with the outage of 2023-03-24 in all of them."""
    folder = shared / "history" / "binance"
    frames = {symbol: pd.read_parquet(folder / symbol / "1h.parquet") for symbol in symbols}
    series = [Candles.from_frame(symbol, "1h", frame) for symbol, frame in frames.items()]
    return accepting_gaps(series, "binance")


# --- signals


def lot_of(one: Candles) -> float:
    """A power of two that was worth 5 to 10 USDT at first.

    What whole lots leave over is then cash that vectorbt sees: below a billionth of what cash was,
    it sees none (its ``add_nb``).
    """
    return 2.0 ** math.floor(math.log2(10.0 / one.close[0]))


def whole_lots(one: Candles, slippage_bps: float) -> Account:
    """No gate, and lots of ``lot_of``."""
    filters = Filters(lot_step=Decimal(lot_of(one)), max_quantity=Decimal(2**32))
    return Account(limits=None, filters={one.symbol: filters}, slippage_bps=slippage_bps)


def by_signals(one: Candles, slippage_bps: float, shift: int = 1, **changes: Any) -> Any:
    """SMA 20/50 all in and all out, signals acted on ``shift`` bars later at the open."""
    import vectorbt as vbt

    fast, slow = talib.SMA(one.close, 20), talib.SMA(one.close, 50)
    frame = one.frame()
    entries = pd.Series(fast > slow, frame.index).shift(shift, fill_value=False)
    exits = pd.Series(fast <= slow, frame.index).shift(shift, fill_value=False)
    asked = {
        "size": np.inf,
        "init_cash": 10_000.0,
        "fees": 0.001,
        "slippage": slippage_bps / 10_000,
        "min_size": 0.0,
        "freq": "1h",
        **changes,
    }
    return vbt.Portfolio.from_signals(frame["close"], entries, exits, price=frame["open"], **asked)


# --- orders

# vectorbt takes one order a row and column, so a bar is three rows: what is sold at the open, what
# is bought there, and what a stop sells before the close.
SALES, PURCHASES, STOPS = 0, 1, 2


class Traded(NamedTuple):
    """A fill of the engine in vectorbt's rows and columns; the size is signed, in base asset.

    ``asked`` is the price before slippage; of a stop it is the engine's own after slippage.
    """

    col: int
    idx: int
    size: float
    asked: float
    price: float
    fees: float


def traded(run: Backtest) -> list[Traded]:
    """Every fill of the run, column by column, in order of time."""
    log, found = run.log, []
    for s, symbol in enumerate(run.symbols):
        step = run.account.filters_for(symbol).lot_step
        for t in np.flatnonzero(log.fill_lots[:, s] | log.stop_lots[:, s]).tolist():
            filled, stopped = int(log.fill_lots[t, s]), int(log.stop_lots[t, s])
            if filled:
                row = 3 * t + (SALES if filled < 0 else PURCHASES)
                price, fee = log.fill_price[t, s], log.fill_fee[t, s]
                found.append(Traded(s, row, float(filled * step), run.tape.open[t, s], price, fee))
            if stopped:
                row, price, fee = 3 * t + STOPS, log.stop_price[t, s], log.stop_fee[t, s]
                found.append(Traded(s, row, float(stopped * step), price, price, fee))
    return found


def by_orders(run: Backtest, **changes: Any) -> Any:
    """vectorbt's account of the run's orders, three rows a bar, the last of them its close.

    Sizes are the engine's. Prices after slippage, but for those of stops, and fees, cash and value
    are vectorbt's own.
    """
    import vectorbt as vbt

    bars, symbols = run.log.fill_lots.shape
    size, price = np.full((3 * bars, symbols), np.nan), np.ones((3 * bars, symbols))
    for one in traded(run):
        size[one.idx, one.col], price[one.idx, one.col] = one.size, one.asked
    slippage = np.zeros((3 * bars, 1))
    slippage[SALES::3] = slippage[PURCHASES::3] = run.account.slippage_bps / 10_000
    close = np.repeat(pd.DataFrame(run.tape.close).ffill().bfill().to_numpy(), 3, axis=0)
    asked = {
        "size": size,
        "price": price,
        "direction": "longonly",
        "fees": run.account.fee_rate,
        "slippage": slippage,
        "min_size": 0.0,
        "init_cash": run.account.initial_cash,
        "cash_sharing": True,
        "group_by": np.zeros(symbols, np.int64),
        "freq": pd.Timedelta(milliseconds=run.candles.bar_ms // 3),
        **changes,
    }
    return vbt.Portfolio.from_orders(pd.DataFrame(close, columns=list(run.symbols)), **asked)


def disagreements(run: Backtest, portfolio: Any) -> list[str]:
    """In what the run and vectorbt's account of its orders (``by_orders``) differ."""
    ours, theirs = traded(run), portfolio.orders.records.sort_values(["col", "idx"])
    found = []
    if worst_difference(run, portfolio.value().to_numpy()[STOPS::3]) >= AGREED:
        found.append("equity")
    if portfolio.positions.closed.count() != run.metrics.trades:
        found.append("trades")
    if len(ours) != len(theirs):
        return [*found, "orders"]
    for name in ("col", "idx", "size", "price", "fees"):
        mine = np.array([abs(getattr(one, name)) for one in ours], np.float64)
        if not np.allclose(mine, theirs[name].to_numpy(np.float64), rtol=1e-12, atol=0.0):
            found.append(name)
    return found
