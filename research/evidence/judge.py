"""``judge``: all questions about one run, asked in order, and the answer in plain words.

A backtest is judged by itself, a sweep as the best of its rows. Everything that was ever tried on
the market counts, by the ledger of trials; what judging itself runs does not. Sharpe ratios are
annual, probabilities from 0 to 1, times UTC. The same run, ledger and seed give the same figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import pandas as pd

from research.backtesting import Backtest
from research.candles import Floats, iso
from research.errors import InputError, ParameterError
from research.evidence import checks
from research.evidence.benchmarks import AlphaBeta, Benchmark, alpha_beta, buy_and_hold
from research.evidence.bootstrap import TradeDraws, intervals, trade_monte_carlo
from research.evidence.counted import counted_luck, siblings_of, trials_on
from research.evidence.cross_validation import CrossValidation, cross_validate, margin_of
from research.evidence.daily_matrix import daily_matrix
from research.evidence.figures import figures_of
from research.evidence.lookahead import LookAhead, find_lookahead
from research.evidence.luck import Luck
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
from research.metrics import METRICS, finite
from research.params import Thresholds
from research.search import Sweep
from research.settings import load_settings
from research.trials import Trials

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Evidence", "judge"]

DRAWS: Final = 999
MOST_DRAWS: Final = 20_000
FOLDS: Final = 6
FEWEST_FOLDS: Final = 3
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

    Raises InputError for what is neither and where the extra ``evidence`` is not installed,
    ParameterError for a metric that there is not or that no row has, and what the ledger of trials
    raises where it cannot be read.
    """
    _require_askable(what, metric, seed)
    for field, given, kind in (("thresholds", thresholds, Thresholds), ("trials", trials, Trials)):
        if given is not None and not isinstance(given, kind):
            raise InputError(field=field, value=given, expected=f"{kind.__name__}, or None")
    _require_extra()
    asked = load_settings().promotion if thresholds is None else thresholds
    sweep = what if isinstance(what, Sweep) and len(what) > 1 else None
    run = what if isinstance(what, Backtest) else what.run(what.best(metric))
    daily = run.daily_returns.to_numpy()
    matrix = daily[np.newaxis] if sweep is None else daily_matrix(sweep).matrix
    known, head = trials_on(run) if trials is None else (trials, None)
    luck = counted_luck(daily, matrix, known)
    return Evidence(
        run=run,
        sweep=sweep,
        metric=metric,
        thresholds=asked,
        seed=seed,
        head=head,
        matrix=matrix,
        siblings=siblings_of(run, known),
        luck=luck,
        look_ahead=_looked_ahead(run, asked, seed),
        timing=_timed(run, luck, asked, seed),
        walk=_walked(sweep or run, metric),
        neighbours=None if sweep is None else plateau(sweep, run.strategy),
        costs=cost_sensitivity(run),
        breakeven=breakeven_factor(run),
        delays=delay_sensitivity(run),
        starts=start_sensitivity(run),
    )


def _require_askable(what: object, metric: str, seed: object) -> None:
    if not isinstance(what, Backtest | Sweep):
        raise InputError(
            field="what", value=what, expected="what backtest(...) or sweep(...) returned"
        )
    if metric not in METRICS:
        raise ParameterError(field="metric", value=metric, expected=f"one of {', '.join(METRICS)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ParameterError(field="seed", value=seed, expected="a whole number from 0 on")


def _require_extra() -> None:
    missing = [name for name in ("arch", "scipy", "skfolio") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"{', '.join(missing)} cannot be imported",
            field="judge",
            remedy="They come with the extra evidence: make install.",
        )


def _looked_ahead(run: Backtest, asked: Thresholds, seed: int) -> LookAhead | str:
    points = asked.look_ahead_points
    return _or_reason(lambda: find_lookahead(run.strategy, run.candles, points=points, seed=seed))


def _timed(run: Backtest, luck: Luck, asked: Thresholds, seed: int) -> RandomEntries | str:
    """As many draws as it takes to come well below the threshold after all the tries."""
    bound = asked.max_random_entry_p or 1.0
    draws = min(MOST_DRAWS, max(DRAWS, math.ceil(3 * luck.effective / bound) - 1))
    return _or_reason(lambda: random_entries(run, draws=draws, seed=seed))


def _walked(what: Backtest | Sweep, metric: str) -> WalkForward | str:
    """Walk-forward in as many windows as the record has room for, from six down to three."""
    reason = ""
    for folds in range(FOLDS, FEWEST_FOLDS - 1, -1):
        try:
            if isinstance(what, Backtest):
                return out_of_sample(what, folds)
            return walk_forward(what, folds=folds, metric=metric)
        except InputError as err:
            reason = str(err)
    return f"It cannot be said: {reason}"


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
    days; ``siblings`` how many other combinations of its strategy the ledger holds for its market.
    ``look_ahead``, ``walk`` and ``timing`` are a text where the record is too short for them. What
    only informs is computed when it is first asked for: ``overfitting``, ``superiority``,
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
    siblings: int
    luck: Luck
    look_ahead: LookAhead | str
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
            self._unseen(),
            checks.plateau(self.neighbours, asked.min_plateau),
            checks.costs(self.breakeven, asked.min_breakeven_cost),
            checks.delay(self.delayed_share, asked.min_delayed_share),
            checks.starts(
                self.start_share,
                len(self.starts) - 1,
                int(self.starts["halted"].iloc[1:].sum()),
                asked.min_start_share,
            ),
            checks.overfitting(self.overfitting, asked.max_overfitting),
            checks.superiority(self.superiority, asked.max_spa_p),
            checks.market(self.holding, self.market),
        )

    def _unseen(self) -> Verdict:
        least = self.thresholds.min_walk_forward_sharpe
        if self.sweep is None:
            return checks.part_by_part(self.walk, least, self.siblings)
        return checks.out_of_sample(self.walk, least, proposed=self.sweep.proposed)

    def as_of_now(self, thresholds: Thresholds) -> Evidence:
        """The same evidence by these thresholds and by what the project's ledger holds now.

        A handed-over count of trials, softer thresholds and tries that came later do not outlive
        it. Raises what the ledger of trials raises.
        """
        known, head = trials_on(self.run)
        luck = counted_luck(self.run.daily_returns.to_numpy(), self.matrix, known)
        again = replace(
            self,
            thresholds=thresholds,
            head=head,
            luck=luck,
            siblings=siblings_of(self.run, known),
        )
        if luck.effective > self.luck.effective:
            again = replace(again, timing=_timed(self.run, luck, thresholds, self.seed))
        if thresholds.look_ahead_points > self.thresholds.look_ahead_points:
            again = replace(again, look_ahead=_looked_ahead(self.run, thresholds, self.seed))
        return again

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
        """The share of later start dates from which it makes money; NaN without one."""
        later = self.starts.iloc[1:]
        return share_positive(later) if len(later) else math.nan

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
        return {name: finite(value) for name, value in figures_of(self).items()}

    @cached_property
    def judgement(self) -> Judgement:
        """What an artefact keeps of it."""
        closes = self.run.tape.close_time
        first = last = ""
        if self.sweep is not None and isinstance(self.walk, WalkForward):
            folds = self.walk.folds
            first = f"{folds['test_start'].iloc[0]:%Y-%m-%dT%H:%MZ}"
            last = f"{folds['test_end'].iloc[-1]:%Y-%m-%dT%H:%MZ}"
        return Judgement(
            digest=self.run.digest(named=False),
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
