"""Rotation into the strongest of several symbols, ranked by momentum at fixed times (UTC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from research.candles import Candles, CandleSet, Floats, Ints
from research.errors import ParameterError
from research.indicators import momentum
from research.signals import reach
from research.strategy import Strategy, Targets, param

Flags = npt.NDArray[np.bool_]

HELD, BEATEN, SUNK, BETWEEN = 1, 2, 3, 4  # positions in reasons


class Ranked(NamedTuple):
    """Momentum at the rebalances, ``[rebalance][symbol]``, NaN where a symbol takes no decision.

    ``rows`` are the candles of each symbol at which it takes one, ``at`` their rebalances.
    """

    strength: Floats
    rows: tuple[Ints, ...]
    at: tuple[Ints, ...]


@dataclass(frozen=True)
class MomentumRotation(Strategy):
    """Hold the ``top`` symbols that rose most over ``lookback`` bars, 1 / ``top`` in each.

    It decides at closes that are whole multiples of ``rebalance_every`` bars since 1970 (UTC) and
    keeps between them. Only a momentum above ``floor`` percent is held: 0 is dual momentum, -100
    ranks alone. Confidence is d / (d + 1 %) of 100, where d is how far a symbol's momentum lies
    from where its decision would turn; 0 while keeping.

    N. Jegadeesh, S. Titman, Returns to Buying Winners and Selling Losers, Journal of Finance 48
    (1993); the floor is the absolute momentum of G. Antonacci, Dual Momentum Investing (2014).
    """

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = (
        "momentum not ready",
        "among the strongest",
        "others are stronger",
        "momentum not above the floor",
        "between two rebalances",
    )

    lookback: int = param(168, low=1, high=5000)
    top: int = param(1, low=1, high=100)
    rebalance_every: int = param(24, low=1, high=5000)
    floor: float = param(0.0, low=-100.0, high=1000.0)

    def check(self) -> None:
        if self.rebalance_every > self.lookback:  # some bars would count in no decision
            raise ParameterError(
                field=f"{self.name}.rebalance_every",
                value=self.rebalance_every,
                expected=f"at most lookback ({self.lookback})",
            )

    @property
    def warmup(self) -> int:
        return self.lookback

    def targets(self, candles: Candles) -> Targets:
        return self.joint_targets(CandleSet((candles,)))[0]

    def joint_target(self, candles: CandleSet) -> tuple[Floats, ...]:
        ranked = self._ranked(candles)
        share = self._held(ranked.strength) / self.top
        return _columns(candles, ranked, share, np.nan)

    def joint_targets(self, candles: CandleSet) -> tuple[Targets, ...]:
        ranked = self._ranked(candles)
        strength, floor = ranked.strength, self.floor / 100.0
        held = self._held(strength)
        reason = np.where(held, HELD, np.where(strength > floor, BEATEN, SUNK))
        columns = zip(
            _columns(candles, ranked, held / self.top, np.nan),
            _columns(candles, ranked, reach(_margin(strength, held, floor), 0.01), 0.0),
            _columns(candles, ranked, reason, BETWEEN),
            strict=True,
        )
        return tuple(
            Targets(target, sure, np.where(np.arange(len(why)) < self.warmup, 0, why).astype(int))
            for target, sure, why in columns
        )

    def _ranked(self, candles: CandleSet) -> Ranked:
        """What the rebalances see; none reads a candle that had not closed by then."""
        bar, step = candles.bar_ms, self.rebalance_every * candles.bar_ms
        known = [one.ts for one in candles if len(one)]
        first = min((int(ts[0]) for ts in known), default=0) + bar
        last = max((int(ts[-1]) for ts in known), default=-bar) + bar
        closes = np.arange(-(-first // step) * step, last + 1, step)
        strength = np.full((len(closes), len(candles)), np.nan)
        rows, at = [], []
        for s, one in enumerate(candles):
            row = np.searchsorted(one.ts, closes - bar)
            there = np.flatnonzero((self.lookback <= row) & (row < len(one)))
            there = there[one.ts[row[there]] == closes[there] - bar]
            strength[there, s] = momentum(one.close, self.lookback)[row[there]]
            rows.append(row[there])
            at.append(there)
        return Ranked(strength, tuple(rows), tuple(at))

    def _held(self, strength: Floats) -> Flags:
        """Which symbols each rebalance wants, at most ``top`` with those that it cannot sell.

        A symbol that is absent at a rebalance keeps what it was given, and with it its place.
        """
        worthy, rank = strength > self.floor / 100.0, _rank(strength)
        decides = ~np.isnan(strength)
        held = worthy & (rank < self.top)
        if decides.all():
            return held
        latest = _latest(decides)
        # What was given at a rebalance depends on earlier ones alone: each round settles at least
        # the next one that was not settled, and mostly all of them.
        while True:
            kept = ~decides & (latest >= 0) & np.take_along_axis(held, np.maximum(latest, 0), 0)
            places = self.top - kept.sum(axis=1, keepdims=True)
            settled = worthy & (rank < places)
            if np.array_equal(settled, held):
                return held
            held = settled


def _rank(strength: Floats) -> Ints:
    """0 for the strongest of a row, and so on; of equals the earlier symbol stands first."""
    order = np.argsort(-strength, axis=1, kind="stable")
    rank = np.empty(order.shape, np.int64)
    np.put_along_axis(rank, order, np.arange(order.shape[1])[None, :], axis=1)
    return rank


def _latest(decides: Flags) -> Ints:
    """The last rebalance up to each at which a symbol took a decision; -1 for none."""
    numbered = np.where(decides, np.arange(len(decides))[:, None], -1)
    latest: Ints = np.maximum.accumulate(numbered, axis=0)
    return latest


def _margin(strength: Floats, held: Flags, floor: float) -> Floats:
    """How far each momentum lies from what it was measured against, 0 or more.

    One that is held: the floor, or the best that is not held, whichever is nearer. One that is not:
    the floor where it is not above it, else the weakest that is held.
    """
    left = np.where(held | np.isnan(strength), -np.inf, strength).max(axis=1, keepdims=True)
    weakest = np.where(held, strength, np.inf).min(axis=1, keepdims=True)
    # None is held where absent symbols keep every place: then there is nothing to measure against.
    beaten = np.where(np.isinf(weakest), 0.0, weakest - strength)
    margin: Floats = np.where(
        held,
        strength - np.maximum(left, floor),
        np.where(strength > floor, beaten, floor - strength),
    )
    return margin


def _columns(
    candles: CandleSet, ranked: Ranked, values: npt.NDArray[Any], between: float
) -> tuple[Floats, ...]:
    """``values`` of the rebalances as a column a symbol, ``between`` at every other candle."""
    columns = tuple(np.full(len(one), between) for one in candles)
    for s, (column, rows, at) in enumerate(zip(columns, ranked.rows, ranked.at, strict=True)):
        column[rows] = values[at, s]
    return columns
