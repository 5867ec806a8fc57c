"""How much of a run's result hangs on what nobody controls: costs, delay, and the day it began.

Every frame has a row a variation and as columns the figures of ``research.metrics.METRICS`` plus
``halted`` (whether the kill switch stands tripped at the end). The row that varies nothing is the
run itself, to the bit. Account, stops, limits and people's moves of the kill switch are the run's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from research.account import Account
from research.backtesting import Backtest
from research.candles import Floats
from research.errors import InputError, ParameterError
from research.evidence.reruns import again
from research.metrics import Metrics

__all__ = [
    "breakeven_factor",
    "cost_sensitivity",
    "delay_sensitivity",
    "share_positive",
    "start_sensitivity",
]

# Where doubling ends: costs a thousand times as high are past what an Account takes anyway.
MOST_COSTS: Final = 1024.0
# The breakeven factor is known to one part in a thousand: costs are never known as well as that.
TOLERANCE: Final = 1e-3


def cost_sensitivity(run: Backtest, factors: Sequence[float] = (0, 1, 2, 3)) -> pd.DataFrame:
    """The run with fee rate and slippage times each of ``factors``, which index the frame.

    Sizes and stops go their own way under other costs: each row is a whole run. Raises
    ParameterError for no factor, for one that is negative or not finite, and for one that takes a
    cost past what an Account allows.
    """
    numbers = [float(one) for one in factors]
    if not numbers or not all(math.isfinite(one) and one >= 0 for one in numbers):
        raise ParameterError(
            field="factors", value=list(factors), expected="finite numbers from 0 on"
        )
    rows = [again(run, account=_costing(run.account, factor)) for factor in numbers]
    return _frame(rows, pd.Index(numbers, name="cost_factor"))


def breakeven_factor(run: Backtest) -> float:
    """How many times its costs the run bears: the factor at which its total return crosses 0.

    0 where it gains nothing even without costs; infinite where it still gains at the highest costs
    that an Account allows; NaN where it pays none (no fee and no slippage, or no trade). Found by
    doubling and bisection, to one part in a thousand. A run under other costs takes other ways
    (sizes, halts), so it may cross 0 more than once; this is one of the places.
    """
    if run.metrics.turnover == 0.0 or (run.account.fee_rate == run.account.slippage_bps == 0.0):
        return math.nan

    def gains(factor: float) -> bool:
        return again(run, account=_costing(run.account, factor)).metrics.total_return > 0.0

    low, high = 0.0, 1.0
    if not gains(low):
        return 0.0
    while _allowed(run.account, high) and gains(high):
        low, high = high, 2.0 * high
    if not _allowed(run.account, high):
        high = _highest(run.account)
        if gains(high):
            return math.inf
    while high - low > TOLERANCE * high:
        middle = (low + high) / 2.0
        low, high = (middle, high) if gains(middle) else (low, middle)
    return (low + high) / 2.0


def _costing(account: Account, factor: float) -> Account:
    costs = {
        "fee_rate": account.fee_rate * factor,
        "slippage_bps": account.slippage_bps * factor,
    }
    return Account(**{**dict(account), **costs})


def _allowed(account: Account, factor: float) -> bool:
    if factor > MOST_COSTS:
        return False
    try:
        _costing(account, factor)
    except ParameterError:
        return False
    return True


def _highest(account: Account) -> float:
    """The highest factor that an Account takes, to the tolerance."""
    low, high = 0.0, 2.0 * MOST_COSTS
    while high - low > TOLERANCE * high:
        middle = (low + high) / 2.0
        low, high = (middle, high) if _allowed(account, middle) else (low, middle)
    return low


def delay_sensitivity(run: Backtest, bars: Sequence[int] = (0, 1, 2)) -> pd.DataFrame:
    """The run acting on every target so many of the symbol's candles later; ``bars`` index it.

    Delay 0 is the run itself. What a strategy said before the run began is acted on late as well,
    where there were candles to say it from; what comes too late for the last bar is never acted on.
    Raises ParameterError for no delay and for one that is no whole number from 0 on.
    """
    whole = [isinstance(one, (int, np.integer)) and not isinstance(one, bool) for one in bars]
    if not len(bars) or not all(whole) or min(bars) < 0:
        raise ParameterError(field="bars", value=list(bars), expected="whole numbers from 0 on")
    rows = [
        again(run, columns=[_later(one.target, delay) for one in run.targets]) for delay in bars
    ]
    return _frame(rows, pd.Index([int(one) for one in bars], name="delay_bars"))


def _later(column: Floats, bars: int) -> Floats:
    late = np.full(len(column), np.nan)
    late[bars:] = column[: max(0, len(column) - bars)]
    return late


def start_sensitivity(run: Backtest, starts: int = 12) -> pd.DataFrame:
    """The run as it is and begun later: at ``starts`` bars up to the middle of its window.

    They are spread evenly from the first bar on at which there is a target, so that what only cuts
    the warm-up is no other start. Each begins flat, with the initial cash, and ends where the run
    does. The frame is indexed by the close (UTC) at which trading begins, the run's own first; a
    short run has fewer bars to begin at. Moves of the kill switch by people before a start are not
    made again. Raises InputError for less than one start.
    """
    if isinstance(starts, bool) or not isinstance(starts, (int, np.integer)) or starts < 1:
        raise InputError(field="starts", value=starts, expected="a whole number from 1 on")
    bars = len(run.tape.close_time)
    ready = np.flatnonzero(~np.isnan(run.tape.target).all(axis=1))
    begin = int(ready[0]) if len(ready) else bars
    spread = np.linspace(begin, begin + (bars - begin) // 2, int(starts) + 1)[1:].astype(np.int64)
    places = np.unique([0, *spread[spread < bars]])
    rows = [again(run, first=int(first)) for first in places]
    return _frame(rows, run.close_time[places].rename("trade_from"))


def share_positive(frame: pd.DataFrame) -> float:
    """The share of the variations in such a frame that gained: total return above 0."""
    return float((frame["total_return"] > 0.0).mean())


def _frame(runs: Sequence[Backtest], index: pd.Index) -> pd.DataFrame:
    return pd.DataFrame(
        [[*one.metrics, bool(one.last.tripped)] for one in runs],
        index=index,
        columns=[*Metrics._fields, "halted"],
    )
