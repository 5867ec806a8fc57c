"""The command `candlebook config`: every setting and where it came from."""

from __future__ import annotations

import dataclasses

import click

from live.cli.options import Project, json_option, pass_project
from live.cli.output import answer, table

__all__ = ["config"]


@click.command()
@json_option
@pass_project
def config(project: Project, as_json: bool) -> None:
    """Show every setting and where it came from, secrets masked."""
    rows = [dataclasses.asdict(one) for one in project.settings.explain()]
    shown = table(("key", "value", "from"), [tuple(row.values()) for row in rows])
    answer(as_json, {"settings": rows}, shown)
