"""Parameter search: many runs of the engine that keep figures only, never a curve.

Every row of a sweep is the same fold as a single backtest and is counted by the same accumulators,
so its figures equal that backtest's to the bit. Memory does not grow with the number of rows.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from research.account import Account
from research.backtesting import (
    Backtest,
    account_for,
    as_candle_set,
    backtest,
    require_tradable,
)
from research.candles import Candles, CandleSet, utc_ms
from research.errors import InputError, ParameterError
from research.indicators import Bank
from research.kept_rows import KeptRows, kept_rows, sweep_digest
from research.metrics import METRICS, Metrics
from research.rows import Row, course_of, figures_of_rows
from research.strategy import Strategy, bounded

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Sweep", "sweep"]

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
    **grid: Iterable[float],
) -> Sweep:
    """Run every combination of ``grid`` (parameter=values); returns a Sweep.

    Combinations that break a rule between parameters (``fast < slow``) are left out and counted in
    ``skipped``. ``progress`` None shows a bar on a terminal or in a notebook only. ``resume`` is a
    folder that keeps finished rows: the same sweep, killed or interrupted, goes on from there and
    ends with the same frame.

    Raises ParameterError for an unknown parameter, a value out of bounds, an empty grid,
    InputError for what is no class of strategies and for a folder that is another sweep's, and what
    ``backtest`` raises for the candles.
    """
    candles = as_candle_set(candles)
    _require_class(strategy)
    require_tradable(candles)
    account = account_for(account, candles)
    start = None if trade_from is None else utc_ms(trade_from)
    values = _grid_values(strategy, grid)
    chosen = list(_combinations(strategy, values))
    if not chosen:
        raise ParameterError(
            field=f"{strategy.__name__} grid",
            value={name: list(v) for name, v in values.items()},
            expected="at least one combination that the strategy allows",
        )
    bars = sum(len(one) for one in candles)
    kept = None
    if resume is not None:
        digest = sweep_digest(strategy, values, candles, account, start)
        kept = kept_rows(Path(resume), digest)
    work = _Work(tuple(chosen), candles, account, start, kept)
    rows = _rows(work, _tiled(chosen, values, bars), progress)
    index = pd.MultiIndex.from_tuples(
        [tuple(map(one.parameters().get, values)) for one in chosen], names=list(values)
    )
    total = int(np.prod([len(v) for v in values.values()]))
    frame = pd.DataFrame(
        [[*figures, halted] for figures, halted in rows],
        index=index,
        columns=[*Metrics._fields, "halted"],
    )
    return Sweep(strategy, candles, account, start, tuple(chosen), frame, total - len(chosen))


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """The result of a sweep.

    ``frame`` has a row a combination, indexed by its parameters, and a column a figure; the last
    column, ``halted``, says whether the kill switch tripped during the run. ``skipped`` counts
    combinations that the strategy does not allow.
    """

    strategy: type[Strategy]
    candles: CandleSet
    account: Account
    trade_from: int | None
    strategies: tuple[Strategy, ...]
    frame: pd.DataFrame
    skipped: int

    def __len__(self) -> int:
        return len(self.frame)

    def best(self, metric: str = "sharpe") -> Strategy:
        """The strategy with the highest ``metric`` (lowest for ``max_drawdown``).

        Of equals the first in the grid's order. Raises ParameterError for an unknown metric, or
        where no row has a value for it.
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
        signed = -scores if metric == "max_drawdown" else scores
        return self.strategies[int(np.nanargmax(signed))]

    def run(self, strategy: Strategy | None = None, name: str = "backtest") -> Backtest:
        """One row as a whole backtest; the best by Sharpe ratio unless a strategy is given."""
        chosen = strategy or self.best()
        return backtest(chosen, self.candles, self.account, trade_from=self.trade_from, name=name)

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


def _silent(progress: bool | None) -> bool | None:
    return None if progress is None else not progress  # None: silent unless on a terminal


def _grid_values(
    strategy: type[Strategy], grid: Mapping[str, Iterable[float]]
) -> dict[str, list[int | float]]:
    if not grid:
        raise ParameterError(
            field=f"{strategy.__name__} grid", value={}, expected="values for some parameter"
        )
    values: dict[str, list[int | float]] = {}
    for name, given in grid.items():
        listed: Sequence[float] = list(given) if isinstance(given, Iterable) else [given]
        values[name] = list(dict.fromkeys(bounded(strategy, name, one) for one in listed))
        if not values[name]:
            raise ParameterError(
                field=f"{strategy.__name__}.{name}", value=[], expected="at least one value"
            )
    return values


def _combinations(
    strategy: type[Strategy], values: Mapping[str, Sequence[int | float]]
) -> Iterator[Strategy]:
    for chosen in itertools.product(*values.values()):
        try:
            yield strategy(**dict(zip(values, chosen, strict=True)))
        except ParameterError:  # each value is within bounds, so a rule between them refused it
            continue


@dataclass(frozen=True)
class _Work:
    """What the rows of a sweep are computed from, and where they are kept."""

    strategies: tuple[Strategy, ...]
    candles: CandleSet
    account: Account
    start: int | None
    kept: KeptRows | None


def _rows(work: _Work, order: Sequence[int], progress: bool | None) -> list[Row]:
    """Every row, in the order of the strategies; computed in ``order``, on every core.

    Each chunk is kept as soon as it is done: by a kill one loses the chunks under way.
    """
    rows: dict[int, Row] = {} if work.kept is None else work.kept.read()
    left = [i for i in order if i not in rows]
    workers = min(os.cpu_count() or 1, max(1, len(left) // ROWS_A_WORKER))
    size = max(1, min(LARGEST_CHUNK, -(-len(left) // workers)))
    chunks = [left[first : first + size] for first in range(0, len(left), size)]
    course, bank = course_of(work.candles, work.start), Bank(BANK_BYTES)
    bar = tqdm(
        total=len(order),
        initial=len(order) - len(left),
        desc="sweep",
        unit="run",
        disable=_silent(progress),
        leave=False,
    )

    def compute(chunk: Sequence[int]) -> list[Row]:
        chosen = [work.strategies[i] for i in chunk]
        found = figures_of_rows(chosen, course, work.account, bank, bar.update)
        if work.kept is not None:
            work.kept.keep(chunk, found)
        return found

    with bar, ThreadPoolExecutor(workers, thread_name_prefix="sweep") as pool:
        for chunk, found in zip(chunks, pool.map(compute, chunks), strict=True):
            rows.update(zip(chunk, found, strict=True))
    return [rows[i] for i in range(len(work.strategies))]


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
