"""The commands `candlebook filters ...`: the snapshot of what the exchange accepts, and today's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from live.cli.options import Project, json_option, pass_project
from live.cli.output import answer, counted, table
from research.errors import UnknownNameError

if TYPE_CHECKING:
    from research.account import Filters
    from research.params import FilterSnapshot
    from research.settings import Settings

__all__ = ["filters"]

KEYS = ("lot_step", "tick", "min_quantity", "max_quantity", "min_notional")


@click.group()
def filters() -> None:
    """Look at what the exchange accepts for an order.

    Lot step, tick and minima, as a dated snapshot in params/filters/.
    """


@filters.command()
@click.argument("symbols", nargs=-1, metavar="[SYMBOL]...")
@click.option("--live", is_flag=True, help="Ask the exchange too, and show what has changed.")
@json_option
@pass_project
def show(project: Project, symbols: tuple[str, ...], live: bool, as_json: bool) -> None:
    """The snapshot that backtests and promotions use.

    With --live: every value that the exchange states otherwise today, and symbols that do not
    trade. A paper run decides nothing while its promoted filters are not the exchange's.
    """
    snapshot = _snapshot(project.settings)
    chosen = symbols or tuple(snapshot.filters)
    for symbol in chosen:
        if symbol not in snapshot.filters:
            raise UnknownNameError(
                field=f"params/filters/{snapshot.exchange}.yaml",
                value=symbol,
                expected=f"one of {', '.join(snapshot.filters)}",
                remedy=f"candlebook filters fetch {symbol} adds it.",
            )
    rows = [(one, *_texts(snapshot.filters[one]).values()) for one in chosen]
    document: dict[str, Any] = {
        "exchange": snapshot.exchange,
        "taken_at": snapshot.taken_at.isoformat(),
        "filters": {one: _texts(snapshot.filters[one]) for one in chosen},
    }
    said: list[Any] = [
        f"{snapshot.exchange}, as of {snapshot.taken_at}:",
        table(("symbol", *(f">{key.replace('_', ' ')}" for key in KEYS)), rows),
    ]
    if live:
        changes = _changes(project.settings, snapshot, chosen)
        document["changed"] = changes
        said.append("\n".join(map(_changed_text, changes)) or "The exchange says the same today.")
    answer(as_json, document, *said)


@filters.command()
@click.argument("symbols", nargs=-1, metavar="[SYMBOL]...")
@json_option
@pass_project
def fetch(project: Project, symbols: tuple[str, ...], as_json: bool) -> None:
    """Take a new snapshot: every symbol of the old one and of params/symbols.yaml, and SYMBOLs.

    What is promoted already keeps the filters that it was promoted with.
    """
    from research.durable import write_whole
    from research.params import FilterSnapshot, snapshot_text
    from research.workspace import market_of

    settings, market = project.settings, market_of(project.settings)
    before = settings.filters
    named = (*(before.filters if before else ()), *(one.symbol for one in settings.symbols))
    wanted = tuple(dict.fromkeys((*named, *symbols)))
    today = datetime.fromtimestamp(market.server_time() / 1000, UTC).date()
    found = market.filters(wanted)
    source = "exchangeInfo" if settings.exchange == "binance" else "ccxt markets"
    snapshot = FilterSnapshot(
        exchange=settings.exchange, taken_at=today, source=source, filters=found
    )
    file = settings.root / "params" / "filters" / f"{settings.exchange}.yaml"
    write_whole(file, snapshot_text(snapshot))
    changed = [
        one for one in wanted if before is None or before.filters.get(one) != snapshot.filters[one]
    ]
    document = {"file": file, "taken_at": today.isoformat(), "symbols": wanted, "changed": changed}
    others = ", ".join(changed) or "nothing"
    answer(as_json, document, f"{file}: {counted(len(wanted), 'symbol')}; changed: {others}")


def _snapshot(settings: Settings) -> FilterSnapshot:
    if settings.filters is None:
        raise UnknownNameError(
            field=f"params/filters/{settings.exchange}.yaml",
            value="no such file",
            expected="a snapshot of the exchange's filters",
            remedy="candlebook filters fetch takes one.",
        )
    return settings.filters


def _texts(filters: Filters) -> dict[str, str]:
    return {key: f"{getattr(filters, key).normalize():f}" for key in KEYS}


def _changes(
    settings: Settings, snapshot: FilterSnapshot, symbols: tuple[str, ...]
) -> list[dict[str, str]]:
    """What the exchange states otherwise today, one entry a value."""
    from research.answers import TRADING
    from research.workspace import market_of

    found = []
    for symbol, listing in market_of(settings).listings(symbols).items():
        pairs = {"status": (TRADING, listing.status)}
        then, today = _texts(snapshot.filters[symbol]), _texts(listing.filters)
        pairs |= {key: (then[key], today[key]) for key in KEYS}
        found += [
            {"symbol": symbol, "what": what, "snapshot": old, "today": new}
            for what, (old, new) in pairs.items()
            if old != new
        ]
    return found


def _changed_text(change: dict[str, str]) -> str:
    return f"{change['symbol']} {change['what']}: {change['snapshot']} -> {change['today']}"
