"""Outages of an exchange that everybody knows of, so that nobody has to look them up again.

``params/known_gaps.yaml`` lists them: exchange, first missing moment, end, name, why; times UTC.
They are accepted for a stored series only by calling ``accept_known_gaps``, only where bars are
really missing, and only as far as they are. A series under ``binance_2021`` is one of binance: what
follows an underscore tells collections of one exchange apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator, model_validator

from research.account import Frozen
from research.candles import Gap, utc_ms
from research.errors import InputError, SettingsError
from research.history import History

__all__ = ["KnownGap", "accept_known_gaps", "load_known_gaps"]


class KnownGap(Frozen):
    """An outage: opens from ``start`` up to ``end`` (UTC milliseconds) were never traded."""

    exchange: str = Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")
    start: int
    end: int
    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")
    why: str = Field(min_length=1)

    @field_validator("start", "end", mode="before")
    @classmethod
    def _is_moment(cls, moment: Any) -> int:
        try:
            return utc_ms(moment)
        except InputError:
            raise ValueError("a UTC time such as 2023-03-24T13:00Z") from None

    @model_validator(mode="after")
    def _ends_later(self) -> KnownGap:
        if self.end <= self.start:
            raise ValueError("an end after the start")
        return self


def load_known_gaps(path: str | Path) -> tuple[KnownGap, ...]:
    """The outages listed in a YAML file. Raises SettingsError naming the file and field."""
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise SettingsError(f"it cannot be read ({err})", field=str(path)) from err
    if not isinstance(entries, list):
        raise SettingsError(field=str(path), value=entries, expected="a list of outages")
    known = []
    for number, entry in enumerate(entries):
        where = f"{path}: [{number}]"
        if not isinstance(entry, dict) or not all(isinstance(key, str) for key in entry):
            raise SettingsError(
                field=where, value=entry, expected="exchange, start, end, name, why"
            )
        try:
            known.append(KnownGap(**entry))
        except InputError as err:
            raise SettingsError(str(err), field=where) from err
    return tuple(known)


def accept_known_gaps(
    history: History,
    known: Sequence[KnownGap],
    who: str = "candlebook",
    at: int | None = None,
) -> list[Gap]:
    """Accept every stored gap that lies within a known outage of its exchange; those accepted now.

    A gap that reaches beyond the outage is left alone, whole. ``at`` is the time of the decision,
    by the wall clock unless given. Raises what ``History.accept_gap`` raises.
    """
    accepted = []
    for one in history.inventory():
        series = one.series
        for gap in one.gaps:
            for outage in known:
                within = outage.start <= gap.start and gap.end <= outage.end
                if outage.exchange == series.exchange.partition("_")[0] and within:
                    address = (series.exchange, series.symbol, series.timeframe)
                    span = (gap.start, gap.end)
                    accepted.append(
                        history.accept_gap(*address, *span, outage.name, who, outage.why, at)
                    )
                    break
    return accepted
