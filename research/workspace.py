"""The project on disk as a notebook opens it: its store, its candles, its account.

These are the only functions of ``research`` that look for the project (see
``research.settings.project_root``); everything below them is handed what it needs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from research.account import Account
from research.candles import CandleSet, utc_ms
from research.errors import HistoryMissing
from research.exchange import MarketData
from research.history import History
from research.settings import SETTINGS_FILE, Settings, load_settings, project_root
from research.synthetic import SYNTHETIC_NOTICE, synthetic_candles

__all__ = [
    "default_account",
    "history_of",
    "load",
    "load_or_synthetic",
    "market",
    "market_of",
    "trials_path",
]

SYNTHETIC_BARS = 17_520  # two years of hours


def history_of(settings: Settings) -> History:
    """The project's Parquet store."""
    return History(settings.data_dir / "history")


def market() -> MarketData:
    """The project's exchange: ``market().latest_price("BTCUSDT")``, its last 24 hours, filters."""
    return market_of(load_settings())


def market_of(
    settings: Settings,
    patience_s: float = 0.0,
    on_wait: Callable[[float, str], None] | None = None,
) -> MarketData:
    """The project's connection to its exchange; bans and listings are remembered in its data.

    ``patience_s`` is how long it may wait where the exchange asks to, beyond a request's deadline,
    ``on_wait`` is told of it. Raises UnknownNameError for an exchange that ccxt does not have.
    """
    return MarketData(
        settings.exchange,
        settings.exchange_url,
        patience_s=patience_s,
        memory=settings.data_dir / "exchange",
        on_wait=on_wait,
    )


def default_account(symbols: Sequence[str]) -> Account:
    """The account that the project's settings describe, for these symbols.

    Raises UnknownNameError for a symbol without exchange filters in the settings.
    """
    return load_settings().account(symbols)


def _names(symbols: str | Sequence[str] | None, settings: Settings) -> tuple[str, ...]:
    if symbols is None:
        return tuple(settings.enabled)
    return (symbols,) if isinstance(symbols, str) else tuple(symbols)


def load(
    symbols: str | Sequence[str] | None = None,
    timeframe: str | None = None,
    start: str | int | datetime | None = None,
    end: str | int | datetime | None = None,
) -> CandleSet:
    """Candles from the project's store, opens in ``[start, end)``, UTC.

    ``symbols`` (one, or several in the order in which cash is shared) and ``timeframe`` default to
    those of the settings. Raises HistoryMissing where the
    store has none, CorruptHistory where its files are not what was written.
    """
    settings = load_settings()
    return history_of(settings).load(
        _names(symbols, settings),
        timeframe or settings.timeframe,
        start,
        end,
        settings.exchange,
    )


def load_or_synthetic(
    symbols: str | Sequence[str] | None = None,
    timeframe: str | None = None,
    start: str | int | datetime | None = None,
    end: str | int | datetime | None = None,
) -> CandleSet:
    """Like ``load``; where nothing is stored, made-up candles and a notice on standard error.

    A store that is there but broken still raises: made-up candles never stand in for rot.
    """
    try:
        return load(symbols, timeframe, start, end)
    except HistoryMissing as missing:
        settings = load_settings()
        names = _names(symbols, settings)
        store = history_of(settings)
        stored = {one.series.symbol for one in store.inventory()}
        if stored & set(names):
            raise
        print(f"{SYNTHETIC_NOTICE}\n({missing})", file=sys.stderr)  # noqa: T201
        made = synthetic_candles(
            names, timeframe or settings.timeframe, utc_ms("2023"), SYNTHETIC_BARS
        )
        first = None if start is None else utc_ms(start)
        chosen = made.between(first, None if end is None else utc_ms(end))
        return chosen if all(len(one) for one in chosen) else made


def trials_path() -> Path:
    """Where the project keeps what was tried: CANDLEBOOK_TRIALS, or ``trials.db`` in its data.

    Every run asks, so settings are read anew only where what names the file has changed, and not at
    all where the environment names it whole. Raises SettingsError outside a project, and for
    settings that are wrong.
    """
    whole = Path(os.environ.get("CANDLEBOOK_TRIALS", "").strip()).expanduser()
    if whole.is_absolute():
        return whole
    root = project_root()
    named = tuple(os.environ.get(name) for name in ("CANDLEBOOK_TRIALS", "CANDLEBOOK_DATA_DIR"))
    return _trials_path(root, named, _stamp(root / ".env"), _stamp(root / SETTINGS_FILE))


@lru_cache(maxsize=16)
def _trials_path(root: Path, *_seen: object) -> Path:
    return load_settings(root).trials


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def promoted_folder(settings: Settings) -> Path:
    """Where promoted artefacts live."""
    return settings.root / "params" / "promoted"
