"""What a run may do with money: the account, its costs, limits, stops and exchange filters.

These are the frozen, validated values that a backtest, a sweep and a paper run share. Percent
fields end in ``_pct`` (5 means 5 %), money in ``_usd`` (the quote currency), rates in ``_rate``
(0.001 means 0.1 %), slippage in basis points (``_bps``). All times of day are UTC. A wrong value
is told in our own words, by ``complaints``, whoever gave it: a person or a file in params/.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import UnionType
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticKnownError

from research.errors import CandlebookError, ParameterError, UnknownNameError

__all__ = [
    "WEEKDAYS",
    "Account",
    "Complaint",
    "Count",
    "FeeRate",
    "Filters",
    "Finite",
    "Frozen",
    "Limits",
    "Percent",
    "Positive",
    "Share",
    "Size",
    "SlippageBps",
    "Step",
    "Stops",
    "TradingHours",
    "Unfilled",
    "combined",
    "complaints",
    "did_you_mean",
    "dotted",
    "require_stop_to_size_by",
]

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

E = TypeVar("E", bound=CandlebookError)
PathTo = tuple[str | int, ...]


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A question that names the known word nearest to ``word``, or None where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else None


def dotted(path: Sequence[str | int]) -> str:
    """A path as people write it: ``("symbols", 0, "base")`` is ``symbols[0].base``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def combined(errors: Sequence[E]) -> E:
    """The first error, whose text now holds every error, one a line. ``errors`` is not empty."""
    first = errors[0]
    first.args = ("\n".join(str(error) for error in errors),)
    return first


@dataclass(frozen=True)
class Complaint:
    """What is wrong at ``path``: either ``expected`` (and got ``value``), or a whole ``message``.

    A message stands for what has no value to show: an unknown key, a missing one.
    """

    path: PathTo
    value: object
    expected: str | None
    message: str = ""
    remedy: str | None = None

    def error(self, kind: type[E], field: str) -> E:
        """The error to raise; ``field`` names the place, file and all."""
        if self.expected is None:
            return kind(self.message, field=field, remedy=self.remedy)
        return kind(field=field, value=self.value, expected=self.expected, remedy=self.remedy)


def complaints(err: ValidationError, model: type[BaseModel]) -> list[Complaint]:
    """Every error of a validation of ``model`` in our words; pydantic's own are for programmers."""
    return [_complaint(error, model) for error in err.errors(include_url=False)]


def _complaint(error: ErrorDetails, model: type[BaseModel]) -> Complaint:
    path = tuple(part for part in error["loc"] if part != "[key]")
    owner, kind, bounds = _field_at(model, path)
    if error["type"] == "extra_forbidden" and owner is not None:
        known = list(owner.model_fields)
        message = f"unknown; expected one of {', '.join(known)}"
        return Complaint(path, None, None, message, did_you_mean(str(path[-1]), known))
    phrase = _phrase(error, kind, bounds)
    if error["type"] == "missing":
        return Complaint(path, None, None, f"missing; expected {phrase}")
    return Complaint(path, error["input"], phrase)


_NUMBER_ERRORS = re.compile(
    r"(float|int|decimal)_\w+|finite_number|(greater|less)_than(_equal)?|multiple_of"
)
_PHRASES = {
    "bool": "true or false",
    "str": "text (in quotes where it looks like a number or a date)",
    "string": "text (in quotes where it looks like a number or a date)",
    "date": "a date such as 2021-10-12",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping of keys to values",
    "model": "a mapping of keys to values",
    "path": "a path",
}


def _phrase(error: ErrorDetails, kind: Any, bounds: dict[str, Any]) -> str:
    """What was expected, as the end of the sentence "expected ..."."""
    code, context = error["type"], error.get("ctx", {})
    if code == "value_error":
        return str(context["error"])
    if code == "literal_error":
        options = [str(option) for option in get_args(kind)]
        return options[0] if len(options) == 1 else f"one of {', '.join(options)}"
    if code == "string_pattern_mismatch":
        return f"text of the form {context['pattern']}"
    if _NUMBER_ERRORS.fullmatch(code) or (code == "missing" and kind in (int, float, Decimal)):
        return _number(kind, bounds, parsed="than" in code)
    family = code.partition("_")[0]
    if code == "missing":
        family = "model" if _is_model(kind) else getattr(get_origin(kind) or kind, "__name__", "")
    return _PHRASES.get(family, "another value")


def _number(kind: Any, bounds: dict[str, Any], parsed: bool) -> str:
    noun = "a whole number" if kind is int else "a number"
    if bounds == {"gt": 0} and not parsed:
        return noun.replace("a ", "a positive ", 1)
    if bounds.keys() == {"ge", "le"}:
        return f"{noun} from {bounds['ge']:g} to {bounds['le']:g}"
    words = {"gt": "greater than", "ge": "of at least", "lt": "less than", "le": "at most"}
    said = " and ".join(f"{words[name]} {bound:g}" for name, bound in bounds.items())
    return f"{noun} {said}".rstrip()


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _field_at(model: type[BaseModel], path: PathTo) -> tuple[Any, Any, dict[str, Any]]:
    """The model that owns the last part of ``path``, that field's type and its bounds."""
    owner: Any = None
    kind: Any = model
    bounds: dict[str, Any] = {}
    for part in path:
        if _is_model(kind):
            owner = kind
            field = owner.model_fields.get(part)
            kind, bounds = (
                (object, {}) if field is None else _unwrapped(field.annotation, field.metadata)
            )
        else:
            inner = get_args(kind) or (object,)
            kind, bounds = _unwrapped(inner[-1] if get_origin(kind) is dict else inner[0])
    return owner, kind, bounds


def _unwrapped(annotation: Any, metadata: Sequence[Any] = ()) -> tuple[Any, dict[str, Any]]:
    """The type inside Annotated and Optional, and the bounds written around it."""
    facts = [fact for item in metadata for fact in getattr(item, "metadata", [item])]
    bounds = {
        name: getattr(fact, name)
        for name in ("gt", "ge", "lt", "le")
        for fact in facts
        if getattr(fact, name, None) is not None
    }
    if get_origin(annotation) is Annotated:
        kind, inner = _unwrapped(get_args(annotation)[0], annotation.__metadata__)
        return kind, bounds | inner
    if get_origin(annotation) in (Union, UnionType):
        kind, inner = _unwrapped(get_args(annotation)[0])
        return kind, bounds | inner
    return annotation, bounds


def _no_truth_value(value: object) -> object:
    # pydantic and Python take True for 1; "fee_rate: yes" is a mistake, not a fee of 100 %.
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


_Number = BeforeValidator(_no_truth_value)
Positive = Annotated[float, _Number, Field(gt=0, allow_inf_nan=False)]
Percent = Annotated[float, _Number, Field(gt=0, le=100, allow_inf_nan=False)]
PartPercent = Annotated[float, _Number, Field(gt=0, lt=100, allow_inf_nan=False)]
FeeRate = Annotated[float, _Number, Field(ge=0, lt=0.1, allow_inf_nan=False)]
SlippageBps = Annotated[float, _Number, Field(ge=0, lt=1000, allow_inf_nan=False)]
Finite = Annotated[float, _Number, Field(allow_inf_nan=False)]
Share = Annotated[float, _Number, Field(ge=0, le=1, allow_inf_nan=False)]
Step = Annotated[Decimal, _Number, Field(gt=0, allow_inf_nan=False)]
Size = Annotated[Decimal, _Number, Field(ge=0, allow_inf_nan=False)]
# A year of minutes is 525,600; the largest count is far past any use, and far below overflow.
Count = Annotated[int, _Number, Field(ge=1, le=10_000_000)]
Symbol = Annotated[str, Field(pattern=r"^[A-Z0-9]{1,20}$")]
Unfilled = Literal["wait", "cancel"]


class Frozen(BaseModel):
    """A frozen value, hashable where its fields are; unknown fields are refused.

    A wrong value raises ParameterError, which names every wrong field by its path from this value
    down. Inside a plain pydantic model it raises nothing itself, so that settings.py can tell all
    that is wrong in a file at once, and where.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as err:
            raise self._refusal(err) from None

    # Without this mark pydantic calls __init__ for nested values too, and the first wrong one
    # would end the validation without its path; pydantic's own RootModel is marked the same way.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        try:
            return super().model_validate(obj, **options)
        except ValidationError as err:
            raise cls._refusal(err) from None

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        try:
            return super().model_validate_json(json_data, **options)
        except ValidationError as err:
            raise cls._refusal(err) from None

    @classmethod
    def _refusal(cls, err: ValidationError) -> ParameterError:
        return combined(
            [
                one.error(ParameterError, dotted((cls.__name__, *one.path)))
                for one in complaints(err, cls)
            ]
        )


def _hash_of(value: BaseModel) -> int:
    """The hash of a frozen value, some of whose fields are mappings."""
    fields = [getattr(value, name) for name in type(value).model_fields]
    return hash(tuple(frozenset(f.items()) if isinstance(f, dict) else f for f in fields))


class TradingHours(Frozen):
    """When entries may be decided, UTC: ``start`` up to ``end`` (exclusive) on ``days``.

    ``end`` may be 24:00; an end before the start means over midnight, and the part after midnight
    belongs to the day on which it falls.
    """

    start: str = "00:00"
    end: str = "24:00"
    days: tuple[str, ...] = WEEKDAYS

    @field_validator("start", "end", mode="before")
    @classmethod
    def _is_time(cls, text: object) -> object:
        # YAML 1.1 reads an unquoted 10:30 as the number 630.
        if not isinstance(text, str):
            raise ValueError('a UTC time of day in quotes, such as "08:30"')
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

    The rest is off where it is None. ``min_fresh_bars``: candles without a hole that a symbol needs
    before an entry. ``cooldown_minutes``: no entry into a symbol for so long after a trade of it
    lost or a stop ended it. ``max_exposure_pct``: all positions together, of equity;
    ``max_exposure_pct_by_symbol``: those of single symbols. ``max_orders_per_day`` and
    ``max_daily_turnover_pct`` (value at the decision, of the day's first equity) count every order
    and stop since 00:00 UTC, and hold back entries only. ``price_collar_pct``: how far from the
    last close an entry may fill. ``risk_per_trade_pct`` sizes a position so that its stop loses
    that much of equity; ``target_volatility_pct`` so that its yearly volatility, over
    ``volatility_bars`` bars, is that much of equity.
    """

    max_position_pct: Percent = 5.0
    max_position_usd: Positive | None = None
    max_daily_loss_pct: Percent = 2.0
    max_daily_loss_usd: Positive | None = None
    max_drawdown_pct: Percent = 10.0
    max_positions: Annotated[int, _Number, Field(ge=1, le=1000)] = 3
    trading_hours: TradingHours = TradingHours()
    kill_switch_armed: bool = True
    on_trip: Literal["hold", "flatten"] = "hold"
    min_fresh_bars: Count | None = None
    cooldown_minutes: Count | None = None
    max_exposure_pct: Percent | None = None
    max_exposure_pct_by_symbol: dict[Symbol, Percent] | None = None
    max_orders_per_day: Count | None = None
    max_daily_turnover_pct: Positive | None = None
    price_collar_pct: Percent | None = None
    risk_per_trade_pct: Percent | None = None
    target_volatility_pct: Positive | None = None
    volatility_bars: Annotated[int, _Number, Field(ge=2, le=100_000)] = 168

    def __hash__(self) -> int:
        return _hash_of(self)


class Stops(Frozen):
    """Protective exits, in percent of the average entry price (trailing: of the highest high).

    None switches a stop off. Stop-loss and trailing exits pay slippage; a take-profit is a limit
    order and does not. ``time_stop_minutes``: a position is sold at the open after the close at
    which so much time has passed since its entry was decided.
    """

    stop_loss_pct: PartPercent | None = None
    take_profit_pct: Positive | None = None
    trailing_stop_pct: PartPercent | None = None
    time_stop_minutes: Count | None = None


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
        try:
            exact = self.max_quantity / self.lot_step * numerator < 2**53
        except ArithmeticError:  # past the range of Decimal itself
            exact = False
        if not exact:
            raise ValueError("max_quantity / lot_step below 2^53, so that lots are exact")
        return self

    def lot_ratio(self) -> tuple[int, int]:
        """``lot_step`` as an exact fraction: lots x numerator / denominator is the quantity."""
        return self.lot_step.as_integer_ratio()


def require_stop_to_size_by(limits: Limits | None, stops: Stops) -> None:
    """Raises ValueError where positions are sized by a stop that there is not."""
    if limits is None or limits.risk_per_trade_pct is None:
        return
    if stops.stop_loss_pct is None and stops.trailing_stop_pct is None:
        raise ValueError("a stop_loss_pct or trailing_stop_pct, which risk_per_trade_pct sizes by")


class Account(Frozen):
    """One account: what it starts with, what trading costs, what it may risk.

    ``volume_share_pct``: how much of a candle's volume one order may fill (None: all it wants);
    ``unfilled`` says whether what is left waits for the next open or is cancelled.
    ``limits=None`` switches the risk gate off. ``filters`` by symbol; ``filters=None`` means an
    ideal exchange (steps of 1e-8, no minimum), for research on made-up data.
    """

    initial_cash: Positive = 10_000.0
    fee_rate: FeeRate = 0.001
    slippage_bps: SlippageBps = 5.0
    volume_share_pct: Percent | None = None
    unfilled: Unfilled = "wait"
    limits: Limits | None = Limits()
    stops: Stops = Stops()
    filters: dict[str, Filters] | None = None

    @model_validator(mode="after")
    def _risk_has_a_stop(self) -> Account:
        require_stop_to_size_by(self.limits, self.stops)
        return self

    def __hash__(self) -> int:
        return _hash_of(self)

    @property
    def volatility_bars(self) -> int:
        """Over how many bars the limits want to know volatility; 0 where they don't."""
        limits = self.limits
        return (
            0 if limits is None or limits.target_volatility_pct is None else limits.volatility_bars
        )

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
