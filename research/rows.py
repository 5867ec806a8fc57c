"""The work of a sweep: the figures of a run of rows, each the same fold as a single backtest.

A chunk of rows is a pure function of strategies, candles and account, whoever computes it and in
whatever order. It keeps no curve: memory does not grow with the number of rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np

from research import metrics, stretch
from research.account import Account
from research.candles import CandleSet, Floats, Ints
from research.compiled import compile_kernel
from research.daily import daily_returns, day_ends
from research.engine import KERNEL_MODULES, step
from research.errors import ParameterError
from research.indicators import Bank, sharing
from research.metrics import Metrics, Tally, metrics_of, opening_tally, tally_bar
from research.risk import Rules, rules_for
from research.sketch import marks_of
from research.state import Log, State, as_arrays, clear_row, new_log, opening_state
from research.strategy import Strategy, compute_targets, raw_targets
from research.stretch import (
    Scratch,
    find_busy,
    is_invested,
    is_restless,
    new_scratch,
    quiet_stretch,
)
from research.tape import Place, Tape, blank_tape

__all__ = ["ROW_MODULES", "Course", "Row", "course_of", "figures_of_rows", "live_through"]

ROW_MODULES: Final = (*KERNEL_MODULES, metrics, stretch, sys.modules[__name__])


class Row(NamedTuple):
    """The figures of one combination, and whether the kill switch had tripped at its end."""

    figures: Metrics
    halted: bool


@dataclass(frozen=True)
class Course:
    """The bars that every row lives through: candles, their tape without targets, their places.

    ``day_ends`` are the bars that close last on their UTC day, ``marks`` those of them at which a
    row's sketch is taken.
    """

    candles: CandleSet
    tape: Tape
    places: tuple[Place, ...]
    day_ends: Ints
    marks: Ints


def course_of(candles: CandleSet, start: int | None, account: Account) -> Course:
    """The course over ``candles`` from the close ``start`` on (UTC milliseconds; None: all).

    ``account`` says what else its limits want to know of each bar.
    """
    tape, places = blank_tape(candles, (), start, account.volatility_bars)
    close_time = tape.close_time
    return Course(candles, tape, tuple(places), day_ends(close_time), marks_of(close_time))


def figures_of_rows(
    strategies: Sequence[Strategy],
    course: Course,
    account: Account,
    bank: Bank,
    on_row: Callable[[], Any] = lambda: None,
    daily: Floats | None = None,
    marked: Floats | None = None,
) -> list[Row]:
    """The rows of ``strategies``, in their order; indicators are shared through ``bank``.

    ``daily``, rows x days of the course, takes the daily returns of each, ``marked``, rows x marks
    of the course, its equity there. Several threads may live through one course. Raises
    ParameterError for a target that is none.
    """
    candles, places = course.candles, course.places
    tape = course.tape._replace(target=course.tape.target.copy())
    symbols = len(candles)
    rules, log = as_arrays(rules_for(account, candles.symbols)), new_log(1, symbols)
    noted = None if marked is None else course.marks
    noted = noted if daily is None else course.day_ends
    scratch = new_scratch(len(tape.close_time), noted)
    at_marks = slice(None) if daily is None else np.searchsorted(course.day_ends, course.marks)
    rows: list[Row] = []
    with sharing(bank):
        for strategy in strategies:
            _write_targets(tape, places, strategy, candles)
            state = as_arrays(opening_state(account.initial_cash, symbols))
            tally = as_arrays(opening_tally(account.initial_cash, symbols))
            bars, tally, tripped = _compiled_row()(state, tape, scratch, rules, log, tally)
            if bars < 0:
                _tell_wrong_target(strategy, candles)
            if daily is not None:
                daily[len(rows)] = daily_returns(scratch.day_equity, account.initial_cash)
            if marked is not None:
                marked[len(rows)] = scratch.day_equity[at_marks]
            rows.append(Row(metrics_of(tally, account.initial_cash, candles.bar_ms), bool(tripped)))
            on_row()
    return rows


def _write_targets(
    tape: Tape, places: Sequence[Place], strategy: Strategy, candles: CandleSet
) -> None:
    """The targets of every symbol onto the tape, none before the declared warm-up."""
    for s, (target, place) in enumerate(zip(raw_targets(strategy, candles), places, strict=True)):
        tape.target[place.rows, s] = target[place.first :]
        unready = max(0, strategy.warmup - place.first)
        everywhere = isinstance(place.rows, slice)
        tape.target[slice(unready) if everywhere else place.rows[:unready], s] = np.nan


def _tell_wrong_target(strategy: Strategy, candles: CandleSet) -> None:
    compute_targets(strategy, candles)  # which names the bar
    raise ParameterError(
        field=f"{strategy.name}.target",
        expected="the same targets as those of its method targets, 0 to 1 or NaN",
    )


def _run_row(
    state: State, tape: Tape, scratch: Scratch, rules: Rules, log: Log, tally: Tally
) -> tuple[int, Tally, bool]:
    bars, last, counted = live_through(state, tape, scratch, rules, log, tally)
    return bars, counted, last.tripped  # nobody resets the switch in a sweep


def live_through(
    state: State, tape: Tape, scratch: Scratch, rules: Rules, log: Log, tally: Tally
) -> tuple[int, State, Tally]:
    """One combination over the whole tape: the bars lived, its last state, its tally.

    ``log`` has one row, ``scratch`` room for every bar, and takes the equity at the days' ends. The
    bars are -1 for a target outside 0 to 1. The same bits as ``step`` and ``tally_bar`` on every
    bar.
    """
    t, i, day, bars = 0, 0, 0, len(tape.close_time)
    busy, days = scratch.busy, len(scratch.day_ends)
    count = find_busy(tape, busy)
    if count < 0:
        return -1, state, tally
    while t < bars:
        if not is_restless(state, rules):
            while i < count and busy[i] < t:
                i = i + 1
            stop = busy[i] if i < count else bars
            pause = stop  # a day's end, where equity is to be noted and will move on
            if day < days and is_invested(state):
                pause = min(stop, scratch.day_ends[day] + 1)
            t, state, tally = quiet_stretch(state, tape, t, pause, rules, tally, scratch)
            day = _note_days(scratch, day, t, state.equity)
            if t >= bars:
                break
            if t == pause and pause < stop:
                continue
        clear_row(log, 0)
        state = step(state, tape, t, rules, log, 0)
        tally = tally_bar(tally, log, 0, rules)
        t = t + 1
        day = _note_days(scratch, day, t, state.equity)
    return bars, state, tally


def _note_days(scratch: Scratch, day: int, t: int, equity: float) -> int:
    """Note the equity at the days' ends before bar ``t``, from ``day`` on; the next day to note.

    Equity is the same at all of them: more than one passes only while nothing is held.
    """
    while day < len(scratch.day_ends) and scratch.day_ends[day] < t:
        scratch.day_equity[day] = equity
        day = day + 1
    return day


@cache
def _compiled_row() -> Any:
    return compile_kernel(_run_row, ROW_MODULES)
