"""The `candlebook` command: a thin door; every command asks the package and shows its answer.

Results go to standard output, progress and notices to standard error. Exit codes are those of
research/errors.py. Times are UTC. Commands import what they need when they run, so that help and
status answer at once.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from live.cli import (
    artefacts,
    books,
    config,
    evidence,
    exchange,
    filters,
    history,
    paper,
    runs,
    status,
    trials,
)
from live.cli.ending import told
from live.cli.options import Project
from research import errors

__all__ = ["main"]


class Commands(click.Group):
    """The root group: whatever a command raises ends in one message and one exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = "candlebook",
        *_: Any,
        **extra: Any,
    ) -> Any:
        given = sys.argv[1:] if args is None else list(args)
        extra["standalone_mode"] = False  # click hands over what was raised and does not exit
        try:
            code = super().main(given, prog_name, **extra)
        except (Exception, KeyboardInterrupt) as err:  # noqa: BLE001 - the outermost edge
            code = told(err, as_json="--json" in given, debug="--debug" in given)
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)  # in the order of the usual way, not of the alphabet


def exit_codes(drawing: str) -> str:
    """The exit codes as help shows them, read from the tree that is drawn in research/errors.py."""
    lines = [line[4:] for line in drawing.splitlines() if line.startswith(("├── ", "└── "))]
    rows = [line.split(maxsplit=2) for line in lines]
    branches = [f"  {code:>3}  {name:<16} {what}" for name, code, what in rows]
    others = drawing.strip().rpartition("\n\n")[2]
    return "\n".join(["\b", "Exit codes:", *branches, "", "\b", *others.splitlines()])


@click.group(
    "candlebook",
    cls=Commands,
    epilog=exit_codes(inspect.cleandoc(errors.__doc__ or "")),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--home",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="The project's folder (default: CANDLEBOOK_HOME, or the one you are in).",
)
@click.option("--json", "json_wanted", is_flag=True, help="As --json after the command.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error that nobody foresaw.")
@click.version_option(package_name="candlebook", message="%(prog)s %(version)s")
@click.pass_context
def main(
    context: click.Context,
    home: Path | None,
    json_wanted: bool,  # noqa: ARG001 - json_option reads it
    debug: bool,  # noqa: ARG001 - ``Commands.main`` reads it
) -> None:
    """Backtest, promote and paper-trade crypto strategies: what you backtest is what runs.

    The usual way: history import or fetch, backtest, sweep, judge, promote, reset (which lets
    trading start), paper run, parity. `candlebook demo` walks it in a folder of its own.
    """
    context.obj = Project(home)
    if home is not None:
        from research.variables import HOME, environment_with

        # For a notebook's kernel, too.
        context.with_resource(environment_with({HOME: str(home.expanduser().resolve())}))


for _command in (
    config.config,
    history.history,
    filters.filters,
    runs.backtest,
    runs.sweep,
    trials.trials,
    evidence.judge,
    artefacts.promote,
    artefacts.verify,
    artefacts.reproduce,
    artefacts.artefacts,
    paper.paper,
    paper.parity,
    books.kill,
    books.reset,
    books.reduce_only,
    books.resume,
    status.status,
    exchange.replay_exchange,
    paper.demo,
):
    main.add_command(_command)
