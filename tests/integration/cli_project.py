"""What the tests of the command share: made-up candles, a project, and ways to ask it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from live.cli import main
from research.candles import Candles, CandleSet, utc_ms
from research.synthetic import synthetic_candles

ROOT = Path(__file__).resolve().parents[2]
HOUR = 3_600_000
START = utc_ms("2023-03-20")
BARS = 24 * 30
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
OUTAGE = utc_ms("2023-03-24T13:00")
LAST_CLOSE = START + BARS * HOUR
PROMOTE = ("promote", "trend", "--strategy", "sma_trend", "--param", "fast=5", "--param")
PROMOTE = (*PROMOTE, "slow=30", "--end", "2023-04-18", "--why", "a test")
UNJUDGED = ("--unjudged", "--override", "a test")
PROMOTE = (*PROMOTE, *UNJUDGED)


def made() -> CandleSet:
    return synthetic_candles(SYMBOLS, "1h", START, BARS)


def without(candles: Candles, ts: int) -> Candles:
    kept = np.flatnonzero(candles.ts != ts)
    columns = (getattr(candles, name)[kept] for name in ("ts", "open", "high", "low", "close"))
    return Candles(candles.symbol, candles.timeframe, *columns, candles.volume[kept])


def as_file(candles: Candles, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    candles.frame().reset_index().to_parquet(path)
    return path


def empty_project(root: Path) -> Path:
    for folder in ("params", "notebooks"):
        shutil.copytree(
            ROOT / folder, root / folder, ignore=shutil.ignore_patterns("promoted", ".ipynb*")
        )
    return root


def candlebook(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


def shown(*args: str, code: int = 0) -> str:
    """What a command shows on standard output; nothing but notices may be on standard error."""
    done = candlebook(*args)
    assert done.exit_code == code, (done.output, done.exception)
    return done.stdout


def document(*args: str, code: int = 0) -> Any:
    """The one JSON document that a command answers with."""
    return json.loads(shown(*args, "--json", code=code), parse_constant=pytest.fail)


def contents(root: Path) -> dict[str, str]:
    """Every file below ``root``, by its hash; locks come and go and hold nothing, and what ran is
    counted among the trials whatever became of it."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock") and path.stem != "trials"
    }


def start(*args: str) -> subprocess.Popen[str]:
    code = "import sys; from live.cli import main; main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
