"""What commands share: the project they work on, and how options are read.

A wrong value raises an InputError that names the option. Times are UTC, handed on as milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from research.errors import InputError

if TYPE_CHECKING:
    from research.history import History
    from research.promotion import Market
    from research.settings import Settings

__all__ = [
    "Project",
    "grid_option",
    "json_option",
    "me",
    "param_option",
    "pass_project",
    "symbols_option",
    "time_option",
    "who_option",
    "writes",
]

Command = TypeVar("Command", bound=Callable[..., Any])

MAX_GRID_VALUES = 10_000


@dataclass(frozen=True)
class Project:
    """The project folder that a command works on; ``home`` None looks for it."""

    home: Path | None

    @cached_property
    def settings(self) -> Settings:
        """Its settings, read once. Raises SettingsError."""
        from research.settings import load_settings

        return load_settings(self.home)

    @property
    def history(self) -> History:
        """Its store of candles."""
        from research.workspace import history_of

        return history_of(self.settings)

    @property
    def promoted(self) -> Path:
        """The folder of its promoted artefacts."""
        from research.workspace import promoted_folder

        return promoted_folder(self.settings)

    def stored_until(self, market: Market) -> int | None:
        """The close of the last bar that is stored of a market; None where nothing is."""
        from research.candles import timeframe_ms

        lasts = [
            one.last
            for one in self.history.inventory()
            if (one.series.exchange, one.series.timeframe) == (market.exchange, market.timeframe)
            and one.series.symbol in market.symbols
        ]
        return max(lasts) + timeframe_ms(market.timeframe) if lasts else None


_hand_on: Any = click.make_pass_decorator(Project)


def pass_project(command: Command) -> Command:
    """Hands the command its Project, as the first argument."""
    handed: Command = _hand_on(command)
    return handed


def json_option(command: Command) -> Command:
    """Adds ``--json``: the answer as one JSON document, and nothing else, on standard output."""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        callback=_asked_before_or_after,
        help="Answer with one JSON document for machines.",
    )(command)


def _asked_before_or_after(context: click.Context, _param: click.Parameter, here: bool) -> bool:
    return here or bool(context.find_root().params.get("json_wanted"))


def who_option(command: Command) -> Command:
    """Adds ``--who``; see ``me``."""
    return click.option("--who", help="Who decides this (default: your user name).")(command)


def me(who: str | None) -> str:
    """``who``, or the user that runs this; a user without a name is no reason to refuse."""
    from research.settings import user_name

    return user_name() if who is None else who


def time_option(*names: str, help: str, required: bool = False) -> Callable[[Command], Command]:
    """A UTC date or time, handed on as milliseconds: 2024, 2024-03-01, 2024-03-01T12:00."""
    return click.option(*names, metavar="TIME", callback=_utc_time, help=help, required=required)


def symbols_option(command: Command) -> Command:
    """Adds ``--symbols BTCUSDT,ETHUSDT``: a tuple of names, or None."""
    text = "With commas between, in the order in which cash is shared."
    return click.option("--symbols", metavar="A,B,...", callback=_symbols, help=text)(command)


def param_option(command: Command) -> Command:
    """Adds ``--param fast=20``, repeatable: numbers by name."""
    return click.option(
        "--param",
        metavar="NAME=NUMBER",
        multiple=True,
        callback=_parameters,
        help="A parameter, such as fast=20; repeatable.",
    )(command)


def grid_option(command: Command) -> Command:
    """Adds ``--grid fast=5:60:5``, repeatable: tuples of numbers by name."""
    return click.option(
        "--grid",
        metavar="NAME=VALUES",
        multiple=True,
        callback=_grid,
        help="Values to try: fast=5,10,20 or fast=5:60:5 (the last one included); repeatable.",
    )(command)


def _utc_time(_ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    from research.candles import utc_ms

    try:
        return None if value is None else utc_ms(value)
    except InputError as err:
        raise InputError(field=param.opts[0], value=value, expected=err.expected) from err


def _symbols(
    _ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(one.strip() for one in value.split(","))
    if not all(names):
        raise InputError(field=param.opts[0], value=value, expected="names with commas between")
    return names


def _parameters(
    _ctx: click.Context, param: click.Parameter, given: tuple[str, ...]
) -> dict[str, int | float]:
    values = {}
    for name, text in _pairs(param, given, "NAME=NUMBER, such as fast=20"):
        number = _number(text)
        if number is None:
            raise InputError(field=f"{param.opts[0]} {name}", value=text, expected="a number")
        values[name] = _plain(number)
    return values


def _grid(
    _ctx: click.Context, param: click.Parameter, given: tuple[str, ...]
) -> dict[str, tuple[int | float, ...]]:
    grid = {}
    for name, text in _pairs(param, given, "NAME=VALUES, such as fast=5:60:5"):
        values = _span(text) if ":" in text else _listed(text)
        if values is None:
            raise InputError(
                field=f"{param.opts[0]} {name}",
                value=text,
                expected="A,B,C or FIRST:LAST:STEP, the last included, of at most "
                f"{MAX_GRID_VALUES:,} values",
            )
        grid[name] = values
    return grid


def _pairs(
    param: click.Parameter, given: tuple[str, ...], expected: str
) -> Iterator[tuple[str, str]]:
    """Name and text of each ``NAME=TEXT``. Raises InputError for a name that is given twice."""
    seen = set()
    for one in given:
        name, found, text = one.partition("=")
        if not found or not name.strip():
            raise InputError(field=param.opts[0], value=one, expected=expected)
        if name.strip() in seen:
            raise InputError(field=param.opts[0], value=one, expected="each name once")
        seen.add(name.strip())
        yield name.strip(), text


@contextmanager
def writes(option: str, path: Path) -> Iterator[None]:
    """A file that a person asked for: one that cannot be written is an InputError about it."""
    try:
        yield
    except OSError as err:
        raise InputError(
            field=option, value=f"{path} ({err.strerror})", expected="a file that can be written"
        ) from err


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) < 300 else None


def _plain(number: Decimal) -> int | float:
    return int(number) if number == number.to_integral_value() else float(number)


def _listed(text: str) -> tuple[int | float, ...] | None:
    numbers = [_number(one) for one in text.split(",")]
    if len(numbers) > MAX_GRID_VALUES:
        return None
    known = [_plain(one) for one in numbers if one is not None]
    return tuple(known) if len(known) == len(numbers) else None


def _span(text: str) -> tuple[int | float, ...] | None:
    numbers = [_number(one) for one in text.split(":")]
    if len(numbers) == 2:
        numbers.append(Decimal(1))
    if len(numbers) != 3:
        return None
    first, last, step = numbers
    if first is None or last is None or step is None or step <= 0 or last < first:
        return None
    # Decimals, since 0.1 + 0.1 + 0.1 is not the 0.3 that was asked for.
    if (last - first) / step >= MAX_GRID_VALUES:
        return None
    count = int((last - first) / step) + 1
    return tuple(_plain(first + i * step) for i in range(count))
