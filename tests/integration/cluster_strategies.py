"""Strategies for the tests of clusters, made anew: their classes travel whole, as a notebook's."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from research.candles import Candles, Floats
from research.strategy import Strategy, Targets, param


def simple(candles: Candles, hold: int) -> Targets:
    """In for ``hold`` bars of every 24."""
    bars = len(candles)
    inside = (np.arange(bars) % 24 < hold).astype(np.float64)
    return Targets(inside, np.zeros(bars), np.zeros(bars, np.int64))


def deadly(hold: int, marker: Path, deaths: int) -> type[Strategy]:
    """One whose row ``hold`` kills the process that computes it, this one excepted.

    ``deaths`` times in all, one character in the file ``marker`` each.
    """
    spared, wanted = os.getpid(), hold

    @dataclass(frozen=True)
    class Deadly(Strategy):
        version: ClassVar[int] = 1
        reasons: ClassVar[tuple[str, ...]] = ("by the clock",)
        hold: int = param(1, low=1, high=24)

        @property
        def warmup(self) -> int:
            return 0

        def targets(self, candles: Candles) -> Targets:
            return simple(candles, self.hold)

        def target(self, candles: Candles) -> Floats:
            before = marker.stat().st_size if marker.exists() else 0
            if self.hold == wanted and os.getpid() != spared and before < deaths:
                with marker.open("a") as file:
                    file.write("x")
                os.kill(os.getpid(), signal.SIGKILL)
            return self.targets(candles).target

    return Deadly


def faulty(hold: int, target: float | None) -> type[Strategy]:
    """One whose row ``hold`` wants ``target``, which is none; None divides by zero instead."""
    wanted = hold

    @dataclass(frozen=True)
    class Faulty(Strategy):
        version: ClassVar[int] = 1
        reasons: ClassVar[tuple[str, ...]] = ("by the clock",)
        hold: int = param(1, low=1, high=24)

        @property
        def warmup(self) -> int:
            return 0

        def targets(self, candles: Candles) -> Targets:
            found = simple(candles, self.hold)
            if self.hold == wanted:
                found.target[7] = 1 // 0 if target is None else target
            return found

    return Faulty
