"""The stop audit: whether finer candles would have ended a run's trades as its own bars did.

Inside a bar nobody knows what came first. The engine then assumes the worst (a stop before a
target) and lets a trailing level rise only from bar to bar. ``audit_stops`` replays every trade
under the same rules on finer candles, where both exist, and counts what comes out otherwise.

Each trade is judged alone: the same fills at the same opens, up to the end that the run gave it.
What other trades would have become on an account that a different exit left with other cash is not
asked. A trade of whose bars one lacks a candle is counted and not judged. Prices and money are in
quote currency, differences of prices in basis points, times UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from research.account import Account
from research.backtesting import Backtest, as_candle_set
from research.candles import Candles, CandleSet, Ints, require_sound, timeframe_ms
from research.engine import INTERPRETED_BARS
from research.errors import InputError, ParameterError
from research.risk import Rules, quantity_of
from research.state import INTENTS, STOP_LOSS, STOPS, TRAILING_STOP
from research.stop_findings import Finding, StopAudit
from research.stop_replay import (
    Exit,
    Holding,
    Laid,
    has_both_inside,
    holdings_of,
    laid_beside,
    replay,
    stop_rules,
    symbol_tape,
)

if TYPE_CHECKING:
    from research.tape import Tape

__all__ = ["Finding", "StopAudit", "audit_stops", "require_auditable"]

# What stands for the end of a trade that has none.
_OPEN, _HELD = "open", "held"


def audit_stops(run: Backtest, fine: CandleSet | Candles) -> StopAudit:
    """Replay the stops of every trade of ``run`` on ``fine`` candles of a timeframe that divides.

    Symbols that ``fine`` lacks are not covered. Raises InputError where the run has no stop that
    acts at a price, fills in parts, or has no symbol in common with ``fine``; ParameterError for a
    timeframe that does not divide the run's; CandlesRejected for candles that are not sound.
    """
    fine = as_candle_set(fine)
    require_auditable(run.account, run.candles.timeframe, fine.timeframe)
    if not set(run.symbols) & set(fine.symbols):
        raise InputError(
            field="fine candles",
            value=", ".join(fine.symbols),
            expected=f"some of the run's symbols: {', '.join(run.symbols)}",
        )
    for one in fine:
        require_sound(one)
    return _compared(run, fine)


def require_auditable(account: Account, timeframe: str, fine_timeframe: str) -> None:
    """Raises what ``audit_stops`` raises for accounts and timeframes that leave nothing to audit.

    UnknownNameError for a timeframe that does not exist.
    """
    stops = account.stops
    if account.volume_share_pct is not None:
        raise InputError(
            "an exit in parts is no single exit to compare",
            field="volume_share_pct",
            value=account.volume_share_pct,
            expected="None",
            remedy="Run the backtest without it for the audit.",
        )
    if (stops.stop_loss_pct, stops.take_profit_pct, stops.trailing_stop_pct) == (None,) * 3:
        raise InputError(
            "the account has no stop that acts at a price",
            field="stops",
            remedy="Stops(stop_loss_pct=2) in its Account, or stops in params/risk_limits.yaml.",
        )
    bar_ms, fine_ms = timeframe_ms(timeframe), timeframe_ms(fine_timeframe)
    if fine_ms >= bar_ms or bar_ms % fine_ms:
        raise ParameterError(
            field="fine candles' timeframe",
            value=fine_timeframe,
            expected=f"a shorter one that divides {timeframe}",
        )


def _compared(run: Backtest, fine: CandleSet) -> StopAudit:
    """The audit without its questions at the door: it may be given the run's own timeframe."""
    holdings = holdings_of(run)
    bar_ms = run.candles.bar_ms
    sides: dict[int, _Side] = {}
    for s in sorted({one.s for one in holdings}):
        bars, symbol = symbol_tape(run, s), run.symbols[s]
        laid = laid_beside(bars, bar_ms, fine[symbol]) if symbol in fine.symbols else None
        own = laid_beside(bars, bar_ms, run.candles[symbol])
        sides[s] = _Side(bars, own, laid, stop_rules(run, s))
    candles = sum(len(one.rows) for one in holdings) * (bar_ms // fine.bar_ms)
    compiled = candles > INTERPRETED_BARS
    rows = [_row(run, one, sides[one.s], compiled) for one in holdings]
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    for name in (name for name, kind in _COLUMNS.items() if kind == _MOMENT):
        frame[name] = pd.to_datetime(frame[name], unit="ms", utc=True)
    frame = frame.astype(_COLUMNS)
    return StopAudit(
        run.symbols,
        run.candles.timeframe,
        fine.timeframe,
        run.account.stops,
        run.account.initial_cash,
        frame,
    )


@dataclass(frozen=True)
class _Side:
    """What is known of one symbol: its bars, the candles beside them (None: no such), its rules."""

    bars: Tape
    own: Laid
    laid: Laid | None
    rules: Rules


_MOMENT = "datetime64[ms, UTC]"
_COLUMNS = {
    "symbol": "str",
    "opened_at": _MOMENT,
    "bars": "int64",
    "quantity": "float64",
    "entry_price": "float64",
    "finding": "str",
    "exit": "str",
    "bar": _MOMENT,
    "price": "float64",
    "pnl": "float64",
    "fine_exit": "str",
    "fine_bar": _MOMENT,
    "fine_at": _MOMENT,
    "fine_price": "float64",
    "fine_pnl": "float64",
    "price_bps": "float64",
    "pnl_change": "float64",
    "both_inside": "bool",
    "adds_up": "bool",
}


class _End(NamedTuple):
    """How a trade ended, by one kind of candles."""

    exit: str
    bar: int
    at: int | None
    price: float
    pnl: float


def _row(run: Backtest, held: Holding, side: _Side, compiled: bool) -> dict[str, Any]:
    """One trade, judged; what stays unknown is left out."""
    opens = run.tape.close_time - run.candles.bar_ms
    ours = _end(held, held.exit, _OPEN, side, opens)
    row = {
        "symbol": run.symbols[held.s],
        "opened_at": int(opens[held.legs[0].row]),
        "bars": len(held.rows),
        "quantity": quantity_of(sum(max(leg.lots, 0) for leg in held.legs), side.rules, 0),
        "entry_price": held.legs[0].price,
        "exit": ours.exit,
        "bar": ours.bar,
        "price": ours.price,
        "pnl": ours.pnl,
        "both_inside": _is_both_inside(held, side),
    }
    laid = side.laid
    if laid is None or not laid.covered[held.rows].all():
        unknown = {"finding": Finding.NOT_COVERED.value, "fine_exit": "", "adds_up": False}
        return row | unknown
    stopped = replay(held, held.rows, side.bars, laid, side.rules, compiled)[1]
    finding, finer = _finding(held.exit, stopped), ours
    if stopped is not None or finding is Finding.COARSE_ONLY:
        finer = _end(held, stopped, _HELD, side, opens)
    return row | {
        "finding": finding.value,
        "fine_exit": finer.exit,
        "fine_bar": finer.bar,
        "fine_at": finer.at,
        "fine_price": finer.price,
        "fine_pnl": finer.pnl,
        "price_bps": (finer.price / ours.price - 1) * 10_000,
        "pnl_change": finer.pnl - ours.pnl,
        "adds_up": bool(laid.adds_up[held.rows].all()),
    }


def _end(held: Holding, end: Exit | None, name: str, side: _Side, opens: Ints) -> _End:
    """The end of a trade, ``name`` where there is none: held in its last bar, then unknown."""
    price, pnl = _sold(held, end, side)
    if end is None:
        return _End(name, int(opens[held.rows[-1]]), None, price, pnl)
    return _End(end.intent, int(opens[end.row]), end.at, price, pnl)


def _finding(coarse: Exit | None, fine: Exit | None) -> Finding:
    """How two ends of one trade differ; ``fine`` is a stop or None."""
    if coarse is None or coarse.intent not in STOPS:
        return Finding.SAME if fine is None else Finding.FINE_ONLY
    if fine is None:
        return Finding.COARSE_ONLY
    if fine.row != coarse.row:
        return Finding.BAR
    if fine.intent != coarse.intent:
        return Finding.INTENT
    return Finding.SAME if fine.price == coarse.price else Finding.PRICE


def _sold(held: Holding, end: Exit | None, side: _Side) -> tuple[float, float]:
    """Price of the sale and profit after fees of a trade that ended so.

    Without an end it is worth its close in its last bar, and no cost is taken off that.
    """
    pnl, lots = 0.0, 0
    for leg in held.legs:  # in the order of the blotter's own sum, so that both agree to the bit
        if end is None or leg.row <= end.row:
            notional = quantity_of(abs(leg.lots), side.rules, 0) * leg.price
            pnl = pnl + (-notional if leg.lots > 0 else notional) - leg.fee
            lots += leg.lots
    if end is not None:
        return end.price, pnl + quantity_of(end.lots, side.rules, 0) * end.price - end.fee
    close = float(side.bars.close[held.rows[-1], 0])
    return close, pnl + quantity_of(lots, side.rules, 0) * close


_BEFORE_A_TARGET = {INTENTS[STOP_LOSS], INTENTS[TRAILING_STOP]}


def _is_both_inside(held: Holding, side: _Side) -> bool:
    if held.exit is None or held.exit.intent not in _BEFORE_A_TARGET:
        return False
    return side.rules.take_profit > 0.0 and has_both_inside(held, side.bars, side.own, side.rules)
