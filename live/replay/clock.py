"""The replay exchange's clock: it stands still, or runs faster or slower than the true one."""

from __future__ import annotations

import math
import threading
import time

from research.candles import utc_ms
from research.errors import InputError

__all__ = ["VirtualClock"]

FASTEST = 1_000_000.0


class VirtualClock:
    """UTC milliseconds that advance by ``speed`` seconds a real second; 0 stands still.

    For any number of threads. Raises InputError for a time or a speed that makes no sense.
    """

    def __init__(self, now: int | str, speed: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._set_at, self._started, self._speed = 0, 0.0, 0.0
        self.set(now, speed)

    def now(self) -> int:
        """The time on the clock."""
        with self._lock:
            elapsed = time.monotonic() - self._started
            return self._set_at + int(elapsed * 1000 * self._speed)

    @property
    def speed(self) -> float:
        """Virtual seconds a real second."""
        return self._speed

    def set(self, now: int | str, speed: float | None = None) -> None:
        """Put the clock to ``now``; ``speed`` None keeps it as it is."""
        moment = utc_ms(now)
        if not 0 <= moment < 10**13:
            raise InputError(field="now", value=now, expected="a UTC time, or its milliseconds")
        wanted = self._speed if speed is None else speed
        number = isinstance(wanted, int | float) and not isinstance(wanted, bool)
        if not number or not math.isfinite(wanted) or not 0 <= wanted <= FASTEST:
            raise InputError(field="speed", value=speed, expected=f"0 to {FASTEST:,.0f}")
        with self._lock:
            self._set_at, self._started, self._speed = moment, time.monotonic(), float(wanted)
