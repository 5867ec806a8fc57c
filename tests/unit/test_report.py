"""What a run shows: charts, tables, terminal text, notebook card, and the page on disk."""

from __future__ import annotations

import base64
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research import html_page, report_page
from research.account import Account, Limits, Stops
from research.backtesting import Backtest, backtest, run_tape
from research.candles import COLUMNS, DAY, Candles, CandleSet, utc_ms
from research.chart_theme import NIGHT, THEME, format_metric, thinned
from research.errors import InputError, UnknownNameError
from research.metrics import Metrics
from research.report import (
    buy_and_hold,
    candles_figure,
    run_figure,
    run_html,
    run_text,
    sweep_heatmap,
    sweep_line,
    write_report,
)
from research.report_tables import (
    monthly_returns,
    refusals,
    settings_of,
    trade_totals,
    verdict_of,
    window_of,
    worst_drawdowns,
)
from research.risk import CODES
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import compute_targets
from research.synthetic import SYNTHETIC_NOTICE, synthetic_candles
from research.tape import tape_of

HOUR = 3_600_000
WIDE = Limits(max_position_pct=40, max_drawdown_pct=95, max_daily_loss_pct=50)


@pytest.fixture(scope="module")
def run() -> Backtest:
    """A run of 300 days on two symbols, with stops, so that every exit but one happens."""
    candles = synthetic_candles(["BTCUSDT", "ETHUSDT"], "1h", "2023-06-10", 300 * 24)
    account = Account(limits=WIDE, stops=Stops(stop_loss_pct=3, take_profit_pct=9))
    return backtest(SmaCrossover(fast=10, slow=40), candles, account)


@pytest.fixture(scope="module")
def halted() -> Backtest:
    """A run whose kill switch trips by itself and refuses the rest."""
    candles = synthetic_candles(["BTCUSDT", "ETHUSDT"], "1h", "2023-06-10", 300 * 24)
    limits = Limits(max_position_pct=50, max_drawdown_pct=8, max_positions=1, on_trip="flatten")
    return backtest(SmaCrossover(fast=10, slow=40), candles, Account(limits=limits))


def priced(*closes: float, symbol: str = "AAA", start: str = "2024-01-30") -> CandleSet:
    """Daily candles without a range, whose opens and closes are these prices."""
    ts = utc_ms(start) + DAY * np.arange(len(closes))
    price = np.array(closes)
    columns = dict.fromkeys(COLUMNS, price)
    return CandleSet((Candles(symbol, "1d", ts, **columns),), source="memory")


def with_equity(run: Backtest, equity: list[float]) -> Backtest:
    """The same run with another equity in its log, as many bars as there are values."""
    n = len(equity)
    log = run.log._replace(equity=np.array(equity))
    tape = run.tape._replace(close_time=run.tape.close_time[:n])
    return replace(run, log=log, tape=tape)


class Page(HTMLParser):
    """The texts and attributes of a page; scripts and styles apart from what a reader sees."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.seen: list[str] = []
        self.figures: list[str] = []
        self.hidden = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "script" and ("type", "application/json") in attrs and len(attrs) == 1:
            self.hidden = "figure"
        elif tag in ("script", "style"):
            self.hidden = tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.hidden = ""

    def handle_data(self, data: str) -> None:
        if self.hidden == "figure":
            self.figures.append(data)
        elif not self.hidden:
            self.seen.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.seen).split())


@pytest.fixture(scope="module")
def page(run: Backtest, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = run.report(tmp_path_factory.mktemp("report") / "run.html")
    return Page(path.read_text(encoding="utf-8"))


# --- thinning


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), max_size=300),
    st.integers(4, 60),
)
def test_thinning_keeps_the_ends_and_both_extremes_within_its_budget(
    values: list[float], points: int
) -> None:
    array = np.array(values)
    kept = thinned(array, points)
    assert len(kept) <= points
    assert (np.diff(kept) > 0).all()
    if len(array):
        assert kept[0] == 0
        assert kept[-1] == len(array) - 1
    if not np.isnan(array).all():
        assert np.nanmax(array[kept]) == np.nanmax(array)
        assert np.nanmin(array[kept]) == np.nanmin(array)


def test_a_spike_of_one_bar_survives_where_every_kth_point_would_lose_it() -> None:
    values = np.zeros(100_000)
    values[54_321] = 1.0
    assert values[:: len(values) // 4_000].max() == 0.0
    assert values[thinned(values, 4_000)].max() == 1.0


# --- buying and holding


def test_buying_and_holding_is_the_mean_of_the_growths_from_the_first_close() -> None:
    two = CandleSet(
        (*priced(100, 110, 120).series, *priced(10, 5, 20, symbol="BBB").series), source="memory"
    )
    held = buy_and_hold(backtest(SmaCrossover(2, 3), two, Account(initial_cash=1_000)))
    assert held.tolist() == pytest.approx([1_000, 800, 1_600])


def test_a_symbol_that_begins_later_is_held_as_cash_until_then() -> None:
    late = priced(10, 30, symbol="BBB", start="2024-01-31").series
    held = buy_and_hold(
        backtest(
            SmaCrossover(2, 3),
            CandleSet((*priced(100, 100, 200).series, *late), source="memory"),
            Account(initial_cash=1_000),
        )
    )
    assert held.tolist() == pytest.approx([1_000, 1_000, 2_500])


# --- tables


def test_monthly_returns_by_hand_and_the_close_at_midnight_ends_the_old_month() -> None:
    # Closes on 31 Jan, 1 Feb 00:00 (still January), 2 Feb, 3 Feb.
    run = backtest(SmaCrossover(2, 3), priced(1, 1, 1, 1), Account(initial_cash=100))
    months = monthly_returns(with_equity(run, [90.0, 120.0, 60.0, 66.0]))
    assert months.loc[2024, 1] == pytest.approx(0.20)
    assert months.loc[2024, 2] == pytest.approx(-0.45)
    assert months.loc[2024, "year"] == pytest.approx(-0.34)
    assert months.loc[2024, list(range(3, 13))].isna().all()


def test_monthly_returns_compound_to_the_total(run: Backtest) -> None:
    months = monthly_returns(run)
    growth = np.prod(1 + months[list(range(1, 13))].stack())
    assert growth - 1 == pytest.approx(run.metrics.total_return)
    assert np.prod(1 + months["year"]) == pytest.approx(growth)


def test_drawdowns_by_hand() -> None:
    run = backtest(SmaCrossover(2, 3), priced(*[1] * 8), Account(initial_cash=100))
    falls = worst_drawdowns(with_equity(run, [95.0, 100, 110, 99, 88, 110, 121, 60.5]))
    assert falls["depth"].tolist() == pytest.approx([0.5, 0.2, 0.05])
    day = [f"{one:%m-%d}" for one in falls["peak"]]
    assert day == ["02-06", "02-02", "01-30"]  # the last fell from the first open
    assert [f"{one:%m-%d}" for one in falls["bottom"]] == ["02-07", "02-04", "01-31"]
    assert falls["recovered"].isna().tolist() == [True, False, False]
    assert falls["days"].tolist() == [1, 3, 2]


def test_the_deepest_drawdown_is_the_metric(run: Backtest) -> None:
    assert worst_drawdowns(run).loc[0, "depth"] == run.metrics.max_drawdown


@pytest.mark.parametrize("by", ["symbol", "exit_intent"])
def test_totals_of_trades_add_up(run: Backtest, by: str) -> None:
    totals = trade_totals(run, by)
    assert len(totals) >= 2
    assert totals["trades"].sum() == run.metrics.trades
    assert totals["pnl"].sum() == pytest.approx(run.trades["pnl"].sum())
    won = (totals["win_rate"] * totals["trades"]).sum()
    assert won / run.metrics.trades == pytest.approx(run.metrics.win_rate)


def test_refusals_count_what_the_signals_say(halted: Backtest) -> None:
    said = halted.signals["code"].value_counts().drop("OK")
    table = refusals(halted)
    assert table["decision"].to_dict() == said.to_dict()
    assert {"KILL_SWITCH", "POSITION_COUNT"} <= set(table.index)
    meanings = dict(CODES.values())
    assert [meanings[code] for code in table.index] == table["meaning"].tolist()


def test_a_run_without_a_refusal_has_an_empty_table() -> None:
    calm = backtest(SmaCrossover(2, 3), priced(1, 1, 1, 1), Account())
    assert refusals(calm).empty


def test_the_verdict_says_what_the_money_became_against_holding(run: Backtest) -> None:
    verdict = verdict_of(run)
    gap = run.metrics.total_return - (buy_and_hold(run).iloc[-1] / 10_000 - 1)
    assert f"10,000 became {run.metrics.final_equity:,.0f}" in verdict
    assert f"{abs(gap) * 100:,.1f} points {'more' if gap > 0 else 'less'}" in verdict


def test_a_run_without_a_trade_says_so() -> None:
    quiet = backtest(SmaCrossover(2, 3), priced(1, 1, 1, 2), Account(limits=None))
    assert verdict_of(quiet).startswith("No trade")
    assert "Buying and holding made +100.0%" in verdict_of(quiet)


def test_the_window_is_told_by_its_first_open_and_last_close() -> None:
    assert window_of(backtest(SmaCrossover(2, 3), priced(1, 2, 3), Account())) == (
        "2024-01-30 .. 2024-02-02 UTC, 3 days, 3 bars"
    )


def test_settings_name_every_parameter_and_both_digests(run: Backtest) -> None:
    told = {name: value for _, pairs in settings_of(run) for name, value in pairs}
    assert {"fast": "10", "slow": "40", "stop_loss_pct": "3.0"}.items() <= told.items()
    assert {run.candles.digest(), run.digest()} <= set(told.values())
    assert set(Limits.model_fields) | set(Stops.model_fields) <= told.keys()


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("total_return", 0.1234, "+12.34%"),
        ("total_return", -0.5, "-50.00%"),
        ("max_drawdown", 0.5, "50.00%"),
        ("sharpe", math.nan, "–"),
        ("profit_factor", math.inf, "∞"),
        ("trades", 1228, "1,228"),
        ("turnover", 12.34, "12.3x"),
    ],
)
def test_figures_are_shown_as_people_read_them(name: str, value: float, text: str) -> None:
    assert format_metric(name, value) == text


# --- charts


def decoded(values: object) -> np.ndarray:
    """The numbers of a trace, which travel as base64."""
    if isinstance(values, dict):
        kind = {"f8": "<f8", "f4": "<f4"}[values["dtype"]]
        return np.frombuffer(base64.b64decode(values["bdata"]), kind)
    return np.asarray(values, float)


def test_the_panes_of_a_run_share_one_time_axis(run: Backtest) -> None:
    figure = json.loads(run_figure(run).to_json())
    assert {trace.get("xaxis", "x") for trace in figure["data"]} == {"x"}
    assert {trace.get("yaxis", "y") for trace in figure["data"]} == {"y", "y2", "y3", "y4"}
    assert [name for name in figure["layout"] if name.startswith("xaxis")] == ["xaxis"]


def test_the_equity_line_ends_where_the_run_does(run: Backtest) -> None:
    lines = {one["name"].split()[0]: one for one in json.loads(run.plot().to_json())["data"]}
    equity = lines["SmaCrossover"]
    assert decoded(equity["y"])[-1] == np.float32(run.metrics.final_equity)
    assert decoded(equity["x"])[-1] == run.tape.close_time[-1]
    assert decoded(lines["Drawdown"]["y"]).min() == np.float32(-run.metrics.max_drawdown)


def test_the_exposure_pane_has_the_mean_exposure_of_the_metrics(run: Backtest) -> None:
    stacked = [one for one in json.loads(run.plot().to_json())["data"] if "stackgroup" in one]
    assert [one["name"] for one in stacked] == list(run.symbols)
    mean = sum(decoded(one["y"]).mean() for one in stacked)
    assert mean == pytest.approx(run.metrics.exposure, rel=1e-3)  # 240 parts, equal within a bar


def test_a_halt_is_marked_where_the_switch_tripped(halted: Backtest, run: Backtest) -> None:
    at = halted.halted_at.timestamp() * 1000
    assert [shape.x0 for shape in run_figure(halted).layout.shapes] == [at]
    assert len(run_figure(run).layout.shapes) == 0


def test_every_fill_of_the_symbol_and_no_other_is_marked(run: Backtest) -> None:
    figure = candles_figure(run.candles["ETHUSDT"], run)
    marks = {trace.name.split(":")[0]: trace for trace in figure.data if trace.mode == "markers"}
    mine = run.fills[run.fills["symbol"] == "ETHUSDT"]
    for side, name in (("BUY", "Buys"), ("SELL", "Sells")):
        assert marks[name].y.tolist() == np.float32(mine["price"][mine["side"] == side]).tolist()
    assert marks["Buys"].marker.symbol != marks["Sells"].marker.symbol  # not by colour alone


def test_long_series_are_thinned_and_short_ones_are_candlesticks(run: Backtest) -> None:
    long = candles_figure(run.candles["BTCUSDT"], points=500)
    assert long.data[0].type == "scatter"
    assert len(long.data[0].x) <= 500
    assert max(long.data[0].y) == np.float32(run.candles["BTCUSDT"].close.max())
    first = run.candles["BTCUSDT"].between(end=int(run.candles["BTCUSDT"].ts[100]))
    short = candles_figure(first)
    assert short.data[0].type == "candlestick"
    assert len(short.data[0].x) == 100


def test_volume_bars_add_up_to_the_volume(run: Backtest) -> None:
    candles = run.candles["BTCUSDT"]
    bars = candles_figure(candles).data[1]
    assert sum(bars.y) == pytest.approx(candles.volume.sum(), rel=1e-5)


def test_a_chart_of_a_symbol_that_the_run_lacks_is_refused(run: Backtest) -> None:
    with pytest.raises(UnknownNameError, match="BTCUSDT, ETHUSDT"):
        candles_figure(priced(1, 2).series[0], run)


def test_no_candles_draw_an_empty_chart() -> None:
    assert len(candles_figure(priced().series[0]).data[0].x) == 0


def test_a_notebook_stores_a_chart_as_json_alone_in_a_fraction_of_a_megabyte(run: Backtest) -> None:
    from IPython.core.formatters import DisplayFormatter

    formatter = DisplayFormatter()
    stored, _ = formatter.format(run.plot())
    assert set(stored) == {"application/vnd.plotly.v1+json", "text/plain"}
    assert len(json.dumps(stored)) < 400_000
    buttons = stored["application/vnd.plotly.v1+json"]["config"]["modeBarButtons"]
    assert buttons == [["toImage", "zoom2d", "pan2d", "resetScale2d"]]  # none uploads


def test_drawing_does_not_wait_for_the_renderers_of_plotly() -> None:
    code = "import research.report, sys; print('plotly.io._renderers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_colours_are_told_apart_and_known_to_the_night() -> None:
    day = [THEME.strategy, THEME.benchmark, THEME.gain, THEME.loss, THEME.ink]
    night = [NIGHT.get(colour, colour) for colour in day]
    assert len(set(day)) == len(set(night)) == len(day)
    for shade, ground in ((THEME.ink, "#ffffff"), (NIGHT[THEME.ink], "#1a2027")):
        assert contrast(shade, ground) >= 4.3
    # A second replacement must never change what the first one wrote.
    assert not set(NIGHT.values()) & NIGHT.keys()


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, 1 to 21 (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


# --- heatmaps of a sweep


@pytest.fixture
def grid() -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples(
        [(5, 20, 1), (5, 20, 2), (5, 50, 1), (10, 20, 1), (10, 50, 1)],
        names=["fast", "slow", "days"],
    )
    return pd.DataFrame(
        {
            "sharpe": [1.0, 3.0, 0.5, -1.0, math.nan],
            "max_drawdown": [0.3, 0.3, 0.2, 0.1, math.nan],
        },
        index,
    )


def test_a_heatmap_shows_the_median_over_the_other_parameters(grid: pd.DataFrame) -> None:
    figure = sweep_heatmap(grid, "fast", "slow", "sharpe")
    heat = figure.data[0]
    assert (list(heat.x), list(heat.y)) == (["5", "10"], ["20", "50"])
    assert heat.z[0].tolist() == [2.0, -1.0]
    assert heat.z[1][0] == 0.5
    assert math.isnan(heat.z[1][1])
    assert "median over days" in figure.layout.title.text
    assert "best 2.00 at fast 5, slow 20" in figure.layout.title.text


def test_less_drawdown_is_better(grid: pd.DataFrame) -> None:
    figure = sweep_heatmap(grid, "fast", "slow", "max_drawdown")
    assert "best 10.00% at fast 10, slow 20" in figure.layout.title.text
    frame = figure.layout.shapes[0]
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == (0.5, 1.5, -0.5, 0.5)


def test_a_heatmap_without_any_value_frames_nothing(grid: pd.DataFrame) -> None:
    assert not sweep_heatmap(grid * math.nan, "fast", "slow", "sharpe").layout.shapes


def test_halted_cells_are_crossed_and_it_says_so(grid: pd.DataFrame) -> None:
    plain = sweep_heatmap(grid.assign(halted=False), "fast", "slow", "sharpe")
    assert "×" not in plain.to_json()
    assert "×" not in sweep_heatmap(grid, "fast", "slow", "sharpe").to_json()
    halts = [False, True, False, False, True]  # one of two runs of a cell is enough
    figure = sweep_heatmap(grid.assign(halted=halts), "fast", "slow", "sharpe")
    texts = [list(row) for row in figure.data[0].text]
    assert texts == [["2.00 ×", "-1.00"], ["0.50", "– ×"]]
    assert "× halted: the kill switch tripped" in figure.layout.title.text
    assert "best 2.00 at fast 5, slow 20" in figure.layout.title.text


def test_a_grid_too_large_for_figures_is_crossed_by_marks() -> None:
    index = pd.MultiIndex.from_product([range(20), range(10)], names=["a", "b"])
    frame = pd.DataFrame({"sharpe": 1.0, "halted": False}, index)
    frame.loc[(3, 4), "halted"] = True
    heat, crosses = sweep_heatmap(frame, "a", "b", "sharpe").data
    assert heat.texttemplate is None
    assert (crosses.x, crosses.y) == (("3",), ("4",))


def test_one_parameter_is_a_line_with_its_best_point_and_its_halts() -> None:
    index = pd.MultiIndex.from_tuples([(30,), (10,), (20,)], names=["fast"])
    frame = pd.DataFrame({"max_drawdown": [0.3, 0.1, 0.2], "halted": [True, False, False]}, index)
    figure = sweep_line(frame, "max_drawdown")
    line = figure.data[0]
    assert (line.x, list(line.y)) == ((10.0, 20.0, 30.0), [0.1, 0.2, 0.3])
    assert line.marker.symbol == ("circle", "circle", "x")
    assert line.marker.size == (11, 7, 7)
    assert "best 10.00% at fast 10; × halted" in figure.layout.title.text
    with pytest.raises(UnknownNameError, match="metric"):
        sweep_line(frame, "halted")


@pytest.mark.parametrize(
    ("x", "y", "metric", "error", "field"),
    [
        ("fast", "slow", "luck", UnknownNameError, "metric"),
        ("fas", "slow", "sharpe", UnknownNameError, "x"),
        ("fast", "slo", "sharpe", UnknownNameError, "y"),
        ("fast", "fast", "sharpe", InputError, "y"),
    ],
)
def test_a_wrong_name_in_a_heatmap_is_told(
    grid: pd.DataFrame, x: str, y: str, metric: str, error: type[InputError], field: str
) -> None:
    with pytest.raises(error) as caught:
        sweep_heatmap(grid, x, y, metric)
    assert caught.value.field == field


# --- text and card


def test_the_text_has_every_figure_and_fits_a_terminal(run: Backtest) -> None:
    lines = run_text(run).splitlines()
    assert repr(run) == run_text(run)
    assert max(map(len, lines[2:])) <= 80
    for label in ("Total return", "Buy and hold", "Sharpe ratio", "Max drawdown", "Final equity"):
        assert sum(line.startswith(label) for line in lines) == 1
    assert len([line for line in lines if line.startswith(("Total", "Final"))]) == 2


def test_made_up_candles_and_a_halt_are_told_everywhere(
    halted: Backtest, run: Backtest, page: Page
) -> None:
    assert run_text(run).startswith(SYNTHETIC_NOTICE)
    assert SYNTHETIC_NOTICE in run_html(run)
    assert SYNTHETIC_NOTICE in page.text
    for shown in (run_text(halted), run_html(halted), report_page.render_page(halted)):
        assert f"Halted at {halted.halted_at:%Y-%m-%d %H:%M}" in shown
    assert "Halted" not in run_text(run) + run_html(run) + page.text


def test_stored_candles_carry_no_notice() -> None:
    run = backtest(SmaCrossover(2, 3), priced(1, 2, 3), Account())
    assert SYNTHETIC_NOTICE not in run_text(run) + run_html(run) + report_page.render_page(run)


def test_the_notebook_card_is_small_and_styles_nothing_but_itself(run: Backtest) -> None:
    card = run_html(run)
    assert len(card) < 30_000
    assert "<style" not in card
    assert "<script" not in card
    drawing = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', card)
    assert drawing is not None
    assert base64.b64decode(drawing[1]).count(b"<polyline") == 2


# --- the page


def test_the_page_asks_the_network_for_nothing(page: Page) -> None:
    loading = {"src", "href", "srcset", "action", "data", "poster", "background"}
    assert [one for one in page.attributes if one[1] in loading] == []
    assert {"link", "iframe", "img", "object", "base"} & set(page.tags) == set()
    policy = next(value for tag, name, value in page.attributes if "default-src" in value)
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "url(" not in html_page.asset("report_page.css")
    assert "@import" not in html_page.asset("report_page.css")


def test_the_script_of_the_charts_is_embedded_once(run: Backtest, tmp_path: Path) -> None:
    source = write_report(run, tmp_path / "run.html").read_text(encoding="utf-8")
    assert source.count("plotly.js v") == 1
    assert len(source.encode()) < 6_000_000


def test_ten_symbols_with_many_trades_stay_below_six_megabytes() -> None:
    symbols = [f"S{i}USDT" for i in range(10)]
    candles = synthetic_candles(symbols, "1h", "2020", 12_000)
    limits = Limits(max_position_pct=10, max_positions=10, max_drawdown_pct=99.9)
    run = backtest(SmaCrossover(2, 5), candles, Account(limits=limits, fee_rate=0, slippage_bps=0))
    assert len(run.fill_list) > 20_000
    assert len(report_page.render_page(run).encode()) < 6_000_000


def test_a_page_holds_every_figure_and_a_chart_per_symbol(run: Backtest, page: Page) -> None:
    assert len(page.figures) == 1 + len(run.symbols)
    for text in page.figures:
        assert set(json.loads(text)) == {"data", "layout", "config"}
    values = run.metrics._asdict()
    for name in Metrics._fields[1:]:
        assert format_metric(name, values[name]).replace("-", "−") in page.text
    for question in ("Did it make money?", "How rough was it?", "When?", "What was refused?"):
        assert question in page.text


def test_the_page_shows_the_last_fifty_trades_and_the_extremes(run: Backtest, page: Page) -> None:
    assert run.metrics.trades > 50
    assert page.text.count("The last 50") == 1
    best, worst = run.trades["pnl_pct"].max(), run.trades["pnl_pct"].min()
    assert f"{best:+.2f}%" in page.text
    assert f"{worst:+.2f}%".replace("-", "−") in page.text
    rows = page.tags.count("tr")
    months = len(monthly_returns(run))
    tables = (6, 2 * 6, 51, len(refusals(run)) + bool(len(refusals(run))), months + 1)
    totals = len(trade_totals(run, "symbol")) + len(trade_totals(run, "exit_intent")) + 2
    assert rows == sum(tables) + totals


def test_the_same_run_gives_the_same_page(run: Backtest) -> None:
    again = backtest(run.strategy, run.candles, run.account)
    assert report_page.render_page(again) == report_page.render_page(run)


def test_hostile_names_are_shown_and_never_executed(tmp_path: Path) -> None:
    evil = '</script><img src=x onerror="alert(1)">'
    one = priced(*(10 + math.sin(i / 3) for i in range(60))).series[0]
    named = replace(one, symbol=evil)
    run = backtest(
        SmaCrossover(2, 5), CandleSet((named,), source=evil), Account(limits=WIDE), name=evil
    )
    assert run.fill_list
    page = Page(write_report(run, tmp_path / "run.html").read_text(encoding="utf-8"))
    assert "img" not in page.tags
    assert evil in page.text
    assert len(page.figures) == 2
    assert "<img" not in "".join(page.figures)
    assert "<img src=x" not in run_html(run)


def test_an_escape_that_is_forgotten_would_be_caught(
    run: Backtest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_page, "escape", lambda text: text)
    evil = replace(run, candles=replace(run.candles, source="<img src=x>"))
    assert "img" in Page(report_page.render_page(evil)).tags


@pytest.mark.parametrize("bars", [1, 2, 5])
def test_the_shortest_runs_have_a_page_a_card_and_a_chart(bars: int, tmp_path: Path) -> None:
    run = backtest(SmaCrossover(2, 3), priced(*range(10, 10 + bars)), Account(limits=WIDE))
    page = Page(write_report(run, tmp_path / "run.html").read_text(encoding="utf-8"))
    assert "No trade has ended." in page.text
    assert "nan" not in re.sub(r"\bnan\w", "", page.text.lower())
    assert "nan" not in run_html(run).lower()
    assert len(run.plot().data) >= 5


def test_a_page_appears_whole_or_not_at_all(
    run: Backtest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "deep" / "run.html"
    assert write_report(run, target) == target
    before = target.read_bytes()

    def torn(self: Path, other: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", torn)
    with pytest.raises(OSError, match="disk full"):
        write_report(run, target)
    assert target.read_bytes() == before
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_is_refused_as_a_file_name(run: Backtest, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file name"):
        write_report(run, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- runs of little or nothing


@pytest.fixture
def unborn() -> Backtest:
    """A run whose first bar has not closed."""
    candles = priced(1, 1, 1, 2)
    strategy, account = SmaCrossover(2, 3), Account(limits=WIDE)
    targets = compute_targets(strategy, candles)
    tape = tape_of(candles, targets, (), utc_ms("2025"))
    return run_tape(strategy, candles, account, targets, tape, "unborn")


def test_a_run_without_a_bar_shows_itself_as_such(unborn: Backtest, tmp_path: Path) -> None:
    assert len(unborn.equity) == len(buy_and_hold(unborn)) == 0
    assert "no bar yet" in run_text(unborn)
    assert "no bar yet" in run_html(unborn)
    assert "nothing to judge" in verdict_of(unborn)
    assert window_of(unborn) == "no bar yet"
    assert worst_drawdowns(unborn).empty
    assert list(monthly_returns(unborn).columns) == [*range(1, 13), "year"]
    assert run_figure(unborn).layout.xaxis.range is None
    shown = Page(unborn.report(tmp_path / "run.html").read_text(encoding="utf-8")).text
    assert "No trade has ended" in shown
    assert "AAA: no candle in this window" in shown


@pytest.mark.parametrize("table", ["signals", "orders", "fills", "trades"])
def test_a_table_without_a_row_has_the_columns_of_one_with_rows(
    unborn: Backtest, run: Backtest, table: str
) -> None:
    empty, full = getattr(unborn, table), getattr(run, table)
    assert len(empty) == 0 < len(full)
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()
    assert empty.index.dtype == full.index.dtype
    assert empty.index.name == full.index.name


@pytest.mark.parametrize(
    ("value", "shown", "tone"),
    [
        (0.0, "0.0%", ""),
        (0.0004, "0.0%", ""),
        (-0.0004, "0.0%", ""),
        (0.0006, "+0.1%", "gain"),
        (-0.0006, "−0.1%", "loss"),
        (1.5, "+150.0%", "gain"),
    ],
)
def test_what_rounds_to_nothing_is_neither_gain_nor_loss(
    value: float, shown: str, tone: str
) -> None:
    assert html_page.shown_change(value) == shown
    assert html_page.tone_of(value) == tone


def test_one_fall_is_not_many(run: Backtest) -> None:
    one = with_equity(run, [10_000, 9_000, 10_500])
    assert "The only fall from a high." in report_page._roughness(one)
    two = with_equity(run, [10_000, 9_000, 10_500, 10_000])
    assert "The 2 deepest falls from a high." in report_page._roughness(two)


def test_a_chart_that_cannot_be_drawn_says_in_words_what_it_shows(
    run: Backtest, grid: pd.DataFrame
) -> None:
    figures = {
        "Drawdown": run_figure(run),
        "BTCUSDT close; Volume, base asset": candles_figure(run.candles["BTCUSDT"]),
        "Sharpe ratio, median over days best 2.00": sweep_heatmap(grid, "fast", "slow", "sharpe"),
    }
    for words, figure in figures.items():
        bundle = figure._repr_mimebundle_()
        assert set(bundle) == {"application/vnd.plotly.v1+json", "text/plain"}
        assert bundle["text/plain"] == repr(figure)
        assert repr(figure).startswith("Chart of ")
        assert words in repr(figure)
        assert not re.search(r"[<>&]", repr(figure))
        assert len(repr(figure)) < 400
