"""The strategy contract: a frozen dataclass whose one pure method turns candles into targets.

A strategy is *stateless and causal*. ``targets(candles)`` returns one wanted exposure per bar:
0 is out, 1 is the whole position that the limits allow, NaN keeps what is held. The engine turns
targets into orders; the very same method over the very same history serves backtest and paper.

    @dataclass(frozen=True)
    class Breakout(Strategy):
        '''Long above the highest close of the last ``window`` bars.'''

        version: ClassVar[int] = 1
        reasons: ClassVar[tuple[str, ...]] = ("no breakout", "new high")
        window: int = param(20, low=2, high=500)

        @property
        def warmup(self) -> int:
            return self.window

        def targets(self, candles: Candles) -> Targets: ...
"""

from __future__ import annotations

import difflib
import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cache
from typing import Any, ClassVar

import numpy as np

from research.candles import Candles, Floats, Ints
from research.errors import ParameterError, UnknownNameError

__all__ = [
    "Action",
    "Signal",
    "Strategy",
    "Targets",
    "bounded",
    "compute_targets",
    "make_strategy",
    "param",
    "registry",
    "strategy_class",
]


class Action(StrEnum):
    """What a signal asks for."""

    BUY = "BUY"
    SELL = "SELL"
    HOLD = "HOLD"


@dataclass(frozen=True, slots=True)
class Signal:
    """What a strategy said about one symbol at one bar's close, for people and the ledger.

    ``confidence`` 0-100; ``timestamp`` is the bar's close, UTC milliseconds; ``reason`` in words.
    """

    symbol: str
    action: Action
    confidence: float
    strategy: str
    timestamp: int
    reason: str


@dataclass(frozen=True, eq=False)
class Targets:
    """Per bar: ``target`` (0 to 1, NaN keeps), ``confidence`` (0 to 100), ``reason`` (an index).

    Three arrays as long as the candles; ``reason`` indexes the strategy's ``reasons``.
    """

    target: Floats
    confidence: Floats
    reason: Ints


def param(default: float, *, low: float, high: float) -> Any:
    """A bounded strategy parameter, for use as a dataclass default; both bounds are allowed."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class Strategy(ABC):
    """Base of all strategies. Equal parameters are equal strategies; ``repr`` is how to rebuild it.

    ``version`` goes up whenever the meaning changes; ``reasons`` are the words behind a target.
    """

    version: ClassVar[int]
    reasons: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = bounded(type(self), spec.name, getattr(self, spec.name))
            object.__setattr__(self, spec.name, value)
        self.check()

    def check(self) -> None:  # noqa: B027 - most strategies have no rule between parameters
        """Rules between parameters (``fast < slow``); raises ParameterError. None by default."""

    @property
    @abstractmethod
    def warmup(self) -> int:
        """Bars at the start for which there is no target yet."""

    @abstractmethod
    def targets(self, candles: Candles) -> Targets:
        """Targets for every bar of one symbol, each from that bar and those before it alone."""

    @property
    def name(self) -> str:
        return type(self).__name__

    def parameters(self) -> dict[str, int | float]:
        """Parameter names and values, in the order of declaration."""
        return {spec.name: getattr(self, spec.name) for spec in fields(self)}


def bounded(cls: type[Strategy], name: str, value: object) -> int | float:
    """``value`` as parameter ``name`` of this strategy takes it: an int or a float in its bounds.

    Raises ParameterError for an unknown name, a wrong type, or a value out of bounds.
    """
    known = {spec.name: spec for spec in fields(cls)}
    field_name = f"{cls.__name__}.{name}"
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise ParameterError(
            "no such parameter",
            field=field_name,
            value=value,
            expected=f"one of {', '.join(known)}",
            remedy=f"Did you mean {near[0]}?" if near else None,
        )
    spec = known[name]
    low, high = spec.metadata.get("low", -math.inf), spec.metadata.get("high", math.inf)
    whole = isinstance(spec.default, int)
    refusal = ParameterError(
        field=field_name,
        value=value,
        expected=f"a{' whole' if whole else ''} number from {low} to {high}",
    )
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise refusal
    if not low <= value <= high or (whole and value != int(value)):
        raise refusal
    return int(value) if whole else float(value)


def compute_targets(strategy: Strategy, candles: Candles) -> Targets:
    """``strategy.targets`` with its answer checked, and no target before the declared warm-up.

    Confidence is 0 where there is none. Raises ParameterError where a column has the wrong length,
    a target lies outside 0 to 1, a confidence outside 0 to 100 (or a target has none), or a reason
    is not one of the strategy's.
    """
    raw = strategy.targets(candles)
    target = np.array(raw.target, dtype=np.float64)
    confidence = np.array(raw.confidence, dtype=np.float64)
    reason = np.asarray(raw.reason, dtype=np.int64)
    for name, column in (("target", target), ("confidence", confidence), ("reason", reason)):
        if column.shape != (len(candles),):
            raise ParameterError(
                field=f"{strategy.name}.targets: {name}",
                value=column.shape,
                expected=f"one value a bar, shape ({len(candles)},)",
            )
    target[: strategy.warmup] = confidence[: strategy.warmup] = np.nan
    decided = ~np.isnan(target)
    said = decided | ~np.isnan(confidence)
    checks = (
        ("target", target, decided & ~((target >= 0) & (target <= 1)), "0 to 1, or NaN"),
        ("confidence", confidence, said & ~((confidence >= 0) & (confidence <= 100)), "0 to 100"),
        ("reason", reason, (reason < 0) | (reason >= len(strategy.reasons)), "an index of reasons"),
    )
    for name, column, bad, expected in checks:
        if bad.any():
            i = int(np.argmax(bad))
            raise ParameterError(
                field=f"{strategy.name}.targets: {name}[{i}]",
                value=column[i].item(),
                expected=expected,
            )
    return Targets(target, np.where(np.isnan(confidence), 0.0, confidence), reason)


@cache
def registry() -> dict[str, type[Strategy]]:
    """Every strategy in ``research/strategies``, by class name: one strategy a file."""
    package = importlib.import_module("research.strategies")
    found: dict[str, type[Strategy]] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda one: one.name):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for value in vars(module).values():
            own = isinstance(value, type) and value.__module__ == module.__name__
            if own and issubclass(value, Strategy):
                found[value.__name__] = value
    return found


def strategy_class(name: str) -> type[Strategy]:
    """A shipped strategy by class name or file name (``SmaCrossover`` or ``sma_crossover``).

    Raises UnknownNameError with the nearest names.
    """
    for known, cls in registry().items():
        if name in (known, cls.__module__.rpartition(".")[2]):
            return cls
    near = difflib.get_close_matches(name, list(registry()), n=1, cutoff=0.4)
    raise UnknownNameError(
        field="strategy",
        value=name,
        expected=f"one of {', '.join(registry())}",
        remedy=f"Did you mean {near[0]}?" if near else None,
    )


def make_strategy(name: str, parameters: Mapping[str, object]) -> Strategy:
    """A strategy by name with these parameters; the rest keep their defaults.

    Raises UnknownNameError for the name, ParameterError for a parameter that it does not have or
    a value out of bounds.
    """
    cls = strategy_class(name)
    return cls(**{key: bounded(cls, key, value) for key, value in parameters.items()})
