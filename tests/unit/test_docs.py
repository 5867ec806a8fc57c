"""What the documents say is so: links lead somewhere, commands exist, the example runs."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from live.cli import main
from live.replay import FAULTS, ReplayExchange
from live.replay.faults import SERVER_ERRORS
from research import cluster
from research.account import Filters
from research.candles import utc_ms
from research.errors import CandlebookError
from research.risk import CODES
from research.strategy import compute_targets, strategy_class
from research.synthetic import synthetic_candles

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
# A strategy of one's own needs no page to leave the tests green.
SHIPPED = (
    *("bollinger_reversion", "buy_and_hold", "calm_trend", "donchian_breakout", "ema_crossover"),
    *("macd_trend", "momentum_rotation", "rsi_reversal", "sma_crossover"),
)
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "knowledge").rglob("*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_that_are_there(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


def commands(text: str) -> list[str]:
    """The commands in a document's blocks and in its lines, without what is set before them."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`(candlebook [^`…]+)`", text)
    bare = [re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line) for line in (*lines, *inline)]
    return [line for line in bare if line.startswith("candlebook ")]


COMMANDS = [line for path in DOCUMENTS for line in commands(path.read_text("utf-8"))]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_in_a_document_exists_with_its_options(line: str) -> None:
    command: click.Command = main
    context = click.Context(main)
    words = shlex.split(line)[1:]
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words[0])
        assert found is not None, f"{line}: no command {words[0]}"
        command, words = found, words[1:]
    known = {name for one in command.params for name in one.opts}
    assert {word for word in words if word.startswith("--")} <= known | {"--help"}


def test_the_readme_has_commands_to_check() -> None:
    assert len(commands(README)) >= 8


def test_make_targets_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE))
    assert named <= targets
    assert {"demo", "test", "lab", "bench"} <= named


def test_the_example_strategy_in_the_readme_is_a_whole_file_that_runs_and_is_causal() -> None:
    text = re.search(r"```python\n(from dataclasses.*?)```", README, re.DOTALL)
    assert text is not None
    names: dict[str, Any] = {"__name__": __name__}
    # Without this module's own __future__ import, which a reader's file does not have.
    exec(compile(text.group(1), "breakout.py", "exec", dont_inherit=True), names)  # noqa: S102
    assert "confidence" in names["Breakout"].__doc__.lower()
    candles = synthetic_candles(("AAAUSDT",), "1h", utc_ms("2024"), 600)
    strategy = names["Breakout"](window=20)
    (answer,) = compute_targets(strategy, candles)
    whole = answer.target
    assert [strategy.reasons[i] for i in answer.reason[:20]] == ["not ready"] * 20
    assert 0 not in answer.reason[20:]
    (part,) = compute_targets(strategy, candles.between(None, int(candles.clock()[400])))
    assert np.array_equal(part.target, whole[:400], equal_nan=True)
    assert {0.0, 1.0} <= set(whole[~np.isnan(whole)])


def test_the_table_of_reason_codes_is_the_engines() -> None:
    rows = [f"| `{name}` | {meaning} |" for name, meaning in CODES.values()]
    table = "\n".join(["| code | meaning |", "|---|---|", *rows])
    page = (ROOT / "knowledge" / "reason_codes.md").read_text("utf-8")
    assert table in page, f"knowledge/reason_codes.md should hold\n{table}"


def test_the_table_of_faults_is_the_replay_exchange_s() -> None:
    page = (ROOT / "knowledge" / "replay_exchange.md").read_text("utf-8")
    family = " ".join(map(str, SERVER_ERRORS))
    assert f"| `status_` and one of {family} | a server error |" in page
    for kind, what in FAULTS.items():
        if kind.removeprefix("status_") not in map(str, SERVER_ERRORS):
            assert f"| `{kind}` | {what} |" in page


def test_the_ccxt_example_of_the_replay_exchange_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "knowledge" / "replay_exchange.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    candles = synthetic_candles(("BTCUSDT",), "1h", utc_ms("2024"), 50)
    now = utc_ms("2024-01-02T12:10")
    with ReplayExchange([candles], {"BTCUSDT": Filters(tick="0.01")}, now) as exchange:
        assert "http://127.0.0.1:8790" in example
        exec(example.replace("http://127.0.0.1:8790", exchange.url), {})  # noqa: S102
        last = exchange.market.price("BTCUSDT", now)
    assert capsys.readouterr().out == f"{last} closed\n"


def test_the_sizes_of_chunks_are_those_of_a_sweep() -> None:
    page = (ROOT / "knowledge" / "sweeps_on_many_machines.md").read_text("utf-8")
    said = " ".join(page.split())
    assert f"at most {cluster.BARS_A_CHUNK // 10**6} million bars of work" in said
    assert f"at most {cluster.BYTES_AN_ANSWER // 2**20} MiB of daily returns" in said
    assert f"each worker gets {cluster.CHUNKS_A_WORKER} of them" in said
    table = re.findall(r"^\| ([\d,]+) \(.*?\) \| ([\d,]+) \| ([\d,]+) \|$", page, re.MULTILINE)
    rows = [[int(one.replace(",", "")) for one in row] for row in table]
    assert len(rows) == 3
    for bars, large, small in rows:
        assert cluster.rows_a_chunk(10**9, bars, 16) == large
        assert cluster.rows_a_chunk(10_000, bars, 16) == small


def test_every_exit_code_is_in_the_readme() -> None:
    codes = {cls.exit_code for cls in CandlebookError.__subclasses__()}
    paragraph = README[README.index("Exit codes:") :].split("\n\n")[0]
    assert codes <= {int(number) for number in re.findall(r"\d+", paragraph)}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_strategy_has_its_page(name: str) -> None:
    cls = strategy_class(name)
    page = (ROOT / "knowledge" / "strategies" / f"{name}.md").read_text("utf-8")
    for parameter in (spec.name for spec in dataclasses.fields(cls)):
        assert f"`{parameter}`" in page, f"{name}: {parameter}"


def test_the_shipped_strategies_are_those_under_version_control() -> None:
    asked = ["git", "ls-files", "research/strategies/*.py"]
    try:
        done = subprocess.run(asked, cwd=ROOT, text=True, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and the project's repository")
    assert {Path(line).stem for line in done.stdout.split()} - {"__init__"} == set(SHIPPED)
