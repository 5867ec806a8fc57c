"""The page of evidence in a real browser: drawn in light and dark, asking the network nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from research.account import Account, Limits
from research.chart_theme import NIGHT, THEME
from research.evidence.judge import judge
from research.evidence.planted import Market, candles_of
from research.params import Thresholds
from research.search import sweep
from research.strategies.sma_crossover import SmaCrossover
from research.trials import trials_of

NAMES = ("chromium", "chromium-browser", "google-chrome")
FIGURES = 5
NO_PAGE = "not an origin"


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)}")
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    candles = candles_of(Market("edge", trend=5.0), seed=3, bars=9_600)
    grid = {"fast": (10, 20, 40), "slow": (50, 100, 200)}
    found = sweep(SmaCrossover, candles, Account(limits=Limits()), progress=False, **grid)
    evidence = judge(found, thresholds=Thresholds(look_ahead_points=20), trials=trials_of([]))
    return evidence.report(tmp_path_factory.mktemp("page") / "evidence.html")


def opened(browser: str, page: Path, folder: Path, *, dark: bool = False) -> tuple[str, list[str]]:
    """The page as drawn, and every address beyond files that it made the browser ask for.

    A browser has errands of its own, which have no page as their origin; no name is resolved.
    """
    log = folder / "net.json"
    command = [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,9000"),
        *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
        "--host-resolver-rules=MAP * ~NOTFOUND",
        *(f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"),
        *("--net-log-capture-mode=IncludeSensitive", "--virtual-time-budget=8000"),
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        *("--dump-dom", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    events = [one.get("params", {}) for one in json.loads(log.read_text("utf-8"))["events"]]
    asked = {one["url"] for one in events if one.get("initiator", NO_PAGE) != NO_PAGE}
    return done.stdout, sorted(one for one in asked if not one.startswith(("file:", "data:")))


@pytest.mark.parametrize("dark", [False, True])
def test_every_chart_is_drawn_in_the_colours_of_the_theme_and_nothing_is_fetched(
    browser: str, written: Path, tmp_path: Path, dark: bool
) -> None:
    dom, asked = opened(browser, written, tmp_path, dark=dark)
    assert dom.count('data-drawn="yes"') == FIGURES
    assert dom.count('class="main-svg"') >= FIGURES
    drawn = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    shade, other = THEME.strategy, NIGHT[THEME.strategy]
    wanted, unwanted = map(_rgb, (other, shade) if dark else (shade, other))
    assert wanted in drawn
    assert unwanted not in drawn
    assert asked == []


def test_a_page_that_fetches_is_caught(browser: str, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://127.0.0.1:9/pixel.png'><p>hello", "utf-8")
    _, asked = opened(browser, page, tmp_path)
    assert asked == ["http://127.0.0.1:9/pixel.png"]


def _rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"
