"""The whole path in one command: history, backtest, sweep, promotion, paper run, parity, report.

It works in ``data/demo``, with a store and books of its own, and starts afresh each time. Nothing
of a user's is touched, but for the artefact that it promotes, ``params/promoted/sma_demo.yaml``.
Every step says what it did and where its result is.
"""

from __future__ import annotations

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
from research.evidence.judge import judge
from research.fetching import top_up
from research.history import History, Series
from research.history_import import import_file
from research.known_gaps import accept_known_gaps, load_known_gaps
from research.promotion import Artefact, promote
from research.search import sweep
from research.settings import Settings, load_settings
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import SYNTHETIC_NOTICE, synthetic_candles
from research.variables import environment_with
from research.workspace import market_of

__all__ = ["DemoResult", "run_demo"]

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
TIMEFRAME = "1h"
NAME = "sma_demo"
PAPER_BARS = 24
RESEARCH_DAYS = 3 * 365
FETCHED_DAYS = 365
SYNTHETIC_BARS = 17_520
ENOUGH_BARS = 24 * 60
OVERRIDE = "The demo's override: to show the paper run of what the evidence speaks against."

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
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # Notebook kernels inherit this process's environment, and with it the demo's folder and books.
    own = {
        "CANDLEBOOK_DATA_DIR": str(folder),
        "CANDLEBOOK_TRIALS": str(folder / "trials.db"),
        "CANDLEBOOK_REPLAY_DATABASE_URL": f"sqlite:///{(folder / 'replay.db').as_posix()}",
    }
    with environment_with(own):
        result = _walk(settings, load_settings(settings.root), echo, on_slot)
    echo(f"\nDone in {time.monotonic() - started:.0f} s.\n{_look_around(settings, folder)}")
    return result


def _walk(
    users: Settings,
    settings: Settings,
    echo: Echo,
    on_slot: Callable[[int, int], None] | None,
) -> DemoResult:
    """Every step, in the demo's own folder; ``users`` are the settings of the project itself."""
    echo("1. History")
    candles = _history(users, settings, echo)
    research, first_slot = _split(candles)

    echo("\n2. Backtest: SMA crossover on three symbols, one cash account")
    account = settings.account(candles.symbols)
    first = backtest(SmaCrossover(), research, account)
    echo(f"{first!r}")

    echo("\n3. Sweep, evidence and promotion")
    best, artefact = _sweep_and_promote(settings, research, first, echo)

    echo(f"\n4. Paper trading: {PAPER_BARS} bars through notebooks/paper_trading.ipynb")
    echo("   candles come over HTTP, from a look-alike of the exchange on this machine")
    runs = _paper(settings, first_slot, echo, on_slot)

    echo("\n5. Parity: the paper ledger against a backtest over the same candles")
    parity = check_parity(NAME, settings, "replay")
    require_parity(parity)
    echo(f"   {parity}")

    echo("\n6. Report")
    report = best.report(settings.data_dir / "report.html")
    echo(f"   equity, drawdown and trades of the promoted run: {report}")
    return DemoResult(candles.source, best, artefact, tuple(runs), parity, report)


def _look_around(settings: Settings, folder: Path) -> str:
    """What a newcomer may do next, as commands to copy."""
    inside = folder.is_relative_to(settings.root)
    place = folder.relative_to(settings.root) if inside else folder
    lines = ["Its books:", f"  CANDLEBOOK_DATA_DIR={place} candlebook status --replay", "Next:"]
    if _stored(settings) is None:
        shared = _shared_files(settings)
        fill = f"import {shared[0].parents[2]}" if shared else f"fetch {' '.join(SYMBOLS)}"
        lines.append(f"  candlebook history {fill} --timeframe {TIMEFRAME}   # into your own store")
    return "\n".join([*lines, "  make lab   # and open 00_quickstart"])


def _history(users: Settings, settings: Settings, echo: Echo) -> CandleSet:
    """Candles from the first source that has them, put into the demo's own store.

    The sources: the shared folder, the user's store, the exchange, the generator.
    """
    history = History(settings.data_dir / "history")
    shared, stored = _shared_files(users), _stored(users)
    if shared:
        echo(f"   imported from {shared[0].parents[2]}:")
        for file in shared:
            echo(f"   {import_file(history, file)}")
    elif stored is not None:
        _copy(stored, history, users.exchange)
        echo(f"   copied from {users.data_dir / 'history'}")
    else:
        echo("   nothing stored yet: asking Binance for a year of hours")
        if not _fetch(history, settings, echo):
            # What came before the connection broke is not to stand among made-up candles.
            shutil.rmtree(history.root, ignore_errors=True)
            for series in synthetic_candles(SYMBOLS, TIMEFRAME, utc_ms("2023"), SYNTHETIC_BARS):
                history.append(settings.exchange, series, "synthetic")
            echo(f"   no exchange in reach. {SYNTHETIC_NOTICE}")
    for gap in accept_known_gaps(
        history, load_known_gaps(settings.root / "params" / "known_gaps.yaml")
    ):
        echo(f"   accepted a known outage: {gap}")
    candles = history.load(SYMBOLS, TIMEFRAME)
    for one in candles:
        echo(f"   {one!r}")
    echo(f"   source: {candles.source}; stored in {history.root}")
    return candles


def _shared_files(settings: Settings) -> list[Path]:
    """The demo's candles in the folder beside the project; none unless all of them are there."""
    if settings.shared is None:
        return []
    folder = settings.shared / "history" / "binance"
    files = [folder / symbol / f"{TIMEFRAME}.parquet" for symbol in SYMBOLS]
    return files if all(file.is_file() for file in files) else []


def _stored(settings: Settings) -> CandleSet | None:
    """The demo's candles in a project's store; None where there are too few to be of use."""
    try:
        candles = History(settings.data_dir / "history").load(SYMBOLS, TIMEFRAME)
    except HistoryMissing:
        return None
    return candles if all(len(one) > ENOUGH_BARS for one in candles) else None


def _copy(candles: CandleSet, history: History, exchange: str) -> None:
    """``candles`` into another store, with the gaps that somebody has accepted."""
    for series in candles:
        history.append(exchange, series, candles.source)
    for gap in candles.gaps:
        history.accept_gap(
            *(exchange, gap.symbol, TIMEFRAME, gap.start, gap.end, gap.name),
            who="the demo",
            why="accepted in the project's own store",
        )


def _fetch(history: History, settings: Settings, echo: Echo) -> bool:
    market = market_of(settings)
    if not market.reachable():
        return False
    try:
        now = market.server_time()
        for symbol in SYMBOLS:
            series = Series(settings.exchange, symbol, TIMEFRAME)
            for _ in top_up(history, market, series, (now - FETCHED_DAYS * DAY, now), now):
                pass  # each page is stored as it comes
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
    evidence = judge(found, thresholds=settings.promotion)
    echo("\n   Is it an edge or luck?")
    for line in repr(evidence).splitlines():
        echo(f"   {line}".rstrip())
    folder = settings.root / "params" / "promoted"
    artefact = promote(
        evidence,
        NAME,
        why="The demo's: the best row of a small sweep.",
        override=None if evidence.passed else OVERRIDE,
        folder=folder,
        replace=True,
    )
    best = evidence.run
    if artefact.override is not None:
        echo(f"   a person may promote it all the same, with a reason that is kept: {OVERRIDE}")
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

    runs = runner.replay(NAME, first_slot, PAPER_BARS, settings, note, over_http=True)
    seconds = sum(one.seconds for one in runs)
    echo(
        f"   {len(runs)} notebook runs, {iso(runs[0].slot)} .. {iso(runs[-1].slot)}, "
        f"{seconds / len(runs):.1f} s each"
    )
    echo(f"   the last one: {runs[-1].report}")
    echo(f"   ledger: {settings.replay_database_url}")
    return runs
