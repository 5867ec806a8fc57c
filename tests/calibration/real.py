"""The promotion report of SMA crossovers on real candles: ten symbols, 2022 to 2025, hours.

A sweep a symbol, then one account over all ten, as a person would go about it who keeps looking:
one ledger of trials counts them all. Candles are those that CANDLEBOOK_SHARED points to.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Final

from research.account import Account, Limits
from research.candles import CandleSet
from research.evidence.judge import Evidence, judge
from research.history import History
from research.history_import import import_folder
from research.known_gaps import accept_known_gaps, load_known_gaps
from research.params import Thresholds
from research.search import sweep
from research.strategies.sma_crossover import SmaCrossover
from research.variables import environment_with
from tests.calibration.sweeps import GRID

__all__ = ["report"]

ROOT: Final = Path(__file__).resolve().parents[2]
SYMBOLS: Final = (
    *("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT"),
    *("ADAUSDT", "DOGEUSDT", "AVAXUSDT", "LINKUSDT", "DOTUSDT"),
)
START, END = "2022", "2026"


def report() -> list[dict[str, Any]]:
    """A row a sweep, printed as it comes; none where there are no real candles."""
    shared = (ROOT / os.environ.get("CANDLEBOOK_SHARED", "../shared")).resolve() / "history"
    if not shared.is_dir():
        print(f"No real candles in {shared}: set CANDLEBOOK_SHARED for the report on them.")
        return []
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder, "history"))
        import_folder(history, shared)
        known = load_known_gaps(ROOT / "params" / "known_gaps.yaml")
        accept_known_gaps(history, known, at=0)
        with environment_with({"CANDLEBOOK_TRIALS": str(Path(folder, "trials.db"))}):
            for symbols in (*((one,) for one in SYMBOLS), SYMBOLS):
                candles = history.load(symbols, "1h", START, END)
                rows.append(_row(_judged(candles)))
                print(rows[-1], flush=True)
    return rows


def _judged(candles: CandleSet) -> Evidence:
    account = Account(limits=Limits(max_positions=len(candles)))
    found = sweep(SmaCrossover, candles, account, progress=False, **GRID)
    return judge(found, thresholds=Thresholds())


def _row(found: Evidence) -> dict[str, Any]:
    judgement = found.judgement
    return {
        "symbols": " ".join(found.run.symbols),
        "strategy": repr(found.run.strategy),
        "total_return": found.run.metrics.total_return,
        "trades": found.run.metrics.trades,
        "trials": judgement.trials,
        "effective_trials": judgement.effective_trials,
        "statistics": judgement.statistics,
        "failed": judgement.failed,
    }
