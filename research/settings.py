"""The settings of one project folder: params/*.yaml, .env and the environment, validated.

Later wins: built-in default, params/settings.yaml, symbols.yaml, strategies.yaml,
risk_limits.yaml, promotion.yaml, ``.env`` in the project root, process environment. A variable that
is empty counts as not set, so that an empty line can never lift a limit. Units are those of
account.py; paths are absolute, relative ones being taken from the project root. Secrets come from
``.env`` and the environment alone and never show in a repr, a message or ``Settings.explain``.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError

from research.account import (
    Account,
    Complaint,
    Filters,
    Limits,
    PathTo,
    Stops,
    TradingHours,
    Unfilled,
    combined,
    complaints,
    did_you_mean,
    dotted,
)
from research.errors import SettingsError, UnknownNameError
from research.params import (
    Environment,
    FilterSnapshot,
    GeneralFile,
    PromotionFile,
    RiskFile,
    StrategiesFile,
    StrategySettings,
    SymbolSettings,
    SymbolsFile,
    Thresholds,
    Timeframe,
)
from research.variables import HIDDEN, HOME, SECRETS, VARIABLES, Variable, read_variables
from research.yaml_file import YamlFile, read_yaml

__all__ = [
    "FilterSnapshot",
    "Provenance",
    "Settings",
    "StrategySettings",
    "SymbolSettings",
    "Thresholds",
    "Timeframe",
    "load_settings",
    "project_root",
    "user_name",
]

SETTINGS_FILE = "params/settings.yaml"
SYMBOLS_FILE = "params/symbols.yaml"
STRATEGIES_FILE = "params/strategies.yaml"
RISK_FILE = "params/risk_limits.yaml"
PROMOTION_FILE = "params/promotion.yaml"

MASK = "********"

Section = TypeVar("Section", bound=BaseModel)


@dataclass(frozen=True)
class Provenance:
    """One setting as people read it: its key, its value (secrets masked), where it came from."""

    key: str
    value: str
    source: str


@dataclass(frozen=True, repr=False)
class Settings:
    """Everything that the project's files and environment say, validated.

    ``symbols`` in the file's order; ``strategies`` by name; ``filters`` is None where
    params/filters/ has no snapshot of the exchange. ``shared`` is the folder beside the project
    that has real candles in ``history/``; a path that was given is not checked here. ``trials`` is
    the ledger of everything that was tried.
    """

    root: Path
    data_dir: Path
    trading_mode: str
    exchange: str
    exchange_url: str | None
    timeframe: str
    initial_cash: float
    fee_rate: float
    slippage_bps: float
    volume_share_pct: float | None
    unfilled: Unfilled
    limits: Limits
    stops: Stops
    promotion: Thresholds
    symbols: tuple[SymbolSettings, ...]
    strategies: dict[str, StrategySettings]
    filters: FilterSnapshot | None
    database_url: str
    replay_database_url: str
    replay_exchange_url: str | None
    shared: Path | None
    trials: Path
    openai_api_key: SecretStr | None
    telegram_bot_token: SecretStr | None
    telegram_chat_id: SecretStr | None
    alert_webhook_url: SecretStr | None
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        enabled = " ".join(self.enabled) or "no symbol"
        place = f"{self.exchange} {self.timeframe}"
        return f"Settings({str(self.root)!r}: {self.trading_mode}, {place}, {enabled})"

    @property
    def enabled(self) -> tuple[str, ...]:
        """The default symbols, in the file's order."""
        return tuple(one.symbol for one in self.symbols if one.enabled)

    @property
    def trials_name(self) -> str:
        """The ledger of trials as a record names it: from the project's folder, if it is inside."""
        inside = self.trials.is_relative_to(self.root)
        return (self.trials.relative_to(self.root) if inside else self.trials).as_posix()

    def account(self, symbols: Sequence[str] | None = None) -> Account:
        """The account that these settings describe, with the filters of ``symbols`` alone.

        None means the enabled symbols. Filters are the snapshot's with our ``min_trade_size``.
        Raises UnknownNameError for a symbol that is not in symbols.yaml or in the snapshot.
        """
        wanted = (symbols,) if isinstance(symbols, str) else symbols
        known = {one.symbol: one for one in self.symbols}
        snapshot = {} if self.filters is None else self.filters.filters
        filters = {}
        for symbol in self.enabled if wanted is None else wanted:
            for file, names in (
                (SYMBOLS_FILE, known.keys()),
                (f"params/filters/{self.exchange}.yaml", snapshot.keys()),
            ):
                if symbol not in names:
                    raise UnknownNameError(
                        field=file,
                        value=symbol,
                        expected=f"one of {', '.join(names)}" if names else "some symbol there",
                        remedy=did_you_mean(symbol, names) or f"Add {symbol} to {file}.",
                    )
            floor = known[symbol].min_trade_size
            filters[symbol] = Filters(**snapshot[symbol].model_dump() | {"min_trade_size": floor})
        return Account(
            initial_cash=self.initial_cash,
            fee_rate=self.fee_rate,
            slippage_bps=self.slippage_bps,
            volume_share_pct=self.volume_share_pct,
            unfilled=self.unfilled,
            limits=self.limits,
            stops=self.stops,
            filters=filters,
        )

    def explain(self) -> list[Provenance]:
        """Every setting with its value and source; a symbol, strategy or snapshot is one row."""
        rows: dict[str, object] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, (Limits, Stops, Thresholds)):
                rows |= {f"{name}.{key}": inner for key, inner in value}
            elif name == "symbols":
                rows |= {f"symbols.{one.symbol}": one for one in self.symbols}
            elif name == "strategies":
                rows |= {f"strategies.{key}": one for key, one in self.strategies.items()}
            elif name != "sources":
                rows[name] = _without_password(value) if name.endswith("database_url") else value
        return [
            Provenance(key, _shown(value), self.sources.get(key, "default"))
            for key, value in rows.items()
        ]


def _shown(value: object) -> str:
    match value:
        case None:
            return "not set"
        case SecretStr():
            return MASK
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.15g}"
        case TradingHours():
            return f"{value.start} to {value.end} UTC, {' '.join(value.days)}"
        case SymbolSettings():
            state = "enabled" if value.enabled else "disabled"
            return f"{value.base}/{value.quote}, {state}, at least {value.min_trade_size:f}"
        case StrategySettings():
            given = ", ".join(f"{name}={one!r}" for name, one in value.parameters.items())
            where = f"{' '.join(value.symbols)}, {value.timeframe}"
            return f"{value.strategy}({given}) on {where}"
        case FilterSnapshot():
            return f"{len(value.filters)} symbols, {value.source} of {value.taken_at}"
        case _:
            return str(value)


def _without_password(url: str) -> str:
    url = re.sub(r"(://[^:@/]*):.*@", rf"\1:{MASK}@", url)
    return re.sub(r"([?&]\w*(?:pass|secret|token|key)\w*=)[^&]*", rf"\1{MASK}", url, flags=re.I)


def project_root(environ: Mapping[str, str] | None = None) -> Path:
    """The project folder, absolute.

    CANDLEBOOK_HOME if set; else the working directory or the nearest folder above it that holds
    params/settings.yaml; else the folder of this package, where it has params/. Raises
    SettingsError.
    """
    home = (os.environ if environ is None else environ).get(HOME, "").strip()
    if home:
        return _existing_root(Path(home), f"environment {HOME}")
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / SETTINGS_FILE).is_file():
            return folder
    package = Path(__file__).resolve().parents[1]
    if (package / "params").is_dir():
        return package
    raise SettingsError(
        f"no {SETTINGS_FILE} in {here} or above it",
        field="project root",
        remedy=f"Work inside the project folder, or set {HOME} to it.",
    )


def _existing_root(path: Path, field: str) -> Path:
    root = path.expanduser().resolve()
    if not root.is_dir():
        raise SettingsError(
            field=field,
            value=str(path),
            expected="a folder that exists",
            remedy="Give the folder that holds params/.",
        )
    return root


@dataclass(frozen=True)
class _Inputs:
    """What the sections are read from; ``problems`` and ``sources`` (by key) fill on the way."""

    root: Path
    variables: dict[str, Variable]
    problems: list[SettingsError]
    sources: dict[str, str] = field(default_factory=dict)


def load_settings(root: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of the project at ``root`` (``project_root`` if None) under ``environ``.

    ``environ`` stands for the process environment, os.environ if None. A file that is not there
    leaves its defaults. Raises one SettingsError whose text has a line for everything wrong.
    """
    environ = os.environ if environ is None else environ
    if root is None:
        root = project_root(environ)
        origin = f"environment {HOME}" if environ.get(HOME, "").strip() else "found from here"
    else:
        root, origin = _existing_root(Path(root), "project root"), "argument"
    inputs = _Inputs(root, *read_variables(root, environ), {"root": origin})
    general = _section(GeneralFile, SETTINGS_FILE, inputs) or GeneralFile()
    symbols = (_section(SymbolsFile, SYMBOLS_FILE, inputs) or SymbolsFile()).symbols
    strategies = (_section(StrategiesFile, STRATEGIES_FILE, inputs) or StrategiesFile()).strategies
    risk = _section(RiskFile, RISK_FILE, inputs) or RiskFile()
    promotion = (_section(PromotionFile, PROMOTION_FILE, inputs) or PromotionFile()).promotion
    filters = _section(FilterSnapshot, f"params/filters/{general.exchange}.yaml", inputs)
    outside = _section(Environment, None, inputs) or Environment()
    if filters is not None and filters.exchange != general.exchange:
        inputs.problems.append(
            SettingsError(
                field=f"params/filters/{general.exchange}.yaml: exchange",
                value=filters.exchange,
                expected=general.exchange,
            )
        )
    if not inputs.problems:
        inputs.problems.extend(_strangers(strategies, risk.limits, symbols))
    if inputs.problems:
        raise combined(inputs.problems)
    inputs.sources.update((f"symbols.{one.symbol}", SYMBOLS_FILE) for one in symbols)
    data_dir = root / general.data_dir.expanduser()
    beside = root.parent / "shared"
    shared = root / outside.shared.expanduser() if outside.shared else None
    return Settings(
        root=root,
        **{name: getattr(general, name) for name in GeneralFile.model_fields if name != "data_dir"},
        data_dir=data_dir,
        limits=risk.limits,
        stops=risk.stops,
        promotion=promotion,
        symbols=symbols,
        strategies=strategies,
        filters=filters,
        database_url=_anchored(outside.database_url, root, data_dir / "ledger.db"),
        replay_database_url=_anchored(outside.replay_database_url, root, data_dir / "replay.db"),
        replay_exchange_url=outside.replay_exchange_url,
        shared=shared or (beside if (beside / "history").is_dir() else None),
        trials=root / (outside.trials.expanduser() if outside.trials else data_dir / "trials.db"),
        **{key: getattr(outside, key) for key in SECRETS.values()},
        sources=inputs.sources,
    )


def _anchored(url: str | None, root: Path, default: Path) -> str:
    # SQLite resolves a relative path against the working directory: two ledgers by accident.
    if url is None:
        return f"sqlite:///{default.as_posix()}"
    start, found, path = url.partition(":///")
    if not found or not start.startswith("sqlite") or path.startswith((":memory:", "file:")):
        return url
    return f"{start}:///{(root / path).as_posix()}" if path else url


def _section(model: type[Section], file: str | None, inputs: _Inputs) -> Section | None:
    """``model`` from ``file`` and the variables that overrule it; None where there is neither."""
    document = YamlFile(file or "environment")
    if file is not None and (inputs.root / file).exists():
        texts = {name: variable.value for name, variable in inputs.variables.items()}
        try:
            document = read_yaml(inputs.root / file, file, texts)
        except SettingsError as err:
            inputs.problems.append(err)
            return None
        inputs.sources.update(_origins(model, document))
    elif model is FilterSnapshot:
        return None
    overruled = _overrule(model, document.values, inputs)
    try:
        # The adapter, since a Frozen's own model_validate raises its ParameterError.
        return TypeAdapter(model).validate_python(document.values)
    except ValidationError as err:
        found = sorted(
            complaints(err, model),
            key=lambda one: (one.path not in overruled, document.line_of(one.path)),
        )
        inputs.problems.extend(_told(one, document, overruled.get(one.path)) for one in found)
        return None


def _origins(model: type[BaseModel], document: YamlFile) -> dict[str, str]:
    """The file's name under each key of ``Settings.explain`` that it gives."""
    if model is FilterSnapshot:
        return {"filters": document.name}
    return {dotted(path): document.name for path in document.lines}


def _overrule(
    model: type[BaseModel], tree: dict[str, Any], inputs: _Inputs
) -> dict[PathTo, Variable]:
    """Puts the variables of this section into ``tree``; returns them by path."""
    overruled: dict[PathTo, Variable] = {}
    for name, path in VARIABLES.items():
        variable = inputs.variables.get(name)
        if variable is None or path[0] not in model.model_fields:
            continue
        place: Any = tree
        for part in path[:-1]:
            place = place.setdefault(part, {})
        if isinstance(place, dict):  # else the section itself is wrong, which is told anyway
            place[path[-1]] = variable.value
            overruled[path] = variable
            inputs.sources[dotted(path)] = variable.source
    return overruled


def _told(one: Complaint, document: YamlFile, variable: Variable | None) -> SettingsError:
    """The complaint with its place, and with what a person wrote there unless it is hidden."""
    place = f"{document.name}: {dotted(one.path)}" if one.path else document.name
    where = variable.field if variable else place
    if one.path and one.path[-1] in HIDDEN and one.expected is not None:
        return SettingsError(f"expected {one.expected}", field=where, remedy=one.remedy)
    value = variable.value if variable else document.written_at(one.path)
    return replace(one, value=value).error(SettingsError, where)


def _strangers(
    strategies: Mapping[str, StrategySettings], limits: Limits, symbols: Sequence[SymbolSettings]
) -> list[SettingsError]:
    known = [one.symbol for one in symbols]
    named = [
        (f"{STRATEGIES_FILE}: strategies.{name}.symbols[{i}]", symbol)
        for name, strategy in strategies.items()
        for i, symbol in enumerate(strategy.symbols)
    ]
    own = limits.max_exposure_pct_by_symbol or {}
    named += [(f"{RISK_FILE}: limits.max_exposure_pct_by_symbol", symbol) for symbol in own]
    return [
        SettingsError(
            field=field,
            value=symbol,
            expected=f"one of {', '.join(known) or 'the symbols'} in {SYMBOLS_FILE}",
            remedy=did_you_mean(symbol, known),
        )
        for field, symbol in named
        if symbol not in known
    ]


def user_name() -> str:
    """Who runs this, for the record; ``uid 1234`` where the system has no name for them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's numeric user
        return f"uid {os.getuid()}"
