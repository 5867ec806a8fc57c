"""The measured part of knowledge/evidence.md: its table and its chart, from a calibration."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from research.chart_theme import NIGHT, THEME
from research.durable import write_whole

__all__ = ["chart_of", "real_table_of", "table_of", "write_calibration", "write_real"]

CHART = "images/calibration.svg"
SIDES = {
    "best_row": "best row in sample",
    "vectorbt": "vectorbt's deflated Sharpe",
    "ours": "Candlebook",
}
LEFT, WIDTH, RIGHT, TOP, BAR, GROUP = 190, 400, 130, 56, 16, 70


def write_calibration(page: Path, results: list[dict[str, Any]]) -> None:
    """Write the chart, and the table into its block of ``page``. Raises ValueError without one."""
    write_whole(page.parent / CHART, chart_of(results))
    _replace(page, "calibration", f"![Share promoted of each kind]({CHART})\n\n{table_of(results)}")


def write_real(page: Path, rows: list[dict[str, Any]]) -> None:
    """Write the report on real candles into its block of ``page``. Raises ValueError without."""
    _replace(page, "real", real_table_of(rows))


def _replace(page: Path, name: str, block: str) -> None:
    begin, end = (f"<!-- {name}: {where}, by make calibrate -->" for where in ("begin", "end"))
    text = page.read_text("utf-8")
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"{page} has no block from {begin} to {end}")
    write_whole(page, f"{before}{begin}\n\n{block}\n{end}{after}")


def real_table_of(rows: list[dict[str, Any]]) -> str:
    """A row a sweep on real candles: the best row, its figures, and what refuses it."""
    head = (
        "| symbols | best row | Sharpe | tried, different | luck reaches | deflated | timing p | "
        "walk-forward | PBO | SPA p | refused by |\n|---|---|---:|---:|---:|---:|---:|---:|---:|"
        "---:|---|\n"
    )
    lines = []
    for one in rows:
        figures = one["statistics"]
        symbols = one["symbols"] if " " not in one["symbols"] else "all ten, one account"
        shown = (
            *(symbols, one["strategy"], _figure(figures, "sharpe_daily")),
            f"{one['trials']:,}, {one['effective_trials']:,}",
            *(_figure(figures, "best_by_luck"), _figure(figures, "deflated_sharpe")),
            *(_figure(figures, "random_entry_p_after_tries", 3),),
            *(_figure(figures, "walk_forward_sharpe"), _figure(figures, "overfitting")),
            *(_figure(figures, "spa_p", 3), ", ".join(one["failed"]) or "nothing: promoted"),
        )
        lines.append(f"| {' | '.join(shown)} |\n")
    return head + "".join(lines)


def _figure(figures: dict[str, float | None], name: str, digits: int = 2) -> str:
    value = figures.get(name)
    return "–" if value is None else f"{value:.{digits}f}"


def table_of(results: list[dict[str, Any]]) -> str:
    """The figures as Markdown: a row a kind of market, shares with their 95 % intervals."""
    head = (
        f"Of {results[0]['sweeps']} sweeps of each kind, promoted by:\n\n"
        "| market | rows | true Sharpe | best row shows | Candlebook | vectorbt's deflated Sharpe "
        "| best row in sample |\n|---|---:|---:|---:|---:|---:|---:|\n"
    )
    rows = ""
    for one in results:
        sides = (one["ours"], one["vectorbt"], one["best_row"])
        ours, peer, best = map(_words, sides)
        figures = f"{one['rows']} | {one['true_sharpe']:.2f} | {one['best_sharpe']:.2f}"
        rows += f"| {one['market']} | {figures} | **{ours}** | {peer} | {best} |\n"
    refused = "".join(
        f"| {one['market']} | {_listed(one)} | {one['overfitting_below_half']:.0%} |\n"
        for one in results
    )
    return (
        f"{head}{rows}\nWhat refused how many (a sweep may fail several), and the share whose "
        f"probability of overfitting is below a half:\n\n| market | refused by | PBO < 0.5 |\n"
        f"|---|---|---:|\n{refused}"
    )


def _words(side: dict[str, Any]) -> str:
    return f"{side['hits']} ({side['low']:.1%} to {side['high']:.1%})"


def _listed(one: dict[str, Any]) -> str:
    said = sorted(one["refused_by"].items(), key=lambda item: -item[1])
    return ", ".join(f"{check} {count}" for check, count in said) or "nothing"


def chart_of(results: list[dict[str, Any]]) -> str:
    """An SVG: for each market three bars from 0 to 100 % with their intervals."""
    base = TOP + GROUP * len(results)
    words = f"Share of {results[0]['sweeps']} sweeps that is promoted, with 95 % intervals"
    parts = [f'<text class="title" x="8" y="22">{escape(words)}</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = LEFT + WIDTH * share
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 10}" y2="{base}"/>'
            f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{share:.0%}</text>'
        )
    for i, one in enumerate(results):
        parts.append(_group(one, TOP + GROUP * i))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(words)}"',
            f'  viewBox="0 0 {LEFT + WIDTH + RIGHT} {base + 24}">',
            f"<style>{_style()}</style>",
            *parts,
            "</svg>",
            "",
        ]
    )


def _group(one: dict[str, Any], y: int) -> str:
    title = escape(one["market"])
    truth = f"true Sharpe {one['true_sharpe']:.2f}"
    bars = [
        f'<text x="{LEFT - 12}" y="{y + 22}" text-anchor="end" class="title">{title}</text>',
        f'<text x="{LEFT - 12}" y="{y + 40}" text-anchor="end">{truth}</text>',
    ]
    for i, (side, name) in enumerate(SIDES.items()):
        top, found = y + i * (BAR + 3), one[side]
        end = LEFT + WIDTH * found["hits"] / one["sweeps"]
        low, high = (LEFT + WIDTH * found[key] for key in ("low", "high"))
        middle = top + BAR / 2
        bars.append(
            f'<rect class="{side}" x="{LEFT}" y="{top}" width="{max(end - LEFT, 1):.1f}" '
            f'height="{BAR}" rx="2"><title>{escape(name)}</title></rect>'
            f'<line class="span" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
            f'<text x="{high + 8:.1f}" y="{middle + 4}">{escape(name) if y == TOP else ""} '
            f"{found['hits']}</text>"
        )
    return "".join(bars)


def _style() -> str:
    def colours(ink: str, ours: str, peer: str, other: str) -> str:
        return (
            f"text{{fill:{ink}}}.span{{stroke:{ink}}}.ours{{fill:{ours}}}"
            f".vectorbt{{fill:{peer}}}.best_row{{fill:{other}}}"
        )

    day = colours(THEME.ink, THEME.strategy, THEME.benchmark, THEME.loss)
    night = colours(
        NIGHT[THEME.ink], NIGHT[THEME.strategy], NIGHT[THEME.benchmark], NIGHT[THEME.loss]
    )
    return (
        "text{font:12px system-ui,sans-serif}.title{font-weight:600;font-size:13px}"
        f".grid{{stroke:{THEME.grid}}}.span{{stroke-width:1.5}}{day}"
        f"@media(prefers-color-scheme:dark){{{night}}}"
    )
