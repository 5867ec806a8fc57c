"""Evidence as a notebook shows it: the verdicts as a table, passed and failed by word and colour.

Styles are inline and text follows the notebook's own colours, light or dark; the only colours are
those of badges, white on dark enough a ground to be read on both. Every text is escaped.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from research.evidence.verdicts import Verdict

if TYPE_CHECKING:
    from research.evidence.judge import Evidence

__all__ = ["badge", "card_html"]

# White on these: 5.4 : 1 and 5.0 : 1.
_GROUNDS: Final = {"passed": "#00795A", "FAILED": "#B84F00"}
_CELL: Final = "text-align:left;vertical-align:top;padding:5px 10px;white-space:normal"


def card_html(found: Evidence) -> str:
    """The headline and a row a check: what came of it, what it asked, what it said."""
    head = repr(found).partition("\n")[0]
    title, _, said = head.rpartition(": ")
    rows = "".join(map(_row, found.verdicts))
    return (
        '<div style="max-width:960px;font-family:system-ui,sans-serif;line-height:1.45;'
        'font-variant-numeric:tabular-nums">'
        f'<div style="margin:0 0 2px">{escape(title)}</div>'
        f'<div style="font-size:19px;font-weight:650;margin:0 0 6px">{escape(said)}</div>'
        f'<table style="border-collapse:collapse;width:100%;font-size:13px">{rows}</table></div>'
    )


def badge(one: Verdict) -> str:
    """The word of a verdict on its colour; what only informs has a frame and no colour."""
    ground = _GROUNDS.get(one.word)
    look = (
        f"background:{ground};border:1px solid {ground};color:#FFFFFF"
        if ground
        else "border:1px solid currentColor;opacity:.7"
    )
    return (
        '<span style="display:inline-block;min-width:58px;text-align:center;padding:0 8px;'
        f'border-radius:9px;font-size:12px;font-weight:600;{look}">{one.word}</span>'
    )


def _row(one: Verdict) -> str:
    demanded = f' <span style="opacity:.65">({escape(one.demanded)})</span>' if one.demanded else ""
    return (
        f'<tr><td style="{_CELL}">{badge(one)}</td>'
        f'<td style="{_CELL};white-space:nowrap;font-weight:600">{escape(one.check)}</td>'
        f'<td style="{_CELL};max-width:720px">{escape(one.said)}{demanded}</td></tr>'
    )
