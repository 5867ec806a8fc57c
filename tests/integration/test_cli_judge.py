"""The commands `candlebook judge`, `promote` with its gate, `verify` and `reproduce`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cli_project import UNJUDGED, candlebook, document, shown

GRID = ("--grid", "fast=5,10", "--grid", "slow=30,40")
RUN = ("--strategy", "sma_trend", "--why", "a test")


def test_judge_says_a_verdict_a_check_in_words_and_as_json(home: Path) -> None:
    said = document("judge", "sma_trend", *GRID)
    text = shown("judge", "sma_trend", *GRID)
    assert said["failed"] == [one["check"] for one in said["verdicts"] if one["passed"] is False]
    assert f"REFUSED by {', '.join(said['failed'])}" in text
    for one in said["verdicts"]:
        assert one["said"] in text
    assert said["trials"] >= 4
    assert said["head"]["ledger"]
    assert said["statistics"]["deflated_sharpe"] is not None


def test_what_is_judged_counts_and_the_judging_does_not(home: Path) -> None:
    before = document("trials")["trials"]
    document("judge", "sma_trend", *GRID)
    once = document("trials")["trials"]
    assert once - before == 4
    document("judge", "sma_trend", *GRID)
    assert document("trials")["trials"] == once


def test_promote_refuses_what_fails_and_writes_nothing(home: Path) -> None:
    done = candlebook("promote", "luck", *RUN)
    assert done.exit_code == 5
    assert "luck: it fails " in done.stderr
    assert "--override" in done.stderr
    assert not (home / "params/promoted/luck.yaml").exists()


def test_an_override_promotes_it_and_every_list_shows_the_reason(home: Path) -> None:
    said = document("promote", "luck", *RUN, "--override", "to see it run", "--who", "Ada")
    assert said["override"]["why"] == "to see it run"
    assert said["override"]["failed"] == [
        one["check"] for one in said["judgement"]["verdicts"] if one["passed"] is False
    ]
    assert any("Promoted by Ada against" in one for one in said["warnings"])
    assert document("verify", "luck")["override"] == said["override"]
    listed = shown("artefacts")
    assert f"overridden: {', '.join(said['override']['failed'])}" in listed
    assert "not judged" in listed


@pytest.mark.parametrize("given", [("--unjudged",), ("--override", " "), (*UNJUDGED[:1],)])
def test_an_override_needs_a_reason(home: Path, given: tuple[str, ...]) -> None:
    done = candlebook("promote", "luck", *RUN, *given)
    assert done.exit_code == 2
    assert "override" in done.stderr
    assert "a reason, in words" in done.stderr


def test_reproduce_runs_it_again_and_verify_does_not(home: Path) -> None:
    said = document("reproduce", "trend")
    assert said["orders"] > 0
    assert len(said["digest"]) == 64
    assert "came out the same again" in shown("reproduce", "trend")
    assert "digest" not in document("verify", "trend")


def test_a_ledger_that_was_begun_anew_is_found_by_what_was_judged_by_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "own.db"
    monkeypatch.setenv("CANDLEBOOK_TRIALS", str(ledger))
    document("backtest", "sma_trend", "--param", "fast=7")
    document("promote", "luck", *RUN, "--override", "a test")
    assert document("trials", "--check")["artefacts"] == ["luck"]
    file = home / "params/promoted/trend.yaml"
    whole = file.read_text()
    file.write_text(whole.replace("why: a test", "why: another"))
    assert document("trials", "--check")["unread"] == ["trend (its file was changed)"]
    assert "Not asked: trend (its file was changed)." in shown("trials", "--check")
    file.write_text(whole)
    monkeypatch.setenv("CANDLEBOOK_TRIALS", str(tmp_path / "another.db"))
    document("backtest", "sma_trend")
    assert document("trials", "--check")["unread"] == [f"luck (judged by {ledger})"]
    assert f"(by {ledger})" in shown("artefacts")
    monkeypatch.setenv("CANDLEBOOK_TRIALS", str(ledger))
    for file in tmp_path.glob("own.db*"):
        file.unlink()
    document("backtest", "sma_trend")
    done = candlebook("trials", "--check")
    assert done.exit_code == 6
    assert "not the one that luck was judged by" in done.stderr


def test_the_thresholds_are_those_of_the_project(home: Path) -> None:
    file = home / "params/promotion.yaml"
    names = ("min_deflated_sharpe", "max_random_entry_p", "min_walk_forward_sharpe", "min_plateau")
    names = (*names, "min_breakeven_cost", "min_delayed_share", "min_start_share")
    lines = [
        f"  {line.split(':')[0].strip()}: null" if line.strip().startswith(names) else line
        for line in file.read_text().splitlines()
    ]
    file.write_text("\n".join(lines).replace("min_trades: 30", "min_trades: 1"))
    said = document("judge", "sma_trend")
    assert said["failed"] == []
    assert document("promote", "free", *RUN)["override"] is None
    file.write_text(file.read_text().replace("min_trades: 1", "min_trades: 0"))
    done = candlebook("judge", "sma_trend")
    assert done.exit_code == 2
    assert "params/promotion.yaml: promotion.min_trades" in done.stderr
