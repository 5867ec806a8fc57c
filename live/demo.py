"""The whole path in one command: history, backtest, sweep, promotion, paper run, parity, report.

It works in ``data/demo`` with books and artefacts of its own, so that nothing of a user's is
touched, and starts afresh each time. Every step says what it did and where its artefact is.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from live import kill_switch, runner
from live.paper import check_parity, open_books
from live.parity import Parity, require_parity
from live.runner import Run
from research.backtesting import Backtest, backtest
from research.candles import DAY, CandleSet, iso, utc_ms
from research.errors import ExchangeError, HistoryMissing
from research.exchange import MarketData
from research.history import History
from research.history_import import import_folder
from research.known_gaps import accept_known_gaps, load_known_gaps
from research.promotion import Artefact, promote
from research.search import sweep
from research.settings import Settings, load_settings
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import SYNTHETIC_NOTICE, synthetic_candles

__all__ = ["DemoResult", "run_demo"]

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
TIMEFRAME = "1h"
NAME = "sma_demo"
PAPER_BARS = 36
RESEARCH_DAYS = 3 * 365
FETCHED_DAYS = 365
SYNTHETIC_BARS = 17_520

Echo = Callable[[str], None]


@dataclass(frozen=True)
class DemoResult:
    """What the demo made; ``source`` is where its candles came from."""

    source: str
    best: Backtest
    artefact: Artefact
    runs: tuple[Run, ...]
    parity: Parity
    report: Path


def run_demo(
    settings: Settings | None, echo: Echo, on_slot: Callable[[int, int], None] | None = None
) -> DemoResult:
    """Run the whole path; ``echo`` gets a line of plain words at a time.

    ``on_slot`` is told how many of how many paper slots are done. Raises ParityBroken where the
    paper ledger differs from the backtest, and whatever a step raises.
    """
    started = time.monotonic()
    settings = settings or load_settings()
    folder = settings.data_dir / "demo"
    _start_afresh(folder, settings)

    echo("1. History")
    settings, candles = _history(settings, folder, echo)
    research, first_slot = _split(candles)

    echo("\n2. Backtest: SMA crossover on three symbols, one cash account")
    account = settings.account(candles.symbols)
    first = backtest(SmaCrossover(), research, account)
    echo(f"{first!r}")

    echo("\n3. Sweep and promotion")
    best, artefact = _sweep_and_promote(settings, research, first, echo)

    echo(f"\n4. Paper trading: {PAPER_BARS} bars through notebooks/paper_trading.ipynb")
    runs = _paper(settings, first_slot, echo, on_slot)

    echo("\n5. Parity: the paper ledger against a backtest over the same candles")
    parity = check_parity(NAME, settings, "replay")
    require_parity(parity)
    echo(f"   {parity}")

    echo("\n6. Report")
    report = best.report(folder / "report.html")
    echo(f"   equity, drawdown and trades of the promoted run: {report}")
    echo(f"\nDone in {time.monotonic() - started:.0f} s. Next: make lab, and open 00_quickstart.")
    return DemoResult(candles.source, best, artefact, tuple(runs), parity, report)


def _start_afresh(folder: Path, settings: Settings) -> None:
    """The demo's own folders, empty; nothing else is touched."""
    for old in (folder, settings.data_dir / runner.FOLDERS["replay"] / NAME):
        shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True)


def _history(settings: Settings, folder: Path, echo: Echo) -> tuple[Settings, CandleSet]:
    """Candles from the first source that has them: shared, stored, fetched, synthetic."""
    history = History(settings.data_dir / "history")
    # Notebook kernels inherit this process's environment, and with it the demo's own books.
    books = f"sqlite:///{folder / 'replay.db'}"
    os.environ["CANDLEBOOK_REPLAY_DATABASE_URL"] = books
    if settings.shared is not None and (settings.shared / "history" / "binance").is_dir():
        imported = import_folder(history, settings.shared / "history", SYMBOLS, (TIMEFRAME,))
        echo(f"   imported from {settings.shared / 'history'}:")
        for report in imported:
            echo(f"   {report}")
    elif not _stored(history):
        echo("   nothing stored yet: asking Binance for a year of hours")
        if not _fetch(history, settings, echo):
            os.environ["CANDLEBOOK_DATA_DIR"] = str(folder)
            history = History(folder / "history")
            made = synthetic_candles(SYMBOLS, TIMEFRAME, utc_ms("2023"), SYNTHETIC_BARS)
            for series in made:
                history.append("binance", series, "synthetic")
            echo(f"   no exchange in reach. {SYNTHETIC_NOTICE}")
    for gap in accept_known_gaps(
        history, load_known_gaps(settings.root / "params" / "known_gaps.yaml")
    ):
        echo(f"   accepted a known outage: {gap}")
    candles = history.load(SYMBOLS, TIMEFRAME)
    for one in candles:
        echo(f"   {one!r}")
    echo(f"   source: {candles.source}; stored in {history.root}")
    return load_settings(settings.root), candles


def _stored(history: History) -> bool:
    try:
        return all(len(one) > 24 * 60 for one in history.load(SYMBOLS, TIMEFRAME))
    except HistoryMissing:
        return False


def _fetch(history: History, settings: Settings, echo: Echo) -> bool:
    market = MarketData(settings.exchange, settings.exchange_url)
    if not market.reachable():
        return False
    try:
        since = market.server_time() - FETCHED_DAYS * DAY
        for symbol in SYMBOLS:
            for page in market.closed_candles(symbol, TIMEFRAME, since):
                history.append(settings.exchange, page, settings.exchange)
    except ExchangeError as err:
        echo(f"   {err}")
        return False
    return True


def _split(candles: CandleSet) -> tuple[CandleSet, int]:
    """The candles to research on, and the first bar close that only paper trading sees."""
    first_paper_bar = int(candles.clock()[-PAPER_BARS])
    start = first_paper_bar - RESEARCH_DAYS * DAY
    return candles.between(start, first_paper_bar), first_paper_bar + candles.bar_ms


def _sweep_and_promote(
    settings: Settings, research: CandleSet, first: Backtest, echo: Echo
) -> tuple[Backtest, Artefact]:
    found = sweep(
        SmaCrossover, research, first.account, fast=(10, 20, 40, 80), slow=(50, 100, 200, 400)
    )
    echo(f"   {found!r}")
    best = found.run(name=NAME)
    folder = settings.root / "params" / "promoted"
    artefact = promote(
        best,
        NAME,
        why="The demo's: the best row of a small sweep. That is no evidence of an edge.",
        folder=folder,
        rows_tried=len(found),
        replace=True,
    )
    echo(f"   promoted {best.strategy!r} as {NAME}: {folder / (NAME + '.yaml')}")
    return best, artefact


def _paper(
    settings: Settings,
    first_slot: int,
    echo: Echo,
    on_slot: Callable[[int, int], None] | None,
) -> list[Run]:
    ledger = open_books(settings, "replay")
    try:
        reason = "the demo starts trading on its own books"
        kill_switch.reset(ledger, reason, first_slot - 1, at=first_slot - 1)
    finally:
        ledger.close()
    echo(f"   a new ledger's kill switch is tripped; reset it: {reason!r}")
    done = 0

    def note(_: Run) -> None:
        nonlocal done
        done += 1
        if on_slot is not None:
            on_slot(done, PAPER_BARS)

    runs = runner.replay(NAME, first_slot, PAPER_BARS, settings, note)
    seconds = sum(one.seconds for one in runs)
    echo(
        f"   {len(runs)} notebook runs, {iso(runs[0].slot)} .. {iso(runs[-1].slot)}, "
        f"{seconds / len(runs):.1f} s each"
    )
    echo(f"   the last one: {runs[-1].report}")
    echo(f"   ledger: {settings.replay_database_url}")
    return runs
