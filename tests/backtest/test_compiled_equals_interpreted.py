"""Compiled and interpreted are one engine, and the referee that says so can tell a broken one.

The sweep compiles the source that paper trading interprets: every cell of the log and every field
of the state must have the same bits. The second half plants mutants in that source, one rule
broken in each, and the oracle must notice all of them.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research import engine, risk
from research.account import Filters
from research.compiled import cache_folder
from research.engine import fold, step
from research.risk import CODES
from research.state import INTENTS, Log, State, clear_row, new_log, opening_state
from research.tape import Move, Tape, row_of
from tests.backtest.oracle import simulate
from tests.backtest.oracle_columns import as_columns
from tests.backtest.tables import account, limits, parsed, world_of_table
from tests.backtest.worlds import World, random_world, world_of

ROOT = Path(__file__).resolve().parents[2]

worlds = st.randoms(use_true_random=False).map(random_world)
thorough = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ],
)


def start_of(world: World) -> State:
    return opening_state(world.account.initial_cash, len(world.series))


def assert_same_log(one: Log, other: Log) -> None:
    for name, a, b in zip(Log._fields, one, other, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), name
        assert np.array_equal(a, b), name


def assert_same_state(one: State, other: State) -> None:
    for name, a, b in zip(State._fields, one, other, strict=True):
        assert type(a) is type(b), name
        assert np.array_equal(np.array(a, float), np.array(b, float), equal_nan=True), name


# --- one engine


@thorough
@given(worlds)
def test_compiled_and_interpreted_give_the_same_bits(world: World) -> None:
    tape, rules = world.tape(), world.rules()
    last, log = fold(start_of(world), tape, rules, compiled=False)
    last_compiled, log_compiled = fold(start_of(world), tape, rules, compiled=True)
    assert_same_log(log, log_compiled)
    assert_same_state(last, last_compiled)


def test_compiled_equals_interpreted_where_every_code_and_every_intent_occurs() -> None:
    codes: Counter[int] = Counter()
    intents: Counter[int] = Counter()
    cancelled: Counter[int] = Counter()
    for world in (*map(world_of, range(2_500)), *_scenes()):
        tape, rules = world.tape(), world.rules()
        last, log = fold(start_of(world), tape, rules, compiled=False)
        last_compiled, log_compiled = fold(start_of(world), tape, rules, compiled=True)
        assert_same_log(log, log_compiled)
        assert_same_state(last, last_compiled)
        codes.update(log.code.ravel().tolist())
        codes.update(log.fill_code.ravel().tolist())
        intents.update(log.fill_intent.ravel().tolist())
        intents.update(log.stop_intent.ravel().tolist())
        cancelled.update(log.cancel_intent.ravel().tolist())
    assert {CODES[code][0] for code in codes} == {name for name, _ in CODES.values()}
    assert set(intents) - {0} == set(INTENTS)
    assert {INTENTS[one] for one in cancelled if one} >= {"entry", "exit"}
    assert min(codes.values()) >= 8
    assert min(intents.values()) >= 10


@thorough
@given(worlds, st.integers(0, 30), st.booleans())
def test_a_run_cut_in_two_equals_the_run_in_one_piece(
    world: World, cut: int, compiled: bool
) -> None:
    tape, rules = world.tape(), world.rules()
    whole_state, whole = fold(start_of(world), tape, rules, compiled=compiled)
    first, rest = (Tape(*(c[part] for c in tape)) for part in (slice(cut), slice(cut, None)))
    middle, log_a = fold(start_of(world), first, rules, compiled=compiled)
    kept = repr(middle)
    last, log_b = fold(middle, rest, rules, compiled=not compiled)
    assert_same_log(whole, Log(*(np.concatenate(pair) for pair in zip(log_a, log_b, strict=True))))
    assert_same_state(whole_state, last)
    assert repr(middle) == kept  # the caller's state is not touched


@thorough
@given(worlds)
def test_bar_by_bar_on_one_reused_row_is_what_paper_trading_sees(world: World) -> None:
    tape, rules, state = world.tape(), world.rules(), start_of(world)
    last, log = fold(state, tape, rules, compiled=True)
    row = Log(*(column.tolist() for column in new_log(1, len(world.series))))
    for t in range(len(tape.close_time)):
        clear_row(row, 0)
        state = step(state, row_of(tape, t), 0, rules, row, 0)
        for name in ("cash", "equity", "peak", "day_base", "tripped"):
            assert getattr(row, name)[0] == getattr(log, name)[t]
        for s in range(len(world.series)):
            for marker, names in READ_TOGETHER.items():
                assert getattr(row, marker)[0][s] == getattr(log, marker)[t][s], marker
                if getattr(row, marker)[0][s]:
                    for name in names:
                        assert getattr(row, name)[0][s] == getattr(log, name)[t][s], name
    assert_same_state(state, last)


# A column that says that something happened, and those that mean something only then.
READ_TOGETHER = {
    "fill_since": (
        *("fill_lots", "fill_price", "fill_fee", "fill_code", "fill_intent", "fill_left"),
    ),
    "stop_lots": ("stop_price", "stop_fee", "stop_intent"),
    "order_lots": ("order_intent",),
    "cancel_lots": ("cancel_since", "cancel_intent", "cancel_code"),
    "action": (),
    "code": (),
}


# --- the compiled code on disk is that of the source as it stands


def _loaded(original: ModuleType, text: str) -> ModuleType:
    """A module of the same name made of ``text``, as a fresh process would load it."""
    module = ModuleType(original.__name__)
    module.__file__ = original.__file__
    exec(compile(text, str(original.__file__), "exec"), module.__dict__)  # noqa: S102
    return module


@pytest.mark.parametrize(
    ("name", "word", "other"),
    [
        ("candles", "MINUTE = 60_000", "MINUTE = 30_000"),
        ("tape", "RESET: Final = 2", "RESET: Final = 8"),
        ("risk", "peak - equity >=", "peak - equity >"),
        ("state", "STOP_LOSS: Final = 4", "STOP_LOSS: Final = 9"),
        ("engine", "1.0 + rules.slippage", "1.0 - rules.slippage"),
    ],
)
def test_a_changed_word_in_any_of_its_modules_moves_the_compiled_code_to_another_folder(
    name: str, word: str, other: str
) -> None:
    modules = {one.__name__.rpartition(".")[2]: one for one in engine.KERNEL_MODULES}
    text = inspect.getsource(modules[name])
    assert word in text
    as_it_is = cache_folder((modules | {name: _loaded(modules[name], text)}).values())
    assert as_it_is == cache_folder(engine.KERNEL_MODULES)
    changed = _loaded(modules[name], text.replace(word, other, 1))
    assert cache_folder((modules | {name: changed}).values()) != as_it_is


def test_a_file_edited_after_it_was_loaded_does_not_give_old_code_a_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cache_folder(engine.KERNEL_MODULES)
    edited = tmp_path / "risk.py"
    edited.write_text(inspect.getsource(risk).replace("peak - equity >=", "peak - equity >"))
    monkeypatch.setattr(risk, "__file__", str(edited))
    assert cache_folder(engine.KERNEL_MODULES) == before


def test_the_compiled_code_lies_below_numbas_cache_folder_where_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert cache_folder(engine.KERNEL_MODULES).parent == tmp_path


def test_every_process_finds_the_code_that_another_one_compiled(tmp_path: Path) -> None:
    # An address, or the order of a set, in the name would make each process compile anew.
    code = (
        "from research import compiled, rows\n"
        "def odd(found=lambda: None): return found() in {'a', 'b', 'c', 'd', 'e'}\n"
        "rows.odd, odd.__module__ = odd, rows.__name__\n"
        "print(compiled.cache_folder(rows.ROW_MODULES).name)"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    ]
    assert found[0].startswith("kernels-")
    assert len(set(found)) == 1


def test_threads_that_compile_at_once_keep_to_the_cache_folder(tmp_path: Path) -> None:
    code = (
        "import threading\n"
        "from research import rows\n"
        "from research.compiled import compile_kernel\n"
        "ready = threading.Barrier(8)\n"
        "def work():\n"
        "    ready.wait()\n"
        "    for _ in range(20): compile_kernel(rows.live_through, rows.ROW_MODULES)\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "[one.start() for one in threads]; [one.join() for one in threads]\n"
        "import numba; print(repr(numba.config.CACHE_DIR))"
    )
    here = tmp_path / "here"
    here.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=environment,
    )
    assert list(here.iterdir()) == [], "numba's own place for what it was given no folder for"
    assert done.stdout.strip() == "''", "and its setting is as it was"


# --- negative controls: one broken rule each


MUTANTS: dict[str, tuple[ModuleType, str, str]] = {
    "a sale gains slippage": (
        engine,
        "price = tape.open[t][s] * (1.0 - rules.slippage)",
        "price = tape.open[t][s] * (1.0 + rules.slippage)",
    ),
    "a purchase fills at the close": (
        engine,
        "price = tape.open[t][s] * (1.0 + rules.slippage)",
        "price = tape.close[t][s] * (1.0 + rules.slippage)",
    ),
    "purchases before sales": (
        engine,
        "for selling in (True, False)",
        "for selling in (False, True)",
    ),
    "no fee on purchases": (
        engine,
        "cash = cash - (notional + fee)",
        "cash = cash - notional",
    ),
    "a shrunken purchase may fall below the minimum": (
        engine,
        "                        lots = 0\n",
        "                        lots = lots\n",
    ),
    "a gap through the stop fills at the stop": (
        engine,
        "price = min(opened, stop) * (1.0 - rules.slippage)",
        "price = stop * (1.0 - rules.slippage)",
    ),
    "the stop must be passed, not touched": (
        engine,
        "tape.low[t][s] <= stop",
        "tape.low[t][s] < stop",
    ),
    "the target must be passed, not touched": (
        engine,
        "tape.high[t][s] >= goal",
        "tape.high[t][s] > goal",
    ),
    "the target goes before the stop": (
        engine,
        "tape.low[t][s] <= stop and opened < goal",
        "tape.low[t][s] <= stop and tape.high[t][s] < goal",
    ),
    "the trailing stop sees the bar's high": (
        engine,
        "trail = state.high[s] *",
        "trail = max(state.high[s], tape.high[t][s]) *",
    ),
    "a take-profit pays slippage": (
        engine,
        "price = max(opened, goal)",
        "price = max(opened, goal) * (1.0 - rules.slippage)",
    ),
    "a fresh entry price is rounded once more": (
        engine,
        "if held == 0:",
        "if held < 0:",
    ),
    "an absent symbol is worth nothing": (
        engine,
        "quantity_of(state.lots[s], rules, s) * state.last[s]",
        "quantity_of(state.lots[s], rules, s) * state.last[s] * tape.present[t][s]",
    ),
    "a refused target stays": (
        engine,
        "        state.acted[s] = target\n        code = refusal",
        "        code = refusal",
    ),
    "a target of zero leaves what was refused": (
        engine,
        "elif target == 0.0 and state.acted[s] == 0.0:",
        "elif falls and target == 0.0:",
    ),
    "a time stop is a bar late": (
        engine,
        "held >= rules.time_stop",
        "held > rules.time_stop",
    ),
    "a time stop counts from the last order": (
        engine,
        "    if held == 0:\n        state.since[s]",
        "    if held >= 0:\n        state.since[s]",
    ),
    "an entry replaces the sale of a time stop": (
        engine,
        "if state.pending[s] < 0 and time_is_over(",
        "if False and time_is_over(",
    ),
    "a profit cools down too": (
        engine,
        "state.flow[s] < 0.0:",
        "state.flow[s] < 1e9:",
    ),
    "a stop with a profit does not cool down": (
        engine,
        "if is_stop or state.pending_intent[s] == TIME_STOP",
        "if state.pending_intent[s] == TIME_STOP",
    ),
    "fees are no loss": (
        engine,
        "state.flow[s] = state.flow[s] - paid",
        "state.flow[s] = state.flow[s] - price * 0",
    ),
    "the day's orders are never forgotten": (
        engine,
        "    if close_time // DAY != state.day:\n        begin_day",
        "    if False:\n        begin_day",
    ),
    "stops are no orders": (
        engine,
        "        state.day_orders[s] = state.day_orders[s] + 1\n"
        "        state.day_value[s] = state.day_value[s] + notional\n",
        "",
    ),
    "the collar looks at the price with slippage": (
        engine,
        "collar_refusal(tape.open[t][s], state.last[s], rules)",
        "collar_refusal(price, state.last[s], rules)",
    ),
    "a position counts among the others": (
        engine,
        "if other != s and lots > 0:",
        "if lots > 0:",
    ),
    "pending orders are not exposed": (
        engine,
        "lots = state.lots[other] + state.pending[other]",
        "lots = state.lots[other]",
    ),
    "an exit passes by the limits of exposure": (
        engine,
        "kept = wanted_lots(target, equity, room, price, rules, s)",
        "kept = wanted_lots(target, equity, math.inf, price, rules, s)",
    ),
    "one order too many": (
        risk,
        "if orders + 1 > rules.max_day_orders:",
        "if orders > rules.max_day_orders:",
    ),
    "turnover must stay below its limit": (
        risk,
        "traded + notional > rules.max_day_turnover * day_base",
        "traded + notional >= rules.max_day_turnover * day_base",
    ),
    "a cooldown lasts a bar longer": (
        risk,
        "if close_time < cool_until:",
        "if close_time <= cool_until:",
    ),
    "one fresh bar too few": (
        risk,
        "if fresh < rules.min_fresh:",
        "if fresh + 1 < rules.min_fresh:",
    ),
    "a volatility that is not known holds nothing back": (
        risk,
        "0.0 if math.isnan(calm) else calm",
        "math.inf if math.isnan(calm) else calm",
    ),
    "reduce-only is no refusal": (
        engine,
        "event & (EXPIRED_THEN | REDUCING) != 0",
        "event & EXPIRED_THEN != 0",
    ),
    "the day starts before the mark of 00:00": (
        engine,
        "equity if close_time % DAY == 0 else state.equity",
        "state.equity",
    ),
    "a lost day is forgiven when it recovers": (
        engine,
        "day_lost = day_lost or daily_loss_reached(",
        "day_lost = daily_loss_reached(",
    ),
    "a reset keeps the peak": (
        engine,
        "if event & RESET != 0:",
        "if event & RESET == -1:",
    ),
    "a kill leaves waiting entries": (
        engine,
        "    if killed:\n",
        "    if False:\n",
    ),
    "the switch trips unarmed": (
        engine,
        "trips_itself = rules.armed and not tripped",
        "trips_itself = not tripped",
    ),
    "a trip always flattens": (
        engine,
        "if rules.flatten and tripped",
        "if tripped",
    ),
    "a replaced sale is not cancelled": (
        engine,
        "if state.pending[s] != 0 and state.pending_since[s] != close_time:",
        "if False:",
    ),
    "what will be sold still counts as a position": (
        engine,
        "if state.lots[s] + state.pending[s] > 0:",
        "if state.lots[s] > 0 or state.pending[s] > 0:",
    ),
    "drawdown must pass its limit": (
        risk,
        "peak - equity >= rules.max_drawdown",
        "peak - equity > rules.max_drawdown",
    ),
    "the daily loss in money must pass its limit": (
        risk,
        "loss >= rules.max_daily_loss_usd",
        "loss > rules.max_daily_loss_usd",
    ),
    "one position too many": (
        risk,
        "positions >= rules.max_positions",
        "positions > rules.max_positions",
    ),
    "hours include their end": (
        risk,
        "rules.hours_start <= minute < rules.hours_end",
        "rules.hours_start <= minute <= rules.hours_end",
    ),
    "drawdown before the lost day": (
        risk,
        "    if day_lost:\n",
        "    if day_lost and not drawdown_reached(equity, peak, rules):\n",
    ),
    "a purchase takes no part of the volume": (
        engine,
        "lots = affordable_lots(cash, most, price, rules, s)",
        "lots = affordable_lots(cash, pending, price, rules, s)",
    ),
    "a sale takes no part of the volume": (
        engine,
        "                lots = most\n",
        "                lots = -pending\n",
    ),
    "volume is that of the candle before": (
        engine,
        "            state.volume[s] = tape.volume[t][s]\n",
        "            state.volume[s] = tape.volume[max(t - 1, 0)][s]\n",
    ),
    "a stop sells by the volume of the last candle": (
        engine,
        "lots = fillable_lots(state.lots[s], tape.volume[t][s], rules, s)",
        "lots = fillable_lots(state.lots[s], state.volume[s], rules, s)",
    ),
    "a stop sells without volume": (
        engine,
        "lots = fillable_lots(state.lots[s], tape.volume[t][s], rules, s)",
        "lots = state.lots[s]",
    ),
    "a stop leaves what waits": (
        engine,
        "        if state.pending[s] != 0:\n            _cancel(state, s, VOLUME, log, row)\n"
        "        notional",
        "        notional",
    ),
    "no lot at all ends the order": (
        engine,
        "if most == 0 and rules.unfilled_waits:",
        "if False:",
    ),
    "what is left never waits": (
        engine,
        "if code == VOLUME and rules.unfilled_waits:",
        "if False:",
    ),
    "what is left always waits": (
        engine,
        "if code == VOLUME and rules.unfilled_waits:",
        "if code == VOLUME:",
    ),
    "what cash left waits too": (
        engine,
        "            if code == OK and most < abs(pending):\n",
        "            if (code == OK or code == CASH) and most < abs(pending):\n",
    ),
    "a sale that waits is asked for again": (
        engine,
        "if pending < 0 and pending == -state.lots[s]:",
        "if False:",
    ),
    "a fall leaves what is still bought": (
        engine,
        "if pending > 0 or (pending < 0 and code == OK):",
        "if pending < 0 and code == OK:",
    ),
    "a refused sale cancels the one that waits": (
        engine,
        "if pending > 0 or (pending < 0 and code == OK):",
        "if pending != 0:",
    ),
    "an entry forgets the rest of the one before": (
        engine,
        "                if state.pending[s] != 0:\n                    _cancel(state, s, VOLUME",
        "                if False:\n                    _cancel(state, s, VOLUME",
    ),
    "what still waits is a new position": (
        engine,
        "is_new, positions = held + state.pending[s] == 0, _positions(state)",
        "is_new, positions = held == 0, _positions(state)",
    ),
    "a flattened account keeps what volume left": (
        engine,
        "unsold = rules.volume_share < math.inf",
        "unsold = False",
    ),
    "a lot more than the volume has": (
        risk,
        "return min(lots, floor_lots(rules.volume_share * volume, rules, s))",
        "return min(lots, floor_lots(rules.volume_share * volume, rules, s) + 1)",
    ),
    "a lot more than cash pays": (
        risk,
        "while fewer > 0 and _cost(fewer, price, rules, s) > cash:",
        "while False:",
    ),
}


# At a close of 2 the exchange takes 50 lots at least; the rest of the smaller sale goes on.
SALE_REFUSED = (
    account(filters=Filters(lot_step=Decimal(1), min_notional=Decimal(100)), volume_share_pct=10),
    """
    10 10 10 10 .4 900 => A orders entry +40
    10 10 10 10 .2 50  => A entry +40 @10, A orders exit -20
    10 10 2  2  0  900 => A exit -5 @10 VOLUME left -15, A MIN_NOTIONAL
    2  2  2  2  0  900 => A exit -15 @2, A MIN_NOTIONAL
    """,
)


def _scenes() -> list[World]:
    """What a random world almost never brings about."""
    a_sale_replaced = """
        100 100 100 100 1
        100 100 100 100 .5
        -
        90 90 90 90 .5
        """
    just_the_turnover = "100 100 100 100 1"
    absent = " | 10 10 10 10 0"
    rows = [f"{line}{absent}" for line in a_sale_replaced.strip().splitlines()]
    return [
        world_of_table(
            account(limits=limits(on_trip="flatten")),
            parsed("\n".join(rows)),
            [(2, 1, Move.KILL)],
        ),
        world_of_table(
            account(limits=limits(max_daily_turnover_pct=100)), parsed(just_the_turnover)
        ),
        world_of_table(SALE_REFUSED[0], parsed(SALE_REFUSED[1])),
    ]


@cache
def _expected() -> list[tuple[World, Any, Any, dict[str, np.ndarray]]]:
    """Worlds with the oracle's account of them; made once for all mutants."""
    made = []
    for world in (*map(world_of, range(3_000)), *_scenes()):
        tape, rules = world.tape(), world.rules()
        story, _ = simulate(
            world.account, world.series, world.bar_ms, world.interventions, world.trade_from
        )
        closes = [int(one) for one in tape.close_time]
        made.append((world, tape, rules, as_columns(story, closes, len(world.series))))
    return made


def _mutant(module: ModuleType, old: str, new: str) -> Callable[..., tuple[State, Log]]:
    """The engine's ``fold`` with one passage of the engine's or the gate's source replaced."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"the passage must stand exactly once: {old!r}"
    parts: dict[ModuleType, dict[str, Any]] = {}
    for part in (risk, engine):
        text = source.replace(old, new) if part is module else inspect.getsource(part)
        parts[part] = {"__name__": part.__name__}
        exec(compile(text, f"mutant of {part.__name__}", "exec"), parts[part])  # noqa: S102
    for name, value in parts[risk].items():
        if isinstance(value, FunctionType) and name in parts[engine]:
            parts[engine][name] = value
    mutated: Callable[..., tuple[State, Log]] = parts[engine]["fold"]
    return mutated


def _noticed_after(folded: Callable[..., tuple[State, Log]]) -> int | None:
    """The number of worlds until the oracle disagrees; None where it never does."""
    for n, (world, tape, rules, expected) in enumerate(_expected()):
        _, log = folded(start_of(world), tape, rules, compiled=False)
        if any(not np.array_equal(getattr(log, k), v) for k, v in expected.items()):
            return n
    return None


@pytest.mark.parametrize("broken", MUTANTS)
def test_the_oracle_notices(broken: str) -> None:
    assert _noticed_after(_mutant(*MUTANTS[broken])) is not None, broken


def test_the_oracle_finds_no_fault_in_the_source_as_it_is() -> None:
    unchanged = _mutant(engine, "for selling in (True, False)", "for selling in (True, False)")
    assert _noticed_after(unchanged) is None
