"""Candlebook research: candles, strategies, backtests, sweeps, promotion.

    import research as rs

    candles = rs.load(["BTCUSDT", "ETHUSDT", "SOLUSDT"], "1h", start="2022", end="2025")
    run = rs.backtest(rs.SmaCrossover(fast=20, slow=50), candles)

Everything a notebook needs is here by name and loaded when it is first used, so that importing the
package costs nothing that is not wanted.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from research.account import Account, Filters, Limits, Stops, TradingHours
    from research.artefact import Artefact, load_artefact
    from research.backtesting import Backtest, backtest
    from research.candles import Candles, CandleSet, Gap
    from research.daily_file import read_returns
    from research.errors import CandlebookError
    from research.evidence.judge import Evidence, judge
    from research.evidence.lookahead import find_lookahead, require_causal
    from research.evidence.walk_forward import walk_forward
    from research.history import History
    from research.promotion import promote, reproduce, verify
    from research.report import candles_figure
    from research.resampling import resample
    from research.search import Sweep, sweep
    from research.settings import Settings, load_settings
    from research.stop_audit import audit_stops
    from research.stop_findings import StopAudit
    from research.strategies.bollinger_reversion import BollingerReversion
    from research.strategies.buy_and_hold import BuyAndHold
    from research.strategies.calm_trend import CalmTrend
    from research.strategies.donchian_breakout import DonchianBreakout
    from research.strategies.ema_crossover import EmaCrossover
    from research.strategies.macd_trend import MacdTrend
    from research.strategies.momentum_rotation import MomentumRotation
    from research.strategies.rsi_reversal import RsiReversal
    from research.strategies.sma_crossover import SmaCrossover
    from research.strategy import Action, Signal, Strategy, Targets, make_strategy, param, registry
    from research.synthetic import synthetic_candles
    from research.tape import Intervention, Move
    from research.tpe import optimise
    from research.trial_ledger import tried
    from research.trials import Trials
    from research.workspace import default_account, load, load_or_synthetic, market

_HOME = {
    "research.account": ("Account", "Filters", "Limits", "Stops", "TradingHours"),
    "research.artefact": ("Artefact", "load_artefact"),
    "research.backtesting": ("Backtest", "backtest"),
    "research.candles": ("CandleSet", "Candles", "Gap"),
    "research.daily_file": ("read_returns",),
    "research.errors": ("CandlebookError",),
    "research.evidence.judge": ("Evidence", "judge"),
    "research.evidence.lookahead": ("find_lookahead", "require_causal"),
    "research.evidence.walk_forward": ("walk_forward",),
    "research.history": ("History",),
    "research.promotion": ("promote", "reproduce", "verify"),
    "research.report": ("candles_figure",),
    "research.resampling": ("resample",),
    "research.search": ("Sweep", "sweep"),
    "research.settings": ("Settings", "load_settings"),
    "research.stop_audit": ("audit_stops",),
    "research.stop_findings": ("StopAudit",),
    "research.strategies.bollinger_reversion": ("BollingerReversion",),
    "research.strategies.buy_and_hold": ("BuyAndHold",),
    "research.strategies.calm_trend": ("CalmTrend",),
    "research.strategies.donchian_breakout": ("DonchianBreakout",),
    "research.strategies.ema_crossover": ("EmaCrossover",),
    "research.strategies.macd_trend": ("MacdTrend",),
    "research.strategies.momentum_rotation": ("MomentumRotation",),
    "research.strategies.rsi_reversal": ("RsiReversal",),
    "research.strategies.sma_crossover": ("SmaCrossover",),
    "research.strategy": (
        "Action",
        "Signal",
        "Strategy",
        "Targets",
        "make_strategy",
        "param",
        "registry",
    ),
    "research.synthetic": ("synthetic_candles",),
    "research.tape": ("Intervention", "Move"),
    "research.tpe": ("optimise",),
    "research.trial_ledger": ("tried",),
    "research.trials": ("Trials",),
    "research.workspace": ("default_account", "load", "load_or_synthetic", "market"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Account",
    "Action",
    "Artefact",
    "Backtest",
    "BollingerReversion",
    "BuyAndHold",
    "CalmTrend",
    "CandleSet",
    "CandlebookError",
    "Candles",
    "DonchianBreakout",
    "EmaCrossover",
    "Evidence",
    "Filters",
    "Gap",
    "History",
    "Intervention",
    "Limits",
    "MacdTrend",
    "MomentumRotation",
    "Move",
    "RsiReversal",
    "Settings",
    "Signal",
    "SmaCrossover",
    "StopAudit",
    "Stops",
    "Strategy",
    "Sweep",
    "Targets",
    "TradingHours",
    "Trials",
    "audit_stops",
    "backtest",
    "candles_figure",
    "default_account",
    "find_lookahead",
    "judge",
    "load",
    "load_artefact",
    "load_or_synthetic",
    "load_settings",
    "make_strategy",
    "market",
    "optimise",
    "param",
    "promote",
    "read_returns",
    "registry",
    "reproduce",
    "require_causal",
    "resample",
    "sweep",
    "synthetic_candles",
    "tried",
    "verify",
    "walk_forward",
]


def __getattr__(name: str) -> Any:
    try:
        module = _MODULE_OF[name]
    except KeyError:
        raise AttributeError(f"module 'research' has no attribute {name!r}") from None
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
