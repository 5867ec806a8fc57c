"""What a run may do with money: the account, its costs, limits, stops and exchange filters.

These are the frozen, validated values that a backtest, a sweep and a paper run share. Percent
fields end in ``_pct`` (5 means 5 %), money in ``_usd`` (the quote currency), rates in ``_rate``
(0.001 means 0.1 %), slippage in basis points (``_bps``). All times of day are UTC.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from research.errors import ParameterError, UnknownNameError

__all__ = ["WEEKDAYS", "Account", "Filters", "Frozen", "Limits", "Stops", "TradingHours"]

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Percent = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Step = Annotated[Decimal, Field(gt=0, allow_inf_nan=False)]
Size = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]


class Frozen(BaseModel):
    """A frozen, hashable value; unknown fields are refused.

    Built by hand, a wrong value raises ParameterError that names the field; loaded from a file it
    is settings.py that names the file as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as err:
            first = err.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ParameterError(
                field=f"{type(self).__name__}.{where}" if where else type(self).__name__,
                value=first["input"],
                expected=first["msg"],
            ) from None


class TradingHours(Frozen):
    """When entries may be decided, UTC: ``start`` up to ``end`` (exclusive) on ``days``.

    ``end`` may be 24:00; an end before the start means over midnight, and the part after midnight
    belongs to the day on which it falls.
    """

    start: str = "00:00"
    end: str = "24:00"
    days: tuple[str, ...] = WEEKDAYS

    @field_validator("start", "end")
    @classmethod
    def _is_time(cls, text: str) -> str:
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d|24:00", text):
            raise ValueError("a UTC time of day such as 08:30")
        return text

    @field_validator("days")
    @classmethod
    def _are_days(cls, days: tuple[str, ...]) -> tuple[str, ...]:
        if not days or len(set(days)) != len(days) or not set(days) <= set(WEEKDAYS):
            raise ValueError(f"each of {', '.join(WEEKDAYS)} at most once")
        return days

    @model_validator(mode="after")
    def _not_empty(self) -> TradingHours:
        if self.start == self.end:
            raise ValueError("an end that differs from the start (all day is 00:00 to 24:00)")
        return self

    def minutes(self) -> tuple[int, int]:
        """Start and end in minutes since midnight."""
        start, end = (int(t[:2]) * 60 + int(t[3:]) for t in (self.start, self.end))
        return start, end


class Limits(Frozen):
    """The risk limits of one account. A percent and a USD limit hold together: the stricter wins.

    ``max_positions`` counts symbols held or about to be. ``kill_switch_armed`` says whether the
    drawdown limit may trip the kill switch by itself; a person may always trip it. ``on_trip``:
    ``hold`` keeps open positions under their exits and stops, ``flatten`` sells them at the next
    open.
    """

    max_position_pct: Percent = 5.0
    max_position_usd: Positive | None = None
    max_daily_loss_pct: Percent = 2.0
    max_daily_loss_usd: Positive | None = None
    max_drawdown_pct: Percent = 10.0
    max_positions: Annotated[int, Field(ge=1, le=1000)] = 3
    trading_hours: TradingHours = TradingHours()
    kill_switch_armed: bool = True
    on_trip: Literal["hold", "flatten"] = "hold"


class Stops(Frozen):
    """Protective exits, in percent of the average entry price (trailing: of the highest high).

    None switches a stop off. Stop-loss and trailing exits pay slippage; a take-profit is a limit
    order and does not.
    """

    stop_loss_pct: Annotated[float, Field(gt=0, lt=100, allow_inf_nan=False)] | None = None
    take_profit_pct: Positive | None = None
    trailing_stop_pct: Annotated[float, Field(gt=0, lt=100, allow_inf_nan=False)] | None = None


class Filters(Frozen):
    """What the exchange accepts for one symbol; decimals, since a float cannot hold 0.1.

    ``lot_step`` and the two quantities are in base asset, ``tick`` is the price step,
    ``min_notional`` in quote currency. ``min_trade_size`` (base asset) is our own floor.
    """

    lot_step: Step = Decimal("0.00000001")
    tick: Step = Decimal("0.00000001")
    min_quantity: Size = Decimal(0)
    max_quantity: Step = Decimal(90_000_000)
    min_notional: Size = Decimal(0)
    min_trade_size: Size = Decimal(0)

    @model_validator(mode="after")
    def _lots_fit(self) -> Filters:
        if self.max_quantity < self.lot_step:
            raise ValueError("max_quantity of at least one lot_step")
        numerator, _ = self.lot_ratio()
        if self.max_quantity / self.lot_step * numerator >= 2**53:
            raise ValueError("max_quantity / lot_step below 2^53, so that lots are exact")
        return self

    def lot_ratio(self) -> tuple[int, int]:
        """``lot_step`` as an exact fraction: lots x numerator / denominator is the quantity."""
        return self.lot_step.as_integer_ratio()


class Account(Frozen):
    """One account: what it starts with, what trading costs, what it may risk.

    ``limits=None`` switches the risk gate off. ``filters`` by symbol; ``filters=None`` means an
    ideal exchange (steps of 1e-8, no minimum), for research on made-up data.
    """

    initial_cash: Positive = 10_000.0
    fee_rate: Annotated[float, Field(ge=0, lt=0.1, allow_inf_nan=False)] = 0.001
    slippage_bps: Annotated[float, Field(ge=0, lt=1000, allow_inf_nan=False)] = 5.0
    limits: Limits | None = Limits()
    stops: Stops = Stops()
    filters: dict[str, Filters] | None = None

    def filters_for(self, symbol: str) -> Filters:
        """The filters of one symbol. Raises UnknownNameError where the snapshot lacks it."""
        if self.filters is None:
            return Filters()
        try:
            return self.filters[symbol]
        except KeyError:
            raise UnknownNameError(
                field="filters",
                value=symbol,
                expected=f"one of {', '.join(sorted(self.filters))}",
                remedy=f"Add {symbol} to params/filters/, or use Account(filters=None) for an "
                "ideal exchange.",
            ) from None
