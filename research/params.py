"""What may stand in params/*.yaml and in the environment: one model a file.

``GeneralFile`` is settings.yaml, ``RiskFile`` risk_limits.yaml, ``PromotionFile`` promotion.yaml,
``FilterSnapshot`` a file in params/filters/, ``Environment`` what comes from variables alone. An
unknown key is refused; a key that is left out keeps the default that stands here or in account.py.
"""

from __future__ import annotations

import math
import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    field_validator,
    model_validator,
)

from research.account import (
    Count,
    FeeRate,
    Filters,
    Finite,
    Frozen,
    Limits,
    Percent,
    Positive,
    Share,
    SlippageBps,
    Step,
    Stops,
    Unfilled,
    require_stop_to_size_by,
)

__all__ = [
    "Environment",
    "FilterSnapshot",
    "GeneralFile",
    "PromotionFile",
    "RiskFile",
    "StrategiesFile",
    "StrategySettings",
    "SymbolSettings",
    "SymbolsFile",
    "Thresholds",
    "Timeframe",
    "snapshot_text",
]

# Equal to candles.TIMEFRAMES (tested); importing that would cost the second that pandas takes.
Timeframe = Literal["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
Symbol = Annotated[str, Field(pattern=r"^[A-Z0-9]{2,30}$")]
Asset = Annotated[str, Field(pattern=r"^[A-Z0-9]{1,15}$")]


def _parameter(value: Any) -> Any:
    finite = not isinstance(value, float) or math.isfinite(value)
    if not finite or not isinstance(value, (bool, int, float, str)):
        raise ValueError("a finite number, true or false, or text")
    return value


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or len(set(names)) != len(names):
        raise ValueError("at least one symbol, and each once")
    return names


def _paper_only(mode: object) -> object:
    mode = mode.lower() if isinstance(mode, str) else mode
    if mode != "paper":
        raise ValueError("paper (live trading is not available in this version, only paper)")
    return mode


def _http_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", text):
        raise ValueError("a base URL such as https://host/path, with no user, password or query")
    return text.rstrip("/")


def _webhook(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"https?://[^\s/]+\S*", secret.get_secret_value()):
        raise ValueError("a URL that starts with https:// or http://")
    return secret


def _database_url(text: str) -> str:
    if not re.fullmatch(r"(sqlite|postgresql)(\+\w+)?://\S*", text):
        raise ValueError("a database URL that starts with sqlite:/// or postgresql://")
    return text


Parameter = Annotated[int | float | bool | str, PlainValidator(_parameter)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]


class SymbolSettings(Frozen):
    """One market: ``symbol`` is base then quote; ``enabled`` makes it one of the defaults.

    ``min_trade_size`` (base asset) is our own floor above the exchange's.
    """

    symbol: Symbol
    base: Asset
    quote: Asset
    enabled: bool = True
    min_trade_size: Step

    @model_validator(mode="after")
    def _is_base_and_quote(self) -> SymbolSettings:
        if self.symbol != self.base + self.quote:
            raise ValueError(f"a symbol made of base and quote, {self.base}{self.quote}")
        return self


class StrategySettings(Frozen):
    """One named strategy: its class by name, its parameters, and what it trades."""

    strategy: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]{0,60}$")]
    parameters: Annotated[dict[Name, Parameter], Field(default_factory=dict)]
    symbols: Annotated[tuple[Symbol, ...], AfterValidator(_each_once)]
    timeframe: Timeframe


class FilterSnapshot(Frozen):
    """The filters of one exchange as they were on a day; ``source`` says where they were read."""

    exchange: Name
    taken_at: date
    source: str
    filters: dict[Symbol, Filters]

    @field_validator("filters")
    @classmethod
    def _only_the_exchange(cls, filters: dict[str, Filters]) -> dict[str, Filters]:
        if any("min_trade_size" in one.model_fields_set for one in filters.values()):
            raise ValueError("no min_trade_size here; it is ours and stands in params/symbols.yaml")
        return filters


_SNAPSHOT_HEAD = """\
# What {exchange} accepted for an order on the day of taken_at, from its {source}.
#
# A dated snapshot: backtest and paper run use the same one, and a promotion freezes it.
#
#   lot_step:      LOT_SIZE.stepSize, base asset; quantities are whole multiples of it
#   tick:          PRICE_FILTER.tickSize, quote currency; the step of prices
#   min_quantity:  LOT_SIZE.minQty, base asset
#   max_quantity:  LOT_SIZE.maxQty, base asset
#   min_notional:  MIN_NOTIONAL.minNotional, quote currency; price times quantity at least
#
# All in quotes: decimals that no floating-point number holds exactly.

exchange: {exchange}
taken_at: {taken_at}
source: {source}
filters:
"""
_SNAPSHOT_KEYS = ("lot_step", "tick", "min_quantity", "max_quantity", "min_notional")


def snapshot_text(snapshot: FilterSnapshot) -> str:
    """``snapshot`` as its file in params/filters/ holds it."""
    head = _SNAPSHOT_HEAD.format(
        exchange=snapshot.exchange, taken_at=snapshot.taken_at, source=snapshot.source
    )
    lines = []
    for symbol, filters in snapshot.filters.items():
        lines.append(f"  {symbol}:")
        for key in _SNAPSHOT_KEYS:
            lines.append(f'    {key}: "{getattr(filters, key).normalize():f}"')
    return head + "\n".join(lines) + "\n"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class GeneralFile(_Section):
    trading_mode: Annotated[Literal["paper"], BeforeValidator(_paper_only)] = "paper"
    exchange: Name = "binance"
    exchange_url: Annotated[str, AfterValidator(_http_url)] | None = None
    timeframe: Timeframe = "1h"
    data_dir: Path = Path("data")
    initial_cash: Positive = 10_000.0
    fee_rate: FeeRate = 0.001
    slippage_bps: SlippageBps = 5.0
    volume_share_pct: Percent | None = None
    unfilled: Unfilled = "wait"


class SymbolsFile(_Section):
    symbols: tuple[SymbolSettings, ...] = ()

    @field_validator("symbols")
    @classmethod
    def _unique(cls, symbols: tuple[SymbolSettings, ...]) -> tuple[SymbolSettings, ...]:
        names = [one.symbol for one in symbols]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each symbol once, but {', '.join(twice)} stands twice")
        return symbols


class StrategiesFile(_Section):
    strategies: dict[Name, StrategySettings] = {}


class RiskFile(_Section):
    limits: Limits = Limits()
    stops: Stops = Stops()

    @model_validator(mode="after")
    def _risk_has_a_stop(self) -> RiskFile:
        require_stop_to_size_by(self.limits, self.stops)
        return self


class Thresholds(Frozen):
    """What a run must show to be promoted; None shows a figure and refuses nothing by it.

    ``max_random_entry_p`` holds after the effective number of tries; Sharpe ratios are a year's.
    params/promotion.yaml says what each is.
    """

    life_days: Annotated[Count, Field(le=3650)] = 90
    look_ahead_points: Annotated[Count, Field(ge=10)] = 1000
    min_trades: Count = 30
    allow_halted: bool = False
    min_deflated_sharpe: Share | None = 0.95
    max_random_entry_p: Share | None = 0.05
    min_walk_forward_sharpe: Finite | None = 0.0
    min_plateau: Share | None = 0.5
    min_breakeven_cost: Annotated[Finite, Field(ge=0)] | None = 2.0
    min_delayed_share: Finite | None = 0.5
    min_start_share: Share | None = 0.75
    max_overfitting: Share | None = None
    max_spa_p: Share | None = None


class PromotionFile(_Section):
    promotion: Thresholds = Thresholds()


class Environment(_Section):
    database_url: DatabaseUrl | None = None
    replay_database_url: DatabaseUrl | None = None
    replay_exchange_url: Annotated[str, AfterValidator(_http_url)] | None = None
    shared: Path | None = None
    trials: Path | None = None
    openai_api_key: SecretStr | None = None
    telegram_bot_token: SecretStr | None = None
    telegram_chat_id: SecretStr | None = None
    alert_webhook_url: Annotated[SecretStr, AfterValidator(_webhook)] | None = None
