"""Combinatorial purged cross-validation: the choice of the best row, tested on many paths.

The days are cut into ``folds`` folds; every choice of ``test_folds`` of them is one split. The row
with the best Sharpe ratio on a split's training days is taken on its test days, and the test folds
of all splits are put together to paths, each of which covers every day once: C(folds, test_folds)
splits make C(folds, test_folds) x test_folds / folds paths. M. Lopez de Prado, Advances in
Financial Machine Learning (2018), sections 7.4 (purging, embargo) and 12.4 (splits, paths).

Days are UTC, returns fractions a day, Sharpe ratios annual with 365 days. The paths share days and
choices: their spread says how much the result hangs on the split, it is no confidence interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from research.backtesting import Backtest
from research.candles import DAY, Floats, Ints
from research.errors import InputError
from research.evidence.daily_matrix import annual_sharpe, sharpe_of_sums
from research.strategy import Action

__all__ = ["CrossValidation", "Margin", "cross_validate", "margin_of"]

SHORTEST_FOLD: Final = 10
FEWEST_TRAIN_DAYS: Final = 5
MOST_SPLITS: Final = 5_000
BLOCK_ROWS: Final = 1024


class Margin(NamedTuple):
    """Training days to leave out: ``purge`` before and after a test fold, ``embargo`` more after.

    ``capped`` says that the run asked for more than folds of this length can spare.
    """

    purge: int
    embargo: int
    capped: bool


@dataclass(frozen=True, eq=False, repr=False)
class CrossValidation:
    """How the best row of the training days has done on test days, path by path.

    ``paths`` are daily returns, days x paths; ``sharpe`` is the annual Sharpe ratio of each path,
    shape ``(paths,)``, NaN for one that never traded; ``median`` is that of the others,
    ``negative`` the share of all paths that lies below zero. ``splits`` has a row a split:
    ``test_folds`` (a tuple), ``chosen`` (the row's position), ``train_days``, ``train_sharpe``,
    ``test_sharpe``.
    """

    paths: pd.DataFrame
    sharpe: Floats
    median: float
    negative: float
    splits: pd.DataFrame
    folds: int
    test_folds: int
    purge: int
    embargo: int

    def __repr__(self) -> str:
        return (
            f"CrossValidation({len(self.sharpe)} paths of {len(self.splits)} splits, purge "
            f"{self.purge} and embargo {self.embargo} days: median Sharpe ratio {self.median:.2f} "
            f"out of sample, {self.negative:.0%} of the paths negative)"
        )


def cross_validate(
    matrix: Floats,
    days: pd.DatetimeIndex,
    *,
    folds: int = 10,
    test_folds: int = 2,
    purge: int = 0,
    embargo: int = 0,
) -> CrossValidation:
    """Cross-validate the choice among the rows of ``matrix`` (rows x days, daily returns).

    The folds have as many days each, the last takes what is left over. ``purge`` training days on
    either side of a test fold are left out, and ``embargo`` more after it; ``margin_of`` derives
    both from a run. Where no row has a Sharpe ratio on the training days, the first is taken.

    The default of two test folds in ten trains on four fifths of the days, in 45 splits and nine
    paths. Raises InputError for a matrix or numbers that do not fit together. Needs the extra
    ``evidence``.
    """
    values = _checked_matrix(matrix, days)
    _require_folds(values.shape[1], folds, test_folds, purge, embargo)
    cutter = _cutter(folds, test_folds, purge, embargo)
    splits = list(cutter.split(np.empty((values.shape[1], 1))))
    _require_train_days(min(len(train) for train, _ in splits), purge, embargo)
    train_sharpe = _train_sharpes(values, [train for train, _ in splits])
    chosen = np.argsort(-train_sharpe, axis=0, kind="stable")[0]
    paths = np.empty((values.shape[1], cutter.n_test_paths))
    for row, (_, tests), ids in zip(chosen, splits, cutter.get_path_ids(), strict=True):
        for test, path in zip(tests, ids, strict=True):
            paths[test, path] = values[row, test]
    table = pd.DataFrame(
        {
            "test_folds": [tuple(one) for one in cutter.test_set_index.tolist()],
            "chosen": chosen,
            "train_days": [len(train) for train, _ in splits],
            "train_sharpe": train_sharpe[chosen, np.arange(len(splits))],
            "test_sharpe": [
                float(annual_sharpe(values[row, np.concatenate(tests)]))
                for row, (_, tests) in zip(chosen, splits, strict=True)
            ],
        }
    )
    sharpe = annual_sharpe(paths.T)
    known = sharpe[~np.isnan(sharpe)]
    return CrossValidation(
        paths=pd.DataFrame(paths, index=days),
        sharpe=sharpe,
        median=float(np.median(known)) if len(known) else float("nan"),
        negative=float(np.mean(sharpe < 0.0)),
        splits=table.rename_axis("split"),
        folds=folds,
        test_folds=test_folds,
        purge=purge,
        embargo=embargo,
    )


def margin_of(run: Backtest, folds: int = 10) -> Margin:
    """Purge and embargo, in days, for the daily returns of ``run`` and of rows like it.

    Purge is the longest time that a position was held, since returns within one trade go together:
    a trade over the edge of a test fold has days on both sides. Embargo is the strategy's warm-up:
    so long after a test fold do indicators still see its prices. Both are rounded up to whole days
    and capped at a sixth of a fold, so that a training fold between two test folds keeps half of
    its days.
    """
    bar_ms = run.candles.bar_ms
    purge = -(-max(_holding_times(run), default=0) // DAY)
    embargo = -(-run.strategy.warmup * bar_ms // DAY)
    most = len(run.daily_returns) // folds // 6
    return Margin(min(purge, most), min(embargo, most), purge > most or embargo > most)


def _holding_times(run: Backtest) -> Iterator[int]:
    """How long each position was held, in milliseconds; one that still is, up to the last close."""
    opened: dict[str, int] = {}
    lots: dict[str, int] = {}
    for fill in run.fill_list:
        opened.setdefault(fill.symbol, fill.at)
        signed = fill.lots if fill.side is Action.BUY else -fill.lots
        lots[fill.symbol] = lots.get(fill.symbol, 0) + signed
        if lots[fill.symbol] == 0:
            yield fill.at - opened.pop(fill.symbol)
    yield from (int(run.tape.close_time[-1]) - at for at in opened.values())


def _cutter(folds: int, test_folds: int, purge: int, embargo: int) -> Any:
    try:
        from skfolio.model_selection import CombinatorialPurgedCV
    except ImportError as err:
        raise InputError(
            "skfolio is not installed",
            field="cross_validate",
            remedy="Install the extra: pip install 'candlebook[evidence]', or make install.",
        ) from err
    return CombinatorialPurgedCV(folds, test_folds, purged_size=purge, embargo_size=embargo)


def _checked_matrix(matrix: Any, days: pd.DatetimeIndex) -> Floats:
    values = np.asarray(matrix, np.float64)
    if values.ndim != 2 or not len(values) or values.shape[1] != len(days):
        raise InputError(
            field="matrix",
            value=values.shape,
            expected=f"daily returns, rows x days, here (rows, {len(days)})",
        )
    if not np.isfinite(values).all():
        row, day = (int(one[0]) for one in np.nonzero(~np.isfinite(values)))
        raise InputError(
            field=f"matrix[{row}, {day}]", value=float(values[row, day]), expected="a finite return"
        )
    return values


def _require_folds(days: int, folds: int, test_folds: int, purge: int, embargo: int) -> None:
    given = {"folds": folds, "test_folds": test_folds, "purge": purge, "embargo": embargo}
    for field, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise InputError(field=field, value=value, expected="a whole number")
    # A fold no shorter than their number takes the rest of the division into the last one.
    shortest = max(SHORTEST_FOLD, folds)
    if folds < 3 or days // folds < shortest:
        raise InputError(
            field="folds",
            value=folds,
            expected=f"3 folds or more, of at least {shortest} days each ({days} days are there)",
        )
    if not 2 <= test_folds < folds:
        raise InputError(field="test_folds", value=test_folds, expected=f"from 2 to {folds - 1}")
    if math.comb(folds, test_folds) > MOST_SPLITS:
        raise InputError(
            field="test_folds",
            value=test_folds,
            expected=f"at most {MOST_SPLITS:,} splits, not {math.comb(folds, test_folds):,}",
            remedy="Take fewer folds, or fewer test folds.",
        )
    most = days // folds - 2
    if min(purge, embargo) < 0 or purge + embargo > most:
        raise InputError(
            field="purge and embargo",
            value=(purge, embargo),
            expected=f"days, together at most {most}: a fold has {days // folds}",
        )


def _require_train_days(fewest: int, purge: int, embargo: int) -> None:
    if fewest < FEWEST_TRAIN_DAYS:
        raise InputError(
            f"some split has {fewest} days left to train on, {FEWEST_TRAIN_DAYS} are the fewest",
            field="purge and embargo",
            value=(purge, embargo),
            expected="fewer days",
            remedy="Longer folds, or fewer test folds, leave more.",
        )


def _train_sharpes(matrix: Floats, trains: Sequence[Ints]) -> Floats:
    """The annual Sharpe ratio of every row on the training days of every split, rows x splits.

    As products with a mask of days, a block of rows at a time: a hundred times quicker than taking
    out the days of each split, and no (rows x days x splits) array.
    """
    mask = np.zeros((matrix.shape[1], len(trains)))
    for split, train in enumerate(trains):
        mask[train, split] = 1.0
    blocks = [matrix[first : first + BLOCK_ROWS] for first in range(0, len(matrix), BLOCK_ROWS)]
    days = mask.sum(axis=0)
    found = [sharpe_of_sums(days, block @ mask, np.square(block) @ mask) for block in blocks]
    return np.concatenate(found)
