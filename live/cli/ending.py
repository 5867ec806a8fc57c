"""How a command ends that did not succeed: one message, one exit code, no traceback."""

from __future__ import annotations

import sys
import traceback

import click

from live.cli.output import emit
from research.errors import CandlebookError

__all__ = ["INTERRUPTED", "UNFORESEEN", "told"]

UNFORESEEN = 1
INTERRUPTED = 130


def told(err: BaseException, as_json: bool, debug: bool) -> int:
    """Tell the person, or the machine, what ``err`` was; returns the exit code."""
    code = _exit_code(err)
    message, field = _message(err), getattr(err, "field", None)
    if code == UNFORESEEN and debug:
        traceback.print_exception(err, file=sys.stderr)
    if as_json:
        error = {"type": _kind(err), "message": message, "field": field, "exit_code": code}
        emit({"error": error})
    elif isinstance(err, click.ClickException):
        err.show()  # with the line of usage that click adds
    else:
        click.secho("error: ", nl=False, fg="red", bold=True, err=True)
        click.echo(message, err=True)
    return code


def _exit_code(err: BaseException) -> int:
    if isinstance(err, (click.exceptions.Abort, KeyboardInterrupt)):
        return INTERRUPTED
    if isinstance(err, click.ClickException):
        return 2
    return err.exit_code if isinstance(err, CandlebookError) else UNFORESEEN


def _kind(err: BaseException) -> str:
    return "Interrupted" if _exit_code(err) == INTERRUPTED else type(err).__name__


def _message(err: BaseException) -> str:
    if isinstance(err, click.ClickException):
        return err.format_message()
    if isinstance(err, CandlebookError):
        return str(err)
    if _exit_code(err) == INTERRUPTED:
        return "interrupted; what was finished before stays"
    return (
        f"{type(err).__name__}: {err}. Nobody foresaw this: please report it with what "
        "`candlebook --debug ...` prints."
    )
