"""A million random bar-steps of the engine, in plain Python and compiled, compared bit by bit.

`make million` runs all of them, the suite a sample. A bar-step is one ``step``: one bar of one
world (worlds.py), whatever its number of symbols. Every cell of the log and every field of the
state is compared byte by byte, so that -0.0 is not 0.0. Every reason code of the gate and every
intent of an order must have occurred, or the million has shown less than it says: what must occur
is read from the engine's own tables, so that a new rule is asked for as soon as it is there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from research.engine import fold
from research.risk import CODES, Rules
from research.state import INTENTS, STOPS, Log, State, opening_state
from research.tape import Tape
from tests.backtest.worlds import World, random_world

# Short worlds meet more accounts, long ones more of what an account remembers.
MOST_BARS = (40, 40, 40, 120, 400)

Fold = Callable[..., tuple[State, Log]]
Maker = Callable[[int], World]


@dataclass
class Outcome:
    """What a campaign met; ``differences`` must stay empty, and so must ``missing``."""

    steps: int = 0
    worlds: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    intents: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def missing(self) -> list[str]:
        """Every reason code and intent that never occurred, and every way a stop never acted."""
        names = [name for name, _ in CODES.values()]
        ways = [f"{stop} {where}" for stop in sorted(STOPS) for where in ("at open", "within")]
        return [
            *(f"code {name}" for name in names if not self.codes[name]),
            *(f"intent {name}" for name in INTENTS.values() if not self.intents[name]),
            *(f"stop {way}" for way in ways if not self.stops[way]),
        ]


def million_world(seed: int) -> World:
    """The same world for the same seed, on every machine."""
    rng = Random(seed)  # noqa: S311 - repeatable on purpose
    return random_world(rng, rng.choice(MOST_BARS))


def campaign(
    steps: int,
    seed: int,
    plain: Fold = fold,
    maker: Maker = million_world,
    most_differences: int = 5,
) -> Outcome:
    """Worlds from ``seed`` on until ``steps`` bar-steps are compared.

    Ends sooner after ``most_differences`` worlds on which ``plain`` and the compiled engine part.
    """
    outcome = Outcome()
    while outcome.steps < steps and len(outcome.differences) < most_differences:
        world_seed = seed + outcome.worlds
        world = maker(world_seed)
        tape, rules = world.tape(), world.rules()
        start = opening_state(world.account.initial_cash, len(world.series))
        last, log = plain(start, tape, rules, compiled=False)
        compiled_last, compiled_log = fold(start, tape, rules, compiled=True)
        parted = [*_parted(log, compiled_log), *_parted(last, compiled_last)]
        if parted:
            outcome.differences.append(f"world {world_seed}: {', '.join(parted)}")
        outcome.steps += len(tape.close_time)
        outcome.worlds += 1
        _count(outcome, tape, rules, compiled_log)
    return outcome


def _parted(one: Any, other: Any) -> Iterator[str]:
    """The fields of two Logs, or of two States, that are not the same bytes."""
    for name, a, b in zip(one._fields, one, other, strict=True):
        left, right = np.asarray(a), np.asarray(b)
        same = type(a) is type(b) and (left.dtype, left.shape) == (right.dtype, right.shape)
        if not same or left.tobytes() != right.tobytes():
            yield f"{type(one).__name__}.{name}"


def _count(outcome: Outcome, tape: Tape, rules: Rules, log: Log) -> None:
    for codes, where in ((log.code, log.action), (log.fill_code, log.fill_since)):
        seen = codes[(where != 0) | (codes != 0)].tolist()
        outcome.codes.update(CODES[code][0] for code in seen)
    for intents, where in (
        (log.order_intent, log.order_lots),
        (log.fill_intent, log.fill_since),
        (log.cancel_intent, log.cancel_lots),
        (log.stop_intent, log.stop_lots),
    ):
        outcome.intents.update(INTENTS[one] for one in intents[where != 0].tolist())
    for t, s in np.argwhere(log.stop_lots != 0).tolist():
        name, opened = INTENTS[int(log.stop_intent[t, s])], tape.open[t, s]
        at_open = log.stop_price[t, s] in (opened, opened * (1.0 - rules.slippage))
        outcome.stops[f"{name} {'at open' if at_open else 'within'}"] += 1


def main() -> int:
    """Print what occurred, and how often; 1 where a bit differs or something never occurred."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1_000_000, help="bar-steps (1,000,000)")
    parser.add_argument("--seed", type=int, default=None, help="default: another one every time")
    asked = parser.parse_args()
    seed = int(time.time()) * 1_000_000 if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    found = campaign(asked.steps, seed)
    for title, counts in (
        ("reason code", found.codes),
        ("intent", found.intents),
        ("stop", found.stops),
    ):
        print(f"\n{title:<24}{'times':>12}")
        for name, times in sorted(counts.items(), key=lambda one: -one[1]):
            print(f"{name:<24}{times:>12,}")
    missing = found.missing()
    print(f"\n{found.steps:,} bar-steps in {found.worlds:,} worlds:", end=" ")
    print(f"{len(found.differences)} of these worlds differ" if found.differences else "same bits")
    for one in found.differences:
        print(f"    {one}")
    for one in missing:
        print(f"    never occurred: {one}")
    return 1 if found.differences or missing else 0


if __name__ == "__main__":
    sys.exit(main())
