"""The command `candlebook config`: every setting and where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from live.cli.options import Project, json_option, pass_project
from live.cli.output import answer, table

if TYPE_CHECKING:
    from research.settings import Provenance, Settings

__all__ = ["config"]


@click.command()
@json_option
@pass_project
def config(project: Project, as_json: bool) -> None:
    """Show every setting and where it came from, secrets masked."""
    settings = project.settings
    rows = settings.explain()
    document = [
        {"key": one.key, "value": _native(settings, one), "source": one.source} for one in rows
    ]
    # Without what is the same in every row, so that the table fits a terminal.
    shown = [
        (one.key, one.value, one.source.removeprefix("params/").removeprefix("environment "))
        for one in rows
    ]
    answer(as_json, {"settings": document}, table(("key", "value", "from"), shown))


def _native(settings: Settings, row: Provenance) -> Any:
    """The value as JSON knows it: a number, true or null; what may hide a secret as it is shown."""
    from pydantic import BaseModel, SecretStr

    section, _, name = row.key.partition(".")
    value: Any = getattr(settings, section)
    if section == "symbols":
        value = next(one for one in value if one.symbol == name)
    elif name:
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    if isinstance(value, SecretStr) or section.endswith("database_url"):
        return row.value
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
