"""What the ledger of trials holds of the market of a run, and what luck that makes of the run."""

from __future__ import annotations

import hashlib

import numpy as np

from research.backtesting import Backtest
from research.candles import Floats
from research.evidence.luck import Luck, luck_of
from research.evidence.verdicts import TrialsHead
from research.settings import load_settings
from research.trial_clusters import clusters_of
from research.trial_ledger import open_trials
from research.trials import SAME_THING, Trials

__all__ = ["counted_luck", "siblings_of", "trials_on"]


def counted_luck(daily: Floats, matrix: Floats, known: Trials) -> Luck:
    """The luck in ``daily``: what the ledger holds counts, and the rows at hand at the least."""
    found = known.effective()
    return luck_of(
        daily,
        tries=max(known.raw, len(matrix)),
        effective=max(found.number, _different(matrix), 1),
        spread=found.variance,
    )


def _different(matrix: Floats) -> int:
    """How many different things the rows are, whether or not the ledger holds them."""
    rows = np.ascontiguousarray(matrix, np.float32)
    digests = [
        np.frombuffer(hashlib.blake2b(row, digest_size=16).digest(), np.uint8) for row in rows
    ]
    return int(clusters_of(rows, np.array(digests), SAME_THING).max(initial=-1)) + 1


def siblings_of(run: Backtest, known: Trials) -> int:
    """How many other combinations of the run's strategy were tried on its very market."""
    own = ", ".join(f"{name}={value!r}" for name, value in run.strategy.parameters().items())
    rows = known.rows
    same = (rows["strategy"] == run.strategy.name) & (rows["symbols"] == " ".join(run.symbols))
    return len(set(rows["parameters"][same]) - {own})


def trials_on(run: Backtest) -> tuple[Trials, TrialsHead]:
    """What the project's ledger holds of the run's market (symbols, timeframe, window), and where
    the ledger ends."""
    closes = run.tape.close_time
    window = (int(closes[0]), int(closes[-1]))
    ledger = open_trials()
    number, digest = ledger.head()
    head = TrialsHead(ledger=load_settings().trials_name, number=number, digest=digest)
    return ledger.trials(None, run.symbols, run.candles.timeframe, window), head
