"""Random draws, TPE, constraints, daily returns and the equity of the best, by the command."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from research.daily_file import read_returns
from research.errors import InputError
from tests.integration.cli_project import candlebook, document, shown

SWEEP = ("sweep", "SmaCrossover", "--symbols", "ETHUSDT")
GRID = ("--grid", "fast=5:20:5", "--grid", "slow=10:60:10")


def rows(found: dict[str, Any]) -> list[tuple[int, int]]:
    return [(one["fast"], one["slow"]) for one in found["rows"]]


@pytest.mark.parametrize("how", ["--draws", "--tpe"])
def test_a_seed_says_what_is_tried(home: Path, how: str) -> None:
    asked = (*SWEEP, *GRID, how, "9", "--seed")
    found = document(*asked, "7")
    assert document(*asked, "7") == found
    assert document(*asked, "8")["rows"] != found["rows"]
    assert 0 < found["runs"] <= 9
    whole = {(one["fast"], one["slow"]): one for one in _every_row()}
    for one in found["rows"]:
        assert one == whole[one["fast"], one["slow"]]


def _every_row() -> list[dict[str, Any]]:
    found = document(*SWEEP, *GRID, "--top", "100")
    assert (found["runs"], found["skipped"]) == (20, 4)
    rows: list[dict[str, Any]] = found["rows"]
    assert len(rows) == 20
    return rows


def test_a_constraint_leaves_out_what_breaks_it(home: Path) -> None:
    asked = (*SWEEP, *GRID, "--constraint", "fast * 2 <= slow", "--constraint", "slow < 60")
    found = document(*asked, "--top", "100")
    assert sorted(rows(found)) == sorted(
        (fast, slow) for fast in range(5, 21, 5) for slow in range(10, 60, 10) if fast * 2 <= slow
    )
    assert found["skipped"] == 24 - found["runs"]
    assert f"{found['skipped']} that are not allowed" in shown(*asked)


def test_returns_and_the_equity_of_the_best_are_kept_beside_the_table(home: Path) -> None:
    csv, folder = home / "out" / "sweep.csv", home / "returns"
    asked = (*SWEEP, *GRID, "--csv", str(csv), "--returns", str(folder), "--top", "3")
    found = document(*asked)
    days, matrix, parameters = read_returns(folder)
    assert len(parameters) == len(matrix) == found["runs"] == 20
    assert found["returns"] == str(folder)
    assert found["equity"] == str(csv.parent / "sweep.top.parquet")
    equity = pd.read_parquet(found["equity"])
    assert list(equity) == [f"fast={fast} slow={slow}" for fast, slow in rows(found)]
    assert equity.iloc[-1].tolist() == [one["final_equity"] for one in found["rows"]]
    daily = equity.resample("1D").last().pct_change().iloc[1:]
    best = parameters.apply(tuple, axis=1).tolist().index(rows(found)[0])
    assert matrix[best][1:] == pytest.approx(daily.iloc[:, 0].to_numpy(), abs=1e-14)
    assert len(days) == 31
    text = shown(*asked)
    for path in (csv, folder, found["equity"]):
        assert str(path) in text


def test_only_what_was_asked_for_is_written(home: Path) -> None:
    before = set(home.rglob("*"))
    found = document(*SWEEP, *GRID, "--top", "3")
    assert (found["csv"], found["returns"], found["equity"]) == (None, None, None)
    assert len(found["rows"]) == 3
    assert document(*SWEEP, *GRID, "--csv", str(home / "sweep.csv"))["equity"] is None
    written = {path.name for path in set(home.rglob("*")) - before}
    assert {name for name in written if not name.startswith("trials.db")} == {"sweep.csv"}
    alone = document(*SWEEP, *GRID, "--tpe", "5", "--returns", str(home / "r"), "--top", "1")
    assert alone["equity"] == str(home / "r.top.parquet")
    assert len(read_returns(home / "r").matrix) == alone["runs"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--draws", "3", "--tpe", "3"), "two ways to search"),
        (("--seed", "3"), "--seed: nothing is drawn. It goes with --draws or --tpe."),
        (("--tpe", "3", "--resume", "kept"), "--resume: what TPE proposes"),
        (("--draws", "0"), "--draws"),
        (("--constraint", "fast"), "--constraint: expected a comparison of parameters"),
        (("--constraint", "fsat < 3"), "--constraint: expected one of fast, slow"),
        (("--constraint", "fast / 0 < 3"), "it failed with ZeroDivisionError"),
        (("--constraint", "fast > slow"), "strategy and constraint allow"),
        (("--returns", "README.md/x"), "returns: expected a folder that can be written"),
        (("--returns", "params"), "returns: expected an empty folder"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(
    home: Path, args: tuple[str, ...], said: str
) -> None:
    (home / "README.md").write_text("a file")
    before = set(home.rglob("*"))
    placed = [str(home / one) if option == "--returns" else one for option, one in pairwise(args)]
    done = candlebook(*SWEEP, *GRID, args[0], *placed)
    assert done.exit_code == InputError.exit_code
    assert said in " ".join(done.stderr.split())
    assert set(home.rglob("*")) == before
