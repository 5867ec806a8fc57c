"""The report: one HTML page of a run that needs no network and no other file.

Its sections follow the order in which a person asks: did it make money, how rough was it, when,
on what, why not more, and what exactly was run. Every text from outside is escaped, a content
security policy forbids the page to load anything, and the same run gives the same bytes.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

import pandas as pd

from research.candles import utc_ms
from research.charts import candles_figure, run_figure
from research.html_page import (
    MARK,
    figure_box,
    html_pairs,
    html_table,
    minus_signs,
    moment_of,
    shown_change,
    tone_of,
    whole_page,
)
from research.report_tables import (
    costs_of,
    figures_of,
    monthly_returns,
    refusals,
    settings_of,
    trade_totals,
    verdict_of,
    window_of,
    worst_drawdowns,
)
from research.synthetic import SYNTHETIC_NOTICE

if TYPE_CHECKING:
    from research.backtesting import Backtest

__all__ = ["header", "render_page", "settings_section"]

_LAST_TRADES = 50
_EXTREMES = 5
# All price charts together, so that ten symbols stay as light as three.
_PRICE_POINTS = 12_000
_OPEN_CHARTS = 3

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def render_page(run: Backtest) -> str:
    """The whole page as text."""
    title = f"{run.strategy.name} on {', '.join(run.symbols)}"
    sections = (
        header(run, run.name),
        _verdict(run),
        _money(run),
        _roughness(run),
        _months(run),
        _symbols(run),
        _trades(run),
        _refused(run),
        settings_section(run),
    )
    return whole_page(title, sections)


def header(run: Backtest, about: str) -> str:
    """What was run, on what and when; ``about`` says what the page is about it."""
    chips = [f"<b>{escape(one)}</b>" for one in run.symbols] + [escape(run.candles.timeframe)]
    chips += [f"{escape(k)} <b>{v:g}</b>" for k, v in run.strategy.parameters().items()]
    notices = []
    if run.candles.source == "synthetic":
        notices.append(f'<p class="notice">{escape(SYNTHETIC_NOTICE)}</p>')
    if run.halted_at is not None:
        notices.append(
            f'<p class="notice halt"><b>Halted at {moment_of(run.halted_at)}.</b> '
            "The kill switch tripped: no entry passes until a person resets it.</p>"
        )
    return (
        f'<header>\n<div class="brand">{MARK} Candlebook: {escape(about)}</div>'
        f"\n<h1>{escape(run.strategy.name)}</h1>\n"
        f'<ul class="chips">{"".join(f"<li>{chip}</li>" for chip in chips)}</ul>\n'
        f'<p class="facts">{escape(window_of(run))}<br>{escape(costs_of(run))}; candles from '
        f"{escape(run.candles.source)}</p>\n{''.join(notices)}</header>"
    )


def _verdict(run: Backtest) -> str:
    total = run.metrics.total_return
    cards = "".join(
        f'<div class="card" title="{escape(meaning)}"><dt>{escape(label)}</dt>'
        f"<dd>{escape(value)}</dd></div>"
        for label, value, meaning in figures_of(run)[1:]
    )
    return (
        f'<div class="verdict"><strong class="{tone_of(total)}">{shown_change(total)}</strong>'
        f"<p>{minus_signs(escape(verdict_of(run)))}</p></div>\n"
        f'<dl class="cards">{minus_signs(cards)}</dl>'
    )


def _money(run: Backtest) -> str:
    return (
        "<h2>Did it make money?</h2>\n"
        '<p class="lead">Equity after all costs, beside the same cash put into the same symbols in '
        "equal parts on the first day and left alone. Below: the fall from the highest close, what "
        "each trade made, and how much of the account was at work. Drag to zoom, double-click to "
        f"return.</p>\n{figure_box(run_figure(run))}"
    )


def _roughness(run: Backtest) -> str:
    falls = worst_drawdowns(run)
    if falls.empty:
        return '<h2>How rough was it?</h2>\n<p class="lead">It never fell below a former high.</p>'
    rows = [
        (
            f"-{row.depth:.1%}",
            moment_of(row.peak),
            moment_of(row.bottom),
            moment_of(row.recovered, "not yet"),
            f"{row.days:,.0f}",
        )
        for row in falls.itertuples()
    ]
    heads = ("Fall", "From", "Lowest", "Recovered", "Days under water#")
    deepest = f"The {len(rows)} deepest falls" if len(rows) > 1 else "The only fall"
    return (
        "<h2>How rough was it?</h2>\n"
        f'<p class="lead">{deepest} from a high.</p>\n{html_table(heads, rows)}'
    )


def _months(run: Backtest) -> str:
    months = monthly_returns(run)
    largest = months[list(range(1, 13))].abs().max().max()
    scale = float(largest) if largest > 0 else 1.0
    rows = []
    for year, values in months.iterrows():
        cells = "".join(_month_cell(float(value), scale) for value in values)
        rows.append(f'<tr><th scope="row">{year}</th>{cells}</tr>')
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("", *_MONTHS, "Year"))
    return (
        '<h2>When?</h2>\n<p class="lead">Return of each month, after costs.</p>\n'
        f'<div class="panel scroll"><table class="months"><tr>{heads}</tr>{"".join(rows)}</table>'
        "</div>"
    )


def _month_cell(value: float, scale: float) -> str:
    if math.isnan(value):
        return '<td class="none">·</td>'
    if not tone_of(value):
        return f"<td>{shown_change(value)}</td>"
    strength = min(1.0, abs(value) / scale) ** 0.7 * 0.75
    colour = "0,114,178" if value > 0 else "213,94,0"
    return f'<td style="background:rgba({colour},{strength:.2f})">{shown_change(value)}</td>'


def _symbols(run: Backtest) -> str:
    points = max(800, min(4_000, _PRICE_POINTS // len(run.symbols)))
    closes = run.tape.close_time
    start = int(closes[0]) - run.candles.bar_ms if len(closes) else utc_ms("2100")
    charts = []
    for i, symbol in enumerate(run.symbols):
        candles = run.candles[symbol].between(start)
        if not len(candles):
            charts.append(f'<p class="lead">{escape(symbol)}: no candle in this window.</p>')
            continue
        change = float(candles.close[-1] / candles.close[0]) - 1
        charts.append(
            f'<details class="panel"{" open" if i < _OPEN_CHARTS else ""}><summary>'
            f"{escape(symbol)}<span>{shown_change(change)} over the window</span></summary>"
            f"{figure_box(candles_figure(candles, run, points=points), bare=True)}</details>"
        )
    return (
        f"<h2>On what?</h2>\n{_totals(run, 'symbol', 'Symbol')}\n"
        '<p class="lead" style="margin-top:16px">Each price with what was bought (▲) and sold (▼); '
        "coloured lines join the entry of a trade to its exit.</p>\n" + "\n".join(charts)
    )


def _totals(run: Backtest, by: str, label: str) -> str:
    rows = [
        (
            str(row.Index).replace("_", " "),
            f"{row.trades:,}",
            f"{row.win_rate:.1%}",
            f"{row.pnl:+,.2f}",
            f"{row.fees:,.2f}",
            f"{row.mean_pct:+.2f}%",
            f"{row.best_pct:+.1f}%",
            f"{row.worst_pct:+.1f}%",
            f"{row.days:,.1f}",
        )
        for row in trade_totals(run, by).itertuples()
    ]
    if not rows:
        return '<p class="lead">No trade has ended.</p>'
    heads = ("Trades#", "Won#", "Profit#", "Fees#", "Mean#", "Best#", "Worst#", "Days held#")
    return html_table((label, *heads), rows)


def _trades(run: Backtest) -> str:
    trades = run.trades.reset_index()
    if trades.empty:
        return '<h2>The trades</h2>\n<p class="lead">No trade has ended.</p>'
    best = trades.nlargest(_EXTREMES, "pnl_pct")
    worst = trades.nsmallest(_EXTREMES, "pnl_pct")
    last = trades.tail(_LAST_TRADES).iloc[::-1]
    return (
        f"<h2>The trades</h2>\n{_totals(run, 'exit_intent', 'Ended by')}\n"
        f"<h3>The best {len(best)}</h3>\n{_trade_table(best)}\n"
        f"<h3>The worst {len(worst)}</h3>\n{_trade_table(worst)}\n"
        f'<details class="panel"><summary>The last {len(last)}<span>of {len(trades):,}, newest '
        f"first</span></summary>{_trade_table(last, bare=True)}</details>"
    )


def _trade_table(trades: pd.DataFrame, bare: bool = False) -> str:
    rows = [
        (
            str(row.symbol),
            moment_of(row.opened_at),
            moment_of(row.closed_at),
            f"{row.quantity:,.8g}",
            f"{row.entry_price:,.8g}",
            f"{row.exit_price:,.8g}",
            f"{row.fees:,.2f}",
            f"{row.pnl:+,.2f}",
            f"{row.pnl_pct:+.2f}%",
            str(row.exit_intent).replace("_", " "),
        )
        for row in trades.itertuples()
    ]
    heads = ("Symbol", "Opened", "Closed", "Quantity#", "Entry#", "Exit#", "Fees#", "Profit#")
    return html_table((*heads, "Result#", "Ended by"), rows, bare)


def _refused(run: Backtest) -> str:
    table = refusals(run)
    if table.empty:
        return '<h2>What was refused?</h2>\n<p class="lead">Nothing: every order went through.</p>'
    rows = [
        (str(row.Index), f"{row.decision:,}", f"{row.fill:,}", str(row.meaning))
        for row in table.itertuples()
    ]
    return (
        '<h2>What was refused?</h2>\n<p class="lead">Bars at which the risk gate or a filter of '
        "the exchange stopped an order, and orders that were cut or cancelled later. Exits never "
        "pass through the gate.</p>\n"
        f"{html_table(('Code', 'At the decision#', 'At the fill#', 'Meaning~'), rows)}"
    )


def settings_section(run: Backtest) -> str:
    """Every parameter, cost, limit and digest of the run."""
    groups = "".join(
        f"<section{' class=wide' if title == 'Data' else ''}><h3>{escape(title)}</h3>"
        f"<dl>{html_pairs(pairs)}</dl></section>"
        for title, pairs in settings_of(run)
    )
    meanings = html_pairs((label, meaning) for label, _, meaning in figures_of(run))
    return (
        f'<h2>What exactly was run?</h2>\n<div class="panel settings">{groups}</div>\n'
        '<details class="panel"><summary>What the figures mean</summary>'
        f'<dl class="meanings">{meanings}</dl></details>'
    )
