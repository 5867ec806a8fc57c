"""One change in what a promoted artefact depends on, and it is refused at start, by name.

In the file each part is changed as an editor would; in the world candles, code and libraries are.
Code is changed for real: in a copy of the project, of which a process of its own is started.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from live import kill_switch, runner
from live.paper import open_books, run_slot
from research.account import Account, Filters, Limits
from research.artefact import digest, load_artefact, sealed, sections, write_artefact
from research.backtesting import backtest
from research.candles import COLUMNS, Candles, CandleSet, iso, utc_ms
from research.errors import ArtefactTampered
from research.history import History
from research.promotion import promote, reproduce, verify
from research.settings import Settings, load_settings
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles

ROOT = Path(__file__).resolve().parents[2]
SYMBOLS = ("AAAUSDT", "BBBUSDT")
HOUR = 3_600_000
START = utc_ms("2024-01-01")
BARS = 400
FIRST = START + 360 * HOUR
NAME = "trend"

Content = dict[str, Any]


@pytest.fixture(scope="module")
def candles() -> CandleSet:
    return synthetic_candles(SYMBOLS, "1h", START, BARS)


def stored(settings: Settings, candles: CandleSet) -> None:
    history = History(settings.data_dir / "history")
    for one in candles:
        history.append("binance", one, "synthetic")


@pytest.fixture
def project(tmp_path: Path, candles: CandleSet, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A project of its own with one promoted strategy, ready to trade its first bar."""
    for folder in ("params", "notebooks"):
        ignored = shutil.ignore_patterns("promoted", ".ipynb*")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    monkeypatch.setenv("CANDLEBOOK_HOME", str(tmp_path))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    settings = load_settings()
    stored(settings, candles)
    filters = {name: Filters(lot_step="0.001", min_notional="5") for name in SYMBOLS}
    account = Account(limits=Limits(max_position_pct=30), filters=filters)
    run = backtest(SmaCrossover(3, 12), candles.between(None, FIRST - HOUR), account)
    promote(
        run,
        NAME,
        why="a test",
        override="a test",
        unjudged=True,
        folder=tmp_path / "params" / "promoted",
    )
    books = open_books(settings, "replay")
    kill_switch.reset(books, "a test", FIRST - 1, at=FIRST - 1)
    books.close()
    return settings


def start(settings: Settings) -> None:
    run_slot(NAME, iso(FIRST), "replay", settings)


def test_what_nobody_has_changed_starts_and_says_who_overrode_the_evidence(
    project: Settings,
) -> None:
    report = run_slot(NAME, iso(FIRST), "replay", project)
    assert "without having been judged: a test" in repr(report)


# In the file


def at(*path: str | int, to: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        inner: Any = content
        for key in path[:-1]:
            inner = inner[key]
        assert inner[path[-1]] != to
        inner[path[-1]] = to

    return change


IN_THE_FILE = {
    "a symbol": (at("market", "symbols", 0, to="ETHUSDT"), "market"),
    "the order of the symbols": (at("market", "symbols", to=list(SYMBOLS[::-1])), "market"),
    "the timeframe": (at("market", "timeframe", to="4h"), "market"),
    "a parameter": (at("strategy", "parameters", "fast", to=4), "strategy"),
    "the strategy's version": (at("strategy", "version", to=9), "strategy"),
    "a limit": (at("account", "limits", "max_position_pct", to=60.0), "account.limits"),
    "the fee": (at("account", "fee_rate", to=0.0), "account.fee_rate"),
    "a stop": (at("account", "stops", "stop_loss_pct", to=50.0), "account.stops"),
    "an exchange filter": (
        at("account", "filters", "AAAUSDT", "min_notional", to="1"),
        "account.filters",
    ),
    "the window": (at("window", "start", to="2024-01-02T00:00Z"), "window"),
    "a statistic": (at("metrics", "sharpe", to=3.0), "metrics"),
    "the override": (at("override", "why", to="it passed"), "override"),
    "the expiry": (at("expires_at", to="2099-01-01T00:00Z"), "seal"),
    "a library's version": (at("libraries", "numpy", to="1.0"), "libraries"),
    "a hash of code": (at("code", "research.engine", to="0" * 64), "code"),
    "the hash of the candles": (at("digests", "data", to="0" * 64), "seal"),
}


@pytest.mark.parametrize("what", IN_THE_FILE)
def test_a_change_in_the_file_is_refused_at_start_by_its_name(project: Settings, what: str) -> None:
    change, field = IN_THE_FILE[what]
    file = project.root / "params" / "promoted" / f"{NAME}.yaml"
    content = yaml.safe_load(file.read_text())
    change(content)
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ArtefactTampered, match=rf"^{NAME}: {field}") as caught:
        start(project)
    assert caught.value.exit_code == 5
    with pytest.raises(ArtefactTampered, match=rf"^{NAME}: {field}"):
        runner.run(NAME, iso(FIRST), "replay", project)
    assert not list((project.data_dir / "replays").rglob("report.ipynb"))


# Whoever can write the file can seal it again. What it says of trading is then found by running it.

SEALED_AGAIN = {
    "a parameter": (at("strategy", "parameters", "fast", to=4), "orders"),
    "a limit": (at("account", "limits", "max_position_pct", to=60.0), "orders"),
    "the fee": (at("account", "fee_rate", to=0.0), "orders"),
    "an exchange filter": (at("account", "filters", "AAAUSDT", "lot_step", to="1"), "orders"),
    "a statistic": (at("metrics", "sharpe", to=3.0), r"metrics\.sharpe"),
    "a library's version": (at("libraries", "numpy", to="1.0"), r"libraries\.numpy"),
    "a hash of code": (at("code", "research.engine", to="0" * 64), r"code\.research\.engine"),
    "the window": (at("window", "start", to="2024-01-02T00:00Z"), "data"),
    "a symbol": (at("market", "symbols", 0, to="ETHUSDT"), "market"),
}


@pytest.mark.parametrize("what", SEALED_AGAIN)
def test_a_file_that_was_sealed_again_is_not_reproduced(
    project: Settings, candles: CandleSet, what: str
) -> None:
    change, field = SEALED_AGAIN[what]
    folder = project.root / "params" / "promoted"
    before = load_artefact(NAME, folder)
    content = before.model_dump(mode="json")
    change(content)
    after = type(before)(**content)
    own = {key: digest(value) for key, value in sections(after)}
    after = sealed(after.model_copy(update={"digests": before.digests | own}))
    write_artefact(folder / f"{NAME}.yaml", after)
    loaded = load_artefact(NAME, folder)  # which finds nothing: the seal is right
    with pytest.raises(ArtefactTampered, match=rf"^{NAME}: {field}"):
        _verified_and_reproduced(loaded, candles)
    _verified_and_reproduced(before, candles)


def _verified_and_reproduced(artefact: Any, candles: CandleSet) -> None:
    verify(artefact, candles, utc_ms(artefact.promoted_at))
    reproduce(artefact, candles)


# In the world


@pytest.mark.parametrize("column", ["open", "high", "low", "close", "volume"])
def test_one_bit_of_one_stored_candle_is_refused_at_start(
    project: Settings, candles: CandleSet, column: str
) -> None:
    first = candles.series[0]
    columns = {name: np.array(getattr(first, name)) for name in COLUMNS}
    columns[column][100] = np.nextafter(columns[column][100], columns["high"][100])
    if column in ("high", "volume"):
        columns[column][100] = np.nextafter(first.high[100], np.inf)
    shutil.rmtree(project.data_dir / "history")
    stored(
        project, CandleSet((Candles(first.symbol, "1h", first.ts, **columns), candles.series[1]))
    )
    with pytest.raises(ArtefactTampered, match=rf"^{NAME}: data \(2024-01-01T00:00Z"):
        start(project)


STARTS = """
import importlib.metadata, sys
from live.paper import run_slot
from research.errors import CandlebookError
from research.settings import load_settings

if len(sys.argv) > 3:
    known = importlib.metadata.version
    importlib.metadata.version = lambda name: "0" if name == sys.argv[3] else known(name)
try:
    run_slot(sys.argv[1], sys.argv[2], "replay", load_settings())
except CandlebookError as err:
    sys.exit(f"{err.exit_code} {err}")
"""


def started_in(home: Path, *args: str) -> str:
    """What a process says that runs the copy of the project in ``home``; empty if it starts."""
    environ = {**os.environ, "PYTHONPATH": str(home), "CANDLEBOOK_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", STARTS, NAME, iso(FIRST), *args],
        env=environ,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip()


@pytest.fixture
def copy(project: Settings) -> Path:
    for package in ("research", "live"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, project.root / package, ignore=ignored)
    return project.root


CODE = {
    "research/strategies/sma_crossover.py": "research.strategies.sma_crossover",
    "research/indicators.py": "research.indicators",
    "research/risk.py": "research.risk",
    "research/engine.py": "research.engine",
}


@pytest.mark.parametrize("file", CODE)
def test_changed_code_is_refused_at_start_with_its_module(copy: Path, file: str) -> None:
    path = copy / file
    path.write_text(path.read_text() + "\n# A comment is no change.\n")
    assert started_in(copy) == ""
    path.write_text(path.read_text() + "\nCHANGED = True\n")
    assert started_in(copy).startswith(f"5 {NAME}: code.{CODE[file]}: changed since")


@pytest.mark.parametrize("library", ["numpy", "TA-Lib"])
def test_another_version_of_a_library_is_refused_at_start(copy: Path, library: str) -> None:
    assert started_in(copy, library).startswith(f"5 {NAME}: libraries.{library}: changed since")


REPRODUCES = """
import sys
from pathlib import Path
from research.history import History
from research.promotion import load_artefact, reproduce

artefact = load_artefact(sys.argv[1], Path("params/promoted"))
candles = History(Path("data/history")).load(artefact.market.symbols, "1h")
run = reproduce(artefact, candles)
print(artefact.seal, run.digest(), candles.digest())
"""


def test_another_process_and_hash_seed_come_to_the_same_hashes(project: Settings) -> None:
    said = set()
    for seed in ("0", "1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", REPRODUCES, NAME],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            cwd=project.root,
            capture_output=True,
            text=True,
            check=True,
        )
        said.add(done.stdout)
    (one,) = said
    assert len(one.split()) == 3
