"""The commands of the README, run in the order in which they are printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from research.candles import utc_ms
from research.history import History
from research.synthetic import synthetic_candles
from tests.integration.cli_project import ROOT, SYMBOLS, candlebook

BLOCK = re.compile(r"## From an idea to paper\n\n```bash\n(.*?)```", re.DOTALL)


def printed() -> list[str]:
    """The commands as they are printed, without the remarks beside them."""
    found = BLOCK.search((ROOT / "README.md").read_text("utf-8"))
    assert found is not None
    lines = (re.sub(r"\s+#.*", "", line) for line in found.group(1).splitlines())
    return [line for line in lines if line]


def test_the_way_from_an_idea_to_paper_works_as_printed(
    new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(new_home)
    store = History(new_home / "data" / "history")
    # In place of the fetch: fewer bars, and as there, some of them after what --end leaves out.
    for one in synthetic_candles(SYMBOLS, "1h", utc_ms("2025-07-01"), 24 * 100):
        store.append("binance", one, "binance")
    done = []
    for line in printed():
        if "history fetch" in line or "paper run" in line:
            continue  # these want an exchange
        args = shlex.split(line.replace("--bars 48", "--bars 2"))[1:]
        result = candlebook(*args)
        never_run = args == ["parity", "trend"]
        assert result.exit_code == (2 if never_run else 0), (line, result.output)
        done.append(args[0])
    assert done == ["backtest", "sweep", "promote", "reset", "paper", "parity", "reset", "parity"]
    assert (new_home / "run.html").is_file()


def test_the_readme_of_a_notebook_and_of_the_command_promote_under_different_names() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    in_notebook = set(re.findall(r'rs\.promote\(\w+, "(\w+)"', text))
    by_command = {shlex.split(line)[2] for line in printed() if line.startswith("candlebook prom")}
    assert in_notebook
    assert by_command
    assert not in_notebook & by_command
