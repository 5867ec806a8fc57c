"""``judge``: all questions about one run, asked in order, and the answer in plain words.

A backtest is judged by itself, a sweep as the best of its rows. Everything that was ever tried on
the market counts, by the ledger of trials; what judging itself runs does not. Sharpe ratios are
annual, probabilities from 0 to 1, times UTC. The same run, ledger and seed give the same figures.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import pandas as pd

from research.backtesting import Backtest
from research.candles import Floats, iso
from research.errors import InputError
from research.evidence import checks
from research.evidence.benchmarks import AlphaBeta, Benchmark, alpha_beta, buy_and_hold
from research.evidence.bootstrap import TradeDraws, intervals, trade_monte_carlo
from research.evidence.cross_validation import CrossValidation, cross_validate, margin_of
from research.evidence.daily_matrix import daily_matrix
from research.evidence.figures import figures_of
from research.evidence.lookahead import LookAhead, find_lookahead
from research.evidence.luck import Luck, luck_of
from research.evidence.monte_carlo import CandleMonteCarlo, candle_monte_carlo
from research.evidence.overfitting import Overfitting, probability_of_overfitting
from research.evidence.plateau import Plateau, plateau
from research.evidence.random_entries import RandomEntries, random_entries
from research.evidence.sensitivity import (
    breakeven_factor,
    cost_sensitivity,
    delay_sensitivity,
    share_positive,
    start_sensitivity,
)
from research.evidence.superiority import Superiority, superior_ability
from research.evidence.verdicts import Judgement, TrialsHead, Verdict
from research.evidence.walk_forward import WalkForward, out_of_sample, walk_forward
from research.params import Thresholds
from research.search import Sweep
from research.settings import load_settings
from research.trial_clusters import clusters_of
from research.trial_ledger import open_trials
from research.trials import SAME_THING, Trials

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Evidence", "judge"]

DRAWS: Final = 999
FOLDS: Final = 6
Found = TypeVar("Found")


def judge(
    what: Backtest | Sweep,
    *,
    metric: str = "sharpe",
    thresholds: Thresholds | None = None,
    trials: Trials | None = None,
    seed: int = 0,
) -> Evidence:
    """Judge a backtest, or the best row of a sweep by ``metric``; returns the Evidence.

    ``thresholds`` are those of params/promotion.yaml, ``trials`` what the project's ledger holds of
    its market, unless given. ``seed`` decides everything that is drawn.

    Raises InputError for what is neither, ParameterError for a metric that no row has, and what
    the ledger of trials raises where it cannot be read. Needs the extra ``evidence``.
    """
    if not isinstance(what, Backtest | Sweep):
        raise InputError(
            field="what", value=what, expected="what backtest(...) or sweep(...) returned"
        )
    asked = load_settings().promotion if thresholds is None else thresholds
    sweep = what if isinstance(what, Sweep) else None
    run = what if isinstance(what, Backtest) else what.run(what.best(metric))
    daily = run.daily_returns.to_numpy()
    matrix = daily[np.newaxis] if sweep is None else daily_matrix(sweep).matrix
    known, head = _trials_of(run) if trials is None else (trials, None)
    return Evidence(
        run=run,
        sweep=sweep,
        metric=metric,
        thresholds=asked,
        seed=seed,
        head=head,
        matrix=matrix,
        luck=_luck(daily, matrix, known),
        look_ahead=find_lookahead(
            run.strategy, run.candles, points=asked.look_ahead_points, seed=seed
        ),
        timing=_or_reason(lambda: random_entries(run, draws=DRAWS, seed=seed)),
        walk=_or_reason(
            lambda: (
                out_of_sample(run, FOLDS)
                if sweep is None
                else walk_forward(sweep, folds=FOLDS, metric=metric)
            )
        ),
        neighbours=None if sweep is None else plateau(sweep, run.strategy),
        costs=cost_sensitivity(run),
        breakeven=breakeven_factor(run),
        delays=delay_sensitivity(run),
        starts=start_sensitivity(run),
    )


def _or_reason(find: Callable[[], Found]) -> Found | str:
    """What was found, or in words why it cannot be: a record too short, most often."""
    try:
        return find()
    except InputError as err:
        return f"It cannot be said: {err}"


@dataclass(frozen=True, eq=False, repr=False)
class Evidence:
    """What there is to say of ``run``: ``verdicts``, one a check, and the figures behind them.

    ``sweep`` is what it was chosen from, or None; ``matrix`` the daily returns of all rows, rows x
    days. ``walk`` and ``timing`` are a text where the record is too short for them. What only
    informs is computed when it is first asked for: ``overfitting``, ``superiority``,
    ``cross_validation``, ``intervals``, ``holding``, ``market``, ``other_markets``,
    ``other_trades``. It prints itself.
    """

    run: Backtest
    sweep: Sweep | None
    metric: str
    thresholds: Thresholds
    seed: int
    head: TrialsHead | None
    matrix: Floats
    luck: Luck
    look_ahead: LookAhead
    timing: RandomEntries | str
    walk: WalkForward | str
    neighbours: Plateau | None
    costs: pd.DataFrame
    breakeven: float
    delays: pd.DataFrame
    starts: pd.DataFrame

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One a check, those that decide first."""
        asked, run = self.thresholds, self.run
        return (
            checks.look_ahead(self.look_ahead),
            checks.trades(run.metrics.trades, asked.min_trades),
            checks.halt(run.halted_at, asked.allow_halted),
            checks.luck(self.luck, asked.min_deflated_sharpe),
            checks.timing(self.timing, self.luck.effective, asked.max_random_entry_p),
            checks.out_of_sample(
                self.walk, asked.min_walk_forward_sharpe, chosen=self.sweep is not None
            ),
            checks.plateau(self.neighbours, asked.min_plateau),
            checks.costs(self.breakeven, asked.min_breakeven_cost),
            checks.delay(self.delayed_share, asked.min_delayed_share),
            checks.starts(self.start_share, len(self.starts), asked.min_start_share),
            checks.overfitting(self.overfitting, asked.max_overfitting),
            checks.superiority(self.superiority, asked.max_spa_p),
            checks.market(self.holding, self.market),
        )

    @property
    def passed(self) -> bool:
        """Whether nothing refuses it."""
        return all(one.passed is not False for one in self.verdicts)

    @property
    def delayed_share(self) -> float:
        """The Sharpe ratio of acting one bar later over its own; NaN where that is not above 0."""
        own, later = (float(self.delays["sharpe"].loc[bars]) for bars in (0, 1))
        return later / own if own > 0 else math.nan

    @property
    def start_share(self) -> float:
        """The share of later start dates from which it makes money."""
        return share_positive(self.starts)

    @cached_property
    def overfitting(self) -> Overfitting | str | None:
        """The probability of overfitting; None for a lone run, a text where it cannot be said."""
        if self.sweep is None:
            return None
        return _or_reason(lambda: probability_of_overfitting(self.matrix))

    @cached_property
    def superiority(self) -> Superiority | str:
        """Hansen's test over all rows; a text where it cannot be said."""
        return _or_reason(lambda: superior_ability(self.matrix, seed=self.seed))

    @cached_property
    def cross_validation(self) -> CrossValidation | str | None:
        """The choice on many paths; None for a lone run, a text where it cannot be said."""
        if self.sweep is None:
            return None
        days = pd.DatetimeIndex(self.run.daily_returns.index)
        margin = margin_of(self.run)
        return _or_reason(
            lambda: cross_validate(self.matrix, days, purge=margin.purge, embargo=margin.embargo)
        )

    @cached_property
    def holding(self) -> Benchmark:
        """Holding the same symbols: all in, and as much as the run did on average."""
        return buy_and_hold(self.run)

    @cached_property
    def market(self) -> AlphaBeta | str:
        """Its days against those of the market; a text where it cannot be said."""
        return _or_reason(lambda: alpha_beta(self.run))

    @cached_property
    def other_markets(self) -> CandleMonteCarlo | str:
        """The strategy on candles redrawn in blocks; a text where it cannot be said."""
        return _or_reason(lambda: candle_monte_carlo(self.run, seed=self.seed))

    @cached_property
    def other_trades(self) -> TradeDraws:
        """The run's trades, redrawn."""
        return trade_monte_carlo(self.run, seed=self.seed)

    @cached_property
    def intervals(self) -> pd.DataFrame:
        """Each metric of the run with its 95 % interval, by the stationary bootstrap."""
        return intervals(self.run, seed=self.seed)

    @cached_property
    def statistics(self) -> dict[str, float | None]:
        """Every figure by its name, as an artefact keeps it; None where it is undefined."""
        return {name: _finite(value) for name, value in figures_of(self).items()}

    @cached_property
    def judgement(self) -> Judgement:
        """What an artefact keeps of it."""
        closes = self.run.tape.close_time
        first = last = ""
        if isinstance(self.walk, WalkForward):
            folds = self.walk.folds
            first = f"{folds['test_start'].iloc[0]:%Y-%m-%dT%H:%MZ}"
            last = f"{folds['test_end'].iloc[-1]:%Y-%m-%dT%H:%MZ}"
        return Judgement(
            digest=self.run.digest(),
            trials=self.luck.tries,
            effective_trials=self.luck.effective,
            head=self.head,
            seed=self.seed,
            in_sample=f"{iso(int(closes[0]))} .. {first or iso(int(closes[-1]))}",
            out_of_sample=f"{first} .. {last}" if first else "",
            thresholds=self.thresholds,
            verdicts=self.verdicts,
            statistics=self.statistics,
        )

    def __repr__(self) -> str:
        failed = [one.check for one in self.verdicts if one.passed is False]
        said = f"REFUSED by {', '.join(failed)}" if failed else "PASSED"
        return "\n".join([f"{_title(self)}: {said}", "", *map(str, self.verdicts)])

    def luck_figure(self) -> go.Figure:
        """The run's Sharpe ratio among random times, and beside what the best try shows by luck."""
        from research.evidence.charts import luck_figure

        return luck_figure(self)

    def samples_figure(self) -> go.Figure:
        """What was chosen in sample, out of sample: a point a split, or a window of a lone run."""
        from research.evidence.charts import samples_figure

        return samples_figure(self)

    def walk_forward_figure(self) -> go.Figure:
        """The equity of the test windows, beside the choice in hindsight and holding."""
        from research.evidence.charts import walk_forward_figure

        return walk_forward_figure(self)

    def surface_figure(self) -> go.Figure:
        """The Sharpe ratio over the sweep's parameters; of a lone run it says so."""
        from research.evidence.robustness_charts import surface_figure

        return surface_figure(self)

    def sensitivity_figure(self) -> go.Figure:
        """The Sharpe ratio at other costs, acting later, and begun later."""
        from research.evidence.robustness_charts import sensitivity_figure

        return sensitivity_figure(self)

    def report(self, path: str | Path) -> Path:
        """Write all of it as one HTML page that works offline; returns its path."""
        from research.evidence.page import write_evidence

        return write_evidence(self, Path(path))

    def _repr_html_(self) -> str:
        from research.evidence.card import card_html

        return card_html(self)


def _title(found: Evidence) -> str:
    run = found.run
    closes = run.tape.close_time
    window = f"{iso(int(closes[0]))[:10]} .. {iso(int(closes[-1]))[:10]}"
    best = "" if found.sweep is None else f", best of {len(found.sweep):,} rows"
    where = f"{', '.join(run.symbols)} {run.candles.timeframe}"
    return f"{run.strategy!r} on {where}, {window}{best}"


def _luck(daily: Floats, matrix: Floats, known: Trials) -> Luck:
    """The luck in ``daily``: what the ledger holds counts, and the rows at hand at the least."""
    found = known.effective()
    own = 0 if known.raw >= len(matrix) else _different(matrix)
    return luck_of(
        daily,
        tries=max(known.raw, len(matrix)),
        effective=max(found.number, own, 1),
        spread=found.variance,
    )


def _different(matrix: Floats) -> int:
    """How many different things the rows are, for a ledger that does not hold them all."""
    rows = np.ascontiguousarray(matrix, np.float32)
    digests = [
        np.frombuffer(hashlib.blake2b(row, digest_size=16).digest(), np.uint8) for row in rows
    ]
    return int(clusters_of(rows, np.array(digests), SAME_THING).max(initial=-1)) + 1


def _trials_of(run: Backtest) -> tuple[Trials, TrialsHead]:
    """What the project's ledger holds of the run's market (symbols, timeframe, window), and where
    the ledger ends."""
    closes = run.tape.close_time
    window = (int(closes[0]), int(closes[-1]))
    ledger = open_trials()
    number, digest = ledger.head()
    head = TrialsHead(ledger=load_settings().trials_name, number=number, digest=digest)
    return ledger.trials(None, run.symbols, run.candles.timeframe, window), head


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
