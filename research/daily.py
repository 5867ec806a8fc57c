"""Daily returns: equity at the last close of each UTC day over that of the day before, minus one.

A close belongs to the UTC date of its time, as decisions do: the close at 00:00 is the first of the
day that it opens. Only days with a close count, and the first is measured from the initial cash.
Backtest and sweep share these functions, so that their returns are equal to the bit.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from research.candles import DAY, Floats, Ints

__all__ = ["daily_returns", "day_ends", "day_index"]


def day_ends(close_time: Ints) -> Ints:
    """Positions of the bars that close last on their UTC day; ``close_time`` in milliseconds."""
    days = close_time // DAY
    return np.flatnonzero(np.append(days[1:] != days[:-1], len(days) > 0)).astype(np.int64)


def daily_returns(day_equity: Floats, initial_cash: float) -> Floats:
    """The return of each day from the equity at its end; the same shape, ``(days,)``."""
    before = np.append(initial_cash, day_equity)[:-1]
    return np.asarray(day_equity / before - 1.0, np.float64)


def day_index(close_time: Ints) -> pd.DatetimeIndex:
    """The UTC days, each by its midnight, on which some of these closes lie."""
    days = close_time[day_ends(close_time)] // DAY * DAY
    return pd.DatetimeIndex(days.astype("datetime64[ms]"), name="day").tz_localize("UTC")
