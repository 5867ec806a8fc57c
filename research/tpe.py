"""Search that learns: Optuna's TPE proposes combinations of a grid, the engine says what they earn.

J. Bergstra, R. Bardenet, Y. Bengio, B. Kegl, Algorithms for Hyper-Parameter Optimization (2011).
Proposals come in batches of one fixed size, so that a seed gives the same rows on every machine
with the same Optuna, however many cores it has. The rows are those of a sweep, to the bit.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm.auto import tqdm

from research.account import Account
from research.candles import Candles, CandleSet
from research.combinations import Constraint, Space, require_some, require_whole, space_of
from research.daily_file import DailyFile
from research.errors import InputError, ParameterError
from research.indicators import Bank
from research.metrics import METRICS
from research.rows import Course, Row, course_of, figures_of_rows
from research.search import (
    BANK_BYTES,
    Sweep,
    finish_returns,
    frame_of,
    maybe_writing,
    setting_of,
    silent,
)
from research.sketch import Sketch, blank_sketch
from research.strategy import Strategy
from research.trial_ledger import record_batch
from research.trials import batch_of

__all__ = ["optimise"]

# Proposals that are made before the first of them is answered: fewer learn sooner, more keep more
# cores busy. With 8, rows were as good as with 1; with 32 they were worse (mean rank of 100 trials
# over 10 seeds: 0.68, 0.68 and 0.62). Not a function of the machine, or a seed would not give the
# same rows everywhere.
BATCH: Final = 8

Chosen = tuple[int | float, ...]


def optimise(
    strategy: type[Strategy],
    candles: CandleSet | Candles,
    account: Account | None = None,
    *,
    trials: int,
    seed: int = 0,
    metric: str = "sharpe",
    trade_from: str | int | None = None,
    constraint: Constraint | None = None,
    returns: str | Path | None = None,
    progress: bool | None = None,
    **grid: Iterable[float],
) -> Sweep:
    """Try what TPE proposes from ``grid`` (parameter=values); returns a Sweep.

    ``trials`` proposals are made for the best ``metric``. A combination that is proposed again is
    not run again, so there may be fewer rows, in the order in which they were first proposed. One
    that a rule or the ``constraint`` refuses is told to TPE as pruned, never run, and counted in
    ``skipped``. The rest is as for ``sweep``.

    Raises InputError where Optuna is not installed (the extra ``search``), ParameterError for an
    unknown metric, a wrong number of trials, a grid of which nothing that was proposed is allowed,
    and what ``sweep`` raises.
    """
    run = setting_of(strategy, candles, account, trade_from)
    if metric not in METRICS:
        raise ParameterError(field="metric", value=metric, expected=f"one of {', '.join(METRICS)}")
    require_whole("trials", trials, 1)
    require_whole("seed", seed, 0)
    study = _study(metric, seed)
    space = space_of(strategy, grid, constraint)
    with maybe_writing(returns, run.close_time) as out:
        sketch = blank_sketch(run.close_time, min(trials, space.size))
        course = course_of(run.candles, run.start, run.account)
        runner = _Runner(course, run.account, sketch, out)
        found = _search(study, space, metric, trials, runner, progress)
        require_some(space, found.strategies)
        frame = frame_of(list(space.values), found.strategies, found.rows)
        result = Sweep(
            *(strategy, run.candles, run.account, run.start, tuple(found.strategies), frame),
            skipped=len(found.scores) - len(found.rows),
            returns=None if returns is None else Path(returns),
            proposed=True,
        )
        finish_returns(out, result)
    if found.rows:
        sketch = runner.sketch.first(len(found.rows))
        record_batch(
            lambda: batch_of(
                "optimise", found.strategies, run.candles, run.account, found.rows, sketch
            )
        )
    return result


@dataclass
class _Found:
    """What was tried so far: ``scores`` of all combinations, NaN where there is none to tell."""

    strategies: list[Strategy] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    scores: dict[Chosen, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Runner:
    """Runs rows on every core, sketches them, and hands their daily returns to ``out``."""

    course: Course
    account: Account
    sketch: Sketch
    out: DailyFile | None
    bank: Bank = field(default_factory=lambda: Bank(BANK_BYTES))

    def run(
        self, strategies: Sequence[Strategy], first: int, pool: ThreadPoolExecutor
    ) -> list[Row]:
        """The rows of ``strategies``, the first of which is row ``first`` of the search."""
        days = len(self.course.day_ends)
        daily = None if self.out is None else np.empty((len(strategies), days))
        marked = np.empty((len(strategies), len(self.course.marks)))

        def part(places: range) -> list[Row]:
            chosen = [strategies[i] for i in places]
            noted = None if daily is None else daily[places.start : places.stop]
            at_marks = marked[places.start : places.stop]
            return figures_of_rows(
                chosen, self.course, self.account, self.bank, lambda: None, noted, at_marks
            )

        size = -(-len(strategies) // (os.cpu_count() or 1))
        starts = range(0, len(strategies), max(1, size))
        parts = [range(one, min(one + size, len(strategies))) for one in starts]
        rows = [row for found in pool.map(part, parts) for row in found]
        self.sketch.put(range(first, first + len(rows)), marked, self.account.initial_cash)
        if self.out is not None and daily is not None:
            self.out.put(range(first, first + len(rows)), daily)
        return rows


def _search(
    study: Any, space: Space, metric: str, trials: int, runner: _Runner, progress: bool | None
) -> _Found:
    """Ask, run and tell, batch by batch, until the trials or the combinations are used up."""
    found, asked = _Found(), 0
    listed = {name: sorted(values) for name, values in space.values.items()}
    bar = tqdm(total=trials, desc="optimise", unit="run", disable=silent(progress), leave=False)
    with bar, ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="optimise") as pool:
        while asked < trials and len(found.scores) < space.size:
            count = min(BATCH, trials - asked)
            proposals = [_proposal(study, listed) for _ in range(count)]
            _run_new(found, space, [chosen for _, chosen in proposals], metric, runner, pool)
            for trial, chosen in proposals:
                _tell(study, trial, found.scores[chosen])
            asked += count
            bar.update(count)
    return found


def _run_new(
    found: _Found,
    space: Space,
    proposed: Sequence[Chosen],
    metric: str,
    runner: _Runner,
    pool: ThreadPoolExecutor,
) -> None:
    """Run those of the proposed combinations that are allowed and were not proposed before."""
    fresh: list[tuple[Chosen, Strategy]] = []
    for chosen in dict.fromkeys(proposed):
        if chosen not in found.scores:
            found.scores[chosen] = math.nan
            strategy = space.allowed(chosen)
            if strategy is not None:
                fresh.append((chosen, strategy))
    if not fresh:
        return
    strategies = [strategy for _, strategy in fresh]
    rows = runner.run(strategies, len(found.rows), pool)
    for (chosen, strategy), row in zip(fresh, rows, strict=True):
        found.scores[chosen] = float(getattr(row.figures, metric))
        found.strategies.append(strategy)
        found.rows.append(row)


def _study(metric: str, seed: int) -> Any:
    try:
        import optuna
    except ImportError as err:
        raise InputError(
            "Optuna is not installed",
            field="optimise",
            remedy="Install the extra: pip install 'candlebook[search]', or make install.",
        ) from err
    storage = optuna.storages.InMemoryStorage()
    with _quiet(type(storage).__module__):
        return optuna.create_study(
            storage=storage,
            sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
            direction="minimize" if metric == "max_drawdown" else "maximize",
        )


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Drop what this thread says to a logger; levels and other threads stay as they are."""
    here = threading.get_ident()

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != here

    logging.getLogger(logger).addFilter(from_elsewhere)
    try:
        yield
    finally:
        logging.getLogger(logger).removeFilter(from_elsewhere)


def _proposal(study: Any, listed: dict[str, list[int | float]]) -> tuple[Any, Chosen]:
    """A trial and the values it stands for. TPE is asked for places in the rising values: near
    places are near values, whatever the distance between them."""
    trial = study.ask()
    return trial, tuple(
        values[trial.suggest_int(name, 0, len(values) - 1)] for name, values in listed.items()
    )


def _tell(study: Any, trial: Any, score: float) -> None:
    """NaN, of a run without that figure or of none at all, is pruned: TPE ranks it last."""
    import optuna

    if math.isnan(score):
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    else:
        study.tell(trial, score)
