"""What a strategy answers, as bare columns that can be compared bit for bit.

The answers are those of ``compute_targets`` (no target and no confidence before the declared
warm-up, confidence 0 where there is none), without its check of the values: what a strategy says of
invented candles is compared, not traded. All NaN are one NaN here.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from research.candles import CandleSet, Floats
from research.errors import ParameterError
from research.strategy import Strategy, Targets

__all__ = ["Difference", "anew", "answers", "changed", "first_differences"]

ANSWERS = ("target", "confidence", "reason")


class Difference(NamedTuple):
    """The first row of one symbol at which a column of two answers differs."""

    symbol: int
    row: int
    column: str


def answers(strategy: Strategy, candles: CandleSet) -> tuple[Targets, ...]:
    """One Targets a symbol, in the order of ``candles``, each column as long as its candles.

    Raises whatever the strategy raises, and ParameterError where an answer has the wrong shape.
    """
    raw = strategy.joint_targets(candles)
    if len(raw) != len(candles):
        raise ParameterError(
            field=f"{strategy.name}.joint_targets",
            value=len(raw),
            expected=f"one answer a symbol, {len(candles)}",
        )
    return tuple(_bare(strategy, one, len(bars)) for one, bars in zip(raw, candles, strict=True))


def _bare(strategy: Strategy, raw: Targets, bars: int) -> Targets:
    target = np.array(raw.target, dtype=np.float64)
    confidence = np.array(raw.confidence, dtype=np.float64)
    reason = np.array(raw.reason, dtype=np.int64)
    for name, column in zip(ANSWERS, (target, confidence, reason), strict=True):
        if column.shape != (bars,):
            raise ParameterError(
                field=f"{strategy.name}.targets: {name}",
                value=column.shape,
                expected=f"one value a bar, shape ({bars},)",
            )
    target[np.isnan(target)] = np.nan
    confidence[np.isnan(confidence)] = 0.0
    target[: strategy.warmup], confidence[: strategy.warmup] = np.nan, 0.0
    return Targets(target, confidence, reason)


def first_differences(
    whole: Sequence[Targets], other: Sequence[Targets], rows: Sequence[int]
) -> Iterator[Difference]:
    """Where the first ``rows[s]`` answers of each symbol differ in any bit, column by column."""
    for s, (one, two, stop) in enumerate(zip(whole, other, rows, strict=True)):
        for name in ANSWERS:
            mine, theirs = _bits(getattr(one, name)[:stop]), _bits(getattr(two, name)[:stop])
            if not np.array_equal(mine, theirs):
                yield Difference(s, int(np.argmax(mine != theirs)), name)


def changed(one: Targets, two: Targets, tolerance: float) -> npt.NDArray[np.bool_]:
    """Rows at which another target or reason is given, or a confidence further off than that."""
    off: npt.NDArray[np.bool_] = (
        (_bits(one.target) != _bits(two.target))
        | (one.reason != two.reason)
        | (np.abs(one.confidence - two.confidence) > tolerance)
    )
    return off


def _bits(column: Floats | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    bits: npt.NDArray[np.int64] = column.view(np.int64)
    return bits


def anew(strategy: Strategy) -> Strategy:
    """An equal strategy that remembers nothing: of a class from its module, loaded once more.

    Where the class is not to be had so (a notebook's, one made within a function, a file that does
    not load twice) the object alone is new.
    """
    cls = _loaded_again(type(strategy)) or type(strategy)
    return cls(**strategy.parameters())


def _loaded_again(cls: type[Strategy]) -> type[Strategy] | None:
    path = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if path is None or cls.__module__ == "__main__":
        return None
    spec = importlib.util.spec_from_file_location(cls.__module__, path)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)  # not put into sys.modules: nobody else sees it
    except Exception:  # noqa: BLE001 - whatever a file does when it is loaded; it did load once
        return None
    found: Any = module
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, type) and issubclass(found, Strategy) else None
