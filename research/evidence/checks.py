"""The rules of judging: what each question found, held against params/promotion.yaml, in words.

Pure functions from a figure to a ``Verdict``. A figure that is undefined (NaN) does not pass what
is demanded of it. Sharpe ratios are annual, probabilities from 0 to 1.
"""

from __future__ import annotations

import math
from typing import Final

import pandas as pd

from research.evidence.benchmarks import AlphaBeta, Benchmark
from research.evidence.lookahead import LookAhead
from research.evidence.luck import Luck
from research.evidence.overfitting import Overfitting
from research.evidence.plateau import Plateau
from research.evidence.random_entries import RandomEntries
from research.evidence.superiority import Superiority
from research.evidence.verdicts import Verdict
from research.evidence.walk_forward import WalkForward
from research.metrics import finite

__all__ = [
    "after_tries",
    "costs",
    "delay",
    "halt",
    "look_ahead",
    "luck",
    "market",
    "out_of_sample",
    "overfitting",
    "part_by_part",
    "plateau",
    "starts",
    "superiority",
    "timing",
    "trades",
]

# Fewer days than a month have no Sharpe ratio worth the name.
FEWEST_DAYS: Final = 30


def look_ahead(found: LookAhead | str) -> Verdict:
    """Signals must not depend on bars after them, nor the warm-up be declared too short."""
    if isinstance(found, str):
        return Verdict(
            check="look-ahead", passed=False, value=None, demanded="none allowed", said=found
        )
    return Verdict(
        check="look-ahead",
        passed=found.is_clean,
        value=float(len(found.faults)),
        demanded="none allowed",
        said=found.message,
    )


def trades(ended: int, least: int) -> Verdict:
    said = f"{ended:,} round trips have ended."
    return _at_least("trades", ended, least, said)


def halt(halted_at: pd.Timestamp | None, allowed: bool) -> Verdict:
    said = "The kill switch never tripped."
    if halted_at is not None:
        said = f"The kill switch tripped at {halted_at:%Y-%m-%dT%H:%MZ}; nothing was bought after."
    demanded = "" if allowed else "none allowed"
    passed = None if allowed else halted_at is None
    value = float(halted_at is not None)
    return Verdict(check="halt", passed=passed, value=value, demanded=demanded, said=said)


def luck(found: Luck, least: float | None) -> Verdict:
    tried = (
        "Nothing else was tried on this market"
        if found.tries == 1
        else f"{found.tries:,} were tried on this market, {found.effective:,} of them different"
    )
    if found.days < FEWEST_DAYS:
        said = f"A record of {found.days:,} days says nothing: {FEWEST_DAYS} are the least."
        return _at_least("luck", math.nan, least, said)
    if math.isnan(found.sharpe):
        said = "Its equity does not move, so that it has no Sharpe ratio."
        return _at_least("luck", found.probability, least, said)
    tried = (
        "Nothing else was tried on this market"
        if found.tries == 1
        else f"{found.tries:,} were tried on this market, {found.effective:,} of them different"
    )
    if math.isnan(found.sharpe):
        said = "Its equity does not move, so that it has no Sharpe ratio."
        return _at_least("luck", found.probability, least, said)
    said = (
        f"Sharpe ratio {found.sharpe:.2f} a year over {found.days:,} days. {tried}: luck alone "
        f"reaches {found.best_by_luck:.2f}, and the confidence that the true one is above that is "
        f"{found.probability:.1%} (deflated Sharpe ratio)."
    )
    return _at_least("luck", found.probability, least, said)


def after_tries(p_value: float, effective: float) -> float:
    """The probability that the best of ``effective`` independent tries has so low a p value.

    Z. Sidak, Rectangular confidence regions for the means of multivariate normal distributions,
    Journal of the American Statistical Association 62 (1967): 1 - (1 - p)^n.
    """
    return -math.expm1(effective * math.log1p(-p_value)) if p_value < 1.0 else 1.0


def timing(found: RandomEntries | str, effective: int, most: float | None) -> Verdict:
    if isinstance(found, str):
        return _unasked("timing", most, "at most", found)
    draws = len(found.sharpes)
    value, lowest = after_tries(found.p_value, effective), after_tries(1 / (1 + draws), effective)
    if most is not None and lowest > most:
        why = (
            f"It cannot be said: its window has room for {draws:,} other times, and none of them "
            f"doing as well would still be {lowest:.3f} as the best of {effective:,}."
        )
        return _unasked("timing", most, "at most", why)
    as_good = round(found.p_value * (1 + draws)) - 1
    said = (
        f"The same positions at {draws:,} other times did as well {as_good:,} times: "
        f"p {found.p_value:.3f}, and {value:.3f} as the best of {effective:,}."
    )
    if found.halted > 0.0:
        said += f" {found.halted:.0%} of them reached the drawdown limit and stood still after."
    return _at_most("timing", value, most, said)


def out_of_sample(found: WalkForward | str, least: float | None, proposed: bool) -> Verdict:
    """For a sweep: what choosing on the past earned on what followed."""
    said = "Chosen anew on the past and traded on what followed"
    if proposed:
        said += " (among rows that a search proposed which had seen all of it)"
    return _on_windows("out of sample", said, found, least)


def part_by_part(found: WalkForward | str, least: float | None, siblings: int) -> Verdict:
    """For a lone run, of which nothing is held out: what it earned in its later parts.

    It fails where the ledger holds ``siblings``, other combinations of the same strategy: it was
    chosen among them, which only the sweep can be judged for.
    """
    parts = 0 if isinstance(found, str) else len(found.folds)
    said = f"Nothing is held out of a lone run; the last {parts} of its {parts + 3} parts"
    if siblings:
        said = f"{siblings:,} other combinations of it were tried: judge the sweep. By itself"
    told = _on_windows("part by part", said, found, least)
    chosen = siblings > 0 and least is not None
    return told.model_copy(update={"passed": False}) if chosen else told


def _on_windows(check: str, how: str, found: WalkForward | str, least: float | None) -> Verdict:
    if isinstance(found, str):
        return _unasked(check, least, "at least", found)
    if math.isnan(found.sharpe):
        return _at_least(check, found.sharpe, least, "It never traded in its later windows.")
    gained = int((found.folds["test_return"] > 0).sum())
    said = (
        f"{how}, in {len(found.folds)} windows, {gained} of which gained: Sharpe ratio "
        f"{found.sharpe:.2f} a year."
    )
    return _at_least(check, found.sharpe, least, said)


def plateau(found: Plateau | None, least: float | None) -> Verdict:
    if found is None or not len(found.neighbours):
        why = "A lone run has no neighbours." if found is None else "It has no neighbours."
        return Verdict(check="plateau", passed=None, value=None, demanded="", said=why)
    if not found.value > 0:
        said = "Its Sharpe ratio is not above zero, so that there is no plateau to stand on."
        return _at_least("plateau", found.score, least, said)
    said = (
        f"The median Sharpe ratio of its neighbours ({len(found.neighbours)}) is "
        f"{found.median:.2f} beside its own {found.value:.2f}; {found.positive:.0%} of them are "
        "above zero."
    )
    return _at_least("plateau", found.score, least, said)


def costs(breakeven: float, least: float | None) -> Verdict:
    if math.isnan(breakeven):
        said = (
            "There is no cost to multiply: it never traded, or its account has none; give it some."
        )
    elif math.isinf(breakeven):
        said = "It makes money at every cost that was tried."
    elif breakeven <= 0:
        said = "It makes no money even without fee and slippage."
    else:
        said = f"It makes money up to {breakeven:.1f} times its fee and slippage."
    return _at_least("costs", breakeven, least, said)


def delay(share: float, least: float | None) -> Verdict:
    said = f"Acting one bar later leaves {share:.0%} of its Sharpe ratio."
    if math.isnan(share):
        said = "Its Sharpe ratio is not above zero, or it never traded when acting one bar later."
    return _at_least("delay", share, least, said)


def starts(share: float, dates: int, halted: int, least: float | None) -> Verdict:
    said = f"Begun at {dates} later dates it makes money from {share:.0%} of them."
    if halted:
        said += f" {halted} of them reached the drawdown limit and stood still after."
    if math.isnan(share):
        said = "It cannot be begun later: too few bars follow its warm-up."
    return _at_least("start", share, least, said)


def overfitting(found: Overfitting | str | None, most: float | None) -> Verdict:
    if found is None:
        why = "A lone run was not chosen among others."
        return Verdict(check="overfitting", passed=None, value=None, demanded="", said=why)
    if isinstance(found, str):
        return _unasked("overfitting", most, "at most", found)
    said = (
        f"Over {len(found.logits):,} ways to halve the days, the best row of one half is below the "
        f"median of the other in {found.pbo:.0%} (PBO), and loses there in "
        f"{found.loss_probability:.0%}."
    )
    return _at_most("overfitting", found.pbo, most, said)


def superiority(found: Superiority | str, most: float | None) -> Verdict:
    if isinstance(found, str):
        return _unasked("superiority", most, "at most", found)
    said = (
        f"If no row were better than cash, the best would look as good with p "
        f"{found.consistent:.3f} (Hansen's SPA; White's reality check {found.reality_check:.3f})."
    )
    return _at_most("superiority", found.consistent, most, said)


def market(held: Benchmark, line: AlphaBeta | str) -> Verdict:
    if math.isnan(held.excess_sharpe):
        said = "Its equity or its market does not move: there is nothing to compare."
        return _at_least("market", held.excess_sharpe, None, said)
    said = (
        f"Holding its symbols has a Sharpe ratio of {held.full.sharpe:.2f} by bar returns, "
        f"{abs(held.excess_sharpe):.2f} {'below' if held.excess_sharpe >= 0 else 'above'} that of "
        "the run."
    )
    if not isinstance(line, str) and math.isfinite(line.alpha_t):
        said += (
            f" Against the market: beta {line.beta:.2f}, alpha {line.alpha:+.1%} a year "
            f"(t {line.alpha_t:.1f})."
        )
    return _at_least("market", held.excess_sharpe, None, said)


def _at_least(check: str, value: float, least: float | None, said: str) -> Verdict:
    passed = None if least is None else bool(value >= least)  # False for NaN
    demanded = "" if least is None else f"at least {least:g}"
    return Verdict(check=check, passed=passed, value=finite(value), demanded=demanded, said=said)


def _at_most(check: str, value: float, most: float | None, said: str) -> Verdict:
    passed = None if most is None else bool(value <= most)
    demanded = "" if most is None else f"at most {most:g}"
    return Verdict(check=check, passed=passed, value=finite(value), demanded=demanded, said=said)


def _unasked(check: str, bound: float | None, kind: str, why: str) -> Verdict:
    """What could not be found out fails where something is demanded of it."""
    demanded = "" if bound is None else f"{kind} {bound:g}"
    passed = None if bound is None else False
    return Verdict(check=check, passed=passed, value=None, demanded=demanded, said=why)
