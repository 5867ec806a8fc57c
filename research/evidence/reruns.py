"""A run lived through again with one thing changed: its costs, its targets, its start, its candles.

All the rest is the run's own: account, stops, limits, and what people did to the kill switch, bar
by bar. Targets are columns a symbol, as long as its candles, NaN where nothing is decided; nothing
is computed twice by the strategy, and no trial is counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from research.account import Account
from research.backtesting import Backtest, run_tape
from research.candles import Candles, CandleSet, Floats
from research.indicators import Bank
from research.rows import Course, Row, course_of, figures_of_rows
from research.strategy import Strategy, Targets
from research.tape import Tape, candle_positions

__all__ = ["PreparedTargets", "again", "course_again", "figures_again"]

# Prepared targets ask for no indicator.
NO_BANK = 0


@dataclass(frozen=True, eq=False, repr=False)
class PreparedTargets(Strategy):
    """Targets that somebody else has made: ``columns`` gives one a symbol, made when asked for.

    It is for runs inside evidence, never for a person: it has no parameters to write down, its
    confidence is 0, and no warm-up is cut off.
    """

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = ("prepared",)

    symbols: tuple[str, ...]
    columns: Callable[[], tuple[Floats, ...]]

    def __post_init__(self) -> None:
        """Neither field is a number with bounds."""

    @property
    def warmup(self) -> int:
        return 0

    def targets(self, candles: Candles) -> Targets:
        column = self.columns()[self.symbols.index(candles.symbol)]
        return Targets(column, np.zeros(len(column)), np.zeros(len(column), np.int64))

    def joint_target(self, candles: CandleSet) -> tuple[Floats, ...]:  # noqa: ARG002 - of the contract
        return self.columns()


def again(
    run: Backtest,
    *,
    account: Account | None = None,
    columns: Sequence[Floats] | None = None,
    first: int = 0,
) -> Backtest:
    """``run`` again with another account, other targets, or from its bar number ``first`` on.

    Where nothing is changed it is the same run to the bit. From a later bar on it starts flat and
    with the initial cash; moves of the kill switch that people made before are not made again.
    """
    tape, targets = run.tape, run.targets
    if columns is not None:
        tape = _with_columns(run, columns)
        targets = tuple(map(_bare, columns))
    if first:
        tape = Tape(*(column[first:] for column in tape))
    return run_tape(run.strategy, run.candles, account or run.account, targets, tape, run.name)


def _with_columns(run: Backtest, columns: Sequence[Floats]) -> Tape:
    target = np.full(run.tape.target.shape, np.nan)
    for s, (column, at) in enumerate(
        zip(columns, candle_positions(run.candles, run.tape).T, strict=True)
    ):
        target[at >= 0, s] = column[at[at >= 0]]
    return run.tape._replace(target=target)


def _bare(column: Floats) -> Targets:
    return Targets(column, np.zeros(len(column)), np.zeros(len(column), np.int64))


def course_again(run: Backtest, candles: CandleSet | None = None) -> Course:
    """The course of ``run`` for many rows; over other ``candles`` at the very same times if given.

    Targets are left blank, as ``figures_of_rows`` wants them.
    """
    start = int(run.tape.close_time[0])
    course = course_of(candles or run.candles, start, run.account)
    return replace(course, tape=course.tape._replace(events=run.tape.events))


def figures_again(run: Backtest, strategies: Sequence[PreparedTargets]) -> list[Row]:
    """The figures of each of ``strategies`` in the place of the run's own, on every core."""
    if not strategies:
        return []
    course, workers = course_again(run), os.cpu_count() or 1
    size = -(-len(strategies) // workers)
    chunks = [strategies[first : first + size] for first in range(0, len(strategies), size)]
    with ThreadPoolExecutor(workers, thread_name_prefix="again") as pool:
        parts = pool.map(
            lambda chunk: figures_of_rows(chunk, course, run.account, Bank(NO_BANK)), chunks
        )
        return [row for rows in parts for row in rows]
