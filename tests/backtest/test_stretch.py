"""Skipped bars are not forgotten bars: a sweep's row against the fold, over random worlds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from research import rows, stretch
from research.account import Account, Limits
from research.candles import utc_ms
from research.compiled import compile_kernel
from research.engine import fold
from research.metrics import Tally, opening_tally, tally_log
from research.risk import Rules, drawdown_reached
from research.rows import ROW_MODULES, live_through
from research.state import State, as_arrays, new_log, opening_state
from research.stretch import find_busy, new_scratch
from research.tape import Tape
from tests.backtest.oracle import Bar
from tests.backtest.worlds import World, random_world

Kernel = Callable[..., Any]


def world_of(seed: int) -> World:
    """A world of its own for each seed; two of three are calm for long: bars are skipped there."""
    rng = Random(seed)  # noqa: S311 - nothing secret depends on it
    world = random_world(rng, rng.choice([40, 120, 300]))
    calm = rng.choice([0.0, 0.9, 0.98])
    series = {
        symbol: {
            ts: replace(bar, target=math.nan) if rng.random() < calm else bar
            for ts, bar in bars.items()
        }
        for symbol, bars in world.series.items()
    }
    return replace(world, series=series)


def by_fold(world: World, tape: Tape, rules: Rules) -> tuple[Tally, State]:
    cash, symbols = world.account.initial_cash, len(world.series)
    last, log = fold(opening_state(cash, symbols), tape, rules)
    return tally_log(log, rules, cash), last


def by_row(
    world: World, tape: Tape, rules: Rules, kernel: object
) -> tuple[int, Tally, bool, State]:
    cash, symbols = world.account.initial_cash, len(world.series)
    state, tally = as_arrays(opening_state(cash, symbols)), as_arrays(opening_tally(cash, symbols))
    scratch = new_scratch(len(tape.close_time))
    lived: tuple[int, State, Tally] = kernel(
        state, tape, scratch, as_arrays(rules), new_log(1, symbols), tally
    )
    return lived


def differences(world: World, kernel: Kernel) -> list[str]:
    """The fields of state and tally in which a row and the fold part."""
    tape, rules = world.tape(), world.rules()
    tally, last = by_fold(world, tape, rules)
    bars, state, counted = by_row(world, tape, rules, kernel)
    found = [] if bars == len(tape.close_time) else [f"bars {bars}"]
    for name in Tally._fields:
        if not np.array_equal(getattr(tally, name), getattr(counted, name), equal_nan=True):
            found.append(f"tally.{name}: {getattr(tally, name)} {getattr(counted, name)}")
    for name in State._fields:
        mine, theirs = np.array(getattr(state, name)), np.array(getattr(last, name))
        if not np.array_equal(mine, theirs, equal_nan=True):
            found.append(f"state.{name}: {mine} {theirs}")
    return found


def test_a_compiled_row_is_the_fold_to_the_bit_over_thousands_of_worlds() -> None:
    compiled = compile_kernel(live_through, ROW_MODULES)
    for seed in range(2_000):
        assert differences(world_of(seed), compiled) == [], seed


def test_an_interpreted_row_is_the_fold_to_the_bit() -> None:
    for seed in range(10_000, 10_150):
        assert differences(world_of(seed), live_through) == [], seed


def test_most_bars_of_calm_worlds_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [0]
    real = rows.step

    def counting(*arguments: object) -> State:
        steps[0] += 1
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "step", counting)
    bars = 0
    for seed in range(60):
        world = world_of(seed)
        bars += len(world.tape().close_time)
        differences(world, live_through)
    assert 0 < steps[0] < bars / 2


def test_busy_bars_are_those_on_which_a_target_changes_or_somebody_acts() -> None:
    for seed in range(300):
        tape = world_of(seed).tape()
        busy = np.empty(len(tape.close_time), np.int64)
        count = find_busy(tape, busy)
        wanted = []
        acted = [0.0] * tape.target.shape[1]
        for t in range(len(tape.close_time)):
            changed = tape.events[t] != 0
            for s in range(len(acted)):
                target = tape.target[t, s]
                if tape.present[t, s] and not math.isnan(target) and target != acted[s]:
                    changed, acted[s] = True, target
            if changed:
                wanted.append(t)
        assert busy[:count].tolist() == wanted


def dipped() -> World:
    """A loss at a quiet bar, made good before the next busy one: the day is lost all the same."""
    start = utc_ms("2024-01-01")
    closes = [100.0, 100.0, 100.0, 80.0, 100.0, 100.0, 100.0, 100.0]

    def bars(prices: list[float], target_at: int) -> dict[int, Bar]:
        return {
            start + i * 3_600_000: Bar(p, p, p, p, 1.0 if i == target_at else math.nan)
            for i, p in enumerate(prices)
        }

    limits = Limits(max_position_pct=40, max_daily_loss_pct=2, max_drawdown_pct=100)
    series = {"AAA": bars(closes, 0), "BBB": bars([50.0] * len(closes), 5)}
    return World(Account(limits=limits, filters=None), series)


def test_a_loss_at_a_skipped_bar_loses_the_day() -> None:
    world = dipped()
    assert differences(world, live_through) == []
    _, last = by_fold(world, world.tape(), world.rules())
    assert last.lots[0] > 0
    assert last.lots[1] == 0, "refused, although the loss was made good"


def alone_of(seed: int) -> World:
    """One symbol, long calm: more bars in one stretch than a block has, limits met in the midst."""
    rng = Random(seed)  # noqa: S311 - nothing secret depends on it
    world = random_world(rng, 900)
    symbol = next(iter(world.series))
    calm = rng.choice([0.95, 0.99, 0.998])
    bars = {
        ts: replace(bar, target=math.nan) if rng.random() < calm else bar
        for ts, bar in world.series[symbol].items()
    }
    return replace(world, series={symbol: bars})


def test_a_symbol_alone_is_the_fold_to_the_bit_block_by_block() -> None:
    compiled = compile_kernel(live_through, ROW_MODULES)
    for seed in range(20_000, 20_600):
        assert differences(alone_of(seed), compiled) == [], seed


def sunk(limits: Limits) -> World:
    """A fall at a quiet bar that is made good at the next; more is wanted later, the same day."""
    start = utc_ms("2024-01-01")
    closes = [100.0, 100.0, 100.0, 80.0, 100.0, 100.0, 100.0, 100.0]
    wanted = {0: 0.5, 5: 1.0}
    bars = {
        start + i * 3_600_000: Bar(p, p, p, p, wanted.get(i, math.nan))
        for i, p in enumerate(closes)
    }
    return World(Account(limits=limits, filters=None), {"AAA": bars})


SUNK = (
    sunk(Limits(max_position_pct=40, max_daily_loss_pct=2, max_drawdown_pct=100)),
    sunk(Limits(max_position_pct=40, max_daily_loss_pct=100, max_daily_loss_usd=300)),
    sunk(Limits(max_position_pct=40, max_daily_loss_pct=100, max_drawdown_pct=3)),
)


@pytest.mark.parametrize("world", SUNK)
def test_a_fall_at_a_bar_within_a_block_is_not_overlooked(world: World) -> None:
    assert differences(world, live_through) == []
    _, free = by_fold(world, world.tape(), world.rules()._replace(gated=False))
    _, last = by_fold(world, world.tape(), world.rules())
    assert 0 < last.lots[0] < free.lots[0], "the second entry is refused"


@pytest.mark.parametrize("limit", [0.02, 0.1, 1.0])
def test_a_fall_that_the_gate_sees_is_never_ruled_out(limit: float) -> None:
    rng = Random(0)  # noqa: S311 - nothing secret depends on it
    rules = SUNK[0].rules()._replace(max_drawdown=limit)
    met = 0
    for _ in range(20_000):
        peak = rng.uniform(1.0, 1e5)
        equity = peak * (1.0 - limit)
        for _ in range(rng.randrange(3)):
            equity = math.nextafter(equity, rng.choice([0.0, math.inf]))
        highest = peak * rng.choice([1.0, 1.0 + 1e-12, 1.1])
        if drawdown_reached(equity, peak, rules):
            met += 1
            assert stretch._may_fall(limit, highest, equity)
    assert met > 1_000


def sabotage(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(stretch, name)
    match name:
        case "_stop_is_met":
            monkeypatch.setattr(stretch, name, lambda *_: False)
        case "is_restless":
            monkeypatch.setattr(rows, name, lambda *_: False)
        case "drawdown_reached":
            monkeypatch.setattr(stretch, name, lambda *_: False)
        case "daily_loss_reached":
            monkeypatch.setattr(stretch, name, lambda *_: False)
        case "_may_fall":
            monkeypatch.setattr(stretch, name, lambda *_: False)
        case "_bars_before_stop" | "_bars_before_drawdown":
            monkeypatch.setattr(stretch, name, lambda *_: stretch.BLOCK)
        case "_is_still":
            monkeypatch.setattr(stretch, name, lambda *_: True)
        case "_idle":
            monkeypatch.setattr(stretch, name, lambda tally, bars: real(tally, bars - 1))


@pytest.mark.parametrize(
    "name",
    [
        "_stop_is_met",
        "is_restless",
        "drawdown_reached",
        "daily_loss_reached",
        "_may_fall",
        "_bars_before_stop",
        "_bars_before_drawdown",
        "_is_still",
        "_idle",
    ],
)
def test_what_is_forgotten_on_a_skipped_bar_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(name, monkeypatch)
    worlds = (dipped(), *SUNK, *(world_of(seed) for seed in range(200)))
    assert any(differences(world, live_through) for world in worlds)
