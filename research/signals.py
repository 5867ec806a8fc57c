"""Parts that strategies are made of: from indicators to targets, confidences and reasons.

Arrays hold one value a bar, oldest first; where an indicator is NaN, nothing is wanted. All are
causal: the value of a bar depends on that bar and those before it alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from research.candles import Floats
from research.errors import ParameterError
from research.strategy import Strategy, Targets

__all__ = ["above", "crossover", "kept_between", "reach", "require_less"]

Flags = npt.NDArray[np.bool_]


def require_less(strategy: Strategy, smaller: str, larger: str) -> None:
    """One parameter below another. Raises ParameterError that names both."""
    small, large = getattr(strategy, smaller), getattr(strategy, larger)
    if small >= large:
        raise ParameterError(
            field=f"{strategy.name}.{smaller}",
            value=small,
            expected=f"less than {larger} ({large})",
        )


def above(fast: Floats, slow: Floats) -> Floats:
    """1 while ``fast`` is above ``slow``, else 0; also 0 where one of them is NaN."""
    return (fast > slow).astype(np.float64)


def crossover(fast: Floats, slow: Floats) -> Targets:
    """Long while ``fast`` is above ``slow``: reasons 0 not ready, 1 above, 2 not above.

    Confidence is d / (d + 1 %) of 100, where d is their distance as a share of ``slow``: 50 at one
    percent apart, 0 where they touch. Both must be positive.
    """
    ready = ~(np.isnan(slow) | np.isnan(fast))
    distance = np.abs(fast / slow - 1.0)
    wanted = above(fast, slow)
    return Targets(
        target=np.where(ready, wanted, np.nan),
        confidence=100.0 * (distance / (distance + 0.01)),
        reason=np.where(ready, np.where(wanted > 0.0, 1, 2), 0),
    )


def kept_between(enter: Flags, leave: Flags) -> Floats:
    """1 where to enter, 0 where to leave, and NaN, which keeps what is held, between the two."""
    target = np.full(len(enter), np.nan)
    target[leave] = 0.0
    target[enter] = 1.0
    return target


def reach(distance: Floats, scale: Floats | float) -> Floats:
    """Confidence that grows with a distance: half of 100 where it is as large as ``scale``."""
    size: Floats = np.maximum(distance, 0.0)
    return 100.0 * (size / np.maximum(size + scale, np.finfo(np.float64).tiny))
