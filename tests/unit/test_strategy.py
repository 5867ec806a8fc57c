"""The strategy contract, and that no shipped strategy can see the future."""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import research.strategies
from research.candles import COLUMNS, Candles, CandleSet
from research.errors import InputError, ParameterError, UnknownNameError
from research.indicators import sma
from research.search import sweep
from research.strategies.rsi_reversal import RsiReversal
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import (
    RESERVED,
    Strategy,
    Targets,
    compute_targets,
    make_strategy,
    param,
    raw_targets,
    registry,
    strategy_class,
)

HOUR = 3_600_000
SHIPPED = sorted(registry())


def walk(bars: int, seed: int, volatility: float = 0.01) -> Candles:
    """Sound candles of a random walk; prices to the cent, so that some of them repeat."""
    rng = np.random.default_rng(seed)
    path = 100.0 * np.exp(np.cumsum(rng.normal(0.0, volatility, bars + 1)))
    opened, close = np.round(path[:-1], 2), np.round(path[1:], 2)
    low = np.round(np.minimum(opened, close) * (1 - rng.uniform(0, volatility, bars)), 2)
    high = np.round(np.maximum(opened, close) * (1 + rng.uniform(0, volatility, bars)), 2)
    ts = np.arange(bars) * HOUR
    return Candles("BTCUSDT", "1h", ts, opened, high, low, close, rng.uniform(1, 9, bars))


def answer_of(strategy: Strategy, candles: Candles) -> Targets:
    """The targets of one symbol, which is all there is."""
    return compute_targets(strategy, CandleSet((candles,)))[0]


@dataclass(frozen=True)
class Given(Strategy):
    """Says what it is told to, so that the contract itself can be put to the test."""

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = ("one", "two")
    answer: ClassVar[tuple[Any, Any, Any]]
    ready: ClassVar[int] = 0

    whole: int = param(3, low=1, high=9)
    part: float = param(0.5, low=0.0, high=1.0)

    @property
    def warmup(self) -> int:
        return self.ready

    def targets(self, candles: Candles) -> Targets:
        return Targets(*self.answer)


@pytest.mark.parametrize("value", [1, 9, 5.0, np.int32(4), np.int64(4), np.float64(4.0)])
def test_a_whole_number_within_bounds_is_kept_as_an_int(value: Any) -> None:
    made = Given(whole=value)
    assert made.whole == value
    assert type(made.whole) is int


@pytest.mark.parametrize("value", [0, 1, 0.25, np.float32(0.5), np.int8(1)])
def test_a_number_within_bounds_is_kept_as_a_float(value: Any) -> None:
    made = Given(part=value)
    assert made.part == value
    assert type(made.part) is float


@pytest.mark.parametrize(
    "value",
    [0, 10, -1, 3.5, math.nan, math.inf, -math.inf, True, False, np.True_, "3", None, [3], 3 + 0j],
)
def test_what_is_no_whole_number_within_bounds_is_refused(value: Any) -> None:
    with pytest.raises(ParameterError) as caught:
        Given(whole=value)
    assert caught.value.field == "Given.whole"
    assert caught.value.expected == "a whole number from 1 to 9"


@pytest.mark.parametrize("value", [-0.001, 1.001, math.nan, math.inf, True, "0.5", None, (0.5,)])
def test_what_is_no_number_within_bounds_is_refused(value: Any) -> None:
    with pytest.raises(ParameterError, match=r"Given\.part: expected a number from 0\.0 to 1\.0"):
        Given(part=value)


def test_equal_parameters_are_equal_strategies_whatever_type_they_came_as() -> None:
    one, other = SmaCrossover(fast=5, slow=20), SmaCrossover(fast=np.int64(5), slow=20.0)  # type: ignore[arg-type]
    assert one == other
    assert hash(one) == hash(other)
    assert repr(one) == repr(other) == "SmaCrossover(fast=5, slow=20)"
    assert one != SmaCrossover(fast=5, slow=21)
    assert len({one, other, SmaCrossover(fast=6, slow=20)}) == 2


def test_two_kinds_with_the_same_numbers_are_not_equal() -> None:
    @dataclass(frozen=True)
    class Other(SmaCrossover):
        """The same parameters, another meaning."""

    assert Other() != SmaCrossover()


def test_a_parameter_cannot_be_changed_afterwards() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SmaCrossover().fast = 3  # type: ignore[misc]


@st.composite
def shipped(draw: st.DrawFn, name: str, longest: int | None = None) -> Strategy:
    """Any strategy of this name within its bounds; whole numbers no larger than ``longest``."""
    cls = registry()[name]
    values: dict[str, Any] = {}
    for spec in fields(cls):
        low, high = spec.metadata["low"], spec.metadata["high"]
        if isinstance(spec.default, int):
            most = high if longest is None else min(high, max(low, longest))
            values[spec.name] = draw(st.integers(low, most))
        else:
            values[spec.name] = draw(st.floats(low, high))
    try:
        return cls(**values)
    except ParameterError:  # a rule between parameters; the bounds alone hold by construction
        assume(False)
        raise


@pytest.mark.parametrize("name", SHIPPED)
@settings(deadline=None)
@given(data=st.data())
def test_a_strategy_is_rebuilt_from_its_repr_and_from_its_parameters(
    name: str, data: st.DataObject
) -> None:
    strategy = data.draw(shipped(name))
    assert eval(repr(strategy), dict(registry())) == strategy  # noqa: S307
    assert make_strategy(name, strategy.parameters()) == strategy
    assert type(strategy)(**strategy.parameters()) == strategy
    assert strategy.name == name


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_strategy_declares_all_that_the_contract_asks_for(name: str) -> None:
    cls = registry()[name]
    assert cls.version >= 1
    assert len(set(cls.reasons)) == len(cls.reasons) > 1
    assert "onfidence" in str(cls.__doc__)  # its formula is part of the meaning
    assert cls() == make_strategy(name, {})
    for spec in fields(cls):
        assert spec.metadata["low"] <= spec.default <= spec.metadata["high"]
        for outside in (spec.metadata["low"] - 1, spec.metadata["high"] + 1):
            with pytest.raises(ParameterError, match=rf"{name}\.{spec.name}: expected a"):
                cls(**{spec.name: outside})


def test_every_file_of_strategies_holds_one_that_is_found_by_either_name() -> None:
    folder = Path(research.strategies.__path__[0])
    files = {one.stem for one in folder.glob("*.py")} - {"__init__"}
    assert len(files) == len(SHIPPED)
    for file in files:
        cls = strategy_class(file)
        assert cls.__module__ == f"research.strategies.{file}"
        assert strategy_class(cls.__name__) is cls


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("SmaCrosover", "Did you mean SmaCrossover?"),
        ("RsiReversion", "Did you mean RsiReversal?"),
        ("sma_crossing", "Did you mean SmaCrossover?"),
        ("zzz", None),
        ("", None),
    ],
)
def test_an_unknown_strategy_is_answered_with_the_known_ones(name: str, remedy: str | None) -> None:
    with pytest.raises(UnknownNameError, match=r"strategy: expected one of .*SmaCrossover") as told:
        strategy_class(name)
    assert told.value.remedy == remedy


SOUND = """
from dataclasses import dataclass
from typing import ClassVar

from research.strategy import Strategy, Targets, param


@dataclass(frozen=True)
class {name}(Strategy):
    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = ("none",)
    window: int = param(5, low=1, high=9)

    @property
    def warmup(self) -> int:
        return self.window

    def targets(self, candles):
        return Targets([0.0] * len(candles), [0.0] * len(candles), [0] * len(candles))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A second folder of strategy files, empty; what is loaded from it is forgotten afterwards."""
    monkeypatch.setattr(
        research.strategies, "__path__", [*research.strategies.__path__, str(tmp_path)]
    )
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("research.strategies."):
            del sys.modules[name]


BROKEN = {
    "a name that is not defined": ("x = 1\ny = pd.Series\n", "line 2: NameError: name 'pd'"),
    "a syntax error": ("\n\ndef f(:\n", "line 3: SyntaxError: "),
    "a missing library": ("import nosuchlibrary\n", "line 1: ModuleNotFoundError: No module"),
    "an exit": ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
    "a bare assertion": ("assert False\n", "line 1: AssertionError"),
    "no dataclass": (
        SOUND.format(name="Another").replace("@dataclass(frozen=True)", ""),
        r"ParameterError: Another: expected a strategy with @dataclass\(frozen=True\)",
    ),
    "no version": (
        SOUND.format(name="Another").replace("version: ClassVar[int] = 1", ""),
        "ParameterError: Another: expected a strategy with version",
    ),
    "a name that is taken": (
        SOUND.format(name="SmaCrossover"),
        "ParameterError: SmaCrossover: expected another name: .*sma_crossover has a strategy",
    ),
    "a reserved parameter": (
        SOUND.format(name="Another").replace("window: int", "progress: int"),
        r"line 9: ParameterError: Another\.progress",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_one_broken_file_stops_no_other_strategy_and_is_named_with_its_line(
    fault: str, folder: Path
) -> None:
    text, what = BROKEN[fault]
    (folder / "tattered.py").write_text(f"{text}\n\nclass Tattered:\n    pass\n")
    (folder / "whole.py").write_text(SOUND.format(name="Whole"))
    assert {*SHIPPED, "Whole"} == set(registry())
    assert make_strategy("whole", window=3).parameters() == {"window": 3}
    where = rf"research/strategies/tattered\.py: {what}"
    for asked in ("tattered", "Tattered"):
        with pytest.raises(InputError, match=where) as caught:
            strategy_class(asked)
        assert caught.value.exit_code == 2
    with pytest.raises(InputError, match=rf'got "whlo". .*does not load: {where}') as caught:
        make_strategy("whlo", {})
    assert caught.value.exit_code == 2


def test_a_file_that_was_mended_is_found_without_a_new_process(folder: Path) -> None:
    (folder / "late.py").write_text("x = y\n")
    with pytest.raises(InputError, match=r"late\.py: line 1: NameError"):
        strategy_class("late")
    (folder / "late.py").write_text(SOUND.format(name="Late"))
    assert strategy_class("late").__name__ == "Late"
    (folder / "later.py").write_text(SOUND.format(name="Later"))
    assert strategy_class("Later").__module__ == "research.strategies.later"


@pytest.mark.parametrize(
    "name", ["account", "candles", "name", "parameters", "progress", "strategy", "trade_from"]
)
def test_a_parameter_may_not_be_called_like_a_keyword_of_a_sweep(name: str) -> None:
    with pytest.raises(ParameterError, match=rf"Colliding\.{name}: expected a parameter called"):
        type("Colliding", (Given,), {"__annotations__": {name: int}, name: param(1, low=0, high=9)})


def test_the_reserved_names_are_the_keywords_that_there_are() -> None:
    taken = [*inspect.signature(sweep).parameters, *inspect.signature(make_strategy).parameters]
    assert sorted(set(taken) - {"grid", "more"}) == sorted(RESERVED)


def test_parameters_are_given_as_a_mapping_by_keyword_or_both() -> None:
    expected = SmaCrossover(fast=5, slow=20)
    assert make_strategy("sma_crossover", {"fast": 5, "slow": 20}) == expected
    assert make_strategy("sma_crossover", fast=5, slow=20) == expected
    assert make_strategy("sma_crossover", {"fast": 5}, slow=20) == expected
    assert make_strategy("sma_crossover") == SmaCrossover()


def test_an_unknown_parameter_is_answered_with_the_nearest() -> None:
    with pytest.raises(ParameterError, match="no such parameter") as caught:
        make_strategy("SmaCrossover", {"fats": 5})
    assert caught.value.field == "SmaCrossover.fats"
    assert caught.value.expected == "one of fast, slow"
    assert caught.value.remedy == "Did you mean fast?"
    with pytest.raises(ParameterError, match=r"SmaCrossover\.fast: expected a whole number"):
        make_strategy("SmaCrossover", {"fast": "5"})


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        (lambda: SmaCrossover(fast=50, slow=50), r"SmaCrossover\.fast: expected less than slow"),
        (lambda: RsiReversal(oversold=70, overbought=70), r"RsiReversal\.oversold: expected less"),
    ],
)
def test_rules_between_parameters_hold_at_equality(
    strategy: Callable[[], Strategy], says: str
) -> None:
    with pytest.raises(ParameterError, match=says):
        strategy()


def answering(target: Any, confidence: Any, reason: Any, ready: int = 0) -> Strategy:
    @dataclass(frozen=True)
    class Answering(Given):
        answer = (target, confidence, reason)

    Answering.ready = ready
    return Answering()


FOUR = walk(4, 0)
GOOD = ([0.0, 0.5, 1.0, math.nan], [0.0, 50.0, 100.0, math.nan], [0, 1, 0, 1])


def test_a_good_answer_comes_back_as_arrays_with_no_confidence_where_none_was_said() -> None:
    made = answer_of(answering(*GOOD), FOUR)
    assert (made.target.dtype, made.confidence.dtype) == (np.float64, np.float64)
    assert made.reason.dtype == np.int64
    np.testing.assert_array_equal(made.target, GOOD[0])
    np.testing.assert_array_equal(made.confidence, [0.0, 50.0, 100.0, 0.0])
    np.testing.assert_array_equal(made.reason, GOOD[2])


@pytest.mark.parametrize("ready", [0, 1, 3, 4, 9])
def test_before_the_declared_warm_up_there_is_no_target(ready: int) -> None:
    raw = np.full(4, 0.5)
    made = answer_of(answering(raw, np.full(4, 900.0 if ready >= 4 else 9.0), [0] * 4, ready), FOUR)
    assert np.isnan(made.target).tolist() == [t < ready for t in range(4)]
    assert made.confidence.tolist() == [0.0 if t < ready else 9.0 for t in range(4)]
    assert raw.tolist() == [0.5] * 4  # the strategy's own array is left alone


@pytest.mark.parametrize(
    ("column", "value", "field"),
    [
        (0, [0.0] * 3, "target"),
        (0, [0.0] * 5, "target"),
        (0, [[0.0] * 4], "target"),
        (0, 0.5, "target"),
        (1, [0.0] * 3, "confidence"),
        (1, 50.0, "confidence"),
        (2, [0] * 5, "reason"),
        (2, [], "reason"),
        (0, [0.0, 1.0000001, 1.0, 0.0], "target[1]"),
        (0, [0.0, 0.0, -0.5, 0.0], "target[2]"),
        (0, [math.inf, 0.0, 0.0, 0.0], "target[0]"),
        (1, [0.0, 0.0, 100.5, 0.0], "confidence[2]"),
        (1, [-1.0, 0.0, 0.0, 0.0], "confidence[0]"),
        (1, [0.0, math.nan, 0.0, 0.0], "confidence[1]"),  # a target that says nothing of itself
        (1, [0.0, 0.0, 0.0, 101.0], "confidence[3]"),  # not even while keeping what is held
        (2, [0, 0, 0, 2], "reason[3]"),
        (2, [0, -1, 0, 0], "reason[1]"),
    ],
)
def test_a_wrong_answer_is_refused_with_the_column_and_the_bar(
    column: int, value: Any, field: str
) -> None:
    answer: list[Any] = list(GOOD)
    answer[column] = value
    with pytest.raises(ParameterError) as caught:
        answer_of(answering(*answer), FOUR)
    assert caught.value.field == f"Answering.targets: {field}"


def said(strategy: Strategy, candles: Candles) -> list[bytes]:
    made = answer_of(strategy, candles)
    return [made.target.tobytes(), made.confidence.tobytes(), made.reason.tobytes()]


def first_looks_ahead(strategy: Strategy, candles: Candles, seed: int) -> int | None:
    """A bar whose answer depends on later bars, or None where none was found.

    Two questions at random bars: is the answer the same where the history ends there, and is it
    the same where the history goes on quite differently?
    """
    rng = np.random.default_rng(seed)
    whole = answer_of(strategy, candles)
    for n in sorted(rng.integers(1, len(candles), 25).tolist()):
        known = [column[:n].tobytes() for column in (whole.target, whole.confidence, whole.reason)]
        if said(strategy, candles.rows(0, n)) != known:
            return int(n)
        other = walk(len(candles) - n, seed + n, 0.2)
        mixed = {c: np.append(getattr(candles, c)[:n], getattr(other, c)) for c in COLUMNS}
        told = answer_of(strategy, dataclasses.replace(candles, **mixed))
        if [c[:n].tobytes() for c in (told.target, told.confidence, told.reason)] != known:
            return int(n)
    return None


@pytest.mark.parametrize("name", SHIPPED)
@settings(max_examples=15, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10_000))
def test_no_shipped_strategy_looks_ahead(name: str, data: st.DataObject, seed: int) -> None:
    strategy = data.draw(shipped(name, longest=60))
    assert first_looks_ahead(strategy, walk(400, seed), seed) is None


@pytest.mark.parametrize("name", SHIPPED)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10_000), bars=st.integers(0, 90))
def test_a_shipped_strategy_answers_any_history_and_first_at_its_warm_up(
    name: str, data: st.DataObject, seed: int, bars: int
) -> None:
    strategy = data.draw(shipped(name, longest=60))
    raw = strategy.targets(walk(bars, seed))
    answer_of(strategy, walk(bars, seed))
    assert np.isnan(raw.target[: strategy.warmup]).all()
    # The first reason is the one for "not ready", and is over exactly when the warm-up is.
    assert [r == 0 for r in raw.reason.tolist()] == [t < strategy.warmup for t in range(bars)]


@pytest.mark.parametrize("name", SHIPPED)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10_000), bars=st.integers(0, 90))
def test_the_quick_target_of_a_sweep_is_the_target(
    name: str, data: st.DataObject, seed: int, bars: int
) -> None:
    strategy, candles = data.draw(shipped(name, longest=30)), walk(bars, seed)
    quick = np.array(raw_targets(strategy, CandleSet((candles,)))[0])
    quick[: strategy.warmup] = np.nan
    assert quick.tobytes() == answer_of(strategy, candles).target.tobytes()


def _of_tomorrow(close: np.ndarray) -> np.ndarray:
    return np.append(close[1:], close[-1]) > close


def _of_the_whole_mean(close: np.ndarray) -> np.ndarray:
    return close < close.mean()


def _of_the_best_day(close: np.ndarray) -> np.ndarray:
    return np.arange(len(close)) == np.argmin(close)


def _of_a_centred_average(close: np.ndarray) -> np.ndarray:
    return np.roll(np.nan_to_num(sma(close, 5)), -2) > close


def _of_the_number_of_bars(close: np.ndarray) -> np.ndarray:
    return np.arange(len(close)) > 0.9 * len(close)


@pytest.mark.parametrize(
    "rule",
    [
        _of_tomorrow,
        _of_the_whole_mean,
        _of_the_best_day,
        _of_a_centred_average,
        _of_the_number_of_bars,
    ],
)
def test_the_same_check_catches_strategies_that_do_look_ahead(
    rule: Callable[[np.ndarray], np.ndarray],
) -> None:
    @dataclass(frozen=True)
    class Leaky(Given):
        """Causal in everything but its rule."""

        def targets(self, candles: Candles) -> Targets:
            long = rule(candles.close)
            return Targets(long.astype(float), np.full(len(long), 50.0), long.astype(np.int64))

    caught = [first_looks_ahead(Leaky(), walk(400, seed), seed) for seed in range(5)]
    assert None not in caught


def test_sma_crossover_on_a_table() -> None:
    close = np.array([2.0, 4.0, 6.0, 2.0, 1.0, 9.0])
    candles = dataclasses.replace(walk(6, 0), open=close, high=close, low=close, close=close)
    made = answer_of(SmaCrossover(fast=2, slow=3), candles)
    # fast:  -    3    5    4   1.5   5
    # slow:  -    -    4    4    3    4
    np.testing.assert_array_equal(made.target, [math.nan, math.nan, 1.0, 0.0, 0.0, 1.0])
    assert made.reason.tolist() == [0, 0, 1, 2, 2, 1]
    # 25 % apart: 0.25 / 0.26; touching: 0; half: 0.5 / 0.51
    np.testing.assert_allclose(
        made.confidence, [0.0, 0.0, 100 * 0.25 / 0.26, 0.0, 100 * 0.5 / 0.51, 100 * 0.25 / 0.26]
    )


def test_rsi_reversal_on_a_table() -> None:
    close = np.array([10.0, 9.0, 8.0, 8.5, 10.5, 10.0])
    candles = dataclasses.replace(walk(6, 0), open=close, high=close, low=close, close=close)
    made = answer_of(RsiReversal(window=2, oversold=40, overbought=80), candles)
    # average gain:  -  -  0    0.25  1.125  0.5625
    # average loss:  -  -  1    0.5   0.25   0.375
    # RSI:           -  -  0   33.3  81.8   60
    np.testing.assert_array_equal(made.target, [math.nan, math.nan, 1.0, 1.0, 0.0, math.nan])
    assert made.reason.tolist() == [0, 0, 1, 1, 2, 3]
    np.testing.assert_allclose(
        made.confidence, [0.0, 0.0, 100.0, 100 / 6, 100 / 11, 0.0], rtol=1e-12
    )
