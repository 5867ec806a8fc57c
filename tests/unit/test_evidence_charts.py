"""What evidence shows: its charts hold the figures that they claim, its card and page escape."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import cumulative_trapezoid

from research.account import Account, Limits
from research.candles import CandleSet
from research.chart_theme import THEME, Chart
from research.errors import InputError
from research.evidence import card, page, robustness_charts
from research.evidence.charts import (
    _best_of,
    luck_figure,
    samples_figure,
    walk_forward_figure,
)
from research.evidence.judge import Evidence, judge
from research.evidence.overfitting import Overfitting
from research.evidence.planted import Market, candles_of
from research.evidence.robustness_charts import sensitivity_figure, surface_figure
from research.evidence.sharpe import expected_max_sharpe
from research.evidence.walk_forward import WalkForward
from research.metrics import YEAR_DAYS
from research.params import Thresholds
from research.search import Sweep, sweep
from research.strategies.macd_trend import MacdTrend
from research.strategies.sma_crossover import SmaCrossover
from research.trials import trials_of

YEAR = math.sqrt(YEAR_DAYS)
EVIL = '</script><img src=x onerror="alert(1)">'
GRID = {"fast": (10, 20, 40), "slow": (50, 100, 200, 400)}


def market(symbol: str = "BTCUSDT") -> CandleSet:
    return candles_of(Market("edge", trend=5.0), seed=3, bars=9_600, symbol=symbol)


def searched(candles: CandleSet, **grid: tuple[int, ...]) -> Sweep:
    account = Account(limits=Limits())
    return sweep(SmaCrossover, candles, account, progress=False, **(grid or GRID))


def judged(what: Sweep, metric: str = "sharpe") -> Evidence:
    thresholds = Thresholds(look_ahead_points=20)
    return judge(what, metric=metric, thresholds=thresholds, trials=trials_of([]))


@pytest.fixture(scope="module")
def found() -> Evidence:
    return judged(searched(market()))


@pytest.fixture(scope="module")
def lone(found: Evidence) -> Evidence:
    thresholds = Thresholds(look_ahead_points=20)
    return judge(found.run, thresholds=thresholds, trials=trials_of([]))


@pytest.fixture(scope="module")
def hostile() -> Evidence:
    """Evidence about a symbol and a source whose names are markup."""
    made = market(EVIL)
    return judged(searched(replace(made, source=EVIL), fast=(10, 20), slow=(50, 100)))


def named(figure: Chart) -> dict[str, object]:
    return {trace.name: trace for trace in figure.data}


def lines_at(figure: Chart) -> list[float]:
    return sorted(shape.x0 for shape in figure.layout.shapes if shape.type == "line")


# --- luck


def test_the_histogram_counts_every_draw_and_colours_those_that_did_as_well(
    found: Evidence,
) -> None:
    bars = named(luck_figure(found))["Random times"]
    draws = found.timing.sharpes
    assert sum(bars.y) == len(draws)
    middles, width = np.array(bars.x), bars.width
    for middle, count in zip(middles, bars.y, strict=True):
        near = np.abs(draws - middle) <= width / 2 * (1 + 1e-9)
        assert abs(int(near.sum()) - count) <= 2  # draws on an edge count on one side
    own = found.timing.sharpe
    blue = np.array(bars.marker.color) == THEME.strategy
    assert (blue == (middles + width / 2 > own)).all()


def test_lines_stand_at_the_ratio_of_the_run_and_at_what_luck_reaches(found: Evidence) -> None:
    figure = luck_figure(found)
    wanted = [found.timing.sharpe, found.luck.sharpe, found.luck.best_by_luck]
    assert lines_at(figure) == sorted(wanted)
    said = " ".join(one.text for one in figure.layout.annotations)
    assert f"luck {found.luck.best_by_luck:.2f}" in said
    assert (
        f"{int((found.timing.sharpes >= found.timing.sharpe).sum()):,} of 999 did as well" in said
    )


def test_what_cannot_be_said_of_luck_is_told_in_its_place(found: Evidence) -> None:
    nothing = replace(found.luck, sharpe=math.nan, probability=math.nan)
    figure = luck_figure(replace(found, timing="It cannot be said: too few bars", luck=nothing))
    assert list(named(figure)) == ["Best try by luck"]
    assert lines_at(figure) == [found.luck.best_by_luck]
    said = " ".join(one.text for one in figure.layout.annotations)
    assert "it cannot be said" in said
    assert "this run has no Sharpe ratio" in said


@pytest.mark.parametrize("tries", [1, 2, 20, 500])
def test_the_density_of_the_best_try_has_the_mean_that_luck_is_said_to_reach(tries: int) -> None:
    days = 1_461
    x, density = _best_of(tries, days)
    mass = np.trapezoid(density, x)
    assert mass == pytest.approx(1.0, abs=2e-3)
    mean = np.trapezoid(x * density, x) / mass
    reached = expected_max_sharpe(tries, 1.0 / (days - 1)) * YEAR
    # The formula is asymptotic: it is 8 % below the exact mean of the higher of two.
    assert mean == pytest.approx(reached, rel=0.09, abs=1e-3)


def test_the_density_is_that_of_the_best_of_drawn_ratios() -> None:
    days, tries = 366, 30
    x, density = _best_of(tries, days)
    drawn = np.random.default_rng(0).normal(size=(20_000, tries)).max(axis=1)
    drawn *= YEAR / math.sqrt(days - 1)
    below = cumulative_trapezoid(density, x, initial=0)
    for share in (0.1, 0.5, 0.9):
        assert np.interp(share, below, x) == pytest.approx(np.quantile(drawn, share), abs=0.03)
    single, flat = _best_of(1, days)
    middle = np.interp(0.5, cumulative_trapezoid(flat, single, initial=0), single)
    assert middle == pytest.approx(0.0, abs=0.01)  # tries are what moves it


# --- in sample and out of sample


def test_every_point_is_a_split_of_the_days_as_it_was_tested(found: Evidence) -> None:
    tested = found.overfitting
    assert isinstance(tested, Overfitting)
    figure = samples_figure(found)
    upper, lower = (named(figure)[name] for name in ("At or above zero", "Below zero"))
    assert len(upper.x) + len(lower.x) == 1_500 < len(tested.logits)
    splits = set(
        zip(
            np.float32(tested.in_sample * YEAR).tolist(),
            np.float32(tested.out_of_sample * YEAR).tolist(),
            strict=True,
        )
    )
    for trace in (upper, lower):
        points = set(zip(trace.x.tolist(), trace.y.tolist(), strict=True))
        assert points <= splits
        turned = {(y, x) for x, y in points}
        assert len(turned) < 2 or not turned <= splits  # halves mixed up would be caught
    assert all(y >= 0 for y in upper.y)
    assert all(y < 0 for y in lower.y)
    assert upper.marker.symbol != lower.marker.symbol  # not by colour alone
    lost = int((tested.out_of_sample < 0).sum())
    assert f"{lost:,} of {len(tested.logits):,} choices" in figure.layout.title.text


def test_a_lone_run_shows_its_windows(lone: Evidence) -> None:
    assert isinstance(lone.walk, WalkForward)
    figure = samples_figure(lone)
    shown = [
        pair
        for name in ("At or above zero", "Below zero")
        for pair in zip(named(figure)[name].x, named(figure)[name].y, strict=True)
    ]
    columns = lone.walk.folds[["train_sharpe", "test_sharpe"]].fillna(0.0).to_numpy()
    assert sorted(shown) == sorted(map(tuple, np.float32(columns)))
    lost = int((columns[:, 1] < 0).sum())
    assert f"{lost} of 6 windows are below zero" in figure.layout.title.text


# --- walk-forward


def test_the_curves_grow_as_the_windows_the_run_and_holding_did(found: Evidence) -> None:
    walk, run = found.walk, found.run
    assert isinstance(walk, WalkForward)
    curves = {trace.name.rpartition(" ")[0]: trace for trace in walk_forward_figure(found).data[:3]}
    assert curves["Walk forward"].y[-1] == np.float32(walk.equity.iloc[-1] - 1.0)
    before = run.equity[run.equity.index < walk.equity.index[0]].iloc[-1]
    hindsight = curves["Chosen with hindsight"]
    assert hindsight.y[-1] == np.float32(run.equity.iloc[-1] / before - 1.0)
    assert {trace.x[0] for trace in curves.values()} == {walk.equity.index[0].timestamp() * 1000}
    assert any(name.startswith("Held, ") for name in curves)


def test_every_window_begins_at_a_line_and_says_what_was_chosen(found: Evidence) -> None:
    walk = found.walk
    assert isinstance(walk, WalkForward)
    figure = walk_forward_figure(found)
    starts = [one.timestamp() * 1000 for one in walk.folds["test_start"]]
    assert lines_at(figure) == starts
    marks = named(figure)["Chosen anew"]
    assert list(marks.x) == starts
    for text, strategy in zip(marks.text, walk.chosen, strict=True):
        assert text.startswith(f"fast {strategy.fast}, slow {strategy.slow}:")


def test_a_record_that_is_too_short_gives_the_reason_in_words(lone: Evidence) -> None:
    short = replace(lone, walk="It cannot be said: too few <bars>")
    for draw in (walk_forward_figure, samples_figure):
        figure = draw(short)
        assert len(figure.data) == 0
        assert figure.layout.annotations[0].text == "It cannot be said: too few &lt;bars&gt;"
    long = "It cannot be said: " + "a reason that goes on and on, " * 6
    lines = walk_forward_figure(replace(lone, walk=long)).layout.annotations[0].text.split("<br>")
    assert " ".join(lines) == long.strip()
    assert max(map(len, lines)) <= 46  # else a phone would cut it off


# --- the surface


def cell_of(shape: object) -> tuple[float, float]:
    return (shape.x0 + shape.x1) / 2, (shape.y0 + shape.y1) / 2


def test_the_surface_is_the_sweep_with_its_choice_and_its_neighbours_framed(
    found: Evidence,
) -> None:
    assert found.sweep is not None
    assert found.neighbours is not None
    figure = surface_figure(found)
    heat, frame = figure.data[0], found.sweep.frame
    for (fast, slow), value in frame["sharpe"].items():
        cell = heat.z[list(heat.y).index(str(slow))][list(heat.x).index(str(fast))]
        assert cell == value
    framed: dict[str, list[tuple[int, int]]] = {"Chosen": [], "Neighbours": []}
    for shape in figure.layout.shapes:
        if shape.name:
            x, y = cell_of(shape)
            place = int(heat.x[round(x)]), int(heat.y[round(y)])
            framed[shape.name].append(place)
    chosen = found.neighbours.chosen
    assert framed["Chosen"] == [(chosen.fast, chosen.slow)]
    assert sorted(framed["Neighbours"]) == sorted(found.neighbours.neighbours.index)
    assert {shape.name for shape in figure.layout.shapes if shape.showlegend} == set(framed)


def test_the_choice_is_framed_where_it_is_not_the_best_by_sharpe(found: Evidence) -> None:
    assert found.sweep is not None
    by_trades = judged(found.sweep, metric="trades")
    assert by_trades.run.strategy != found.run.strategy
    figure = surface_figure(by_trades)
    heat = figure.data[0]
    (own,) = (shape for shape in figure.layout.shapes if shape.name == "Chosen")
    x, y = cell_of(own)
    chosen = by_trades.run.strategy
    assert (heat.x[round(x)], heat.y[round(y)]) == (str(chosen.fast), str(chosen.slow))


def test_a_third_parameter_stays_as_it_was_chosen() -> None:
    grid = {"fast": (8, 16), "slow": (26, 52), "signal": (5, 9, 18)}
    account = Account(limits=Limits())
    evidence = judged(sweep(MacdTrend, market(), account, progress=False, **grid))
    assert evidence.sweep is not None
    figure = surface_figure(evidence)
    signal = evidence.run.strategy.signal
    assert f"signal {signal}" in figure.layout.title.text
    assert "median" not in figure.layout.title.text
    wanted = evidence.sweep.frame["sharpe"].xs(signal, level="signal")
    assert sorted(figure.data[0].z.ravel()) == sorted(wanted)
    mixed = evidence.sweep.frame["sharpe"].groupby(level=["fast", "slow"]).median()
    assert sorted(figure.data[0].z.ravel()) != sorted(mixed)  # a median would be another surface


def test_one_parameter_is_a_line_whose_choice_and_neighbours_are_ringed() -> None:
    evidence = judged(searched(market(), fast=(10,), slow=(50, 100, 200, 400)))
    assert evidence.neighbours is not None
    figure = surface_figure(evidence)
    assert sorted(figure.data[0].x) == [50.0, 100.0, 200.0, 400.0]
    rings = named(figure)
    assert rings["Chosen"].x == (evidence.run.strategy.slow,)
    assert rings["Chosen"].y == (evidence.run.metrics.sharpe,)
    beside = evidence.neighbours.neighbours
    assert list(rings["Neighbours"].x) == [slow for _, slow in beside.index]
    assert list(rings["Neighbours"].y) == beside["sharpe"].tolist()


def test_a_lone_run_and_a_single_row_say_that_they_stand_on_no_surface(lone: Evidence) -> None:
    single = judged(searched(market(), fast=(10,), slow=(50,)))  # which is a lone run
    for evidence in (lone, single):
        figure = surface_figure(evidence)
        assert len(figure.data) == 0
        assert "A lone run" in figure.layout.annotations[0].text


# --- sensitivity


def test_three_panes_show_costs_delays_and_starts(found: Evidence) -> None:
    figure = sensitivity_figure(found)
    frames = (found.costs, found.delays, found.starts)
    assert [trace.xaxis for trace in figure.data] == ["x", "x2", "x3"]
    for trace, frame in zip(figure.data, frames, strict=True):
        assert list(trace.y) == frame["sharpe"].tolist()
    assert list(figure.data[0].x) == ["0", "1", "2", "3"]
    assert list(figure.data[1].x) == ["0", "1", "2"]
    assert [pd.Timestamp(one, unit="ms", tz="UTC") for one in figure.data[2].x] == list(
        found.starts.index
    )


def test_losses_and_halts_are_marked_and_not_by_colour_alone(found: Evidence) -> None:
    costs = found.costs.assign(sharpe=[1.0, 0.5, -0.5, math.nan], halted=[False, False, True, True])
    starts = found.starts.assign(halted=True)
    figure = sensitivity_figure(replace(found, costs=costs, starts=starts))
    bars, _, points = figure.data
    assert bars.text == ("1.00", "0.50", "−0.50 ×", "– ×")
    assert [colour == THEME.loss for colour in bars.marker.color] == [False, False, True, False]
    assert set(points.marker.symbol) == {"x"}


# --- loading, card and page


def test_judging_loads_no_charts() -> None:
    code = "import research.evidence.judge, sys; print('plotly' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_methods_draw_what_the_functions_do(found: Evidence) -> None:
    for method, function in (
        (found.luck_figure, luck_figure),
        (found.samples_figure, samples_figure),
        (found.walk_forward_figure, walk_forward_figure),
        (found.surface_figure, robustness_charts.surface_figure),
        (found.sensitivity_figure, robustness_charts.sensitivity_figure),
    ):
        assert method().to_json() == function(found).to_json()


class Seen(HTMLParser):
    """Tags, attributes and the text of a page that a reader sees; figures apart."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.figures: list[str] = []
        self.inside = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        figure = tag == "script" and attrs == [("type", "application/json")]
        self.inside = "figure" if figure else tag if tag in ("script", "style") else self.inside

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "figure":
            self.figures.append(data)
        elif not self.inside:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_card_says_each_verdict_by_word_and_leaves_the_ground_to_the_notebook(
    found: Evidence,
) -> None:
    seen = Seen(found._repr_html_())
    for one in found.verdicts:
        assert f"{one.word} {one.check} {one.said}" in seen.text
    assert seen.tags.count("tr") == len(found.verdicts)
    styles = " ".join(value for name, value in seen.attributes if name == "style")
    assert "script" not in seen.tags
    assert "style" not in seen.tags
    # The only colours are those of badges: white on grounds of at least 4.5 : 1.
    assert set(card._GROUNDS.values()) >= {
        part.removeprefix("background:")
        for part in styles.split(";")
        if part.startswith("background:")
    }


def test_the_page_has_the_verdicts_before_the_first_chart_and_every_table(
    found: Evidence,
) -> None:
    source = page.render_evidence(found)
    seen = Seen(source)
    assert source.index("The same positions at") < source.index('<div class="figure')
    assert len(seen.figures) == 5
    for text in seen.figures:
        assert set(json.loads(text)) == {"data", "layout", "config"}
    for one in found.verdicts:
        assert one.check in seen.text
    for name in found.statistics:
        assert name.replace("_", " ") in seen.text
    for words in ("Total return", "Bars late", "Begun at", "The windows", found.run.digest()):
        assert words in seen.text


def test_a_lone_run_has_a_page_without_a_surface(lone: Evidence, tmp_path: Path) -> None:
    seen = Seen(lone.report(tmp_path / "deep" / "lone.html").read_text("utf-8"))
    assert len(seen.figures) == 4
    assert "On what ground" not in seen.text
    assert "nan" not in seen.text.lower().split()


def test_the_page_asks_the_network_for_nothing(found: Evidence) -> None:
    seen = Seen(page.render_evidence(found))
    loading = {"src", "href", "srcset", "action", "data", "poster", "background"}
    assert [one for one in seen.attributes if one[0] in loading] == []
    assert {"link", "iframe", "img", "object", "base"} & set(seen.tags) == set()


def test_hostile_names_are_shown_and_never_executed(hostile: Evidence) -> None:
    seen = Seen(page.render_evidence(hostile))
    assert "img" not in seen.tags
    assert EVIL in seen.text
    assert "<img" not in "".join(seen.figures)
    in_card = Seen(hostile._repr_html_())
    assert "img" not in in_card.tags
    assert EVIL in in_card.text


def test_an_escape_that_is_forgotten_would_be_caught(
    hostile: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "escape", lambda text: text)
    assert "img" in Seen(hostile._repr_html_()).tags


def test_the_same_evidence_gives_the_same_page(found: Evidence) -> None:
    assert found.sweep is not None
    again = judged(found.sweep)
    assert page.render_evidence(again) == page.render_evidence(found)


def test_a_folder_is_refused_as_a_file_name(found: Evidence, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file name"):
        found.report(tmp_path)
    assert list(tmp_path.iterdir()) == []
