"""The daily returns of every row of a sweep, rows x days, and their annual Sharpe ratios.

Row ``i`` equals ``Backtest.daily_returns`` of the sweep's strategy ``i`` to the bit, whether it was
read from the folder that the sweep wrote or computed again. Days are UTC, a year has 365 of them.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from research.candles import Floats
from research.daily import day_index
from research.daily_file import read_returns
from research.errors import InputError
from research.indicators import Bank
from research.metrics import EPSILON, YEAR_DAYS
from research.rows import course_of, figures_of_rows
from research.search import BANK_BYTES, LARGEST_CHUNK, Sweep
from research.tape import first_bar

__all__ = ["DailyMatrix", "annual_sharpe", "daily_matrix", "sharpe_of_sums"]

# Daily returns compound to the total return but for the rounding of as many products.
SAME_GROWTH = 1e-9


class DailyMatrix(NamedTuple):
    """``days`` (UTC midnights) and ``matrix`` (rows x days, in the order of the sweep's rows)."""

    days: pd.DatetimeIndex
    matrix: Floats


def daily_matrix(sweep: Sweep) -> DailyMatrix:
    """The daily returns of all rows of ``sweep``; no trial is counted.

    Mapped from ``sweep.returns`` where that folder holds this very sweep: the same parameters and
    days, and in each row returns that compound to the row's total return. Computed again on every
    core where it does not. Raises CorruptHistory for a folder whose bytes are not what was written.
    """
    kept = _kept(sweep)
    return _computed(sweep) if kept is None else kept


def _kept(sweep: Sweep) -> DailyMatrix | None:
    if sweep.returns is None:
        return None
    try:
        found = read_returns(sweep.returns)
    except InputError:  # the folder is gone, or the search that wrote to it did not finish
        return None
    opens = sweep.candles.clock()
    first = first_bar(opens, sweep.candles.bar_ms, sweep.trade_from)
    days = day_index(opens[first:] + sweep.candles.bar_ms)
    same = found.days.equals(days) and found.parameters.equals(
        sweep.frame.index.to_frame(index=False)
    )
    if not same or not _compounds_to(found.matrix, 1.0 + sweep.frame["total_return"].to_numpy()):
        return None
    return DailyMatrix(found.days, found.matrix)


def _compounds_to(matrix: Floats, growth: Floats) -> bool:
    """Whether each row's returns compound to its ``growth``; a block of rows at a time."""
    blocks = range(0, len(matrix), 1024)
    found = [np.prod(1.0 + matrix[first : first + 1024], axis=1) for first in blocks]
    return bool(np.allclose(np.concatenate(found), growth, rtol=SAME_GROWTH, atol=0.0))


def _computed(sweep: Sweep) -> DailyMatrix:
    course, bank = course_of(sweep.candles, sweep.trade_from, sweep.account), Bank(BANK_BYTES)
    rows, workers = len(sweep.strategies), os.cpu_count() or 1
    matrix = np.empty((rows, len(course.day_ends)))
    size = max(1, min(LARGEST_CHUNK, -(-rows // workers)))

    def compute(first: int) -> None:
        chunk = slice(first, first + size)
        chosen, daily = sweep.strategies[chunk], matrix[chunk]
        figures_of_rows(chosen, course, sweep.account, bank, daily=daily)

    with ThreadPoolExecutor(workers, thread_name_prefix="daily matrix") as pool:
        for _ in pool.map(compute, range(0, rows, size)):
            pass  # which raises what the chunk raised
    return DailyMatrix(day_index(course.tape.close_time), matrix)


def annual_sharpe(returns: Any) -> Floats:
    """The annual Sharpe ratio of daily returns along the last axis; Sharpe (1994), eq. 3-6.

    Mean over standard deviation (n - 1) times the root of 365. NaN where there is no deviation
    beyond rounding: fewer than two days, or all days the same.
    """
    values = np.asarray(returns, np.float64)
    sums, squares = values.sum(axis=-1), np.square(values).sum(axis=-1)
    return sharpe_of_sums(values.shape[-1], sums, squares)


def sharpe_of_sums(days: Any, sums: Any, squares: Any) -> Floats:
    """Annual Sharpe ratios from the number of days, the sums of their returns and of the squares.

    Numbers or arrays that broadcast. ``research.metrics`` says what counts as no deviation.
    """
    days, sums, squares = (np.asarray(one, np.float64) for one in (days, sums, squares))
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums / days
        around = squares - days * mean * mean
        certain = around > days * EPSILON * (EPSILON + squares)
        deviation = np.sqrt(np.where(certain, around, np.nan) / (days - 1.0))
        ratio: Floats = mean / deviation * math.sqrt(YEAR_DAYS)
    return ratio
