"""What a stop audit found: trade by trade as a frame, in figures and in plain words.

Shares are fractions of the trades that were audited, prices and money in quote currency,
differences of prices in basis points, times UTC. Computed by ``research.stop_audit``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from html import escape
from typing import Any

import pandas as pd

from research.account import Stops
from research.state import STOPS

__all__ = ["DIFFERENCES", "Finding", "StopAudit"]


class Finding(StrEnum):
    """What the audit says of one trade; another bar goes before another stop or price."""

    SAME = "same"
    PRICE = "other price"
    INTENT = "other stop"
    BAR = "other bar"
    FINE_ONLY = "stopped on the finer candles only"
    COARSE_ONLY = "stopped on the run's bars only"
    NOT_COVERED = "not covered"


DIFFERENCES = (
    *(Finding.PRICE, Finding.INTENT, Finding.BAR),
    *(Finding.FINE_ONLY, Finding.COARSE_ONLY),
)


@dataclass(frozen=True, eq=False, repr=False)
class StopAudit:
    """What finer candles say of a run's stops. ``frame`` has one row a trade, in order of entry.

    Its columns: ``symbol``, ``opened_at`` (its first fill), ``bars`` (in which it was held),
    ``quantity`` (bought), ``entry_price`` (of its first fill), ``finding`` (a ``Finding``); then
    for the run's own bars and, with ``fine_`` before it, for the finer candles: ``exit`` (the
    intent; ``open`` at the end of the run; ``held`` where a finer exit never came),
    ``bar`` (open of the run's bar in which it ended), ``price`` (of the sale, or the last close
    where there is none) and ``pnl`` after fees; ``fine_at`` (close of the finer candle); and
    ``price_bps`` (how much better the finer exit sold), ``pnl_change``, ``both_inside`` (the run
    sold at a stop in a bar that held the target too) and ``adds_up`` (the finer candles make up
    every bar in which it was held). Of a trade that is not covered the ``fine_`` columns and the
    changes are empty.
    """

    symbols: tuple[str, ...]
    timeframe: str
    fine_timeframe: str
    stops: Stops
    initial_cash: float
    frame: pd.DataFrame

    @property
    def audited(self) -> pd.DataFrame:
        """The trades that the finer candles cover."""
        return self.frame[self.frame["finding"] != Finding.NOT_COVERED]

    @property
    def differing(self) -> pd.DataFrame:
        """The audited trades whose exit differs."""
        return self.frame[self.frame["finding"].isin(DIFFERENCES)]

    @property
    def not_covered(self) -> int:
        """How many trades lack a finer candle in some bar, and were not judged."""
        return len(self.frame) - len(self.audited)

    @property
    def share(self) -> float:
        """The share of audited trades whose exit differs; NaN where none was audited."""
        return len(self.differing) / len(self.audited) if len(self.audited) else math.nan

    @property
    def shares(self) -> pd.Series:
        """The same by kind of difference; they add up to ``share``."""
        counts = self.frame["finding"].value_counts().reindex(list(DIFFERENCES), fill_value=0)
        return (counts / (len(self.audited) or math.nan)).rename("share")

    @property
    def mean_bps(self) -> float:
        """How much better the finer exits sold, over the trades that differ; NaN without one."""
        return float(self.differing["price_bps"].mean())

    @property
    def p95_bps(self) -> float:
        """What 95 % of the differences stay within, either way; NaN without one."""
        return float(self.differing["price_bps"].abs().quantile(0.95))

    @property
    def pnl(self) -> float:
        """Profit of the audited trades as the run has it; what is still held, at its last close."""
        return float(self.audited["pnl"].sum())

    @property
    def pnl_change(self) -> float:
        """What the finer exits add to it, trade by trade, each of the size that the run gave it."""
        return float(self.audited["pnl_change"].sum())

    @property
    def both_inside(self) -> int:
        """Audited trades that the run ended at a stop in a bar that held the target as well."""
        return int(self.audited["both_inside"].sum())

    @property
    def target_first(self) -> int:
        """How many of these met the target first on the finer candles."""
        rows = self.audited[self.audited["both_inside"].astype(bool)]
        at_target = rows["fine_exit"] == "take_profit"
        return int((at_target & (rows["fine_bar"] == rows["bar"])).sum())

    def summary(self) -> dict[str, Any]:
        """The figures by name, as numbers; shares are fractions."""
        return {
            "symbols": list(self.symbols),
            "timeframe": self.timeframe,
            "fine_timeframe": self.fine_timeframe,
            "stops": self.stops.model_dump(),
            "trades": len(self.frame),
            "not_covered": self.not_covered,
            "audited": len(self.audited),
            "stopped": int(self.audited["exit"].isin(STOPS).sum()),
            "differing": len(self.differing),
            "share": self.share,
            "shares": {str(kind.name).lower(): float(self.shares[kind]) for kind in DIFFERENCES},
            "mean_bps": self.mean_bps,
            "p95_bps": self.p95_bps,
            "pnl": self.pnl,
            "pnl_change": self.pnl_change,
            "both_inside": self.both_inside,
            "target_first": self.target_first,
            "not_adding_up": int((~self.audited["adds_up"].astype(bool)).sum()),
        }

    def __repr__(self) -> str:
        head, *rows = _told(self)
        width = max(len(label) for label, _ in rows) + 2
        return "\n".join([head[0], *(f"{label:<{width}}{text}".rstrip() for label, text in rows)])

    def _repr_html_(self) -> str:
        (title, _), *rows = _told(self)
        cells = "".join(
            f'<tr><td style="text-align:left">{escape(label)}</td>'
            f'<td style="text-align:left">{escape(text)}</td></tr>'
            for label, text in rows
        )
        return f"<div><b>{escape(title)}</b><table><tbody>{cells}</tbody></table></div>"


def _told(audit: StopAudit) -> Iterator[tuple[str, str]]:
    """The audit in words: a title, then labels with what stands beside them."""
    bars, finer = f"{audit.timeframe} bars", f"{audit.fine_timeframe} candles"
    symbols = ", ".join(audit.symbols)
    yield f"Stops of a run over {bars} of {symbols}, replayed on {finer}", ""
    yield "Stops", _stops_text(audit.stops)
    found = audit.summary()
    count, differing = found["audited"], found["differing"]
    yield "Trades", f"{found['trades']:,}"
    why = f"; of {found['not_covered']:,} some {finer} are missing" if found["not_covered"] else ""
    yield "Audited", f"{count:,}, of which {found['stopped']:,} ended at a stop{why}"
    if not count:
        yield "Exit differs", f"not known: no trade is covered by the {finer}"
        return
    yield "Exit differs", f"{audit.share:.1%}, {differing:,} of {count:,}"
    for kind, part in audit.shares.items():
        if part:
            yield f"  {kind}", f"{part:.1%}, {round(part * count):,}"
    if differing:
        yield (
            "Price of these",
            f"{audit.mean_bps:+,.1f} bps on average for the seller; 95 % within "
            f"{audit.p95_bps:,.1f} bps",
        )
    of_cash = audit.pnl_change / audit.initial_cash
    yield (
        "Profit",
        f"{audit.pnl:+,.2f} on {bars}, {audit.pnl + audit.pnl_change:+,.2f} with the exits of the "
        f"{finer}: a change of {audit.pnl_change:+,.2f} ({of_cash:+.2%} of the cash at the start), "
        "each trade by itself",
    )
    if audit.stops.take_profit_pct is not None:
        yield (
            "Stop and target",
            f"both inside the bar in which {audit.both_inside:,} stopped; the {finer} met "
            f"the target first in {audit.target_first:,} of them",
        )
    if found["not_adding_up"]:
        yield (
            "Note",
            f"in {found['not_adding_up']:,} trades the {finer} do not add up to the {bars}: "
            "two sources, or history that was restated",
        )


def _stops_text(stops: Stops) -> str:
    named = (
        ("stop-loss", stops.stop_loss_pct),
        ("take-profit", stops.take_profit_pct),
        ("trailing stop", stops.trailing_stop_pct),
    )
    return ", ".join(f"{name} {value:g} %" for name, value in named if value is not None)
