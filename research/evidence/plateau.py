"""Whether the chosen parameters stand on a plateau: what their neighbours in the sweep have earned.

A value that is good while those beside it are not is a peak of luck. Of a grid, of which every
combination was tried, the neighbours are those at most one step of each parameter's own values
away, corners included (Chebyshev distance 1 in ranks). A random or a learning search leaves most
of its grid out: there the nearest rows count, by the Euclidean distance of ranks scaled to 0..1.

A run that never traded has no ratio; it has earned nothing, so its figure counts as 0 here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from research.candles import Floats, Ints
from research.errors import InputError, ParameterError
from research.search import Sweep
from research.strategy import Strategy

__all__ = ["PLATEAU_METRICS", "Plateau", "plateau"]

# Figures of which more is better and 0 is nothing earned, so that a ratio of them says something.
PLATEAU_METRICS: Final = ("sharpe", "sortino", "total_return")
# Rows a varied parameter that count as near, where there is no grid to step along.
NEAREST_A_PARAMETER: Final = 4


@dataclass(frozen=True, eq=False, repr=False)
class Plateau:
    """The neighbourhood of ``chosen``, whose own ``metric`` is ``value``.

    ``median`` is that of its neighbours and ``score`` is ``median`` over ``value``, clipped to 0
    to 1: 1 is a plateau, 0 a lone peak. A ``value`` of 0 or less scores 0, and no neighbour gives
    NaN, as it does for ``positive``, the share of neighbours above 0. ``all_positive`` is that of
    every row of the sweep. ``at_edge`` names the parameters (of three values or more) whose first
    or last value was chosen: beyond it nobody has looked. ``steps`` says whether the neighbours are
    one step away (a grid) or the nearest (a search that left combinations out).

    ``neighbours`` holds their rows of the sweep's frame and their ``distance``, nearest first: in
    steps, or in scaled ranks.
    """

    chosen: Strategy
    metric: str
    value: float
    median: float
    score: float
    positive: float
    all_positive: float
    at_edge: tuple[str, ...]
    steps: bool
    neighbours: pd.DataFrame

    def __repr__(self) -> str:
        where = f", on the edge of {', '.join(self.at_edge)}" if self.at_edge else ""
        kind = "a step away" if self.steps else "nearest"
        return (
            f"Plateau({self.chosen!r}: {self.metric} {self.value:.3g}, median of "
            f"{len(self.neighbours)} {kind} {self.median:.3g}, score {self.score:.2f}{where})"
        )


def plateau(sweep: Sweep, chosen: Strategy | None = None, metric: str = "sharpe") -> Plateau:
    """The neighbourhood of ``chosen`` (None: the best by ``metric``) among the rows of ``sweep``.

    Parameters of which only one value was tried play no part. Raises ParameterError for a metric
    that is none of ``PLATEAU_METRICS`` or that no row has, InputError for a strategy that is no row
    of the sweep.
    """
    if metric not in PLATEAU_METRICS:
        raise ParameterError(
            field="metric", value=metric, expected=f"one of {', '.join(PLATEAU_METRICS)}"
        )
    place = int(sweep.ranked(metric)[0]) if chosen is None else _place(sweep, chosen)
    ranks, counts = _ranks(sweep.frame.index)
    varied = counts > 1
    every = len(sweep) + sweep.skipped >= int(counts.prod())
    near, distance = _neighbours(ranks[:, varied], counts[varied], place, every)
    values = sweep.frame[metric].fillna(0.0).to_numpy(np.float64)
    around, value = values[near], float(values[place])
    median = float(np.median(around)) if len(near) else np.nan
    edges = (ranks[place] == 0) | (ranks[place] == counts - 1)
    names = [str(name) for name in sweep.frame.index.names]
    return Plateau(
        chosen=sweep.strategies[place],
        metric=metric,
        value=value,
        median=median,
        score=_score(median, value),
        positive=float((around > 0.0).mean()) if len(near) else np.nan,
        all_positive=float((values > 0.0).mean()),
        at_edge=tuple(n for n, at, c in zip(names, edges, counts, strict=True) if at and c > 2),
        steps=every,
        neighbours=sweep.frame.iloc[near].assign(distance=distance),
    )


def _place(sweep: Sweep, chosen: Strategy) -> int:
    try:
        return sweep.strategies.index(chosen)
    except ValueError:
        raise InputError(
            field="chosen", value=chosen, expected="a strategy that the sweep has run"
        ) from None


def _ranks(index: pd.Index) -> tuple[Floats, Floats]:
    """Each row's place among the sorted values of each parameter, and how many values there are."""
    columns = index.to_frame(index=False)
    ranks = [np.unique(columns[name].to_numpy(), return_inverse=True) for name in columns]
    counts = np.array([len(values) for values, _ in ranks], np.float64)
    return np.column_stack([place for _, place in ranks]).astype(np.float64), counts


def _neighbours(ranks: Floats, counts: Floats, place: int, every: bool) -> tuple[Ints, Floats]:
    """Positions of the neighbouring rows, nearest first, and how far away each is."""
    away = np.abs(ranks - ranks[place])
    if every:
        steps = away.max(axis=1, initial=0.0)
        beside: Ints = np.flatnonzero(steps == 1.0)
        return beside, steps[beside]
    distance = np.sqrt(np.square(away / (counts - 1.0)).sum(axis=1))
    others = np.delete(np.arange(len(ranks)), place)
    order = others[np.argsort(distance[others], kind="stable")]
    near: Ints = order[: NEAREST_A_PARAMETER * ranks.shape[1]]
    return near, distance[near]


def _score(median: float, value: float) -> float:
    if np.isnan(median):
        return float("nan")
    return float(np.clip(median / value, 0.0, 1.0)) if value > 0.0 else 0.0
