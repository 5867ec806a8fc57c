"""Moves the clock of a replay exchange that runs elsewhere on this machine."""

from __future__ import annotations

import json
import urllib.request
from http.client import HTTPException

from research.errors import ExchangeUnreachable

__all__ = ["set_clock"]

TIMEOUT_S = 5.0


def set_clock(url: str, now: int) -> None:
    """Put its clock to ``now`` (UTC milliseconds); its speed stays.

    Raises ExchangeUnreachable where no replay exchange answers at ``url``.
    """
    request = urllib.request.Request(  # noqa: S310 - the settings admit http and https alone
        f"{url.rstrip('/')}/replay/clock",
        data=json.dumps({"now": now}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        # Not by a proxy of the environment: the exchange is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=TIMEOUT_S):
            return
    except (OSError, HTTPException) as err:
        raise ExchangeUnreachable(
            f"no replay exchange answers ({err})",
            field=url,
            remedy="Start one with candlebook replay-exchange, or unset "
            "CANDLEBOOK_REPLAY_EXCHANGE_URL.",
        ) from err
