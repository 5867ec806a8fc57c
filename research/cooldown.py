"""Until when an exchange must not be asked, remembered across processes in one small file.

Times are UTC milliseconds by this machine's clock. A ban that a process was told of binds every
other one that shares the folder: asking on during a ban makes it longer.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from research.durable import write_whole
from research.errors import ExchangeRefused

__all__ = ["Cooldown", "CooldownFile"]

# Binance's longest ban is three days.
LONGEST_MS = 3 * 86_400_000
LOCK_SECONDS = 1.0


@dataclass(frozen=True)
class Cooldown:
    """``until`` when nothing may be asked, and what the exchange ``said``."""

    until: int
    said: str


@dataclass(frozen=True)
class CooldownFile:
    """The memory of one host at ``path``; ``path`` None remembers nothing."""

    path: Path | None

    def read(self, now: int) -> Cooldown | None:
        """The cool-down that holds at ``now``; None where the exchange may be asked.

        Raises ExchangeRefused for a file that cannot be read: it may hold a ban.
        """
        if self.path is None:
            return None
        try:
            stored = json.loads(self.path.read_bytes())
            found = Cooldown(int(stored["until"]), str(stored["said"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as err:
            raise ExchangeRefused(
                f"it cannot be read ({err})",
                field=str(self.path),
                remedy="It remembers a ban. Delete it once you know that none holds.",
            ) from err
        # Beyond the longest ban it was written by a clock that has been set back since.
        until = min(found.until, now + LONGEST_MS)
        return Cooldown(until, found.said) if now < until else None

    def impose(self, cooldown: Cooldown, now: int) -> None:
        """Remember ``cooldown`` unless a longer one is remembered already.

        Where it cannot be written in time, this process keeps to it all the same.
        """
        if self.path is None:
            return
        with suppress(OSError, Timeout):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock").acquire(timeout=LOCK_SECONDS):
                known = self.read(now)
                if known is None or known.until < cooldown.until:
                    write_whole(self.path, json.dumps(asdict(cooldown)) + "\n")
