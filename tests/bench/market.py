"""The candles of a benchmark: real ones of BTCUSDT where CANDLEBOOK_SHARED has them, else made up.

Hours are four years, minutes one (``BARS``). They come in a store of their own in a folder that the
benchmark deletes.
"""

from __future__ import annotations

import os
from pathlib import Path

from research.candles import CandleSet, utc_ms
from research.history import History
from research.history_import import import_file
from research.synthetic import synthetic_candles

SYMBOL = "BTCUSDT"
BARS = {"1h": 35_064, "1m": 525_600}
STARTS = {"1h": "2022", "1m": "2024"}


def fill_store(folder: Path, timeframe: str) -> str:
    """Put the candles into ``folder``/store; where they are from: "real" or "made up"."""
    history = History(folder / "store")
    root = Path(__file__).resolve().parents[2]
    shared = (root / os.environ.get("CANDLEBOOK_SHARED", "../shared")).resolve()
    file = shared / "history" / "binance" / SYMBOL / f"{timeframe}.parquet"
    if not file.is_file():
        start = utc_ms(STARTS[timeframe])
        made = synthetic_candles((SYMBOL,), timeframe, start, BARS[timeframe])
        history.append("binance", made[SYMBOL], "synthetic")
        return "made up"
    import_file(history, file)
    for info in history.inventory():
        for gap in info.gaps:
            address = ("binance", SYMBOL, info.series.timeframe, gap.start, gap.end)
            history.accept_gap(*address, "outage", "the benchmark", "a known outage")
    return "real"


def candles_in(folder: Path, timeframe: str) -> CandleSet:
    """The candles that ``fill_store`` put there, at most ``BARS`` of them."""
    minutes = {"1h": 60, "1m": 1}[timeframe]
    start = utc_ms(STARTS[timeframe])
    end = start + BARS[timeframe] * minutes * 60_000
    return History(folder / "store").load([SYMBOL], timeframe, start=start, end=end)
