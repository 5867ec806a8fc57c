"""What was tried: a batch of rows as it is recorded, and the trials that a verdict has to count.

A *trial* is one combination of parameters of one strategy on one market and account. It counts
once, however often it was run and whatever the candles it was run on: with more history it is the
same trial. Another version or code of the strategy, other symbols, costs, limits or stops are other
trials, since a person who varies them chooses among them as well. Trials are compared by the
sketches of their returns (``research.sketch``). Times are UTC milliseconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import CodeType
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import pandas as pd

from research.account import Account
from research.candles import DAY, CandleSet, Floats, Ints
from research.errors import ParameterError
from research.rows import Row
from research.sketch import Sketch, coarser
from research.strategy import Strategy
from research.trial_clusters import Matrix, clusters_of, row_keys, sharpe_of_clusters

__all__ = [
    "SAME_THING",
    "Batch",
    "Effective",
    "Recorded",
    "Trials",
    "batch_of",
    "code_of_class",
    "trials_of",
]

# Clusters with an average correlation from here on are one thing tried often. So high, since
# accounts that are long or flat on one symbol share its moves: two that hold it half of the time by
# the toss of two coins correlate by 0.5. Measured on the best of 383 crossovers on each of 120
# random walks of three years: against the maximum to be expected of so many independent ratios of
# variance 1 / years, it was found significant at 5 % in 32 % of the walks with 0.7, in 14 % with
# 0.8, in 2.5 % with 0.9.
SAME_THING: Final = 0.9


@dataclass(frozen=True, eq=False)
class Batch:
    """The rows of one call of ``backtest``, ``sweep`` or ``optimise`` (``kind``), as recorded.

    ``code`` is a digest of the strategy's own methods; ``source`` is where the candles came from,
    ``exchange`` the market that they are of; ``candles`` and ``account`` are digests; the closes
    are the first and the last that were traded. ``parameters`` holds a list of values a name, one
    a row; ``sharpe`` is annual and NaN where it is not defined; ``step_days`` and ``buckets`` say
    what periods the ``returns`` (rows x periods, float32) are of; ``digests`` is rows x 16 bytes.
    """

    kind: str
    strategy: str
    version: int
    module: str
    code: str
    symbols: tuple[str, ...]
    timeframe: str
    exchange: str
    source: str
    candles: str
    account: str
    first_close: int
    last_close: int
    parameters: Mapping[str, list[int | float]]
    sharpe: Floats
    trades: Ints
    step_days: int
    buckets: Ints
    returns: Matrix
    digests: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.sharpe)

    def __repr__(self) -> str:
        where = f"{', '.join(self.symbols)} {self.timeframe}"
        return f"Batch({self.kind}: {len(self):,} of {self.strategy} on {where})"


class Recorded(NamedTuple):
    """A batch with its number in the ledger, and when (UTC milliseconds) and by whom it was run."""

    number: int
    at: int
    who: str
    batch: Batch


def batch_of(
    kind: str,
    strategies: Sequence[Strategy],
    candles: CandleSet,
    account: Account,
    rows: Sequence[Row],
    sketch: Sketch,
) -> Batch:
    """The batch of these rows, one a strategy, all of the same class."""
    cls = type(strategies[0])
    terms = json.dumps(account.model_dump(mode="json"), sort_keys=True)
    return Batch(
        kind=kind,
        strategy=cls.__name__,
        version=int(cls.version),
        module=cls.__module__,
        code=code_of_class(cls),
        symbols=candles.symbols,
        timeframe=candles.timeframe,
        exchange=candles.exchange,
        source=candles.source,
        candles=_digest_of(candles),
        account=hashlib.sha256(terms.encode()).hexdigest(),
        first_close=sketch.first_close,
        last_close=sketch.last_close,
        parameters={
            name: [getattr(one, name) for one in strategies] for name in strategies[0].parameters()
        },
        sharpe=np.array([row.figures.sharpe for row in rows], np.float64),
        trades=np.array([row.figures.trades for row in rows], np.int64),
        step_days=sketch.step_days,
        buckets=sketch.buckets,
        returns=sketch.returns,
        digests=sketch.digests,
    )


# Candles are frozen: a digest, which takes a fifth of a backtest's time, is made once for a set.
_digests: WeakKeyDictionary[CandleSet, str] = WeakKeyDictionary()


def _digest_of(candles: CandleSet) -> str:
    known = _digests.get(candles)
    if known is None:
        known = _digests[candles] = candles.digest()
    return known


def code_of_class(cls: type[Strategy]) -> str:
    """SHA-256 of the bytecode of a strategy's own methods, of a notebook's cell as of a file.

    Tells two editions of a class from each other whose name and version are the same. It does not
    see what its methods call; another Python gives another digest.
    """
    sha = hashlib.sha256()
    for kind in cls.__mro__:
        if kind is Strategy:
            break
        for name, value in sorted(vars(kind).items(), key=lambda item: item[0]):
            inner = value.fget if isinstance(value, property) else value
            inner = getattr(inner, "__func__", getattr(inner, "func", inner))
            code = getattr(inner, "__code__", None)
            if isinstance(code, CodeType):
                sha.update(f"{name} {_said(code)}\n".encode())
    return sha.hexdigest()


def _said(constant: Any) -> str:
    """Code or a constant in it as text that is the same in every process."""
    if isinstance(constant, CodeType):
        inner = ", ".join(map(_said, constant.co_consts))
        return f"{constant.co_code.hex()} {constant.co_names} {constant.co_varnames} [{inner}]"
    if isinstance(constant, frozenset):  # whose order differs between processes
        return f"{sorted(map(_said, constant))}"
    if isinstance(constant, tuple):
        return f"({', '.join(map(_said, constant))})"
    return repr(constant)


@dataclass(frozen=True, eq=False, repr=False)
class Effective:
    """How many different things were tried.

    ``labels`` is the cluster of each row of the trials, -1 for one that never moved; ``sharpe`` the
    annual Sharpe ratio of each cluster's aggregate (members weighed by one over their variance);
    ``variance`` that of these ratios, NaN with fewer than two. ``correlation`` was the threshold.
    Clusters on one market share its luck, which their variance does not hold: with it in place of
    1 / years, which is what chance alone gives a ratio, 16 % of those walks (``SAME_THING``) were
    found significant. Take the larger of the two.
    """

    number: int
    labels: Ints
    sharpe: Floats
    variance: float
    correlation: float

    def __repr__(self) -> str:
        still = int((self.labels < 0).sum())
        spread = "" if np.isnan(self.variance) else f", Sharpe ratios vary by {self.variance:.3g}"
        return (
            f"Effective({len(self.labels):,} trials are {self.number:,} different ones at a "
            f"correlation of {self.correlation:g}{spread}; {still:,} never traded)"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Trials:
    """What was tried: ``rows``, one a trial, and their ``returns`` (rows x periods, float32).

    ``rows`` has the columns of ``COLUMNS``. ``periods`` are the beginnings, UTC, of the periods of
    ``step_days`` days that all are compared by: the longest that any sketch has. NaN where a
    trial's window does not reach. ``digests``, rows x 16 bytes. ``batches`` is how many calls they
    come from, ``runs`` how many rows those had, repetitions included.
    """

    rows: pd.DataFrame
    returns: Matrix
    periods: pd.DatetimeIndex
    step_days: int
    digests: npt.NDArray[np.uint8]
    batches: int
    runs: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def raw(self) -> int:
        """How many trials there are, each once."""
        return len(self.rows)

    def effective(self, correlation: float = SAME_THING) -> Effective:
        """How many different things they are: clusters of correlated returns.

        A trial that never traded is none of them. Raises ParameterError for a ``correlation`` that
        is not above 0 and at most 1.
        """
        if not isinstance(correlation, (int, float)) or not 0.0 < correlation <= 1.0:
            raise ParameterError(
                field="correlation", value=correlation, expected="above 0 and at most 1"
            )
        labels = clusters_of(self.returns, self.digests, correlation)
        sharpe = sharpe_of_clusters(self.returns, labels, self.step_days)
        known = sharpe[~np.isnan(sharpe)]
        variance = float(known.var(ddof=1)) if len(known) > 1 else float("nan")
        return Effective(len(sharpe), labels, sharpe, variance, float(correlation))

    @cached_property
    def by_strategy(self) -> pd.DataFrame:
        """One row a strategy and market: batches, trials, best annual Sharpe ratio, last time."""
        groups = self.rows.groupby(["strategy", "symbols", "timeframe"], sort=True)
        return groups.agg(
            batches=("batch", "nunique"),
            trials=("batch", "size"),
            best_sharpe=("sharpe", "max"),
            last=("at", "max"),
        ).reset_index()

    def __repr__(self) -> str:
        if not self.raw:
            return "Trials(nothing was tried)"
        names = self.rows["strategy"].value_counts()
        said = ", ".join(f"{name} {count:,}" for name, count in names.items())
        best = self.rows["sharpe"].max()
        told = "" if np.isnan(best) else f", best Sharpe ratio {best:.2f}"
        return f"Trials({self.raw:,} in {self.batches:,} batches: {said}{told})"

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.by_strategy.to_html(float_format='{:.2f}'.format)}"


COLUMNS: Final = (
    *("strategy", "version", "module", "parameters", "symbols", "timeframe", "exchange", "source"),
    *("first_close", "last_close", "sharpe", "trades", "kind", "at", "who", "batch"),
    *("candles", "account", "code"),
)
_SAME: Final = (
    *("strategy", "version", "module", "code", "account", "symbols", "timeframe", "exchange"),
    "parameters",
)


def trials_of(recorded: Sequence[Recorded], window: tuple[int, int] | None = None) -> Trials:
    """The trials of these batches, each once: of its runs the one that reaches furthest into the
    ``window`` (its first and last close; all of time if None), of such the latest.

    Runs that are the same by name but came to other returns on the same candles are different
    trials: something was changed that the record does not see, such as a constant of a module.
    """
    if not recorded:
        frame = pd.DataFrame({name: [] for name in COLUMNS})
        empty = np.empty((0, 0), np.float32)
        digests = np.empty((0, 16), np.uint8)
        return Trials(frame, empty, _moments(np.empty(0, np.int64)), 1, digests, 0, 0)
    first, last = window or (0, 2**62)
    frame = pd.concat([_frame(one) for one in recorded], ignore_index=True)
    start = np.maximum(frame["first_close"], first)
    frame["_edition"] = _editions(frame, recorded)
    frame["_reach"] = np.minimum(frame["last_close"], last) - start
    order = frame.sort_values(["_reach", "batch"], kind="stable").index
    kept = frame.loc[order].drop_duplicates([*_SAME, "_edition"], keep="last").index.sort_values()
    chosen = kept.to_numpy(np.int64)
    step, buckets, returns = _aligned(recorded, chosen)
    rows = frame.loc[kept, list(COLUMNS)].reset_index(drop=True)
    for name in ("first_close", "last_close", "at"):
        rows[name] = _moments(rows[name].to_numpy(np.int64))
    digests = np.concatenate([one.batch.digests for one in recorded])[chosen]
    periods = _moments(buckets * (step * DAY))
    return Trials(rows, returns, periods, step, digests, len(recorded), len(frame))


def _editions(frame: pd.DataFrame, recorded: Sequence[Recorded]) -> Ints:
    """Of each run, how many other returns its like had come to before on the same candles."""
    digests = np.concatenate([one.batch.digests for one in recorded])
    seen = frame.assign(_digest=np.unique(row_keys(digests), return_inverse=True)[1].ravel())
    like = [*_SAME, "candles", "first_close", "last_close"]
    first = seen.drop_duplicates([*like, "_digest"])
    edition = first.assign(_edition=first.groupby(like, sort=False).cumcount())
    if not edition["_edition"].any():
        return np.zeros(len(frame), np.int64)
    joined = seen.merge(edition[[*like, "_digest", "_edition"]], on=[*like, "_digest"], how="left")
    return joined["_edition"].to_numpy(np.int64)


def _frame(one: Recorded) -> pd.DataFrame:
    batch = one.batch
    named = [(name, values) for name, values in batch.parameters.items()]
    texts = [
        ", ".join(f"{name}={value!r}" for (name, _), value in zip(named, values, strict=True))
        for values in zip(*(values for _, values in named), strict=True)
    ]
    same = {
        name: getattr(batch, name)
        for name in COLUMNS
        if name not in {"parameters", "symbols", "sharpe", "trades", "at", "who", "batch"}
    }
    own = {"at": one.at, "who": one.who, "batch": one.number, "symbols": " ".join(batch.symbols)}
    return pd.DataFrame(
        {
            "parameters": texts or [""] * len(batch),
            "sharpe": batch.sharpe,
            "trades": batch.trades,
            **same,
            **own,
        }
    )


def _aligned(recorded: Sequence[Recorded], chosen: Ints) -> tuple[int, Ints, Matrix]:
    """The returns of the ``chosen`` rows (positions in all batches one after the other) in periods
    of one length: that length in days, the periods' numbers, and rows x periods."""
    step = max(one.batch.step_days for one in recorded)
    parts = []
    begin = 0
    for one in recorded:
        batch = one.batch
        mine = chosen[(chosen >= begin) & (chosen < begin + len(batch))] - begin
        begin += len(batch)
        parts.append(coarser(batch.buckets, batch.returns[mine], step // batch.step_days))
    buckets = np.unique(np.concatenate([found for found, _ in parts]))
    returns = np.full((len(chosen), len(buckets)), np.nan, np.float32)
    begin = 0
    for found, rows in parts:
        returns[begin : begin + len(rows), np.searchsorted(buckets, found)] = rows
        begin += len(rows)
    return step, buckets, returns


def _moments(ts: Ints) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(ts.astype("datetime64[ms]")).tz_localize("UTC")
