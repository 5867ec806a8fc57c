"""The one machinery of pages: an HTML page that needs no network and no other file, and its parts.

Texts given to ``html_table`` and ``html_pairs``, and titles, are escaped here; sections are HTML
that their writer has escaped. A content security policy forbids the page to load anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from plotly.offline import get_plotlyjs

from research.chart_theme import NIGHT, Chart
from research.durable import write_whole
from research.errors import InputError

__all__ = [
    "MARK",
    "asset",
    "figure_box",
    "html_pairs",
    "html_table",
    "minus_signs",
    "moment_of",
    "shown_change",
    "tone_of",
    "whole_page",
    "write_html",
]

_NUMBER = ' class="n"'
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data: blob:; form-action 'none'; base-uri 'none'"
)
MARK = (
    '<svg viewBox="0 0 16 16" aria-hidden="true"><g stroke-width="1.4" stroke-linecap="round">'
    '<path d="M4 1.5v13" stroke="var(--loss)"/><path d="M12 1v12" stroke="var(--gain)"/></g>'
    '<rect x="1.8" y="5" width="4.4" height="6" rx="1" fill="var(--loss)"/>'
    '<rect x="9.8" y="3" width="4.4" height="7" rx="1" fill="var(--gain)"/></svg>'
)


def whole_page(title: str, sections: Iterable[str]) -> str:
    """A page of these ``sections`` (HTML, at least one figure among them) as text."""
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{asset('report_page.css')}</style>\n</head>\n<body>\n<main>",
            *sections,
            "<footer>All times are UTC. Money is in quote currency. A past result says little "
            "about a next one.</footer>\n</main>",
            f'<script type="application/json" id="night">{json.dumps(NIGHT)}</script>',
            f"<script>{get_plotlyjs()}</script>",
            f"<script>\n{asset('report_page.js')}</script>\n</body>\n</html>\n",
        )
    )


def asset(name: str) -> str:
    """A file that stands beside this module, as text."""
    return files("research").joinpath(name).read_text(encoding="utf-8")


def html_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """The entries of a description list: terms and what they are."""
    return "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs)


def figure_box(figure: Chart, bare: bool = False) -> str:
    """A chart, drawn when it comes into view; ``bare`` without a frame of its own."""
    # JSON inside a script element: no text in it may close the element or open a comment.
    text = json.dumps(figure.drawing(), separators=(",", ":")).replace("<", "\\u003c")
    height = int(figure.layout.height)
    return (
        f'<div class="figure{"" if bare else " panel"}">'
        f'<div class="plot" style="height:{height}px"></div>'
        f'<script type="application/json">{text}</script></div>'
    )


def html_table(heads: Sequence[str], rows: Iterable[Sequence[str]], bare: bool = False) -> str:
    """A head that ends in # is a column of numbers, in ~ one of sentences."""
    kinds = [{"#": _NUMBER, "~": ' class="wrap"'}.get(head[-1:], "") for head in heads]
    names = "".join(
        f'<th scope="col"{kind}>{escape(head.rstrip("#~"))}</th>'
        for head, kind in zip(heads, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{kind}>{minus_signs(escape(cell))}</td>"
            for cell, kind in zip(row, kinds, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    panel = "scroll" if bare else "panel scroll"
    return f'<div class="{panel}"><table><tr>{names}</tr>{body}</table></div>'


def minus_signs(text: str) -> str:
    """Hyphens that are minus signs as such; those in dates stay."""
    return re.sub(r"(?<![\w-])-(?=[\d∞])", "−", text)


def shown_change(value: float) -> str:
    """A change as a percent with its sign; what rounds to nothing has none."""
    return minus_signs(f"{value:+.1%}") if tone_of(value) else "0.0%"


def tone_of(value: float) -> str:
    """The class of a change: ``gain``, ``loss``, or none for what is shown as 0.0 %."""
    shown = round(value, 3)  # a tenth of a percent, as shown_change shows it
    return "gain" if shown > 0 else "loss" if shown < 0 else ""


def moment_of(moment: Any, absent: str = "") -> str:
    """A UTC time to the minute; ``absent`` for none."""
    stamp = pd.Timestamp(moment)
    return absent if pd.isna(stamp) else stamp.strftime("%Y-%m-%d %H:%M")


def write_html(path: Path, page: Callable[[], str]) -> Path:
    """Write what ``page`` gives and return its path: whole or not at all, missing folders made.

    Raises InputError where ``path`` is a folder, before the page is rendered.
    """
    if path.is_dir():
        raise InputError(field="path", value=str(path), expected="a file name, such as report.html")
    write_whole(path, page())
    return path
