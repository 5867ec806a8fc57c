"""The strategy contract: a frozen dataclass whose one pure method turns candles into targets.

A strategy is *stateless and causal*. ``targets(candles)`` returns one wanted exposure per bar:
0 is out, 1 is the whole position that the limits allow, NaN keeps what is held. The engine turns
targets into orders; the very same method over the very same history serves backtest and paper. A
strategy that weighs symbols against each other overrides ``joint_targets`` as well.

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

A strategy file imports from the modules that define things (``from research.strategy import
Strategy``), not from ``research`` itself: a promotion hashes the code that the file imports.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import pkgutil
import re
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Final

import numpy as np

from research.candles import Candles, CandleSet, Floats, Ints
from research.errors import InputError, ParameterError, UnknownNameError

__all__ = [
    "Action",
    "Signal",
    "Strategy",
    "Targets",
    "bounded",
    "compute_targets",
    "make_strategy",
    "param",
    "raw_targets",
    "registry",
    "strategy_class",
]

# Keywords of sweep, optimise and make_strategy, beside which parameters are given by keyword.
RESERVED: Final = frozenset(
    {
        *("account", "candles", "constraint", "draws", "metric", "name", "on", "parameters"),
        *("progress", "resume", "returns", "seed", "strategy", "trade_from", "trials", "workers"),
    }
)


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
    Defining one whose parameter is called as a keyword of ``sweep`` or ``make_strategy``
    (``RESERVED``) raises ParameterError.
    """

    version: ClassVar[int]
    reasons: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in RESERVED & set(vars(cls).get("__annotations__", ())):
            raise ParameterError(
                field=f"{cls.__name__}.{name}",
                expected=f"a parameter called otherwise than {', '.join(sorted(RESERVED))}",
            )

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

    def target(self, candles: Candles) -> Floats:
        """The target column of ``targets`` alone, which is all that a sweep reads.

        A strategy may give it in a quicker way; before ``warmup`` it may hold anything.
        """
        return self.targets(candles).target

    def joint_targets(self, candles: CandleSet) -> tuple[Targets, ...]:
        """Targets for every symbol, in the order of ``candles``: by default each by itself.

        A strategy that ranks symbols overrides it. What it says of a bar may depend on the candles
        of all symbols that had closed by then, and on no other; each column is as long as its own
        symbol's candles, which need neither begin together nor be there at every bar.
        """
        return tuple(self.targets(one) for one in candles)

    def joint_target(self, candles: CandleSet) -> tuple[Floats, ...]:
        """The target columns of ``joint_targets`` alone; before ``warmup`` they may hold anything.

        A strategy that overrides ``joint_targets`` may give them in a quicker way here.
        """
        if type(self).joint_targets is not Strategy.joint_targets:
            return tuple(one.target for one in self.joint_targets(candles))
        return tuple(self.target(one) for one in candles)

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

    def refusal() -> ParameterError:  # a sweep asks for thousands of values: made only if raised
        return ParameterError(
            field=field_name,
            value=value,
            expected=f"a{' whole' if whole else ''} number from {low} to {high}",
        )

    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise refusal()
    if not low <= value <= high or (whole and value != int(value)):
        raise refusal()
    return int(value) if whole else float(value)


def compute_targets(strategy: Strategy, candles: CandleSet) -> tuple[Targets, ...]:
    """``strategy.joint_targets``, checked, with no target before each symbol's declared warm-up.

    One Targets a symbol, in the order of ``candles``; confidence is 0 where there is none. Raises
    ParameterError where a symbol is missing, a column has the wrong length, a target lies outside 0
    to 1, a confidence outside 0 to 100 (or a target has none), or a reason is not one of the
    strategy's.
    """
    raw = strategy.joint_targets(candles)
    _require_one_a_symbol(f"{strategy.name}.joint_targets", raw, candles)
    return tuple(_checked(strategy, *pair) for pair in zip(raw, candles, strict=True))


def _require_one_a_symbol(field: str, made: Sequence[object], candles: CandleSet) -> None:
    if len(made) != len(candles):
        expected = f"one answer a symbol, {len(candles)}: {', '.join(candles.symbols)}"
        raise ParameterError(field=field, value=len(made), expected=expected)


def _checked(strategy: Strategy, raw: Targets, candles: Candles) -> Targets:
    """A strategy's answer for one symbol, once it is known to be one."""
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


def raw_targets(strategy: Strategy, candles: CandleSet) -> tuple[Floats, ...]:
    """The target columns as the strategy gives them: before its warm-up they may hold anything.

    One a symbol. Their values are not checked here: a sweep refuses one outside 0 to 1. Raises
    ParameterError where a symbol is missing or a column has the wrong length.
    """
    columns = tuple(np.asarray(one, dtype=np.float64) for one in strategy.joint_target(candles))
    _require_one_a_symbol(f"{strategy.name}.joint_target", columns, candles)
    for target, one in zip(columns, candles, strict=True):
        if target.shape != (len(one),):
            raise ParameterError(
                field=f"{strategy.name}.target",
                value=target.shape,
                expected=f"one value a bar, shape ({len(one)},)",
            )
    return columns


def registry() -> dict[str, type[Strategy]]:
    """Every strategy in ``research/strategies`` that loads, by class name: one strategy a file.

    A file that does not load is left out and stops no other; asking for its strategy says why.
    A file that was added or mended is found by the next call.
    """
    return _scanned()[0]


def _scanned() -> tuple[dict[str, type[Strategy]], dict[str, InputError]]:
    """The strategies by class name, and what is wrong with the other files, by file name."""
    package = importlib.import_module("research.strategies")
    importlib.invalidate_caches()
    found: dict[str, type[Strategy]] = {}
    broken: dict[str, InputError] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda one: one.name):
        try:
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            found |= _strategies_in(module, found)
        except (Exception, SystemExit) as err:  # noqa: BLE001 - whatever a file does when it is loaded
            broken[info.name] = InputError(
                f"{_line_of(err, info.name)}{type(err).__name__}: {err}".rstrip(": "),
                field=f"research/strategies/{info.name}.py",
                remedy="Mend the file, then ask again.",
            )
    return found, broken


def _strategies_in(
    module: ModuleType, known: Mapping[str, type[Strategy]]
) -> dict[str, type[Strategy]]:
    own = {
        value.__name__: value
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and issubclass(value, Strategy)
        and not inspect.isabstract(value)
    }
    for name, cls in own.items():
        if name in known and known[name] is not cls:
            raise ParameterError(
                field=name, expected=f"another name: {known[name].__module__} has a strategy {name}"
            )
        missing = [part for part in ("version", "reasons") if not hasattr(cls, part)]
        if missing or "__dataclass_fields__" not in vars(cls):
            lacking = " and ".join(missing) or "@dataclass(frozen=True)"
            raise ParameterError(field=name, expected=f"a strategy with {lacking}")
    return own


def _line_of(err: BaseException, file: str) -> str:
    """``line N: `` where the error arose in that file, or below it; empty where that is unknown."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(err.__traceback__)
        if Path(frame.filename).name == f"{file}.py"
    ]
    if isinstance(err, SyntaxError) and Path(err.filename or "").name == f"{file}.py":
        lines.append(err.lineno)
    return f"line {lines[-1]}: " if lines and lines[-1] else ""


def strategy_class(name: str) -> type[Strategy]:
    """A strategy by class name or file name (``SmaCrossover`` or ``sma_crossover``).

    Raises InputError naming the file, the line and what is wrong where the strategy's file does
    not load, or where the name is unknown and some file does not load; UnknownNameError with the
    nearest names where all do.
    """
    known = registry()
    for class_name, cls in known.items():
        if name in (class_name, cls.__module__.rpartition(".")[2]):
            return cls
    broken = _scanned()[1]
    for file, failure in broken.items():
        if name == file or name in _class_names(file):
            raise failure
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.4)
    remedy = f"Did you mean {near[0]}?" if near else None
    expected = f"one of {', '.join(known)}"
    if broken:
        unread = " ".join(str(failure) for failure in broken.values())
        raise InputError(
            field="strategy",
            value=name,
            expected=expected,
            remedy=f"{remedy or ''} It may be in a file that does not load: {unread}".lstrip(),
        )
    raise UnknownNameError(field="strategy", value=name, expected=expected, remedy=remedy)


def _class_names(file: str) -> set[str]:
    """Names of the classes that a strategy file defines, also where it cannot be parsed."""
    package = importlib.import_module("research.strategies")
    texts = [
        path.read_text("utf-8", errors="replace")
        for folder in package.__path__
        if (path := Path(folder, f"{file}.py")).is_file()
    ]
    return {name for text in texts for name in re.findall(r"^class (\w+)", text, re.MULTILINE)}


def make_strategy(
    name: str, parameters: Mapping[str, object] | None = None, **more: object
) -> Strategy:
    """A strategy by name with these parameters, given as a mapping, by keyword or both.

    The rest keep their defaults: ``make_strategy("sma_crossover", fast=20)``. Raises what
    ``strategy_class`` raises for the name, ParameterError for a parameter that it does not have or
    a value out of bounds.
    """
    cls = strategy_class(name)
    given = {**(parameters or {}), **more}
    return cls(**{key: bounded(cls, key, value) for key, value in given.items()})
