"""The report: one HTML page of a run that needs no network and no other file.

Its sections follow the order in which a person asks: did it make money, how rough was it, when,
on what, why not more, and what exactly was run. Every text from outside is escaped, a content
security policy forbids the page to load anything, and the same run gives the same bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pandas as pd
from plotly.offline import get_plotlyjs

from research.candles import utc_ms
from research.chart_theme import NIGHT, Chart
from research.charts import candles_figure, run_figure
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

__all__ = ["render_page"]

_LAST_TRADES = 50
_EXTREMES = 5
# All price charts together, so that ten symbols stay as light as three.
_PRICE_POINTS = 12_000
_OPEN_CHARTS = 3

_NUMBER = ' class="n"'
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data: blob:; form-action 'none'; base-uri 'none'"
)
_MARK = (
    '<svg viewBox="0 0 16 16" aria-hidden="true"><g stroke-width="1.4" stroke-linecap="round">'
    '<path d="M4 1.5v13" stroke="var(--loss)"/><path d="M12 1v12" stroke="var(--gain)"/></g>'
    '<rect x="1.8" y="5" width="4.4" height="6" rx="1" fill="var(--loss)"/>'
    '<rect x="9.8" y="3" width="4.4" height="7" rx="1" fill="var(--gain)"/></svg>'
)


def render_page(run: Backtest) -> str:
    """The whole page as text."""
    title = f"{run.strategy.name} on {', '.join(run.symbols)}"
    sections = (
        _header(run),
        _verdict(run),
        _money(run),
        _roughness(run),
        _months(run),
        _symbols(run),
        _trades(run),
        _refused(run),
        _settings(run),
    )
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{_asset('report_page.css')}</style>\n</head>\n<body>\n<main>",
            *sections,
            "<footer>All times are UTC. Money is in quote currency. A past result says little "
            "about a next one.</footer>\n</main>",
            f'<script type="application/json" id="night">{json.dumps(NIGHT)}</script>',
            f"<script>{get_plotlyjs()}</script>",
            f"<script>\n{_asset('report_page.js')}</script>\n</body>\n</html>\n",
        )
    )


def _asset(name: str) -> str:
    return files("research").joinpath(name).read_text(encoding="utf-8")


def _header(run: Backtest) -> str:
    chips = [f"<b>{escape(one)}</b>" for one in run.symbols] + [escape(run.candles.timeframe)]
    chips += [f"{escape(k)} <b>{v:g}</b>" for k, v in run.strategy.parameters().items()]
    notices = []
    if run.candles.source == "synthetic":
        notices.append(f'<p class="notice">{escape(SYNTHETIC_NOTICE)}</p>')
    if run.halted_at is not None:
        notices.append(
            f'<p class="notice halt"><b>Halted at {_moment(run.halted_at)}.</b> '
            "The kill switch tripped: no entry passes until a person resets it.</p>"
        )
    return (
        f'<header>\n<div class="brand">{_MARK} Candlebook: {escape(run.name)}</div>'
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
        f'<div class="verdict"><strong class="{_tone(total)}">{_change(total)}</strong>'
        f"<p>{_minus(escape(verdict_of(run)))}</p></div>\n"
        f'<dl class="cards">{_minus(cards)}</dl>'
    )


def _money(run: Backtest) -> str:
    return (
        "<h2>Did it make money?</h2>\n"
        '<p class="lead">Equity after all costs, beside the same cash put into the same symbols in '
        "equal parts on the first day and left alone. Below: the fall from the highest close, what "
        "each trade made, and how much of the account was at work. Drag to zoom, double-click to "
        f"return.</p>\n{_figure(run_figure(run))}"
    )


def _roughness(run: Backtest) -> str:
    falls = worst_drawdowns(run)
    if falls.empty:
        return '<h2>How rough was it?</h2>\n<p class="lead">It never fell below a former high.</p>'
    rows = [
        (
            f"-{row.depth:.1%}",
            _moment(row.peak),
            _moment(row.bottom),
            _moment(row.recovered, "not yet"),
            f"{row.days:,.0f}",
        )
        for row in falls.itertuples()
    ]
    heads = ("Fall", "From", "Lowest", "Recovered", "Days under water#")
    deepest = f"The {len(rows)} deepest falls" if len(rows) > 1 else "The only fall"
    return (
        "<h2>How rough was it?</h2>\n"
        f'<p class="lead">{deepest} from a high.</p>\n{_table(heads, rows)}'
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
    if not _tone(value):
        return f"<td>{_change(value)}</td>"
    strength = min(1.0, abs(value) / scale) ** 0.7 * 0.75
    colour = "0,114,178" if value > 0 else "213,94,0"
    return f'<td style="background:rgba({colour},{strength:.2f})">{_change(value)}</td>'


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
            f"{escape(symbol)}<span>{_change(change)} over the window</span></summary>"
            f"{_figure(candles_figure(candles, run, points=points), bare=True)}</details>"
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
    return _table((label, *heads), rows)


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
            _moment(row.opened_at),
            _moment(row.closed_at),
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
    return _table((*heads, "Result#", "Ended by"), rows, bare)


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
        f"{_table(('Code', 'At the decision#', 'At the fill#', 'Meaning~'), rows)}"
    )


def _settings(run: Backtest) -> str:
    groups = "".join(
        f"<section{' class=wide' if title == 'Data' else ''}><h3>{escape(title)}</h3>"
        f"<dl>{_pairs(pairs)}</dl></section>"
        for title, pairs in settings_of(run)
    )
    meanings = _pairs((label, meaning) for label, _, meaning in figures_of(run))
    return (
        f'<h2>What exactly was run?</h2>\n<div class="panel settings">{groups}</div>\n'
        '<details class="panel"><summary>What the figures mean</summary>'
        f'<dl class="meanings">{meanings}</dl></details>'
    )


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs)


def _figure(figure: Chart, bare: bool = False) -> str:
    # JSON inside a script element: no text in it may close the element or open a comment.
    text = json.dumps(figure.drawing(), separators=(",", ":")).replace("<", "\\u003c")
    height = int(figure.layout.height)
    return (
        f'<div class="figure{"" if bare else " panel"}">'
        f'<div class="plot" style="height:{height}px"></div>'
        f'<script type="application/json">{text}</script></div>'
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], bare: bool = False) -> str:
    """A head that ends in # is a column of numbers, in ~ one of sentences."""
    kinds = [{"#": _NUMBER, "~": ' class="wrap"'}.get(head[-1:], "") for head in heads]
    names = "".join(
        f'<th scope="col"{kind}>{escape(head.rstrip("#~"))}</th>'
        for head, kind in zip(heads, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{kind}>{_minus(escape(cell))}</td>" for cell, kind in zip(row, kinds, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    panel = "scroll" if bare else "panel scroll"
    return f'<div class="{panel}"><table><tr>{names}</tr>{body}</table></div>'


def _minus(text: str) -> str:
    """Hyphens that are minus signs as such; those in dates stay."""
    return re.sub(r"(?<![\w-])-(?=[\d∞])", "−", text)


def _change(value: float) -> str:
    """A change as a percent with its sign; what rounds to nothing has none."""
    return _minus(f"{value:+.1%}") if _tone(value) else "0.0%"


def _tone(value: float) -> str:
    shown = round(value, 3)  # a tenth of a percent, as _change shows it
    return "gain" if shown > 0 else "loss" if shown < 0 else ""


def _moment(moment: Any, absent: str = "") -> str:
    stamp = pd.Timestamp(moment)
    return absent if pd.isna(stamp) else stamp.strftime("%Y-%m-%d %H:%M")
