"""Which parameter combinations a search runs: all of a grid, or a random draw from it.

Both keep to the strategy's own rules (``fast < slow``) and to a constraint of the caller's. A draw
never lists the grid, which may have more combinations than a machine could.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from research.errors import ParameterError
from research.strategy import Strategy, bounded

__all__ = [
    "Constraint",
    "Space",
    "drawn",
    "every",
    "require_some",
    "require_whole",
    "space_of",
]

Constraint = Callable[[dict[str, int | float]], bool]

MOST_VALUES: Final = 1_000_000
MOST_ROWS: Final = 10_000_000
# So many refusals in a row, and what is allowed is too rare to be found by drawing.
MOST_REFUSED: Final = 200_000


@dataclass(frozen=True)
class Space:
    """All that a search may choose from: ``values`` of each parameter of the grid, in its order.

    ``constraint`` is asked about all parameters of a combination that the strategy itself allows.
    """

    strategy: type[Strategy]
    values: dict[str, list[int | float]]
    constraint: Constraint | None = None

    @property
    def size(self) -> int:
        """The number of combinations, allowed or not."""
        return math.prod(len(listed) for listed in self.values.values())

    def at(self, position: int) -> tuple[int | float, ...]:
        """The values of the combination at this position of the grid; the last turn fastest."""
        chosen: list[int | float] = []
        for listed in reversed(self.values.values()):
            position, place = divmod(position, len(listed))
            chosen.append(listed[place])
        return tuple(reversed(chosen))

    def allowed(self, chosen: Sequence[int | float]) -> Strategy | None:
        """The strategy with these values; None where a rule or the constraint refuses it.

        Raises ParameterError for a constraint that fails, or answers otherwise than with a bool.
        """
        try:
            strategy = self.strategy(**dict(zip(self.values, chosen, strict=True)))
        except ParameterError:  # each value is within bounds, so a rule between them refused it
            return None
        if self.constraint is None or _holds(self.constraint, strategy.parameters()):
            return strategy
        return None


def space_of(
    strategy: type[Strategy],
    grid: Mapping[str, Iterable[float]],
    constraint: Constraint | None = None,
) -> Space:
    """The space of a grid (parameter=values), each value bounded and once.

    Raises ParameterError for an unknown parameter, a value out of bounds, an empty grid.
    """
    if not grid:
        raise ParameterError(
            field=f"{strategy.__name__} grid", value={}, expected="values for some parameter"
        )
    if constraint is not None and not callable(constraint):
        raise ParameterError(
            field="constraint",
            value=constraint,
            expected="a function of the parameters, such as lambda p: 2 * p['fast'] <= p['slow']",
        )
    values: dict[str, list[int | float]] = {}
    for name, given in grid.items():
        each: Iterable[Any] = given if isinstance(given, Iterable) else [given]
        found = (bounded(strategy, name, one) for one in each)
        values[name] = list(dict.fromkeys(itertools.islice(found, MOST_VALUES + 1)))
        if not 0 < len(values[name]) <= MOST_VALUES:
            raise ParameterError(
                field=f"{strategy.__name__}.{name}",
                value=[] if not values[name] else f"more than {MOST_VALUES:,}",
                expected="at least one value" if not values[name] else "fewer values",
            )
    return Space(strategy, values, constraint)


def every(space: Space) -> tuple[list[Strategy], int]:
    """Every combination that is allowed, in the grid's order, and how many are not.

    Raises ParameterError for more than ten million.
    """
    if space.size > MOST_ROWS:
        raise ParameterError(
            field=f"{space.strategy.__name__} grid",
            value=f"{space.size:,} combinations",
            expected=f"at most {MOST_ROWS:,} to try all of",
            remedy="draws=1000 tries as many of them, drawn at random.",
        )
    tried = (space.allowed(one) for one in itertools.product(*space.values.values()))
    chosen = [one for one in tried if one is not None]
    return chosen, space.size - len(chosen)


def drawn(space: Space, draws: int, seed: int) -> tuple[list[Strategy], int]:
    """``draws`` different combinations in random order, and how many were refused on the way.

    Each that is allowed is as likely as any other. The same seed draws the same ones, and fewer
    draws are the first of more; a space that has fewer gives all it has. Raises ParameterError for
    a wrong number, and where hardly any combination is allowed.
    """
    require_whole("draws", draws, 1)
    require_whole("seed", seed, 0)
    chosen: list[Strategy] = []
    refused = in_a_row = 0
    for position in _shuffled(np.random.default_rng(seed), space.size):
        strategy = space.allowed(space.at(position))
        if strategy is None:
            refused, in_a_row = refused + 1, in_a_row + 1
            if in_a_row == MOST_REFUSED:
                raise ParameterError(
                    f"{MOST_REFUSED:,} draws in a row were not allowed",
                    field=f"{space.strategy.__name__} grid",
                    remedy="Narrow the grid to what the rules and the constraint allow.",
                )
            continue
        chosen.append(strategy)
        in_a_row = 0
        if len(chosen) == draws:
            break
    return chosen, refused


def require_some(space: Space, chosen: Sequence[Strategy]) -> None:
    """Raises ParameterError where nothing was chosen."""
    if not chosen:
        listed = {
            name: v if len(v) <= 20 else f"{len(v)} values" for name, v in space.values.items()
        }
        rules = "strategy allows" if space.constraint is None else "strategy and constraint allow"
        raise ParameterError(
            field=f"{space.strategy.__name__} grid",
            value=listed,
            expected=f"at least one combination that the {rules}",
        )


def _holds(constraint: Constraint, parameters: dict[str, int | float]) -> bool:
    try:
        answer = constraint(parameters)
    except Exception as err:  # whatever the caller's function does
        raise ParameterError(
            f"it failed with {type(err).__name__}: {err}",
            field="constraint",
            value=parameters,
            expected="True or False",
        ) from err
    if not isinstance(answer, (bool, np.bool_)):
        raise ParameterError(
            f"about {parameters}", field="constraint", value=answer, expected="True or False"
        )
    return bool(answer)


def require_whole(name: str, value: object, low: int) -> None:
    """Raises ParameterError for what is no whole number of at least ``low``."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < low:  # type: ignore[operator]
        raise ParameterError(field=name, value=value, expected=f"a whole number from {low} on")


def _shuffled(rng: np.random.Generator, total: int) -> Iterator[int]:
    """The numbers below ``total`` in random order, of which only the moved ones are remembered.

    R. Durstenfeld, Algorithm 235 (1964), over a list that is not there.
    """
    moved: dict[int, int] = {}
    for i in range(total):
        j = i + _below(rng, total - i)
        yield moved.get(j, j)
        here = moved.pop(i, i)
        if j != i:
            moved[j] = here


def _below(rng: np.random.Generator, limit: int) -> int:
    """A number from 0 up to ``limit``, without it, all alike; ``limit`` may pass 64 bits."""
    bits = (limit - 1).bit_length()
    size = -(-bits // 8)
    while True:
        number = int.from_bytes(rng.bytes(size), "little") >> (8 * size - bits)
        if number < limit:
            return number
