"""Known outages, accepted for what a command has just stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from live.cli.options import Project
    from research.candles import Gap
    from research.history import Series

__all__ = ["accept_known"]

KNOWN_GAPS = "params/known_gaps.yaml"


def accept_known(project: Project) -> list[tuple[Series, Gap]]:
    """Accept the outages that the project's file lists; where there is no file, none."""
    from research.known_gaps import accept_known_gaps, load_known_gaps

    file = project.settings.root / KNOWN_GAPS
    if not file.exists():
        return []
    before = {one.series: one.accepted_gaps for one in project.history.inventory()}
    accept_known_gaps(project.history, load_known_gaps(file))
    return [
        (one.series, gap)
        for one in project.history.inventory()
        for gap in one.accepted_gaps
        if gap not in before.get(one.series, ())
    ]
