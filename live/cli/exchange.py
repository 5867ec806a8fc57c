"""The command `candlebook replay-exchange`: stored candles served as the exchange would."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from live.cli.options import Project, pass_project, time_option
from live.cli.output import moment, notice
from research.errors import HistoryMissing, InputError

if TYPE_CHECKING:
    from live.replay import Fault, ReplayExchange
    from research.candles import CandleSet
    from research.history import History

__all__ = ["replay_exchange"]

PORT = 8790
DAYS_BEFORE_END = 30


@click.command("replay-exchange")
@click.option(
    "--store",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of history to serve (default: the project's).",
)
@click.option("--symbols", help="Only these, separated by commas (default: every stored one).")
@time_option(
    "--from", "start", help="Where its clock starts, UTC (default: 30 days before the end)."
)
@click.option(
    "--speed",
    type=float,
    default=1.0,
    show_default=True,
    help="Its seconds a real second; 0 stands.",
)
@click.option("--port", type=click.IntRange(0, 65_535), default=PORT, show_default=True)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND[:ENDPOINT]",
    help="Start with a fault, such as status_503:klines. See knowledge/replay_exchange.md.",
)
@pass_project
def replay_exchange(
    project: Project,
    store: Path | None,
    symbols: str | None,
    start: int | None,
    speed: float,
    port: int,
    faults: tuple[str, ...],
) -> None:
    """Serve stored candles over Binance's REST.

    A look-alike of the exchange on this machine, with a clock of its own. Unmodified ccxt,
    `candlebook history fetch` and `candlebook paper replay` can be pointed at it. It runs until it
    is interrupted.
    """
    from live.replay import ReplayExchange
    from research.history import History

    if project.settings.exchange != "binance":
        raise InputError(
            field="params/settings.yaml: exchange",
            value=project.settings.exchange,
            expected="binance, whose REST the replay exchange speaks",
        )
    history = project.history if store is None else History(store)
    injected = [_fault(one) for one in faults]
    wanted = None if symbols is None else [one.strip() for one in symbols.split(",") if one.strip()]
    sets = _candles(project, history, wanted)
    end = max(int(one.clock()[-1]) + one.bar_ms for one in sets)
    begins = min(int(one.clock()[0]) for one in sets)
    now = max(begins, end - DAYS_BEFORE_END * 86_400_000) if start is None else start
    known = project.settings.filters.filters if project.settings.filters else {}
    try:
        exchange = ReplayExchange(sets, known, now, speed, port)
    except OSError as err:
        raise InputError(
            f"it cannot be taken ({err.strerror})",
            field="--port",
            value=port,
            expected="a free port",
            remedy="--port 0 takes one.",
        ) from err
    with exchange:
        for one in injected:
            exchange.inject(one)
        _tell(exchange)
        _until_stopped()


def _fault(text: str) -> Fault:
    from live.replay import Fault

    kind, _, endpoint = text.partition(":")
    return Fault(kind, endpoint or None)


def _candles(project: Project, history: History, wanted: list[str] | None) -> list[CandleSet]:
    """One set a timeframe, of the stored symbols that have filters in the settings."""
    settings = project.settings
    known = settings.filters.filters if settings.filters is not None else {}
    stored: dict[str, list[str]] = {}
    for series in history.series():
        chosen = wanted is None or series.symbol in wanted
        if chosen and series.exchange == settings.exchange:
            stored.setdefault(series.timeframe, []).append(series.symbol)
    named = sorted({symbol for each in stored.values() for symbol in each})
    without = [symbol for symbol in named if symbol not in known]
    if without:
        notice(
            f"Left out, since params/filters/{settings.exchange}.yaml does not have them: "
            f"{', '.join(without)}. candlebook filters fetch adds them."
        )
    missing = sorted(set(wanted or ()) - set(named))
    sets = [
        history.load([one for one in each if one in known], timeframe, exchange=settings.exchange)
        for timeframe, each in sorted(stored.items())
        if any(one in known for one in each)
    ]
    if missing or not sets:
        raise HistoryMissing(
            "nothing is stored of it",
            field=" ".join(missing) or str(history.root),
            remedy="candlebook history fetch or import fills the store.",
        )
    return sets


def _tell(exchange: ReplayExchange) -> None:
    series = exchange.market.series
    speed, now = exchange.clock.speed, exchange.clock.now() // 1000 * 1000
    pace = "its clock stands" if speed == 0 else f"its clock runs {speed:g} times as fast as ours"
    click.echo(f"{exchange.url} is Binance at {moment(now)}; {pace}")
    for symbol, frames in sorted(series.items()):
        click.echo(f"  {symbol} {' '.join(frames)}")
    for fault in exchange.faults():
        click.echo(f"  fault: {fault.kind} on {fault.endpoint or 'every request'}")
    url, symbol = exchange.url, next(iter(series))
    click.echo(f"fetch:   CANDLEBOOK_EXCHANGE_URL={url} candlebook history fetch {symbol}")
    click.echo(
        f"replay:  CANDLEBOOK_REPLAY_EXCHANGE_URL={url} candlebook paper replay NAME --bars 24"
    )
    click.echo(f"control: curl {url}/replay   (knowledge/replay_exchange.md)")


def _until_stopped() -> None:
    """Wait for an interruption, which goes on as such, or for SIGTERM, which is an end in order."""
    stopped = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        while not stopped.wait(0.5):
            pass
    finally:
        signal.signal(signal.SIGTERM, before)
