"""Judging a run, and what becomes of it when it is promoted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import research.evidence.judge as judge_module
from research import backtesting
from research.account import Account, Limits
from research.artefact import load_artefact
from research.backtesting import backtest
from research.candles import utc_ms
from research.errors import ArtefactTampered, InputError, ParameterError, PromotionRefused
from research.evidence import checks
from research.evidence.judge import Evidence, judge
from research.evidence.lookahead import LookAhead, LookAheadFault
from research.evidence.luck import luck_of
from research.evidence.planted import Market, candles_of
from research.evidence.sharpe import deflated_sharpe_of
from research.evidence.verdicts import Verdict
from research.params import Thresholds
from research.promotion import promote
from research.search import Sweep, sweep
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import compute_targets
from research.tpe import optimise
from research.trial_ledger import tried
from research.trials import Trials, trials_of

BARS = 15_000
NOW = utc_ms("2025-01-01")
GRID = {"fast": (10, 20, 30), "slow": (80, 100, 120)}
ASKED = Thresholds(look_ahead_points=100)
NOTHING_TRIED = trials_of([])


@pytest.fixture(autouse=True)
def own_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger of trials that holds nothing of other tests."""
    monkeypatch.setenv("CANDLEBOOK_TRIALS", str(tmp_path / "ledger" / "trials.db"))


def swept(trend: float, seed: int = 1) -> Sweep:
    candles = candles_of(Market("a test", trend=trend), seed, BARS)
    return sweep(SmaCrossover, candles, Account(limits=Limits()), progress=False, **GRID)


def judged(found: Sweep, trials: Trials = NOTHING_TRIED) -> Evidence:
    return judge(found, thresholds=ASKED, trials=trials)


@pytest.fixture(scope="module")
def edge() -> Evidence:
    return judged(swept(trend=14.0))


@pytest.fixture(scope="module")
def noise() -> Evidence:
    return judged(swept(trend=0.0))


def verdict(found: Evidence, check: str) -> Verdict:
    return next(one for one in found.verdicts if one.check == check)


def test_a_strong_edge_passes_every_check_and_noise_does_not(
    edge: Evidence, noise: Evidence
) -> None:
    assert edge.passed, repr(edge)
    assert not noise.passed
    assert {"luck", "timing"} <= set(noise.judgement.failed)
    assert repr(edge).splitlines()[0].endswith("PASSED")
    assert "REFUSED by " in repr(noise).splitlines()[0]


def test_every_check_says_its_figure_and_what_is_demanded(edge: Evidence) -> None:
    for one in edge.verdicts:
        assert one.said.endswith(".")
        assert one.check in repr(edge)
        assert (one.passed is None) == (not one.demanded)
    checked = {one.check for one in edge.verdicts if one.passed is not None}
    assert len(checked) == 10


def test_the_same_run_ledger_and_seed_give_the_same_judgement(edge: Evidence) -> None:
    assert judged(swept(trend=14.0)).judgement == edge.judgement


def test_what_luck_reaches_grows_with_what_was_tried(edge: Evidence) -> None:
    daily = edge.run.daily_returns.to_numpy()
    reached = [luck_of(daily, n, n).best_by_luck for n in (1, 2, 10, 100, 10_000)]
    assert reached[0] == 0.0
    assert all(np.diff(reached) > 0)
    values = [luck_of(daily, n, n).probability for n in (1, 10, 10_000)]
    assert values == sorted(values, reverse=True)
    assert values[0] == luck_of(daily, 1, 1).above_zero


def test_the_deflated_ratio_is_that_of_the_paper_at_the_variance_of_chance(edge: Evidence) -> None:
    daily = edge.run.daily_returns.to_numpy()
    found = luck_of(daily, 50, 7)
    expected = deflated_sharpe_of(daily, 7, 1.0 / (len(daily) - 1))
    assert found.probability == pytest.approx(float(expected), abs=1e-12)
    spread = luck_of(daily, 50, 7, spread=0.4).by_spread
    assert spread == pytest.approx(float(deflated_sharpe_of(daily, 7, 0.4 / 365)), abs=1e-12)


def test_an_empty_ledger_still_counts_the_rows_at_hand(noise: Evidence) -> None:
    assert noise.luck.tries == len(noise.matrix) == 9
    assert 1 <= noise.luck.effective <= 9


def test_a_lone_backtest_is_judged_without_neighbours(edge: Evidence) -> None:
    found = judge(edge.run, thresholds=ASKED, trials=NOTHING_TRIED)
    assert found.luck.tries == found.luck.effective == 1
    for check in ("plateau", "overfitting"):
        assert verdict(found, check).passed is None
    assert verdict(found, "part by part").passed
    assert found.judgement.out_of_sample == ""
    assert found.cross_validation is None
    assert found.passed


def test_what_the_ledger_holds_counts_against_a_lone_backtest(edge: Evidence) -> None:
    """The sweep went through the door that counts; picking its best row by hand hides nothing."""
    found = swept(trend=14.0, seed=77)
    alone = backtest(found.best(), found.candles, found.account)
    counted = judge(alone, thresholds=ASKED)
    assert counted.luck.tries >= len(found)
    assert counted.luck.best_by_luck >= 0.0
    assert judge(alone, thresholds=ASKED, trials=NOTHING_TRIED).luck.tries == 1


def test_judging_is_not_counted_itself() -> None:
    found = swept(trend=3.0, seed=5)
    first = judge(found, thresholds=ASKED).luck.tries
    assert judge(found, thresholds=ASKED).luck.tries == first


def test_a_record_too_short_fails_and_says_why() -> None:
    candles = candles_of(Market("short"), 3, 120)
    account = Account(limits=Limits())
    found = judge(backtest(SmaCrossover(5, 20), candles, account), thresholds=ASKED)
    out = verdict(found, "part by part")
    assert out.passed is False
    assert out.value is None
    assert "too few" in out.said
    assert found.judgement.out_of_sample == ""


@pytest.mark.parametrize(
    ("threshold", "check"),
    [
        ({"min_deflated_sharpe": 1.0}, "luck"),
        ({"max_random_entry_p": 0.01}, "timing"),
        ({"min_walk_forward_sharpe": 99.0}, "out of sample"),
        ({"min_trades": 100_000}, "trades"),
        ({"min_plateau": 1.0}, "plateau"),
        ({"min_breakeven_cost": 1e6}, "costs"),
        ({"min_delayed_share": 9.0}, "delay"),
        ({"max_overfitting": 0.0}, "overfitting"),
        ({"max_spa_p": 0.0}, "superiority"),
    ],
)
def test_each_threshold_decides_its_check_and_null_takes_it_out(
    edge: Evidence, noise: Evidence, threshold: dict[str, float], check: str
) -> None:
    found = noise if check in ("costs", "overfitting", "superiority", "timing") else edge
    strict = replace(found, thresholds=ASKED.model_copy(update=threshold))
    assert verdict(strict, check).passed is False
    (name,) = threshold
    if name != "min_trades":
        free = replace(found, thresholds=ASKED.model_copy(update={name: None}))
        assert verdict(free, check).passed is None
        assert verdict(free, check).value == verdict(strict, check).value


def test_an_undefined_figure_does_not_pass() -> None:
    for said in (
        checks.delay(math.nan, 0.5),
        checks.costs(math.nan, 2.0),
        checks.starts(math.nan, 3, 0, 0.5),
    ):
        assert said.passed is False
        assert said.value is None


@pytest.mark.parametrize(("p", "tries"), [(0.001, 1), (0.01, 5), (0.3, 20), (1.0, 3)])
def test_the_p_value_after_tries_is_sidaks(p: float, tries: int) -> None:
    assert checks.after_tries(p, tries) == pytest.approx(1 - (1 - p) ** tries, abs=1e-12)


@pytest.mark.parametrize("given", ["trend", None, SmaCrossover()])
def test_what_is_no_run_is_refused(given: object) -> None:
    with pytest.raises(InputError, match="what: expected what backtest"):
        judge(given)  # type: ignore[arg-type]


def test_a_metric_that_there_is_not_is_refused(noise: Evidence) -> None:
    assert noise.sweep is not None
    with pytest.raises(ParameterError, match="metric"):
        judge(noise.sweep, metric="luck", thresholds=ASKED)


@pytest.mark.parametrize(
    ("given", "field"),
    [({"seed": -1}, "seed"), ({"seed": 1.5}, "seed"), ({"metric": "junk"}, "metric")],
)
def test_what_cannot_be_asked_is_refused_by_its_name(
    noise: Evidence, given: dict[str, object], field: str
) -> None:
    with pytest.raises(ParameterError, match=f"^{field}: "):
        judge(noise.run, thresholds=ASKED, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("lacking", ["arch", "scipy", "skfolio"])
def test_without_the_extra_it_says_what_is_missing(
    edge: Evidence, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    monkeypatch.setattr(judge_module, "find_spec", lambda name: None if name == lacking else name)
    with pytest.raises(InputError, match=f"judge: {lacking} cannot be imported.*extra evidence"):
        judge(edge.run, thresholds=ASKED)


def test_a_run_shorter_than_its_warm_up_fails_in_words() -> None:
    candles = candles_of(Market("short"), 1, 60)
    found = judge(backtest(SmaCrossover(5, 100), candles, Account(limits=Limits())))
    assert not found.passed
    assert "nan" not in repr(found)
    assert verdict(found, "look-ahead").passed is False
    assert verdict(found, "start").passed is False
    assert found.judgement.statistics["start_share"] is None


def test_with_many_tries_as_many_times_are_drawn_as_it_takes(edge: Evidence) -> None:
    """999 draws could never come below 0.05 after 60 tries: 1 - 0.999^60 is 0.058."""
    many = replace(edge.luck, effective=60)
    drawn = judge_module._timed(edge.run, many, ASKED, 0)
    assert not isinstance(drawn, str)
    assert len(drawn.sharpes) >= 3 * 60 / 0.05 - 1
    assert checks.timing(drawn, 60, 0.05).passed


def test_too_few_other_times_for_so_many_tries_cannot_be_said(edge: Evidence) -> None:
    assert not isinstance(edge.timing, str)
    few = replace(edge.timing, sharpes=edge.timing.sharpes[:100], p_value=1 / 101)
    said = checks.timing(few, 10, 0.05)
    assert said.passed is False
    assert "It cannot be said" in said.said
    assert "0.095 as the best of 10" in said.said
    assert checks.timing(few, 5, 0.05).passed


def test_a_lone_run_whose_like_was_swept_is_told_to_judge_the_sweep() -> None:
    found = swept(trend=14.0)
    alone = judge(found.run(), thresholds=ASKED)
    assert alone.siblings == len(found) - 1
    assert "judge the sweep" in verdict(alone, "part by part").said
    assert "judge the sweep" not in repr(judge(found, thresholds=ASKED))


def test_rows_that_a_search_proposed_are_said_to_have_been() -> None:
    candles = candles_of(Market("a test", trend=14.0), 1, BARS)
    account = Account(limits=Limits())
    found = optimise(SmaCrossover, candles, account, trials=6, seed=1, progress=False, **GRID)
    assert "had seen all of it" in verdict(judged(found), "out of sample").said


def test_a_changed_constant_is_another_trial_though_no_parameter_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    candles = candles_of(Market("a test", trend=5.0), 2, 3_000)
    run = backtest(SmaCrossover(10, 40), candles, Account(limits=Limits()))
    assert tried("BTCUSDT", "1h").raw == 1
    backtest(SmaCrossover(10, 40), candles, Account(limits=Limits()))
    assert tried("BTCUSDT", "1h").raw == 1
    before = SmaCrossover.target
    monkeypatch.setattr(
        backtesting, "compute_targets", lambda _, on: compute_targets(SmaCrossover(12, 40), on)
    )
    changed = backtest(SmaCrossover(10, 40), candles, Account(limits=Limits()))
    assert SmaCrossover.target is before
    assert changed.metrics != run.metrics
    assert tried("BTCUSDT", "1h").raw == 2


# Promotion


def test_softer_thresholds_and_a_handed_over_count_do_not_outlive_the_judging(
    noise: Evidence, tmp_path: Path
) -> None:
    soft = {
        "min_deflated_sharpe": None,
        "max_random_entry_p": None,
        "min_walk_forward_sharpe": None,
        "min_plateau": None,
        "min_breakeven_cost": None,
        "min_delayed_share": None,
        "min_start_share": None,
    }
    free = replace(noise, thresholds=Thresholds(look_ahead_points=10, min_trades=1, **soft))
    assert free.passed
    with pytest.raises(PromotionRefused, match=r"it fails .*luck"):
        promote(free, "trend", why="I like it", folder=tmp_path / "promoted")


def test_tries_that_came_after_the_judging_count(edge: Evidence, tmp_path: Path) -> None:
    assert edge.luck.tries == 9
    other = {"fast": (5, 15, 25), "slow": (200, 300)}
    candles = edge.run.candles
    sweep(SmaCrossover, candles, Account(limits=Limits()), progress=False, **other)
    artefact = promote(edge, "trend", why="a test", override="a test", folder=tmp_path / "promoted")
    assert artefact.judgement is not None
    assert artefact.judgement.trials >= 9
    assert artefact.judgement.head is not None
    sweep(SmaCrossover, candles, Account(limits=Limits()), progress=False, **GRID)
    again = promote(edge, "again", why="a test", override="a test", folder=tmp_path / "promoted")
    assert again.judgement is not None
    assert again.judgement.trials == 15
    assert again.judgement.head != artefact.judgement.head


@pytest.mark.parametrize("days", [0, -5, "9", 2.5, True, 3651])
def test_a_life_that_is_none_is_refused(edge: Evidence, tmp_path: Path, days: object) -> None:
    with pytest.raises(InputError, match="life_days: expected a whole number from 1 to 3650"):
        promote(edge, "trend", why="a test", folder=tmp_path, life_days=days)  # type: ignore[arg-type]


def test_the_row_of_a_sweep_does_not_pass_by_itself(edge: Evidence, tmp_path: Path) -> None:
    found = swept(trend=14.0)
    alone = judge(found.run(), thresholds=ASKED)
    assert alone.judgement.failed == ("part by part",)
    with pytest.raises(PromotionRefused, match="judge the sweep"):
        promote(alone, "trend", why="by itself", folder=tmp_path / "promoted")


def test_a_look_ahead_cannot_be_overridden(edge: Evidence, tmp_path: Path) -> None:
    assert isinstance(edge.look_ahead, LookAhead)
    fault = LookAheadFault("truncated", "BTCUSDT", 7, 0, "target", 1.0, 0.0, 0, "BTCUSDT close")
    peeking = replace(
        edge, thresholds=Thresholds(), look_ahead=replace(edge.look_ahead, faults=(fault,))
    )
    with pytest.raises(PromotionRefused, match="Nobody may override that"):
        promote(peeking, "trend", why="a try", override="I like it", folder=tmp_path / "promoted")
    assert not (tmp_path / "promoted").exists()


def test_a_sweep_of_one_row_is_a_lone_run() -> None:
    candles = candles_of(Market("a test"), 1, 3_000)
    account = Account(limits=Limits())
    found = sweep(SmaCrossover, candles, account, progress=False, fast=[10], slow=[40])
    said = judge(found, thresholds=ASKED)
    assert said.sweep is None
    assert verdict(said, "plateau").passed is None


@pytest.mark.parametrize("given", [{"thresholds": {"min_trades": 1}}, {"trials": []}])
def test_thresholds_and_trials_of_a_wrong_kind_are_refused(
    noise: Evidence, given: dict[str, object]
) -> None:
    (field,) = given
    with pytest.raises(InputError, match=f"^{field}: expected "):
        judge(noise.run, **given)  # type: ignore[arg-type]


def test_what_passes_is_promoted_with_its_judgement(edge: Evidence, tmp_path: Path) -> None:
    artefact = promote(edge, "trend", why="it passes", folder=tmp_path, now=NOW)
    assert artefact.judgement is not None
    assert artefact.judgement.verdicts[1:] == edge.judgement.verdicts[1:]
    assert "at 1,000 points" in artefact.judgement.verdicts[0].said
    assert artefact.judgement.digest == artefact.digests["orders"]
    assert artefact.override is None
    assert artefact.rows_tried == 9
    assert load_artefact("trend", tmp_path) == artefact
    assert "passed all 10 checks" in artefact._repr_html_()


def test_what_fails_is_refused_with_every_reason_and_nothing_is_written(
    noise: Evidence, tmp_path: Path
) -> None:
    with pytest.raises(PromotionRefused) as caught:
        promote(noise, "trend", why="I like it", folder=tmp_path, now=NOW)
    for one in noise.verdicts:
        if one.passed is False:
            assert one.check in str(caught.value)
            assert one.said in str(caught.value)
    assert "--override" in str(caught.value)
    assert caught.value.exit_code == 5
    assert not list(tmp_path.glob("*.yaml"))


def test_a_person_may_override_and_it_is_kept_and_shown(noise: Evidence, tmp_path: Path) -> None:
    artefact = promote(
        noise, "trend", why="a try", override=" I want to see it run ", folder=tmp_path, who="Ada"
    )
    assert artefact.override is not None
    assert artefact.override.failed == noise.judgement.failed
    assert (artefact.override.who, artefact.override.why) == ("Ada", "I want to see it run")
    assert "Promoted by Ada against luck" in artefact.warnings[0].replace("trades, ", "")
    assert "I want to see it run" in artefact._repr_html_()
    assert load_artefact("trend", tmp_path).override == artefact.override


def test_an_override_that_is_not_needed_is_not_noted(edge: Evidence, tmp_path: Path) -> None:
    artefact = promote(edge, "trend", why="it passes", override="just in case", folder=tmp_path)
    assert artefact.override is None


@pytest.mark.parametrize(
    "given", [{"unjudged": True}, {"override": "  "}, {"unjudged": True, "override": ""}]
)
def test_an_override_needs_a_reason(
    edge: Evidence, tmp_path: Path, given: dict[str, object]
) -> None:
    with pytest.raises(InputError, match=r"override: .*a reason, in words"):
        promote(edge, "trend", why="it passes", folder=tmp_path, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("judgement", "trials"), 1, "judgement"),
        (("judgement", "statistics", "deflated_sharpe"), 0.99, "judgement"),
        (("judgement", "verdicts", 3, "passed"), True, "judgement"),
        (("judgement", "thresholds", "min_trades"), 1, "judgement"),
        (("override",), None, "override"),
    ],
)
def test_a_verdict_that_was_changed_in_the_file_is_refused(
    noise: Evidence, tmp_path: Path, path: tuple[str | int, ...], value: object, field: str
) -> None:
    promote(noise, "trend", why="a try", override="a test", folder=tmp_path)
    file = tmp_path / "trend.yaml"
    content = yaml.safe_load(file.read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    assert inner[path[-1]] != value
    inner[path[-1]] = value
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ArtefactTampered, match=f"^trend: {field}"):
        load_artefact("trend", tmp_path)


def test_a_backtest_that_is_promoted_is_judged_first(noise: Evidence, tmp_path: Path) -> None:
    with pytest.raises(PromotionRefused, match="it fails"):
        promote(noise.run, "trend", why="I like it", folder=tmp_path)
