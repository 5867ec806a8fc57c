"""The chart of knowledge/performance.md, drawn from what ``make bench`` saved.

``python -m tests.bench.chart RESULTS.json CHART.svg``. One bar a side, on a logarithmic scale:
bars of all combinations a second. Colours are those of every other chart; on a dark page a viewer
that honours ``prefers-color-scheme`` gets the night ones, any other gets ink that reads on both.
"""

from __future__ import annotations

import json
import math
import sys
from html import escape
from pathlib import Path
from typing import Any

from research.chart_theme import NIGHT, THEME
from research.durable import write_whole

LEFT, WIDTH, RIGHT, TOP, STEP, BAR = 170, 430, 150, 62, 34, 18
LOWEST, HIGHEST = 4, 9  # powers of ten on the axis
SUBTITLE = "bars of all combinations a second, candles to sorted frame; logarithmic"


def chart_of(results: dict[str, Any]) -> str:
    """An SVG of the sides of a sweep, as ``bench_sweep.main`` returns them."""
    sides = results["sides"]
    base = TOP + STEP * len(sides)
    words = f"{results['rows']:,} SMA crossovers over {results['bars']:,} {results['source']} hours"
    parts = [
        f'<text class="title" x="8" y="20">{escape(words)}</text>',
        f'<text x="8" y="40">{SUBTITLE}</text>',
        *(_tick(power, base) for power in range(LOWEST, HIGHEST + 1)),
        *(_bar(name, one, TOP + STEP * i) for i, (name, one) in enumerate(sides.items())),
    ]
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


def _style() -> str:
    def colours(ink: str, ours: str, peer: str) -> str:
        return f"text{{fill:{ink}}}.ours{{fill:{ours}}}.peer{{fill:{peer}}}"

    day = colours(THEME.ink, THEME.strategy, THEME.benchmark)
    night = colours(NIGHT[THEME.ink], NIGHT[THEME.strategy], NIGHT[THEME.benchmark])
    return (
        "text{font:13px system-ui,sans-serif}.title{font-weight:600;font-size:15px}"
        f".grid{{stroke:{THEME.grid}}}{day}"
        f"@media(prefers-color-scheme:dark){{{night}}}"
    )


def _across(rate: float) -> float:
    share = (math.log10(rate) - LOWEST) / (HIGHEST - LOWEST)
    return LEFT + WIDTH * min(max(share, 0.0), 1.0)


def _tick(power: int, base: int) -> str:
    x = _across(10.0**power)
    label = {3: "1,000", 6: "1 million", 9: "1 billion"}.get(power, f"10^{power}")
    return (
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{base}"/>'
        f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{label}</text>'
    )


def _bar(name: str, one: dict[str, Any], y: int) -> str:
    rate, ratio = one["bars_a_second"], one["ratio"]
    end, kind = _across(rate), "ours" if ratio == 1.0 else "peer"
    amount = f"{rate / 1e6:,.0f} M" if rate >= 1e7 else f"{rate / 1e6:,.2g} M"
    words = amount if kind == "ours" else f"{amount}, 1/{ratio:,.0f}"
    middle = y + BAR - 4
    return (
        f'<text x="{LEFT - 10}" y="{middle}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{BAR}" rx="2"/>'
        f'<text x="{end + 8:.1f}" y="{middle}">{words}</text>'
    )


def main(results: Path, chart: Path) -> None:
    """Draw the saved results of ``sweep``."""
    write_whole(chart, chart_of(json.loads(results.read_text("utf-8"))["sweep"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
