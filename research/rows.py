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
from research.candles import Candles, CandleSet, Ints
from research.compiled import compile_kernel
from research.engine import KERNEL_MODULES, step
from research.errors import ParameterError
from research.indicators import Bank, sharing
from research.metrics import Metrics, Tally, metrics_of, opening_tally, tally_bar
from research.risk import Rules, rules_for
from research.state import Log, State, as_arrays, clear_row, new_log, opening_state
from research.strategy import Strategy, compute_targets, raw_target
from research.stretch import find_busy, is_restless, quiet_stretch
from research.tape import Place, Tape, blank_tape

__all__ = ["ROW_MODULES", "Course", "Row", "course_of", "figures_of_rows", "live_through"]

ROW_MODULES: Final = (*KERNEL_MODULES, metrics, stretch, sys.modules[__name__])


class Row(NamedTuple):
    """The figures of one combination, and whether the kill switch had tripped at its end."""

    figures: Metrics
    halted: bool


@dataclass(frozen=True)
class Course:
    """The bars that every row lives through: candles, their tape without targets, their places."""

    candles: CandleSet
    tape: Tape
    places: tuple[Place, ...]


def course_of(candles: CandleSet, start: int | None, volatility_bars: int = 0) -> Course:
    """The course over ``candles`` from the close ``start`` on (UTC milliseconds; None: all)."""
    tape, places = blank_tape(candles, (), start, volatility_bars)
    return Course(candles, tape, tuple(places))


def figures_of_rows(
    strategies: Sequence[Strategy],
    course: Course,
    account: Account,
    bank: Bank,
    on_row: Callable[[], Any] = lambda: None,
) -> list[Row]:
    """The rows of ``strategies``, in their order; indicators are shared through ``bank``.

    Several threads may live through one course. Raises ParameterError for a target that is none.
    """
    candles, places = course.candles, course.places
    tape = course.tape._replace(target=course.tape.target.copy())
    symbols = len(candles)
    rules, log = as_arrays(rules_for(account, candles.symbols)), new_log(1, symbols)
    busy: Ints = np.empty(len(tape.close_time), np.int64)
    rows = []
    with sharing(bank):
        for strategy in strategies:
            for s, (one, place) in enumerate(zip(candles, places, strict=True)):
                _write_target(tape, s, place, strategy, one)
            state = as_arrays(opening_state(account.initial_cash, symbols))
            tally = as_arrays(opening_tally(account.initial_cash, symbols))
            bars, tally, tripped = _compiled_row()(state, tape, busy, rules, log, tally)
            if bars < 0:
                _tell_wrong_target(strategy, candles)
            rows.append(Row(metrics_of(tally, account.initial_cash, candles.bar_ms), bool(tripped)))
            on_row()
    return rows


def _write_target(tape: Tape, s: int, place: Place, strategy: Strategy, one: Candles) -> None:
    """The targets of symbol ``s`` onto the tape, none before the declared warm-up."""
    tape.target[place.rows, s] = raw_target(strategy, one)[place.first :]
    unready = max(0, strategy.warmup - place.first)
    everywhere = isinstance(place.rows, slice)
    tape.target[slice(unready) if everywhere else place.rows[:unready], s] = np.nan


def _tell_wrong_target(strategy: Strategy, candles: CandleSet) -> None:
    for one in candles:
        compute_targets(strategy, one)  # which names the bar
    raise ParameterError(
        field=f"{strategy.name}.target",
        expected="the same targets as those of its method targets, 0 to 1 or NaN",
    )


def _run_row(
    state: State, tape: Tape, busy: Ints, rules: Rules, log: Log, tally: Tally
) -> tuple[int, Tally, bool]:
    bars, last, counted = live_through(state, tape, busy, rules, log, tally)
    return bars, counted, last.tripped  # nobody resets the switch in a sweep


def live_through(
    state: State, tape: Tape, busy: Ints, rules: Rules, log: Log, tally: Tally
) -> tuple[int, State, Tally]:
    """One combination over the whole tape: the bars lived, its last state, its tally.

    ``log`` has one row, ``busy`` room for every bar. The bars are -1 for a target outside 0 to 1.
    The same bits as ``step`` and ``tally_bar`` on every bar.
    """
    t, i, bars = 0, 0, len(tape.close_time)
    count = find_busy(tape, busy)
    if count < 0:
        return -1, state, tally
    while t < bars:
        if not is_restless(state, rules):
            while i < count and busy[i] < t:
                i = i + 1
            stop = busy[i] if i < count else bars
            t, state, tally = quiet_stretch(state, tape, t, stop, rules, tally)
            if t >= bars:
                break
        clear_row(log, 0)
        state = step(state, tape, t, rules, log, 0)
        tally = tally_bar(tally, log, 0, rules)
        t = t + 1
    return bars, state, tally


@cache
def _compiled_row() -> Any:
    return compile_kernel(_run_row, ROW_MODULES)
