"""Charts of luck: what it reaches, and what is left of a choice on days that it had not seen.

They draw what an ``Evidence`` holds and compute nothing but shares, densities and growth. Sharpe
ratios are annual, times UTC; no meaning hangs on colour alone. Where a question could not be
asked, the chart says so in words.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from research.candles import Floats
from research.chart_theme import TEMPLATE, THEME, Chart, format_metric, thinned
from research.evidence.overfitting import Overfitting
from research.evidence.random_entries import RandomEntries
from research.evidence.walk_forward import WalkForward
from research.metrics import YEAR_DAYS

if TYPE_CHECKING:
    from research.evidence.judge import Evidence

__all__ = [
    "in_words",
    "luck_figure",
    "samples_figure",
    "shown_ratio",
    "times_of",
    "walk_forward_figure",
]

_BINS: Final = 40
_SPLITS: Final = 1_500
_POINTS: Final = 2_000
_CURVE: Final = 161
_WORDS: Final = 46  # letters a line, which a phone has room for


def luck_figure(found: Evidence) -> Chart:
    """Two panes over one axis of Sharpe ratios, each with the run's own as a line.

    Above, the same positions at random times, as a histogram. Below, the density of the best of as
    many tries without an edge as were effectively made, and what it reaches on average.
    """
    luck, timing = found.luck, found.timing
    grid, density = _best_of(luck.effective, luck.days)
    figure = Chart(
        [
            go.Scatter(
                x=grid, y=density / float(density.max()), yaxis="y2", name="Best try by luck",
                mode="lines", fill="tozeroy", fillcolor=THEME.grid,
                line={"color": THEME.benchmark, "width": 1.5},
                hoverinfo="skip",
            ),
        ]
    )  # fmt: skip
    many = "one try" if luck.effective == 1 else f"the best of {luck.effective:,} different tries"
    figure.update_layout(
        template=TEMPLATE, height=520, showlegend=False, bargap=0.06, margin={"t": 48},
        xaxis={"title": "Sharpe ratio a year", "anchor": "y2", "zerolinecolor": THEME.benchmark},
        yaxis={"domain": (0.56, 1.0), "nticks": 4, "title": "draws"},
        yaxis2={"domain": (0.0, 0.41), "showticklabels": False, "range": (0.0, 1.25)},
    )  # fmt: skip
    if isinstance(timing, RandomEntries):
        said = f"{int((timing.sharpes >= timing.sharpe).sum()):,} of {len(timing.sharpes):,}"
        figure.add_trace(_histogram(timing.sharpes, timing.sharpe))
        _level(figure, "y", timing.sharpe, f"this run {timing.sharpe:.2f}", THEME.strategy)
        _heading(figure, 1.0, "The same positions at random times", f"{said} did as well")
    else:
        _heading(figure, 1.0, "The same positions at random times", "it cannot be said")
    _heading(
        figure, 0.41, f"What {many} shows without an edge",
        _sure(luck.probability),
    )  # fmt: skip
    if math.isfinite(luck.sharpe):
        _level(figure, "y2", luck.sharpe, f"this run {luck.sharpe:.2f}", THEME.strategy)
    words = f"luck {luck.best_by_luck:.2f}"
    _level(figure, "y2", luck.best_by_luck, words, THEME.loss, dash="dash", right=False)
    return figure


def samples_figure(found: Evidence) -> Chart:
    """In sample against out of sample: one point a way to halve the days, or a fold.

    A sweep shows the best row of each half of the days by its Sharpe ratio there and in the other
    half, at most 1,500 of the splits; a lone run its windows of walk-forward.
    """
    if isinstance(found.overfitting, Overfitting):
        return _splits_figure(found, found.overfitting)
    if isinstance(found.walk, WalkForward):
        return _folds_figure(found.walk)
    return in_words(str(found.walk))


def _splits_figure(found: Evidence, tested: Overfitting) -> Chart:
    year = math.sqrt(YEAR_DAYS)
    inside, outside = tested.in_sample * year, tested.out_of_sample * year
    kept = np.unique(np.linspace(0, len(inside) - 1, _SPLITS).astype(np.int64))
    lost = round(tested.loss_probability * len(inside))
    strategies = () if found.sweep is None else found.sweep.strategies
    names = [_parameters(strategies[row].parameters()) for row in tested.chosen[kept]]
    figure = Chart(
        [
            *_diagonal(inside, outside, "As good as where it was chosen"),
            *_samples(inside[kept], outside[kept], names, size=5),
        ]
    )
    _samples_layout(
        figure,
        f"{lost:,} of {len(inside):,} choices ({tested.loss_probability:.1%}) lose on unseen days",
        "Sharpe ratio of the best row where it was chosen",
        "Its Sharpe ratio on the other days",
    )
    return figure


def _folds_figure(walk: WalkForward) -> Chart:
    inside, outside = (
        walk.folds[name].fillna(0.0).to_numpy() for name in ("train_sharpe", "test_sharpe")
    )
    names = [f"{start:%Y-%m-%d} on" for start in walk.folds["test_start"]]
    line = _diagonal(inside, outside, "As good as the time before")
    figure = Chart([*line, *_samples(inside, outside, names, size=11)])
    lost = int((outside < 0).sum())
    _samples_layout(
        figure,
        f"{lost} of {len(outside)} windows are below zero",
        "Sharpe ratio of the time before",
        "Sharpe ratio of the window",
    )
    return figure


def _samples(
    inside: Floats, outside: Floats, names: Sequence[str], size: int
) -> Iterable[go.Scatter]:
    for lost, name, colour, shape in (
        (False, "At or above zero", THEME.strategy, "circle"),
        (True, "Below zero", THEME.loss, "x-thin"),
    ):
        here = (outside < 0) == lost
        yield go.Scatter(
            x=np.float32(inside[here]), y=np.float32(outside[here]), name=name, mode="markers",
            text=[escape(text) for text, shown in zip(names, here, strict=True) if shown],
            marker={
                "symbol": shape, "size": size, "color": colour, "opacity": 0.55,
                "line": {"color": colour, "width": 1.2 if lost else 0},
            },
            hovertemplate="%{text}<br>%{x:.2f} → %{y:.2f}<extra></extra>",
        )  # fmt: skip


def _diagonal(inside: Floats, outside: Floats, name: str) -> Iterable[go.Scatter]:
    low = min(float(inside.min()), 0.0)
    high = max(float(inside.max()), float(outside.max()), 0.1)
    yield go.Scatter(
        x=[low, high], y=[low, high], name=name, mode="lines",
        line={"color": THEME.benchmark, "width": 1.2, "dash": "dot"}, hoverinfo="skip",
    )  # fmt: skip


def _samples_layout(figure: Chart, said: str, across: str, down: str) -> None:
    figure.update_layout(
        template=TEMPLATE, height=460, hovermode="closest", legend={"y": -0.17, "yanchor": "top"},
        title={"text": f"<b>{said}</b>", "font": {"size": 13}, "x": 0.01, "y": 0.97},
        xaxis={"title": across}, yaxis={"title": down},
    )  # fmt: skip
    figure.add_hline(0.0, line={"color": THEME.loss, "width": 1.2})


def walk_forward_figure(found: Evidence) -> Chart:
    """The growth of the stitched test windows, beside what nobody could have had.

    That is the chosen row over the same time, in hindsight, and the symbols held with the exposure
    that it had on average. Dotted lines are the beginnings of windows; a point on each has what was
    chosen there.
    """
    walk = found.walk
    if not isinstance(walk, WalkForward):
        return in_words(walk)
    stitched, run = walk.equity - 1.0, found.run
    even = found.holding.even
    first = stitched.index[0]
    own = "Chosen with hindsight" if found.sweep is not None else "In one piece"
    mine = "Walk forward" if found.sweep is not None else "Window by window"
    lines = (
        (f"Held, {even.exposure:.0%} invested", _grown(even.equity, first, found), "bench", 1.2),
        (own, _grown(run.equity, first, found), "hind", 1.4),
        (mine, stitched, "walk", 2.0),
    )
    looks = {
        "bench": {"color": THEME.benchmark},
        "hind": {"color": THEME.symbols[0], "dash": "dot"},
        "walk": {"color": THEME.strategy},
    }
    figure = Chart(
        [_line(name, series, {**looks[look], "width": w}) for name, series, look, w in lines]
    )
    figure.add_trace(_choices(walk))
    starts = walk.folds["test_start"]
    for at in starts:
        figure.add_shape(
            type="line", x0=_ms(at), x1=_ms(at), y0=0, y1=1, yref="paper", layer="below",
            line={"color": THEME.benchmark, "width": 1, "dash": "dot"},
        )  # fmt: skip
    figure.update_layout(
        template=TEMPLATE, height=420, hovermode="x unified", margin={"t": 60},
        xaxis={"type": "date", "showgrid": False, "hoverformat": "%Y-%m-%d %H:%M"},
        yaxis={"tickformat": "+.0%", "zerolinecolor": THEME.benchmark},
        legend={"traceorder": "reversed"},
    )  # fmt: skip
    return figure


def _line(name: str, series: pd.Series, line: dict[str, Any]) -> go.Scatter:
    values = series.to_numpy(np.float64)
    kept = thinned(values, _POINTS)
    change = f"{values[-1]:+.1%}".replace("-", "−")
    return go.Scatter(
        x=times_of(series.index[kept]), y=np.float32(values[kept]), name=f"{name} {change}",
        mode="lines", line=line, hovertemplate=f"%{{y:+.2%}}<extra>{name}</extra>",
    )  # fmt: skip


def _choices(walk: WalkForward) -> go.Scatter:
    """What was chosen at the beginning of each window, and what became of it, as points."""
    starts = walk.folds["test_start"]
    texts = [
        f"{escape(_parameters(one.parameters()))}: Sharpe ratio {shown_ratio(train)} before, "
        f"{shown_ratio(test)} in the window"
        for one, train, test in zip(
            walk.chosen, walk.folds["train_sharpe"], walk.folds["test_sharpe"], strict=True
        )
    ]
    return go.Scatter(
        x=times_of(pd.Index(starts)),
        y=np.float32(walk.equity.reindex(starts).to_numpy() - 1.0), text=texts, name="Chosen anew",
        mode="markers", marker={"color": THEME.strategy, "size": 9, "symbol": "diamond"},
        hovertemplate="%{text}<extra></extra>", showlegend=False,
    )  # fmt: skip


def _grown(equity: pd.Series, first: pd.Timestamp, found: Evidence) -> pd.Series:
    """Growth from the close before ``first`` on."""
    at = int(equity.index.searchsorted(first))
    base = float(equity.iloc[at - 1]) if at else found.run.account.initial_cash
    return equity.iloc[at:] / base - 1.0


def _histogram(values: Floats, own: float) -> go.Bar:
    """Counts of the draws in bins of one width, in the run's colour from its own ratio on."""
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1e-9, _BINS + 1)
    counts, _ = np.histogram(values, edges)
    middles = (edges[:-1] + edges[1:]) / 2
    return go.Bar(
        x=middles, y=counts, name="Random times", width=float(edges[1] - edges[0]),
        marker={
            "color": np.where(edges[1:] > own, THEME.strategy, THEME.benchmark).tolist(),
            "line": {"width": 0},
        },
        hovertemplate="about %{x:.2f}: %{y:,} draws<extra></extra>",
    )  # fmt: skip


def _best_of(tries: int, days: int) -> tuple[Floats, Floats]:
    """The density of the highest of so many annual Sharpe ratios without an edge.

    Each is normal with variance 365 / (days - 1): the same law that ``luck_of`` takes the mean of
    the highest from. That of the highest of n is n f(x) F(x)^(n - 1).
    """
    from scipy.stats import norm

    spread = math.sqrt(YEAR_DAYS / max(1, days - 1))
    z = np.linspace(-4.0, norm.isf(1e-4 / tries), _CURVE)
    density: Floats = np.exp(
        math.log(tries) + norm.logpdf(z) + (tries - 1) * norm.logcdf(z) - math.log(spread)
    )
    return z * spread, density


def _sure(probability: float) -> str:
    if math.isnan(probability):
        return "this run has no Sharpe ratio"
    shown = "over 99.9%" if probability > 0.999 else f"{probability:.1%}"
    return f"{shown} sure that the true one is above luck"


def _heading(figure: Chart, top: float, title: str, said: str) -> None:
    figure.add_annotation(
        text=f"<b>{title}</b><br><span>{said}</span>", x=0, y=top, xref="paper", yref="paper",
        showarrow=False, xanchor="left", yanchor="bottom", align="left", yshift=4,
    )  # fmt: skip


def _level(
    figure: Chart, axis: str, at: float, words: str, colour: str, *, dash: str = "solid",
    right: bool = True,
) -> None:  # fmt: skip
    """A vertical line through one pane, with words at its top, right of it or left."""
    figure.add_shape(
        type="line", x0=at, x1=at, y0=0, y1=1, yref=f"{axis} domain",
        line={"color": colour, "width": 2, "dash": dash},
    )  # fmt: skip
    figure.add_annotation(
        text=f"<b>{words}</b>", x=at, y=1, yref=f"{axis} domain", showarrow=False,
        xanchor="left" if right else "right", yanchor="top", xshift=5 if right else -5,
        font={"color": colour},
    )  # fmt: skip


def in_words(said: str) -> Chart:
    """A chart of what cannot be drawn: the reason."""
    figure = Chart()
    nothing = {"visible": False}
    figure.update_layout(template=TEMPLATE, height=160, xaxis=nothing, yaxis=nothing)
    text = "<br>".join(map(escape, textwrap.wrap(said, _WORDS)))
    figure.add_annotation(text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    return figure


def _parameters(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def shown_ratio(value: float) -> str:
    """A Sharpe ratio as people read it, with a minus sign that is one."""
    return format_metric("sharpe", float(value)).replace("-", "−")


def times_of(moments: pd.Index) -> Floats:
    """UTC times as milliseconds, which plotly reads on an axis of dates."""
    # Numbers, not texts: a tenth of the bytes.
    return pd.DatetimeIndex(moments).as_unit("ms").asi8.astype(np.float64)


def _ms(moment: pd.Timestamp) -> float:
    return float(moment.timestamp() * 1000)
