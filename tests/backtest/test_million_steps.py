"""A sample of `make million` with a fixed seed, and proof that the comparison would notice."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from types import FunctionType
from typing import Any

import numpy as np
import pytest

from research import engine, risk
from research.account import Limits, Stops
from research.engine import fold
from research.state import Log, State
from tests.backtest.million_steps import Outcome, campaign, million_world
from tests.backtest.worlds import World

STEPS = 100_000
SEED = 20_261_125


def test_a_hundred_thousand_steps_have_the_same_bits_and_meet_every_rule() -> None:
    found = campaign(STEPS, SEED)
    assert found.differences == []
    assert found.steps >= STEPS
    assert found.missing() == []
    assert min(*found.codes.values(), *found.intents.values(), *found.stops.values()) >= 5


# --- what differs is noticed


# One passage of the interpreted engine, or of its gate, and what it becomes.
BROKEN = {
    "a sum in another order": (
        "cash = cash + (notional - fee)\n        _reduce",
        "cash = cash + notional - fee\n        _reduce",
    ),
    "a cost rounded otherwise": (
        "notional + notional * rules.fee_rate",
        "notional * (1.0 + rules.fee_rate)",
    ),
    "a drawdown passed, not met": ("peak - equity >=", "peak - equity >"),
    "a stop passed, not met": ("tape.low[t][s] <= stop", "tape.low[t][s] < stop"),
}


def rewritten(word: str, other: str) -> Callable[..., tuple[State, Log]]:
    """The interpreted engine made of its source anew, with ``word`` replaced."""
    sources = {part: inspect.getsource(part) for part in (risk, engine)}
    assert sum(text.count(word) for text in sources.values()) == 1, word
    gate: dict[str, Any] = {}
    made: dict[str, Any] = {}
    for part, text in sources.items():
        gate, made = made, {"__name__": part.__name__}
        exec(compile(text.replace(word, other), "rewritten", "exec"), made)  # noqa: S102
    # The engine imported the gate of the project; it is to call the one that was rewritten.
    made |= {k: v for k, v in gate.items() if k in made and isinstance(v, FunctionType)}
    fold_of: Callable[..., tuple[State, Log]] = made["fold"]
    return fold_of


def negative_zero(*given: Any, **options: Any) -> tuple[State, Log]:
    last, log = fold(*given, **options)
    log.fill_fee[log.fill_fee == 0.0] = -0.0
    return last, log


def last_bit_of_the_peak(*given: Any, **options: Any) -> tuple[State, Log]:
    last, log = fold(*given, **options)
    return last._replace(peak=float(np.nextafter(last.peak, 0.0))), log


def whole_number_for_a_truth(*given: Any, **options: Any) -> tuple[State, Log]:
    last, log = fold(*given, **options)
    return last._replace(tripped=int(last.tripped)), log  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BROKEN)
def test_an_engine_with_one_passage_changed_is_noticed(name: str) -> None:
    assert campaign(STEPS, SEED, rewritten(*BROKEN[name]), most_differences=1).differences


def test_an_engine_rewritten_with_nothing_changed_is_the_engine() -> None:
    word, _ = BROKEN["a sum in another order"]
    assert campaign(5_000, SEED, rewritten(word, word)).differences == []


@pytest.mark.parametrize(
    ("plain", "where"),
    [
        (negative_zero, "Log.fill_fee"),
        (last_bit_of_the_peak, "State.peak"),
        (whole_number_for_a_truth, "State.tripped"),
    ],
)
def test_bits_are_compared_and_not_only_values(plain: Callable[..., Any], where: str) -> None:
    found = campaign(STEPS, SEED, plain, most_differences=3)
    assert len(found.differences) == 3
    assert all(one.endswith(where) for one in found.differences)


# --- what never occurred is noticed


def without(world: World, **changes: Any) -> World:
    return replace(world, account=world.account.model_copy(update=changes))


def test_worlds_without_stops_or_gate_have_shown_less() -> None:
    stopless = campaign(5_000, SEED, maker=lambda seed: without(million_world(seed), stops=Stops()))
    assert {one for one in stopless.missing() if "stop" in one} >= {
        "intent stop_loss",
        "intent trailing_stop",
        "stop stop_loss at open",
        "stop stop_loss within",
    }
    open_gate = campaign(5_000, SEED, maker=lambda seed: without(million_world(seed), limits=None))
    assert {"code DRAWDOWN", "code DAILY_LOSS", "code TRADING_HOURS"} <= set(open_gate.missing())
    strict = Limits(max_positions=1)
    gated = campaign(5_000, SEED, maker=lambda seed: without(million_world(seed), limits=strict))
    assert "code POSITION_COUNT" not in gated.missing()


def test_a_code_or_an_intent_that_is_new_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(risk.CODES, 99, ("NEW_RULE", "nobody tested it"))
    monkeypatch.setitem(engine.state_module.INTENTS, 99, "new_intent")
    assert {"code NEW_RULE", "intent new_intent"} <= set(Outcome().missing())
    assert {"code NEW_RULE", "intent new_intent"} <= set(campaign(1_000, SEED).missing())
