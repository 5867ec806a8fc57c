"""The command `candlebook status`: the kill switch and every account, at a glance."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from live.cli.books import has_books
from live.cli.options import Project, json_option, pass_project
from live.cli.output import answer, moment, since, table

if TYPE_CHECKING:
    from live.kill_switch import SwitchStatus
    from live.ledger.overview import Standing
    from research.tape import Intervention

__all__ = ["status"]


@click.command()
@click.option("--replay", is_flag=True, help="The books of replays instead of the paper ledger.")
@json_option
@pass_project
def status(project: Project, replay: bool, as_json: bool) -> None:
    """Show the kill switch and where every account stands.

    Equity, drawdown, positions, last signals, last run.
    """
    # Not through live.paper, which brings the store and the exchange along.
    from live.kill_switch import switch_status
    from live.ledger import open_ledger
    from live.ledger.overview import standings

    mode = "replay" if replay else "paper"
    settings = project.settings
    url = settings.replay_database_url if replay else settings.database_url
    if not has_books(settings, mode):
        said = (
            f"No {mode} ledger yet: nothing has run. A new one is tripped until "
            "`candlebook reset` says that trading may start."
        )
        answer(as_json, {"mode": mode, "kill_switch": None, "accounts": []}, said)
        return
    with closing(open_ledger(url)) as ledger, ledger.reading() as conn:
        accounts = standings(conn)
        switch = switch_status(conn, _now(mode, accounts))
    document = {
        "mode": mode,
        "kill_switch": _switch(switch),
        "accounts": [_account(one) for one in accounts],
    }
    answer(as_json, document, _switch_text(switch, mode), *_tables(accounts))


def _now(mode: str, accounts: list[Standing]) -> int:
    """As ``live.paper.books_now``: the wall clock, or the last close that a replay has lived."""
    if mode == "paper":
        return int(time.time() * 1000)
    return max((one.marked_at or 0 for one in accounts), default=0)


def _switch(switch: SwitchStatus) -> dict[str, Any]:
    last = switch.last
    return {
        "tripped": switch.tripped,
        "since": moment(last.at),
        "reason": last.reason,
        "who": last.who,
        "planned": [_move(one) for one in switch.planned],
        "tripped_accounts": switch.tripped_accounts,
        "reduce_only": None if switch.reducing is None else _move(switch.reducing),
    }


def _move(one: Intervention) -> dict[str, Any]:
    return {"move": one.move.name.lower(), "at": moment(one.at)} | {
        "reason": one.reason,
        "who": one.who,
    }


def _switch_text(switch: SwitchStatus, mode: str) -> str:
    state = "TRIPPED: no entries" if switch.tripped else "not tripped: trading may go on"
    last = switch.last
    lines = [f"Kill switch of {mode} {state}. {last.reason} ({last.who}, from {since(last.at)})"]
    if switch.reducing is not None:
        held = switch.reducing
        lines.append(f"Reduce-only, no entries: {held.reason} ({held.who}, from {since(held.at)})")
    for one in switch.planned:
        name = one.move.name.lower()
        lines.append(f"Planned: {name} from {moment(one.at)}. {one.reason} ({one.who})")
    if switch.tripped_accounts and not switch.tripped:
        names = ", ".join(switch.tripped_accounts)
        lines.append(f"Tripped by their own drawdown limit, no entries: {names}")
    return "\n".join(lines)


def _account(one: Standing) -> dict[str, Any]:
    run = one.last_run
    return {
        "account": one.account.account,
        "mode": one.account.mode,
        "trade_from": moment(one.account.trade_from),
        "cursor": one.account.position,
        "marked_at": moment(one.marked_at),
        "tripped": one.account.engine.tripped,
        "cash": one.cash,
        "equity": one.equity,
        "drawdown": one.drawdown,
        "positions": one.holdings,
        "signals": [
            {
                "symbol": said.signal.symbol,
                "action": said.signal.action,
                "confidence": said.signal.confidence,
                "reason": said.signal.reason,
                "target": said.target,
                "code": said.code,
                "at": moment(said.signal.timestamp),
            }
            for said in one.signals
        ],
        "last_run": None
        if run is None
        else {
            "slot": moment(run.slot),
            "attempt": run.attempt,
            "status": run.status,
            "started_at": moment(run.started_at),
            "finished_at": moment(run.finished_at),
            "message": run.message,
        },
    }


def _tables(accounts: list[Standing]) -> list[Any]:
    if not accounts:
        return ["No account yet: `candlebook paper run NAME` opens one."]
    columns: tuple[str, ...] = (
        *("account", "up to", ">equity", ">drawdown", ">held", "tripped", "last run"),
    )
    rows = [
        (
            *(one.account.account, moment(one.marked_at)),
            *(f"{one.equity:,.2f}", f"{one.drawdown:.2%}", len(one.holdings)),
            *("yes" if one.account.engine.tripped else "no", _run_text(one)),
        )
        for one in accounts
    ]
    failed = [
        f"The last run of {one.account.account} failed: {one.last_run.message}"
        for one in accounts
        if one.last_run is not None and one.last_run.message
    ]
    held = [
        (
            *(one.account.account, holding.symbol, f"{holding.quantity:,.8g}"),
            *(f"{holding.entry_price:,.8g}", _price(holding.last_price), f"{holding.value:,.2f}"),
        )
        for one in accounts
        for holding in one.holdings
    ]
    said = [
        (
            *(one.account.account, said.signal.symbol, said.signal.action.value),
            *(f"{said.signal.confidence:.0f}", said.signal.reason, said.code),
        )
        for one in accounts
        for said in one.signals
    ]
    shown: list[Any] = [table(columns, rows), *failed]
    if held:
        columns = ("account", "symbol", ">quantity", ">entry", ">last", ">value")
        shown.append(table(columns, held, "Positions"))
    if said:
        columns = ("account", "symbol", "signal", ">confidence", "reason", "gate")
        shown.append(table(columns, said, "Last signals"))
    return shown


def _price(price: float | None) -> str | None:
    return None if price is None else f"{price:,.8g}"


def _run_text(one: Standing) -> str | None:
    run = one.last_run
    if run is None:
        return None
    return run.status if run.slot == one.marked_at else f"{run.status} {moment(run.slot)}"
