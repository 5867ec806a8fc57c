"""What worker processes that are started here inherit: where this process finds its modules."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from research.code_hash import ROOT

__all__ = ["child_environment", "environment_of"]


def child_environment(**more: str) -> dict[str, str]:
    """The environment with ``PYTHONPATH`` as this process looks for modules, and with ``more``."""
    places = [str(ROOT), *(place or str(Path.cwd()) for place in sys.path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(places)), **more}


@contextmanager
def environment_of(wanted: Mapping[str, str]) -> Iterator[None]:
    """The environment of this process is ``wanted`` as long as this lasts.

    For what takes no other; variables that come up meanwhile stay.
    """
    before = dict(os.environ)
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in wanted:
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)
