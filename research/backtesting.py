"""One run of a strategy over history: ``backtest(...)`` folds the engine and hands out the result.

A ``Backtest`` is frozen: what it shows (signals, orders, fills, trades, equity, figures) is
derived from the engine's log when asked for. It prints itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from research.account import Account
from research.blotter import (
    Decision,
    Desk,
    Fill,
    Order,
    Rows,
    Said,
    Trade,
    close_rows,
    open_rows,
    round_trips,
    said_at,
    settled,
)
from research.candles import Candles, CandleSet, Ints, iso, require_sound, utc_ms
from research.daily import daily_returns, day_ends, day_index
from research.engine import fold
from research.errors import HistoryMissing, InputError
from research.metrics import METRICS, Metrics, metrics_of, tally_log
from research.risk import Rules, rules_for
from research.rows import Row
from research.sketch import blank_sketch, marks_of
from research.state import Log, State, opening_state
from research.strategy import Signal, Strategy, Targets, compute_targets
from research.tape import Intervention, Tape, candle_positions, tape_of
from research.trial_ledger import record_batch
from research.trials import Batch, batch_of
from research.workspace import default_account

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from research.stop_findings import StopAudit

__all__ = [
    "Backtest",
    "account_for",
    "as_candle_set",
    "backtest",
    "require_bars",
    "require_instance",
    "require_tradable",
    "rerun",
    "run_tape",
]


def as_candle_set(candles: object) -> CandleSet:
    """What a run was given as its candles: a CandleSet as it is, one symbol's Candles as a set.

    Raises InputError for anything else, saying how candles are made of it.
    """
    if isinstance(candles, CandleSet):
        return candles
    if isinstance(candles, Candles):
        return CandleSet((candles,))
    kind = type(candles).__name__
    raise InputError(
        field="candles",
        value=candles if isinstance(candles, str) else f"a {kind}",
        expected="a CandleSet, as load(...) returns it",
        remedy="Candles.from_frame(symbol, timeframe, frame) takes a DataFrame."
        if isinstance(candles, pd.DataFrame)
        else 'load(["BTCUSDT"], "1h") reads them from the store.',
    )


def require_tradable(candles: CandleSet) -> None:
    """Raises what ``backtest`` raises for candles that no run may trade on."""
    for one in candles:
        if not len(one):
            raise HistoryMissing(
                "no candles in this range",
                field=f"{one.symbol} {one.timeframe}",
                remedy="candlebook history show lists what is stored.",
            )
        require_sound(one)
    candles.require_gaps_accepted()


def require_bars(close_time: Ints, candles: CandleSet, trade_from: str | int | None) -> None:
    """Raises InputError for a start that leaves no bar to trade on."""
    if not len(close_time):
        last_close = iso(int(candles.clock()[-1]) + candles.bar_ms)
        raise InputError(
            field="trade_from",
            value=trade_from,
            expected=f"a time up to the last close, {last_close}",
        )


def account_for(account: object, candles: CandleSet) -> Account:
    """The account given, or that of the project's settings where it is None. Raises InputError."""
    if account is None:
        return default_account(candles.symbols)
    if not isinstance(account, Account):
        raise InputError(
            field="account",
            value=account,
            expected="an Account",
            remedy="Account(limits=Limits(...)) has limits of your own.",
        )
    return account


def require_instance(strategy: object) -> None:
    """Raises InputError for what is no strategy with its parameters, such as a class."""
    if isinstance(strategy, Strategy):
        return
    if isinstance(strategy, type) and issubclass(strategy, Strategy):
        name = strategy.__name__
        raise InputError(
            f"{name} is a class, not yet a strategy with its parameters",
            field="strategy",
            remedy=f"{name}() has the defaults; sweep({name}, ...) takes the class.",
        )
    raise InputError(
        field="strategy",
        value=strategy,
        expected="a strategy such as SmaCrossover(fast=20, slow=50)",
        remedy='make_strategy("sma_crossover", fast=20) makes one by its name.',
    )


def backtest(
    strategy: Strategy,
    candles: CandleSet | Candles,
    account: Account | None = None,
    *,
    trade_from: str | int | None = None,
    interventions: Sequence[Intervention] = (),
    name: str = "backtest",
) -> Backtest:
    """Run ``strategy`` over ``candles`` on one cash account; returns a Backtest.

    ``account`` defaults to the project's settings. ``trade_from`` (a UTC time) is when trading
    starts, flat: earlier candles only warm the indicators. ``interventions`` are kill-switch moves
    by people; ``name`` is the account's name, which order ids are made of. The run is counted among
    the project's trials (``research.trial_ledger``).

    Raises HistoryMissing for an empty series, CandlesRejected for unsound candles, GapNotAccepted
    for a gap that nobody has accepted, InputError for a start that leaves nothing to trade and for
    what is no strategy, candles or account.
    """
    run = rerun(
        strategy, candles, account, trade_from=trade_from, interventions=interventions, name=name
    )
    record_batch(lambda: _batch_of_run(run))
    return run


def _batch_of_run(run: Backtest) -> Batch:
    sketch = blank_sketch(run.tape.close_time, 1)
    equity = run.log.equity[marks_of(run.tape.close_time)]
    sketch.put([0], equity[None, :], run.account.initial_cash)
    rows = [Row(run.metrics, run.halted_at is not None)]
    return batch_of("backtest", [run.strategy], run.candles, run.account, rows, sketch)


def rerun(
    strategy: Strategy,
    candles: CandleSet | Candles,
    account: Account | None = None,
    *,
    trade_from: str | int | None = None,
    interventions: Sequence[Intervention] = (),
    name: str = "backtest",
) -> Backtest:
    """A ``backtest`` that is no new trial: what judges, verifies or audits a run calls this."""
    candles = as_candle_set(candles)
    require_instance(strategy)
    require_tradable(candles)
    account = account_for(account, candles)
    start = None if trade_from is None else utc_ms(trade_from)
    targets = compute_targets(strategy, candles)
    tape = tape_of(candles, targets, interventions, start, account.volatility_bars)
    require_bars(tape.close_time, candles, trade_from)
    return run_tape(strategy, candles, account, targets, tape, name)


def run_tape(
    strategy: Strategy,
    candles: CandleSet,
    account: Account,
    targets: tuple[Targets, ...],
    tape: Tape,
    name: str,
) -> Backtest:
    """Fold a tape that is ready; ``backtest`` is the door that checks what goes in."""
    rules = rules_for(account, candles.symbols)
    last, log = fold(opening_state(account.initial_cash, len(candles)), tape, rules)
    desk = Desk(name, strategy.name, candles.symbols, rules)
    return Backtest(strategy, candles, account, desk, targets, tape, log, last)


@dataclass(frozen=True, eq=False, repr=False)
class Backtest:
    """The result of one run. Frames are indexed by UTC time; money is in quote currency.

    ``metrics`` (figures), ``equity`` and ``drawdown`` (series at each close), ``daily_returns``,
    ``signals``, ``orders``, ``fills``, ``trades`` (frames), ``halted_at``, ``plot()``,
    ``report(path)``, and ``portfolio``, a vectorbt Portfolio built from the engine's fills.
    """

    strategy: Strategy
    candles: CandleSet
    account: Account
    desk: Desk
    targets: tuple[Targets, ...]
    tape: Tape
    log: Log
    last: State

    @property
    def name(self) -> str:
        """The account's name."""
        return self.desk.account

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.candles.symbols

    @property
    def rules(self) -> Rules:
        return self.desk.rules

    @cached_property
    def close_time(self) -> pd.DatetimeIndex:
        """Close of every bar in the run, UTC."""
        return _utc_index(self.tape.close_time, "close_time")

    @cached_property
    def equity(self) -> pd.Series:
        """Equity at each bar's close."""
        return pd.Series(self.log.equity, self.close_time, name="equity")

    @cached_property
    def daily_returns(self) -> pd.Series:
        """Equity at the last close of each UTC day over that of the day before, minus one.

        The first is measured from the initial cash; only days with a close are there.
        """
        ends = self.log.equity[day_ends(self.tape.close_time)]
        returns = daily_returns(ends, self.account.initial_cash)
        return pd.Series(returns, day_index(self.tape.close_time), name="daily_returns")

    @cached_property
    def drawdown(self) -> pd.Series:
        """Fall of equity from its highest close before, as a fraction; 0 at a new high."""
        peak = np.maximum.accumulate(np.append(self.account.initial_cash, self.log.equity))[1:]
        return pd.Series(1.0 - self.log.equity / peak, self.close_time, name="drawdown")

    @cached_property
    def metrics(self) -> Metrics:
        """The figures of the run; see research.metrics.METRICS for what each means."""
        cash = self.account.initial_cash
        return metrics_of(tally_log(self.log, self.rules, cash), cash, self.candles.bar_ms)

    @property
    def halted_at(self) -> pd.Timestamp | None:
        """Close of the first bar after which the kill switch stood tripped, or None."""
        tripped = np.flatnonzero(self.log.tripped)
        return self.close_time[int(tripped[0])] if len(tripped) else None

    @cached_property
    def rows(self) -> tuple[Rows, ...]:
        """The blotter's rows of every phase in which something happened, in order of time."""
        log, bar_ms = self.log, self.candles.bar_ms
        busy = (
            (log.fill_since != 0)
            | (log.stop_lots != 0)
            | (log.order_lots != 0)
            | (log.cancel_lots != 0)
        ).any(axis=1)
        rows = []
        for t in np.flatnonzero(busy):
            close = int(self.tape.close_time[t])
            rows.append(open_rows(self.desk, log, int(t), close - bar_ms))
            rows.append(close_rows(self.desk, log, int(t), close, self.said(int(t))))
        return tuple(rows)

    def said(self, t: int) -> list[Said | None]:
        """What the strategy said at bar ``t`` of the run, one entry a symbol."""
        return said_at(self.strategy, self.targets, self._positions[t])

    @cached_property
    def _positions(self) -> Ints:
        return candle_positions(self.candles, self.tape)

    @cached_property
    def order_list(self) -> list[Order]:
        """Every order, each with its ending, in order of decision."""
        return settled(self.rows)

    @cached_property
    def fill_list(self) -> list[Fill]:
        """Every fill in order of time."""
        return [fill for rows in self.rows for fill in rows.fills]

    @cached_property
    def trade_list(self) -> list[Trade]:
        """Every round trip that has ended."""
        return round_trips(self.fill_list, self.intents)

    @cached_property
    def intents(self) -> dict[str, str]:
        """Why each order exists, by order id."""
        return {order.order_id: order.intent for order in self.order_list}

    def decisions(self, t: int) -> tuple[Decision, ...]:
        """Signals and refusals at bar ``t`` of the run."""
        close = int(self.tape.close_time[t])
        return close_rows(self.desk, self.log, t, close, self.said(t)).decisions

    @cached_property
    def signals(self) -> pd.DataFrame:
        """One row a bar and symbol: action, confidence, target, reason, and the gate's code."""
        rows = [one for t in range(len(self.close_time)) for one in self.decisions(t)]
        return _frame(
            (
                {**dataclasses.asdict(one.signal), "target": one.target, "code": one.code}
                for one in rows
            ),
            "timestamp",
            {**_dtypes(Signal), "target": "float64", "code": "str"},
        )

    @cached_property
    def orders(self) -> pd.DataFrame:
        """One row an order, indexed by the close at which it was decided."""
        return _frame(map(dataclasses.asdict, self.order_list), "decided_at", _dtypes(Order))

    @cached_property
    def fills(self) -> pd.DataFrame:
        """One row a fill, indexed by time."""
        return _frame(map(dataclasses.asdict, self.fill_list), "at", _dtypes(Fill))

    @cached_property
    def trades(self) -> pd.DataFrame:
        """One row a round trip, indexed by its end."""
        return _frame(map(dataclasses.asdict, self.trade_list), "closed_at", _dtypes(Trade))

    def digest(self, *, named: bool = True) -> str:
        """SHA-256 over every order and fill: two runs with the same digest traded the same.

        Without ``named`` it does not matter what the account is called.
        """
        sha = hashlib.sha256()
        done: list[Order | Fill] = [*self.order_list, *self.fill_list]
        for one in done:
            sha.update(repr(one if named else _unnamed(one)).encode())
        return sha.hexdigest()

    @cached_property
    def portfolio(self) -> Any:
        """A vectorbt Portfolio built from the engine's fills: its statistics and charts, and an
        independent referee of the equity. Needs the extra ``notebooks``."""
        from research.vectorbt_adapter import portfolio_of

        return portfolio_of(self)

    def audit_stops(self, fine: CandleSet | Candles) -> StopAudit:
        """Whether candles of a finer timeframe would have ended its trades as its own bars did.

        Raises what ``research.stop_audit.audit_stops`` raises.
        """
        from research.stop_audit import audit_stops

        return audit_stops(self, fine)

    def plot(self) -> go.Figure:
        """Equity with drawdown and trades, as a plotly figure."""
        from research.report import run_figure

        return run_figure(self)

    def report(self, path: str | Path) -> Path:
        """Write the whole run as one HTML page that works offline; returns its path."""
        from research.report import write_report

        return write_report(self, Path(path))

    def summary(self) -> pd.Series:
        """The figures by their full names."""
        return pd.Series({METRICS[k][0]: v for k, v in self.metrics._asdict().items()})

    def __repr__(self) -> str:
        from research.report import run_text

        return run_text(self)

    def _repr_html_(self) -> str:
        from research.report import run_html

        return run_html(self)


def _unnamed(one: Order | Fill) -> Order | Fill:
    """The order or fill without its id, which is made of the account's name."""
    return dataclasses.replace(one, order_id="")


def _utc_index(ts: Any, name: str) -> pd.DatetimeIndex:
    moments = np.asarray(ts, np.int64).astype("datetime64[ms]")
    return pd.DatetimeIndex(moments, name=name).tz_localize("UTC")


_DTYPES: dict[Any, str] = {"float": "float64", "int": "int64"}
_MOMENTS = {"timestamp", "decided_at", "ended_at", "at", "opened_at", "closed_at"}


def _dtypes(kind: Any) -> dict[str, str]:
    return {field.name: _DTYPES.get(field.type, "str") for field in dataclasses.fields(kind)}


def _frame(rows: Any, index: str, dtypes: dict[str, str]) -> pd.DataFrame:
    """A frame that has its columns and their types also where there is no row."""
    frame = pd.DataFrame(list(rows)).reindex(columns=list(dtypes)).astype(dtypes)
    for name in _MOMENTS & set(frame.columns):
        moments = _utc_index(frame[name].to_numpy(), name)
        frame[name] = moments.where(frame[name].to_numpy() != 0) if name == "ended_at" else moments
    return frame.set_index(index)
