"""The evidence as one HTML page that needs no network: the verdict first, then why.

Its order is that in which a doubter asks: what was decided, could luck have done it, does it hold
on days that were not seen, on what ground does it stand, on what does it hang, and how uncertain is
it. Every text from outside is escaped; the same evidence gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pandas as pd

from research.chart_theme import Chart, format_metric
from research.evidence.card import badge
from research.evidence.charts import luck_figure, samples_figure, walk_forward_figure
from research.evidence.robustness_charts import sensitivity_figure, surface_figure
from research.evidence.verdicts import Verdict
from research.evidence.walk_forward import WalkForward
from research.html_page import figure_box, html_table, minus_signs, whole_page, write_html
from research.metrics import METRICS
from research.report_page import header, settings_section
from research.report_tables import verdict_of

if TYPE_CHECKING:
    from research.evidence.judge import Evidence

__all__ = ["render_evidence", "write_evidence"]

_VARIED: Final = ("sharpe", "total_return", "max_drawdown", "trades")


def write_evidence(found: Evidence, path: Path) -> Path:
    """Write the evidence as one HTML page and return its path.

    The page appears whole or not at all; missing folders are made. Raises InputError where
    ``path`` is a folder.
    """
    return write_html(path, lambda: render_evidence(found))


def render_evidence(found: Evidence) -> str:
    """The whole page as text."""
    run = found.run
    title = f"Evidence: {run.strategy.name} on {', '.join(run.symbols)}"
    sections = (
        header(run, "evidence"),
        _verdict(found),
        _luck(found),
        _unseen(found),
        _ground(found),
        _robust(found),
        _uncertain(found),
        _statistics(found),
        settings_section(run),
    )
    return whole_page(title, [one for one in sections if one])


def _verdict(found: Evidence) -> str:
    failed = [one.check for one in found.verdicts if one.passed is False]
    word, tone = ("Refused", "loss") if failed else ("Passed", "gain")
    said = f"Refused by: {', '.join(failed)}." if failed else "Nothing refuses it."
    chosen = (
        f"It is the best by {found.metric} of the {len(found.sweep):,} combinations of a sweep. "
        if found.sweep is not None
        else ""
    )
    rows = "".join(
        f'<tr><td>{badge(one)}</td><th scope="row">{escape(one.check)}</th>'
        f'<td class="wrap">{minus_signs(escape(one.said))}{_demanded(one)}</td></tr>'
        for one in found.verdicts
    )
    heads = "".join(f'<th scope="col">{one}</th>' for one in ("", "Check", "Found"))
    return (
        f'<div class="verdict"><strong class="{tone}">{word}</strong>'
        f"<p><b>{escape(said)}</b> {escape(chosen)}{minus_signs(escape(verdict_of(found.run)))}"
        f'</p></div>\n<div class="panel scroll"><table><tr>{heads}</tr>{rows}</table></div>'
    )


def _demanded(one: Verdict) -> str:
    return f' <span class="soft">({escape(one.demanded)})</span>' if one.demanded else ""


def _section(title: str, lead: str, figure: Chart, *more: str) -> str:
    parts = [f"<h2>{escape(title)}</h2>", f'<p class="lead">{escape(lead)}</p>']
    return "\n".join([*parts, figure_box(figure), *more])


def _luck(found: Evidence) -> str:
    return _section(
        "Could luck have done it?",
        "Above, the same positions taken at other times: how long it holds and how much stays, "
        "only the moment is random. Below, what the best of as many different tries shows "
        "on a market without any edge. An edge stands to the right of both.",
        luck_figure(found),
    )


def _unseen(found: Evidence) -> str:
    if found.sweep is None:
        lead = (
            "Each point is a window: its Sharpe ratio against that of the time before. An edge "
            "that lasts stays near the dotted line."
        )
    else:
        lead = (
            "Each point is one way to halve the days: the best row of one half, and what it earned "
            "in the other. Luck falls "
            "from the dotted line to zero; an edge, or a market that rose, stays above it."
        )
    walked = figure_box(walk_forward_figure(found))
    beside = (
        "each traded with what the time before it would have chosen, beside what nobody could have "
        "had: the choice made with hindsight, and the symbols held with the same exposure"
        if found.sweep is not None
        else "each begun anew, beside the run in one piece and the symbols held as much as it did"
    )
    told = (
        '<p class="lead" style="margin-top:16px">The windows of walk-forward one after the other, '
        f"{beside}.</p>"
    )
    return _section(
        "Does it hold on days that were not seen?", lead, samples_figure(found), told, walked,
        _folds(found.walk),
    )  # fmt: skip


def _folds(walk: WalkForward | str) -> str:
    if isinstance(walk, str):
        return ""
    rows = [
        (
            f"{row['test_start']:%Y-%m-%d} .. {row['test_end']:%Y-%m-%d}",
            ", ".join(f"{name} {value:g}" for name, value in chosen.parameters().items()),
            format_metric("sharpe", float(row["train_sharpe"])),
            format_metric("sharpe", float(row["test_sharpe"])),
            format_metric("total_return", float(row["test_return"])),
            f"{row['test_trades']:,}",
        )
        for row, chosen in zip(walk.folds.to_dict("records"), walk.chosen, strict=True)
    ]
    heads = ("Window", "Chosen", "Sharpe before#", "Sharpe in it#", "Return#", "Trades#")
    return _details("The windows", html_table(heads, rows, bare=True))


def _ground(found: Evidence) -> str:
    if found.sweep is None:
        return ""
    return _section(
        "On what ground does it stand?",
        "The Sharpe ratio of every combination. A plateau has neighbours like itself; a lone peak "
        "among bad ones is a find of the search, not of the market.",
        surface_figure(found),
    )


def _robust(found: Evidence) -> str:
    frames = (
        ("Fee and slippage, times", found.costs),
        ("Bars late", found.delays),
        ("Begun at", found.starts),
    )
    tables = "".join(
        _details(title, html_table(_varied_heads(title), _varied(frame), bare=True))
        for title, frame in frames
    )
    return _section(
        "On what does it hang?",
        "The same run at other costs, acting one and two bars later, and begun at later dates. "
        "Bars in blue are above zero, orange ones below; a cross marks a run that was halted.",
        sensitivity_figure(found),
        tables,
    )


def _varied_heads(title: str) -> tuple[str, ...]:
    return (title, *(f"{METRICS[name][0]}#" for name in _VARIED), "Halted")


def _varied(frame: pd.DataFrame) -> Iterable[tuple[str, ...]]:
    for at, (_, row) in zip(frame.index, frame.iterrows(), strict=True):
        label = f"{at:%Y-%m-%d %H:%M}" if isinstance(at, pd.Timestamp) else f"{at:g}"
        figures = (format_metric(name, float(row[name])) for name in _VARIED)
        yield label, *figures, "yes" if row["halted"] else "no"


def _uncertain(found: Evidence) -> str:
    frame = found.intervals
    rows = [
        (
            METRICS[str(name)][0],
            *(
                format_metric(str(name), float(frame[end].loc[name]))
                for end in ("value", "low", "high")
            ),
        )
        for name in frame.index
    ]
    heads = ("Figure", "Value#", "From#", "To#")
    return (
        "<h2>How uncertain are the figures?</h2>\n"
        '<p class="lead">Each figure of the run with its 95 % interval, by drawing its days anew '
        "in blocks (stationary bootstrap). An interval says how much another draw of the same days "
        f"would have changed it, not what comes next.</p>\n{html_table(heads, rows)}"
    )


def _statistics(found: Evidence) -> str:
    rows = [
        (name.replace("_", " "), "–" if value is None else _figure(value))
        for name, value in found.statistics.items()
    ]
    table = html_table(("Statistic", "Value#"), rows, bare=True)
    return (
        f"<h2>Every statistic</h2>\n{_details('As a promoted artefact keeps them', table, False)}"
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if math.fabs(value) >= 1_000 else f"{value:.4g}"


def _details(title: str, inner: str, shut: bool = True) -> str:
    opened = "" if shut else " open"
    return f'<details class="panel"{opened}><summary>{escape(title)}</summary>{inner}</details>'
