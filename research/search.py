"""Parameter search: many runs of the engine that keep figures, and daily returns on disk.

Every row of a sweep is the same fold as a single backtest and is counted by the same accumulators,
so its figures equal that backtest's to the bit. It keeps no curve in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from research.account import Account
from research.backtesting import (
    Backtest,
    account_for,
    as_candle_set,
    require_bars,
    require_tradable,
    rerun,
)
from research.candles import Candles, CandleSet, Floats, Ints, utc_ms
from research.cluster import Job, Place, place_of, rows_on_cluster
from research.cluster.chunk import Found
from research.combinations import Constraint, drawn, every, require_some, space_of
from research.daily import day_index
from research.daily_file import DailyFile, writing_returns
from research.errors import InputError, ParameterError
from research.indicators import Bank
from research.kept_rows import KeptRows, kept_rows, sweep_digest
from research.metrics import METRICS, Metrics
from research.rows import Row, course_of, figures_of_rows
from research.sketch import Sketch, blank_sketch
from research.strategy import Strategy
from research.tape import first_bar
from research.trial_ledger import record_batch
from research.trials import batch_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "Setting",
    "Sweep",
    "best_first",
    "finish_returns",
    "frame_of",
    "maybe_writing",
    "setting_of",
    "silent",
    "sweep",
]

# What the indicators of a sweep may take, together.
BANK_BYTES = 160 * 2**20
# Fewer rows than this are not worth another thread; a chunk is what one loses by an interruption.
ROWS_A_WORKER = 4
LARGEST_CHUNK = 64


def sweep(
    strategy: type[Strategy],
    candles: CandleSet | Candles,
    account: Account | None = None,
    *,
    trade_from: str | int | None = None,
    progress: bool | None = None,
    resume: str | Path | None = None,
    draws: int | None = None,
    seed: int = 0,
    constraint: Constraint | None = None,
    returns: str | Path | None = None,
    on: str | None = None,
    workers: int | None = None,
    **grid: Iterable[float],
) -> Sweep:
    """Run every combination of ``grid`` (parameter=values); returns a Sweep.

    ``draws`` tries so many different combinations of it instead, drawn at random from ``seed``: the
    same seed draws the same. Combinations that break a rule between parameters (``fast < slow``),
    or that ``constraint``, a function of all parameters by name, answers with False, are left out
    and counted in ``skipped``.

    ``progress`` None shows a bar on a terminal or in a notebook only. ``resume`` is a folder that
    keeps finished rows: the same sweep, killed or interrupted, goes on from there and ends with the
    same frame. ``returns`` is a folder that takes every row's daily returns (``read_returns``).

    ``on`` takes it out of this process: "dask" or "ray" starts ``workers`` processes for it, an
    address (``tcp://host:8786``, ``ray://host:10001``) takes a cluster that is there. The frame is
    the same to the bit.

    Raises ParameterError for an unknown parameter, a value out of bounds, an empty grid, a wrong
    number of draws, InputError for what is no class of strategies and for a folder that is another
    sweep's, Busy for one that another process writes to, what ``backtest`` raises for the candles
    and the start, and what ``rows_on_cluster`` raises.
    """
    place = place_of(on, workers)
    run = setting_of(strategy, candles, account, trade_from)
    space = space_of(strategy, grid, constraint)
    chosen, skipped = every(space) if draws is None else drawn(space, draws, seed)
    require_some(space, chosen)
    kept = None
    if resume is not None:
        digest = sweep_digest(strategy, chosen, run.candles, run.account, run.start)
        kept = kept_rows(Path(resume), digest)
    order = _tiled(chosen, space.values, sum(len(one) for one in run.candles))
    with maybe_writing(returns, run.close_time) as out:
        sketch = blank_sketch(run.close_time, len(chosen))
        work = _Work(tuple(chosen), run.candles, run.account, run.start, sketch, kept, out, place)
        rows = _rows(work, order, progress)
        frame = frame_of(list(space.values), chosen, rows)
        found = Sweep(
            *(strategy, run.candles, run.account, run.start, tuple(chosen), frame, skipped),
            returns=None if returns is None else Path(returns),
        )
        finish_returns(out, found)
    record_batch(lambda: batch_of("sweep", chosen, run.candles, run.account, rows, sketch))
    return found


@dataclass(frozen=True)
class Setting:
    """What a search runs on, checked: ``close_time`` of every bar, ``start`` in milliseconds."""

    candles: CandleSet
    account: Account
    start: int | None
    close_time: Ints


def setting_of(
    strategy: object, candles: object, account: object, trade_from: str | int | None
) -> Setting:
    """The setting of a search. Raises InputError for what is no class of strategies, and what
    ``backtest`` raises for the rest."""
    _require_class(strategy)
    series = as_candle_set(candles)
    require_tradable(series)
    checked = account_for(account, series)
    start = None if trade_from is None else utc_ms(trade_from)
    clock = series.clock()
    close_time = clock[first_bar(clock, series.bar_ms, start) :] + series.bar_ms
    require_bars(close_time, series, trade_from)
    return Setting(series, checked, start, close_time)


def frame_of(names: Sequence[str], chosen: Sequence[Strategy], rows: Sequence[Row]) -> pd.DataFrame:
    """The frame of a search: a row a combination, indexed by the parameters ``names``."""
    index = pd.MultiIndex.from_tuples(
        [tuple(map(one.parameters().get, names)) for one in chosen], names=list(names)
    )
    return pd.DataFrame(
        [[*figures, halted] for figures, halted in rows],
        index=index,
        columns=[*Metrics._fields, "halted"],
    )


@contextmanager
def maybe_writing(returns: str | Path | None, close_time: Ints) -> Iterator[DailyFile | None]:
    """The file that takes the daily returns of a search over these bars, if they are asked for."""
    if returns is None:
        yield None
        return
    with writing_returns(Path(returns), day_index(close_time)) as out:
        yield out


def finish_returns(out: DailyFile | None, found: Sweep) -> None:
    """Publish the daily returns of ``found``, all of whose rows were put."""
    if out is None:
        return
    about = {
        "strategy": found.strategy.__name__,
        "symbols": list(found.candles.symbols),
        "timeframe": found.candles.timeframe,
        "candles": found.candles.digest(),
    }
    out.finish(found.frame.index.to_frame(index=False), about)


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """The result of a sweep.

    ``frame`` has a row a combination, indexed by its parameters, and a column a figure; the last
    column, ``halted``, says whether the kill switch tripped during the run. ``skipped`` counts
    combinations that were come upon and are not allowed. ``returns`` is the folder of their daily
    returns, if they were asked for. ``proposed`` says that the combinations were not given but
    proposed by a search that looked at the rows before (``optimise``).
    """

    strategy: type[Strategy]
    candles: CandleSet
    account: Account
    trade_from: int | None
    strategies: tuple[Strategy, ...]
    frame: pd.DataFrame
    skipped: int
    returns: Path | None = None
    proposed: bool = False

    def __len__(self) -> int:
        return len(self.frame)

    def ranked(self, metric: str = "sharpe") -> Ints:
        """Positions of the rows, best ``metric`` first (lowest for ``max_drawdown``).

        Of equals the first in the frame's order; those without a value last. Raises ParameterError
        for an unknown metric, or where no row has a value for it.
        """
        if metric not in METRICS:
            raise ParameterError(
                field="metric", value=metric, expected=f"one of {', '.join(METRICS)}"
            )
        scores = self.frame[metric].to_numpy(np.float64)
        if np.isnan(scores).all():
            raise ParameterError(
                "no combination has a value for it",
                field="metric",
                value=metric,
                expected="a metric that some run defines",
            )
        return best_first(scores, metric)

    def best(self, metric: str = "sharpe") -> Strategy:
        """The strategy with the highest ``metric`` (lowest for ``max_drawdown``), as ``ranked``."""
        return self.strategies[int(self.ranked(metric)[0])]

    def top(self, n: int = 10, metric: str = "sharpe") -> pd.DataFrame:
        """Equity at every close of the best ``n`` rows, best first: a column a combination.

        The rows are run again, which gives their very figures; all of them, where they are fewer
        than ``n``. Raises ParameterError for an ``n`` below 1, and what ``ranked`` raises.
        """
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise ParameterError(field="n", value=n, expected="a whole number from 1 on")
        places = self.ranked(metric)[:n]
        curves = [self.run(self.strategies[int(i)]).equity for i in places]
        frame = pd.concat(curves, axis=1)
        frame.columns = self.frame.index[places]
        return frame

    def run(self, strategy: Strategy | None = None, name: str = "backtest") -> Backtest:
        """One row as a whole backtest; the best by Sharpe ratio unless a strategy is given."""
        chosen = strategy or self.best()
        return rerun(chosen, self.candles, self.account, trade_from=self.trade_from, name=name)

    def heatmap(
        self, metric: str = "sharpe", x: str | None = None, y: str | None = None
    ) -> go.Figure:
        """``metric`` over two parameters, the first two of the grid unless named.

        Crosses mark runs that the kill switch halted. A grid of one parameter gives a line.
        Raises UnknownNameError for a metric or parameter that there is not.
        """
        from research.report import sweep_heatmap, sweep_line

        names = [str(name) for name in self.frame.index.names]
        if len(names) == 1 and {x, y} <= {None, *names}:
            return sweep_line(self.frame, metric)
        across = x or next(name for name in names if name != y)
        down = y or next((name for name in names if name != across), across)
        return sweep_heatmap(self.frame, across, down, metric)

    def __repr__(self) -> str:
        best = self.best() if self.frame["sharpe"].notna().any() else None
        return (
            f"Sweep({self.strategy.__name__}: {len(self):,} runs on "
            f"{', '.join(self.candles.symbols)} {self.candles.timeframe}, {self.skipped} skipped, "
            f"{int(self.frame['halted'].sum())} halted, best by Sharpe ratio {best!r})"
        )

    def _repr_html_(self) -> str:
        top = self.frame.sort_values("sharpe", ascending=False).head(10)
        return f"<p>{self!r}</p>{top.to_html(float_format='{:.4g}'.format)}"


def best_first(scores: Floats, metric: str) -> Ints:
    """Positions of these values of ``metric``, best first (lowest for ``max_drawdown``).

    Of equals the first; those without a value (NaN) last.
    """
    return np.argsort(scores if metric == "max_drawdown" else -scores, kind="stable")


def _require_class(strategy: object) -> None:
    if isinstance(strategy, type) and issubclass(strategy, Strategy):
        return
    remedy = 'strategy_class("sma_crossover") finds one by its name.'
    if isinstance(strategy, Strategy):
        name = strategy.name
        remedy = f"sweep({name}, candles, ...) varies it; backtest takes {strategy!r}."
    raise InputError(
        field="strategy",
        value=strategy,
        expected="a class of strategies, such as SmaCrossover",
        remedy=remedy,
    )


def silent(progress: bool | None) -> bool | None:
    """What tqdm is told about ``progress``."""
    return None if progress is None else not progress  # None: silent unless on a terminal


@dataclass(frozen=True)
class _Work:
    """What the rows of a sweep are computed from, where, and where they, their sketches and their
    returns go."""

    strategies: tuple[Strategy, ...]
    candles: CandleSet
    account: Account
    start: int | None
    sketch: Sketch
    kept: KeptRows | None
    returns: DailyFile | None = None
    place: Place | None = None


def _rows(work: _Work, order: Sequence[int], progress: bool | None) -> list[Row]:
    """Every row, in the order of the strategies; computed in ``order``, on every core or worker.

    Each chunk is kept as soon as it is done: by a kill one loses the chunks under way.
    """
    rows: dict[int, Row] = {}
    if work.kept is not None:
        rows = work.kept.read(work.sketch, work.account.initial_cash, work.returns)
    left = [i for i in order if i not in rows]
    bar = tqdm(
        total=len(order),
        initial=len(order) - len(left),
        desc="sweep",
        unit="run",
        disable=silent(progress),
        leave=False,
    )
    with bar:
        if work.place is None:
            rows.update(_rows_here(work, left, bar.update))
        elif left:
            rows.update(_rows_of_cluster(work, work.place, left, bar.update))
    return [rows[i] for i in range(len(work.strategies))]


def _rows_here(work: _Work, left: Sequence[int], on_rows: Callable[..., Any]) -> dict[int, Row]:
    """The rows that are ``left``, on every core, kept as they are done."""
    workers = min(os.cpu_count() or 1, max(1, len(left) // ROWS_A_WORKER))
    size = max(1, min(LARGEST_CHUNK, -(-len(left) // workers)))
    chunks = [left[first : first + size] for first in range(0, len(left), size)]
    course, bank = course_of(work.candles, work.start, work.account), Bank(BANK_BYTES)

    def compute(chunk: Sequence[int]) -> list[Row]:
        chosen = [work.strategies[i] for i in chunk]
        daily: Floats | None = None
        if work.returns is not None:
            daily = np.empty((len(chunk), len(course.day_ends)))
        marked = np.empty((len(chunk), len(course.marks)))
        rows = figures_of_rows(chosen, course, work.account, bank, on_rows, daily, marked)
        _keep(work, chunk, Found(rows, marked, daily))
        return rows

    rows: dict[int, Row] = {}
    with ThreadPoolExecutor(workers, thread_name_prefix="sweep") as pool:
        for chunk, found in zip(chunks, pool.map(compute, chunks), strict=True):
            rows.update(zip(chunk, found, strict=True))
    return rows


def _keep(work: _Work, chunk: Sequence[int], found: Found) -> None:
    """Write what is to be kept of a chunk that is done."""
    work.sketch.put(chunk, found.marked, work.account.initial_cash)
    if work.returns is not None and found.daily is not None:
        work.returns.put(chunk, found.daily)
    if work.kept is not None:
        work.kept.keep(chunk, found.rows, found.marked, found.daily)


def _rows_of_cluster(
    work: _Work, place: Place, left: Sequence[int], on_rows: Callable[[int], Any]
) -> dict[int, Row]:
    """The rows that are ``left``, kept as they arrive."""
    days = work.returns is not None
    job = Job(work.strategies, work.candles, work.account, work.start, BANK_BYTES, days)
    rows: dict[int, Row] = {}
    with closing(rows_on_cluster(place, job, left)) as chunks:
        for chunk, found in chunks:
            _keep(work, chunk, found)
            rows.update(zip(chunk, found.rows, strict=True))
            on_rows(len(chunk))
    return rows


def _tiled(
    strategies: Sequence[Strategy], values: Mapping[str, Sequence[int | float]], bars: int
) -> list[int]:
    """Positions of the combinations, tile of the grid by tile.

    The indicators of a tile fit the bank together, so that each is computed once a tile.
    """
    side = max(1, BANK_BYTES // (8 * max(bars, 1)) // (2 * len(values)))
    place = {name: {value: i for i, value in enumerate(given)} for name, given in values.items()}

    def tile(position: int) -> tuple[tuple[int, ...], int]:
        parameters = strategies[position].parameters()
        return tuple(place[name][parameters[name]] // side for name in values), position

    return sorted(range(len(strategies)), key=tile)
