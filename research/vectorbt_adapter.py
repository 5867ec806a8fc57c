"""The one door to vectorbt: its Portfolio, built from the engine's fills.

vectorbt is the researcher's instrument and an independent referee, never the clock. Importing it
takes seconds, so nothing else in the package does, and this module only when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from research.errors import InputError
from research.state import STOPS
from research.strategy import Action

if TYPE_CHECKING:
    from research.backtesting import Backtest

__all__ = ["portfolio_of"]


def portfolio_of(run: Backtest) -> Any:
    """A vectorbt Portfolio (symbols as columns, one shared cash account) from the run's fills.

    vectorbt recomputes cash, asset value and equity from the order records and the closes alone;
    nothing of the engine's own accounting goes in. Absent bars are valued at the last close.
    Equity agrees to 1e-9, but for one thing: vectorbt forgets cash below a billionth of what it was
    (its ``add_nb``), which an account that is always all in, in lots of 1e-8, shows at 6e-9.
    """
    try:
        import vectorbt as vbt
        from vectorbt.portfolio.enums import order_dt
    except ImportError as err:
        raise InputError(
            "vectorbt is not installed",
            field="Backtest.portfolio",
            remedy="Install the extra: pip install 'candlebook[notebooks]', or make install.",
        ) from err
    vbt.settings["plotting"]["use_widgets"] = False  # an 11 MB notebook becomes 0.8 MB

    index, symbols = run.close_time, list(run.symbols)
    close = pd.DataFrame(run.tape.close, index=index, columns=symbols).ffill()
    group = np.zeros(len(symbols), dtype=int)
    wrapper = vbt.ArrayWrapper.from_obj(
        close, freq=pd.Timedelta(milliseconds=run.candles.bar_ms), group_by=group
    )
    return vbt.Portfolio(
        wrapper,
        close,
        _order_records(run, order_dt),
        np.empty(0, dtype=vbt.portfolio.enums.log_dt),
        np.array([run.account.initial_cash]),
        cash_sharing=True,
        call_seq=None,
        fillna_close=True,
    )


def _order_records(run: Backtest, order_dt: Any) -> Any:
    """vectorbt's order records, sorted by column and then time, as it expects."""
    column = {symbol: s for s, symbol in enumerate(run.symbols)}
    bar_of = {int(close): t for t, close in enumerate(run.tape.close_time)}
    records = np.empty(len(run.fill_list), dtype=order_dt)
    for i, fill in enumerate(run.fill_list):
        # A stop's fill is stamped with its bar's close, any other with its bar's open.
        close = fill.at if run.intents[fill.order_id] in STOPS else fill.at + run.candles.bar_ms
        side = 0 if fill.side is Action.BUY else 1
        fees = fill.fee
        records[i] = (i, column[fill.symbol], bar_of[close], fill.quantity, fill.price, fees, side)
    return records[np.lexsort((records["id"], records["idx"], records["col"]))]
