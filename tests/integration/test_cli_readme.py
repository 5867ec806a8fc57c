"""The commands of the README, run in the order in which they are printed."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

import pytest

from live.replay import ReplayExchange
from research.candles import utc_ms
from research.history import History
from research.settings import load_settings
from research.synthetic import synthetic_candles
from tests.integration.cli_project import HOUR, ROOT, SYMBOLS, candlebook

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
    # An exchange that is open now, with candles up to this hour and beyond.
    now, listed = int(time.time() * 1000), utc_ms("2025-07-01")
    candles = synthetic_candles(SYMBOLS, "1h", listed, (now - listed) // HOUR + 3)
    filters = load_settings(new_home).account(SYMBOLS).filters
    assert filters is not None
    done = []
    with ReplayExchange([candles], filters, now, speed=1.0) as exchange:
        monkeypatch.setenv("CANDLEBOOK_EXCHANGE_URL", exchange.url)
        for line in printed():
            args = shlex.split(line.replace("--bars 48", "--bars 2"))[1:]
            result = candlebook(*args)
            assert result.exit_code == 0, (line, result.output)
            done.append(" ".join(args[:2]))
    assert [one for one in done if one.startswith(("history", "paper"))] == [
        *("history fetch", "paper replay", "paper run")
    ]
    assert done[-1] == "parity trend"
    assert (new_home / "run.html").is_file()
    stored = History(new_home / "data/history").read("binance", "BTCUSDT", "1h")
    own = candles["BTCUSDT"].between(None, int(stored.ts[-1]) + 1)
    assert stored.digest() == own.digest()


def test_the_readme_of_a_notebook_and_of_the_command_promote_under_different_names() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    in_notebook = set(re.findall(r'rs\.promote\(\w+, "(\w+)"', text))
    by_command = {shlex.split(line)[2] for line in printed() if line.startswith("candlebook prom")}
    assert in_notebook
    assert by_command
    assert not in_notebook & by_command
