"""What a backtest, a sweep and a promotion have in common: which strategy, over which candles.

STRATEGY is a name in params/strategies.yaml, which brings parameters, symbols and timeframe with
it, or a class or file in research/strategies/, which takes symbols and timeframe of the settings.
Options overrule both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from live.cli.options import Project, param_option, symbols_option, time_option
from live.cli.output import moment
from research.errors import InputError, ParameterError, SettingsError, UnknownNameError

if TYPE_CHECKING:
    from pathlib import Path

    from research.account import Account
    from research.backtesting import Backtest
    from research.candles import Candles, CandleSet
    from research.search import Sweep
    from research.settings import Settings, StrategySettings
    from research.strategy import Strategy

__all__ = ["Asked", "Job", "Search", "document_of", "finer_candles", "prepare", "run_options"]

Command = TypeVar("Command", bound=Callable[..., Any])


def run_options(command: Command) -> Command:
    """Adds the options that say what a run is made of; they arrive as the fields of ``Asked``."""
    options = (
        symbols_option,
        click.option("--timeframe", help="1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d."),
        time_option("--start", help="First open at or after it, UTC (default: the first stored)."),
        time_option(
            "--end", help="Opens before it, UTC; its own bar is out (default: all that is stored)."
        ),
        time_option("--trade-from", help="Trade from this close on; before it only warm up."),
        param_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True)
class Asked:
    """What the command line says; None is the default of strategies.yaml or settings.yaml."""

    strategy: str
    symbols: tuple[str, ...] | None
    timeframe: str | None
    start: int | None
    end: int | None
    trade_from: int | None
    param: dict[str, int | float]


@dataclass(frozen=True)
class Search:
    """How the combinations of a grid are chosen, and what is kept of them beside the figures.

    All of them, or so many ``draws``, or so many ``tpe`` proposals; ``constraint`` are comparisons
    that must all hold; ``resume`` keeps finished rows, ``returns`` their daily returns; ``on`` and
    ``workers`` say where they are computed.
    """

    draws: int | None = None
    tpe: int | None = None
    seed: int | None = None
    constraint: tuple[str, ...] = ()
    resume: Path | None = None
    returns: Path | None = None
    on: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.draws is not None and self.tpe is not None:
            raise InputError("--draws and --tpe are two ways to search", field="--tpe")
        if self.seed is not None and self.draws is None and self.tpe is None:
            raise InputError(
                "nothing is drawn", field="--seed", remedy="It goes with --draws or --tpe."
            )
        if self.resume is not None and self.tpe is not None:
            raise InputError(
                "what TPE proposes depends on all before it, and is not kept",
                field="--resume",
                remedy="Leave it out: the same seed gives the same rows.",
            )
        if self.on is not None and self.tpe is not None:
            raise InputError(
                "what TPE proposes depends on all before it, and is computed here",
                field="--on",
                remedy="Leave it out, or search with --draws.",
            )


@dataclass(frozen=True)
class Job:
    """A run that is ready: everything is known, bounded and loaded.

    ``entry`` is where strategies.yaml gives all of its parameters; None where the command line
    gives some.
    """

    strategy: type[Strategy]
    parameters: dict[str, Any]
    candles: CandleSet
    account: Account
    trade_from: int | None
    entry: str | None = None

    def backtest(self, name: str = "backtest") -> Backtest:
        from research.backtesting import backtest

        with _blamed_on(self.entry):
            chosen = self.strategy(**self.parameters)
        return backtest(chosen, self.candles, self.account, trade_from=self.trade_from, name=name)

    def sweep(
        self, grid: dict[str, tuple[int | float, ...]], metric: str, search: Search | None = None
    ) -> Sweep:
        """What ``search`` chooses of ``grid``; the parameters that are not in it stay as they are.

        Raises ParameterError where there is no such ``metric`` to rank them by, before any runs.
        """
        from live.cli.constraints import constraint_of
        from research.account import did_you_mean
        from research.metrics import METRICS

        if metric not in METRICS:
            raise ParameterError(
                field="--metric",
                value=metric,
                expected=f"one of {', '.join(METRICS)}",
                remedy=did_you_mean(metric, METRICS),
            )

        asked = search or Search()
        fixed = {name: (value,) for name, value in self.parameters.items() if name not in grid}
        common: dict[str, Any] = {
            "trade_from": self.trade_from,
            "constraint": constraint_of(
                asked.constraint, frozenset(spec.name for spec in fields(self.strategy))
            ),
            "returns": asked.returns,
            **grid,
            **fixed,
        }
        what, seed = (self.strategy, self.candles, self.account), asked.seed or 0
        if asked.tpe is not None:
            from research.tpe import optimise

            return optimise(*what, trials=asked.tpe, seed=seed, metric=metric, **common)
        from research.search import sweep

        common |= {"resume": asked.resume, "on": asked.on, "workers": asked.workers}
        return sweep(*what, draws=asked.draws, seed=seed, **common)


def prepare(project: Project, asked: Asked) -> Job:
    """Find the strategy and load its candles; what costs nothing to check is checked first.

    Raises UnknownNameError, ParameterError, InputError, and what ``History.load`` raises.
    """
    from research.strategy import bounded

    settings = project.settings
    cls, named = _find(asked.strategy, settings)
    parameters = {name: bounded(cls, name, value) for name, value in asked.param.items()}
    place = f"params/strategies.yaml: strategies.{asked.strategy}.parameters"
    for name, value in (named.parameters if named else {}).items():
        if name not in parameters:
            with _blamed_on(f"{place}.{name}"):
                parameters[name] = bounded(cls, name, value)
    _require_listed(asked.symbols, settings)
    symbols = asked.symbols or (named.symbols if named else settings.enabled)
    timeframe = asked.timeframe or (named.timeframe if named else settings.timeframe)
    if asked.start is not None and asked.end is not None and asked.start >= asked.end:
        raise InputError(
            field="--end", value=moment(asked.end), expected=f"after {moment(asked.start)}"
        )
    account = settings.account(symbols)
    candles = project.history.load(
        symbols, timeframe, asked.start, asked.end, exchange=settings.exchange
    )
    entry = place if named and not asked.param else None
    return Job(cls, parameters, candles, account, asked.trade_from, entry)


def finer_candles(project: Project, job: Job, timeframe: str) -> CandleSet:
    """What is stored of a job's symbols on a shorter timeframe, for the audit of its stops.

    Only some of the symbols need have it. Raises HistoryMissing where none has, and what
    ``require_auditable`` raises, before anything is loaded or run.
    """
    from research.candles import CandleSet
    from research.errors import HistoryMissing
    from research.stop_audit import require_auditable

    require_auditable(job.account, job.candles.timeframe, timeframe)
    clock, exchange = job.candles.clock(), job.candles.exchange
    start, end = int(clock[0]), int(clock[-1]) + job.candles.bar_ms
    found: list[Candles] = []
    missing: list[HistoryMissing] = []
    for symbol in job.candles.symbols:
        try:
            found += project.history.load([symbol], timeframe, start, end, exchange=exchange)
        except HistoryMissing as err:
            missing.append(err)
    if not found:
        raise missing[0]
    return CandleSet(tuple(found), exchange=exchange)


@contextmanager
def _blamed_on(place: str | None) -> Iterator[None]:
    """A parameter that will not do is the fault of the file that gives it, if ``place`` is one."""
    try:
        yield
    except ParameterError as err:
        if place is None:
            raise
        raise SettingsError(str(err), field=place) from err


def _require_listed(symbols: tuple[str, ...] | None, settings: Settings) -> None:
    """Raises UnknownNameError about ``--symbols`` for one that params/symbols.yaml lacks."""
    from research.account import did_you_mean

    known = [one.symbol for one in settings.symbols]
    for symbol in symbols or ():
        if symbol not in known:
            files = f"params/symbols.yaml and params/filters/{settings.exchange}.yaml"
            near = did_you_mean(symbol, known)
            raise UnknownNameError(
                field="--symbols",
                value=symbol,
                expected=f"one of {', '.join(known)}",
                remedy=" ".join(filter(None, (near, f"A new one is added to {files}."))),
            )


def _find(name: str, settings: Settings) -> tuple[type[Strategy], StrategySettings | None]:
    from research.account import did_you_mean
    from research.strategy import registry, strategy_class

    named = settings.strategies.get(name)
    if named is not None:
        return strategy_class(named.strategy), named
    try:
        return strategy_class(name), None
    except UnknownNameError:
        known = [*settings.strategies, *registry()]
        raise UnknownNameError(
            field="strategy",
            value=name,
            expected=f"one of {', '.join(known)}",
            remedy=did_you_mean(name, known) or "params/strategies.yaml names yours.",
        ) from None


def document_of(run: Backtest) -> dict[str, Any]:
    """A backtest for machines."""
    from research.candles import utc_ms

    closes = run.tape.close_time
    halted = run.halted_at
    return {
        "strategy": run.strategy.name,
        "version": run.strategy.version,
        "parameters": run.strategy.parameters(),
        "symbols": run.symbols,
        "timeframe": run.candles.timeframe,
        "source": run.candles.source,
        "start": moment(int(run.candles.clock()[0])),
        "first_close": moment(int(closes[0])),
        "last_close": moment(int(closes[-1])),
        "bars": len(closes),
        "metrics": run.metrics._asdict(),
        "orders": len(run.order_list),
        "fills": len(run.fill_list),
        "halted_at": None if halted is None else moment(utc_ms(halted)),
        "digest": run.digest(),
    }
