"""`candlebook replay-exchange`, and replays whose candles come over HTTP."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import requests

from live.paper import run_slot
from live.replay import Fault, ReplayExchange
from research.candles import iso
from research.errors import ExchangeRefused, InputError, MarketChanged
from research.history import History
from research.settings import load_settings
from tests.backtest.paper import dump_at
from tests.integration.cli_project import (
    HOUR,
    LAST_CLOSE,
    SYMBOLS,
    candlebook,
    document,
    made,
    start,
)

MANUAL = "(knowledge/replay_exchange.md)"


def url_of(process: subprocess.Popen[str]) -> str:
    """The address that a started replay exchange tells first."""
    assert process.stdout is not None
    return process.stdout.readline().split()[0]


def test_it_serves_the_store_until_it_is_stopped(home: Path, tmp_path: Path) -> None:
    at = iso(LAST_CLOSE - 48 * HOUR)
    asked = ("--port", "0", "--from", at, "--speed", "0", "--fault", "status_503:ticker/price")
    process = start("replay-exchange", *asked)
    try:
        url = url_of(process)
        assert process.stdout is not None
        told = "".join(iter(process.stdout.readline, f"control: curl {url}/replay   {MANUAL}\n"))
        assert "candlebook history fetch BTCUSDT" in told
        assert requests.get(f"{url}/replay", timeout=10).json()["now"] == at
        price = requests.get(f"{url}/api/v3/ticker/price", timeout=10)
        assert price.status_code == 503
        shutil.rmtree(home / "data")
        fetch = ("history", "fetch", "ETHUSDT", "--since", "2023-03-20")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CANDLEBOOK_EXCHANGE_URL", url)
            (row,) = document(*fetch)["series"]
        stored = History(home / "data/history").read("binance", "ETHUSDT", "1h")
        assert stored.digest() == made()["ETHUSDT"].closed_by(LAST_CLOSE - 49 * HOUR).digest()
        assert row["rows_added"] == len(stored)
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=15)
    assert process.returncode == 0
    assert err == ""


def test_ctrl_c_ends_it_with_130(home: Path) -> None:
    process = start("replay-exchange", "--port", "0")
    url_of(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert process.returncode == 130
    assert err.strip() == "error: interrupted; what was finished before stays"


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (("--fault", "sunspots"), 2, "sunspots"),
        (("--speed", "-1"), 2, "speed"),
        (("--from", "soon"), 2, "--from"),
        (("--symbols", "NOPEUSDT"), 3, "NOPEUSDT"),
    ],
)
def test_what_it_cannot_serve_is_named(
    home: Path, options: tuple[str, ...], code: int, named: str
) -> None:
    done = candlebook("replay-exchange", "--port", "0", *options)
    assert done.exit_code == code
    assert named in done.stderr


def test_a_port_that_is_taken_is_named(home: Path) -> None:
    filters = load_settings(home).account(SYMBOLS).filters
    assert filters is not None
    with ReplayExchange([made()], filters, LAST_CLOSE) as exchange:
        port = exchange.url.rpartition(":")[2]
        done = candlebook("replay-exchange", "--port", port)
    assert done.exit_code == 2
    assert "--port" in done.stderr


def test_an_empty_store_has_nothing_to_serve(new_home: Path) -> None:
    assert candlebook("replay-exchange").exit_code == 3


def test_a_replay_over_http_keeps_the_books_of_one_over_the_store(
    home: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(home, other)
    slot = LAST_CLOSE - 2 * HOUR
    books = []
    for root, http in ((home, ["--http"]), (other, [])):
        asked = ("--home", str(root))
        at = ("--at", iso(slot - HOUR))
        assert candlebook(*asked, "reset", "--reason", "go", "--replay", *at).exit_code == 0
        replay = ("paper", "replay", "trend", "--bars", "2", "--from", iso(slot))
        done = candlebook(*asked, *replay, *http)
        assert done.exit_code == 0, done.output
        assert "2 done" in done.stdout
        parity = candlebook(*asked, "parity", "trend", "--replay")
        assert parity.exit_code == 0, parity.output
        books.append(dump_at(root / "data" / "replay.db"))
    for table in ("signals", "orders", "fills", "positions", "metrics", "trades"):
        assert books[0][table] == books[1][table], table
    fetched = History(home / "data" / "replays" / "history")
    own = made()["BTCUSDT"].closed_by(LAST_CLOSE - HOUR)
    assert len(fetched.read("binance", "BTCUSDT", "1h")) == len(own) - 1, "one lies in the outage"
    assert not (other / "data" / "replays" / "history").exists()


def test_a_replay_takes_its_candles_and_its_time_from_an_exchange_that_runs_elsewhere(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = LAST_CLOSE - 2 * HOUR
    document("reset", "--reason", "go", "--replay", "--at", iso(slot - HOUR))
    filters = load_settings(home).account(SYMBOLS).filters
    assert filters is not None
    stored = History(home / "data/history").load(SYMBOLS, "1h")
    with ReplayExchange([stored], filters, slot + 10_000) as exchange:
        monkeypatch.setenv("CANDLEBOOK_REPLAY_EXCHANGE_URL", exchange.url)
        settings = load_settings(home)
        exchange.inject(Fault("status_451"))
        with pytest.raises(ExchangeRefused):
            run_slot("trend", slot, "replay", settings)
        exchange.clear_faults()
        exchange.inject(Fault("changed_filters"))
        with pytest.raises(MarketChanged, match="as promoted"):
            run_slot("trend", slot, "replay", settings)
        # With the kill switch tripped only exits are decided: other filters can do no harm.
        document("kill", "--reason", "look first", "--replay", "--at", iso(slot))
        assert run_slot("trend", slot, "replay", settings).progress.bars == 1
        exchange.clear_faults()
        exchange.clock.set(LAST_CLOSE + 10_000)
        report = run_slot("trend", LAST_CLOSE, "replay", settings)
        assert report.progress.bars == 2
        assert report.parity.equal
        exchange.clock.set(LAST_CLOSE - HOUR)
        with pytest.raises(InputError, match="slot"):
            run_slot("trend", LAST_CLOSE, "replay", settings)


def test_candles_that_come_again_with_other_values_are_told_in_the_report(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = LAST_CLOSE - 2 * HOUR
    document("reset", "--reason", "go", "--replay", "--at", iso(slot - HOUR))
    filters = load_settings(home).account(SYMBOLS).filters
    assert filters is not None
    stored = History(home / "data/history").load(SYMBOLS, "1h")
    with ReplayExchange([stored], filters, slot + 10_000) as exchange:
        monkeypatch.setenv("CANDLEBOOK_REPLAY_EXCHANGE_URL", exchange.url)
        settings = load_settings(home)
        assert run_slot("trend", slot, "replay", settings).restated == ()
        exchange.clock.set(slot + HOUR + 10_000)
        exchange.inject(Fault("restated", symbol="ETHUSDT", times=1, row=1))
        report = run_slot("trend", slot + HOUR, "replay", settings)
        ((symbol, revision),) = report.restated
        assert (symbol, revision.ts) == ("ETHUSDT", slot - 5 * HOUR)
        assert "came again with other values" in repr(report)
        assert report.parity.equal
