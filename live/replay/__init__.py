"""A loopback exchange that speaks Binance's REST over stored candles, with a clock and faults.

candles -> market (what shows at a moment) -> server (HTTP, the clock, faults), orders beside it
"""

from live.replay.clock import VirtualClock
from live.replay.faults import DATA_FAULTS, FAULTS, TRANSPORT_FAULTS, Fault
from live.replay.orders import API_KEY, API_SECRET
from live.replay.server import ReplayExchange

__all__ = [
    "API_KEY",
    "API_SECRET",
    "DATA_FAULTS",
    "FAULTS",
    "TRANSPORT_FAULTS",
    "Fault",
    "ReplayExchange",
    "VirtualClock",
]
