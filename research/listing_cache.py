"""What an exchange lists, kept on disk with a hash, so that not every process has to ask.

One small JSON file a host: when it was asked (UTC milliseconds by this machine's clock), the
listings, and their SHA-256. A file whose hash does not fit counts as not there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research.account import Filters
from research.answers import Listing
from research.durable import write_whole
from research.errors import ParameterError

__all__ = ["ListingCache"]


@dataclass(frozen=True)
class ListingCache:
    """The listings of one host in the file ``path``; ``path`` None keeps nothing."""

    path: Path | None

    def read(self, symbols: Sequence[str], now: int, max_age_s: float) -> dict[str, Listing] | None:
        """The listings of ``symbols``, at most ``max_age_s`` old; None where some are lacking."""
        stored = self._stored()
        if not 0 <= now - stored.get("asked_at", now + 1) <= max_age_s * 1000:
            return None
        listed = stored["listings"]
        if any(symbol not in listed for symbol in symbols):
            return None
        try:
            return {symbol: _listing(symbol, listed[symbol]) for symbol in symbols}
        except (TypeError, KeyError, ParameterError):
            return None  # written by another version

    def write(self, listings: dict[str, Listing], now: int) -> None:
        """Keep ``listings`` in place of what was there; where that cannot be, nothing is kept."""
        if self.path is None:
            return
        listed = {
            symbol: {
                "status": one.status,
                "filters": {
                    name: str(value) for name, value in one.filters if name != "min_trade_size"
                },
            }
            for symbol, one in listings.items()
        }
        document = {"asked_at": now, "sha256": _hash(now, listed), "listings": listed}
        with suppress(OSError):  # the answer is good, kept or not
            write_whole(self.path, json.dumps(document, indent=1) + "\n")

    def _stored(self) -> dict[str, Any]:
        if self.path is None:
            return {}
        try:
            stored = json.loads(self.path.read_bytes())
            sound = stored["sha256"] == _hash(stored["asked_at"], stored["listings"])
        except (OSError, ValueError, TypeError, KeyError):
            return {}
        return stored if sound else {}


def _listing(symbol: str, kept: Any) -> Listing:
    return Listing(symbol, kept["status"], Filters(**kept["filters"]))


def _hash(asked_at: int, listed: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([asked_at, listed], sort_keys=True).encode()).hexdigest()
