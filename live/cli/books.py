"""How a person stops trading and lets it go on: `kill`, `reset`, `reduce-only`, `resume`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from live.cli.options import Project, json_option, me, pass_project, time_option, who_option
from live.cli.output import answer, moment, since

if TYPE_CHECKING:
    from research.settings import Settings

__all__ = ["has_books", "kill", "reduce_only", "reset", "resume", "tripped_notice"]

Command = TypeVar("Command", bound=Callable[..., Any])


def _move_options(command: Command) -> Command:
    options = (
        click.option("--reason", required=True, help="Why, in words; it is kept in the ledger."),
        time_option("--at", help="From the first bar close at or after it, UTC."),
        click.option("--replay", is_flag=True, help="The books of replays."),
        who_option,
        json_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_move_options
@pass_project
def kill(project: Project, as_json: bool, **asked: Any) -> None:
    """Trip the kill switch for every account.

    No entry passes until a person resets it; exits and stops go on.
    """
    said = "Tripped: no entry passes from {} on. Exits and stops go on."
    _move(project, as_json, "kill", said, **asked)


@click.command()
@_move_options
@pass_project
def reset(project: Project, as_json: bool, **asked: Any) -> None:
    """Let trading start, or go on after a trip. Every account's peak becomes its equity."""
    _move(project, as_json, "reset", "Reset: trading may go on from {}.", **asked)


@click.command(name="reduce-only")
@_move_options
@pass_project
def reduce_only(project: Project, as_json: bool, **asked: Any) -> None:
    """Refuse every entry until a resume.

    Exits and stops go on. Milder than kill: nothing is cancelled or sold, and the peak stays.
    """
    said = "Reduce-only: no entry passes from {} on. Exits and stops go on."
    _move(project, as_json, "reduce", said, **asked)


@click.command()
@_move_options
@pass_project
def resume(project: Project, as_json: bool, **asked: Any) -> None:
    """Let entries pass again after reduce-only. The kill switch stays as it is."""
    said = "Resumed: entries may pass from {}, if the kill switch lets them."
    _move(project, as_json, "resume", said, **asked)


def has_books(settings: Settings, mode: str) -> bool:
    """Whether a ledger of this mode is there: to look at one is not to make one."""
    url = settings.replay_database_url if mode == "replay" else settings.database_url
    path = url.partition("sqlite:///")[2]
    return not path or path.startswith((":memory:", "file:")) or Path(path).exists()


def tripped_notice(settings: Settings, mode: str, name: str, slot: int) -> str | None:
    """What to tell somebody whose account may not enter at ``slot``; None where it may."""
    from live.kill_switch import switch_status
    from live.ledger import open_ledger

    if not has_books(settings, mode):
        return None
    url = settings.replay_database_url if mode == "replay" else settings.database_url
    with closing(open_ledger(url)) as ledger, ledger.reading() as conn:
        switch = switch_status(conn, slot)
    if switch.tripped:
        what, command = f"The kill switch of {mode} is tripped", "reset"
    elif name in switch.tripped_accounts:
        what, command = f"The drawdown limit of {name} is tripped", "reset"
    elif switch.reducing is not None:
        what, command = "Reduce-only", "resume"
    else:
        return None
    books = " --replay" if mode == "replay" else ""
    return f'{what}: entries are refused until `candlebook {command}{books} --reason "..."`.'


def _move(project: Project, as_json: bool, move: str, said: str, **asked: Any) -> None:
    """Move and tell; ``said`` has room for the time from which it holds."""
    moved, effective = _moved(project, move, **asked)
    answer(as_json, moved, said.format(since(effective)))


def _moved(
    project: Project, move: str, reason: str, at: int | None, replay: bool, who: str | None
) -> tuple[dict[str, Any], int]:
    from live import kill_switch
    from live.paper import books_now, open_books

    mode = "replay" if replay else "paper"
    name = me(who)
    with closing(open_books(project.settings, mode)) as ledger:
        acts = {
            "kill": kill_switch.kill,
            "reset": kill_switch.reset,
            "reduce": kill_switch.reduce_only,
            "resume": kill_switch.resume,
        }
        effective = acts[move](ledger, reason, books_now(ledger, mode), at=at, who=name)
    moved = {
        "move": move,
        "mode": mode,
        "effective_from": moment(effective),
        "reason": reason.strip(),
        "who": name,
    }
    return moved, effective
