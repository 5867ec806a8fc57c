"""Bans, rate limits and request weight: kept to across processes, and across kinds of question."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from research.cooldown import LONGEST_MS, Cooldown, CooldownFile
from research.errors import ExchangeRefused, ExchangeUnreachable
from research.exchange import MarketData
from tests.integration.stand_in import NOW, Exchange, answer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    server = Exchange()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


def market(exchange: Exchange, memory: Path | None, patience_s: float = 0.0) -> MarketData:
    return MarketData(base_url=exchange.url, deadline_s=5.0, patience_s=patience_s, memory=memory)


def asked_elsewhere(exchange: Exchange, memory: Path) -> str:
    """What another process is told when it asks for the time."""
    code = (
        "import sys; from pathlib import Path; from research.exchange import MarketData\n"
        "from research.errors import CandlebookError\n"
        "try: print(MarketData(base_url=sys.argv[1], memory=Path(sys.argv[2])).server_time())\n"
        "except CandlebookError as err: print(type(err).__name__, err)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, exchange.url, str(memory)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("status", [418, 429])
def test_a_ban_binds_every_process_that_shares_the_memory(
    exchange: Exchange, tmp_path: Path, status: int
) -> None:
    exchange.faults["time"] = [answer("{}", status, Retry_After="120")]
    with pytest.raises(ExchangeRefused, match="Wait 120 s"):
        market(exchange, tmp_path).server_time()
    told = asked_elsewhere(exchange, tmp_path)
    assert told.startswith("ExchangeRefused")
    assert f"status {status}" in told
    assert len(exchange.asked) == 1, "nobody asked again"
    assert asked_elsewhere(exchange, tmp_path / "other") == str(NOW), "negative control: no memory"


def test_the_time_of_a_ban_is_read_from_its_text_where_no_header_tells(
    exchange: Exchange, tmp_path: Path
) -> None:
    until = int(time.time() * 1000) + 90_000
    text = {"code": -1003, "msg": f"Way too many requests; IP banned until {until}."}
    exchange.faults["time"] = [answer(json.dumps(text), 418)]
    with pytest.raises(ExchangeRefused, match=r"Wait (89|90) s"):
        market(exchange, tmp_path).server_time()


def test_patience_outwaits_what_the_exchange_asks_for(exchange: Exchange) -> None:
    impatient = MarketData(base_url=exchange.url, deadline_s=0.5)
    told: list[tuple[float, str]] = []
    patient = MarketData(
        base_url=exchange.url,
        deadline_s=0.5,
        patience_s=5.0,
        on_wait=lambda seconds, why: told.append((seconds, why)),
    )
    exchange.faults["time"] = [answer("{}", 429, Retry_After="2")]
    with pytest.raises(ExchangeRefused, match="Wait 2 s"):
        impatient.server_time()
    exchange.faults["time"] = [answer("{}", 429, Retry_After="2")]
    begun = time.monotonic()
    assert patient.server_time() == NOW
    assert 2.0 <= time.monotonic() - begun < 3.5
    ((seconds, why),) = told
    assert 1.5 < seconds <= 2.0
    assert "429" in why


def test_a_ban_is_kept_to_although_the_rest_of_the_answer_never_came(
    exchange: Exchange, tmp_path: Path
) -> None:
    def banned(handler: Any) -> None:
        handler.send_response(418)
        handler.send_header("Retry-After", "120")
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        exchange.closing.wait(3)

    exchange.faults["time"] = [banned]
    data = MarketData(base_url=exchange.url, deadline_s=0.5, memory=tmp_path)
    with pytest.raises(ExchangeRefused, match="Wait 120 s"):
        data.server_time()
    assert asked_elsewhere(exchange, tmp_path).startswith("ExchangeRefused")
    assert len(exchange.asked) == 1


def test_a_ban_longer_than_any_is_kept_to(exchange: Exchange, tmp_path: Path) -> None:
    exchange.faults["time"] = [answer("{}", 418, Retry_After="999999")]
    with pytest.raises(ExchangeRefused):
        market(exchange, tmp_path).server_time()
    assert asked_elsewhere(exchange, tmp_path).startswith("ExchangeRefused")


def test_a_memory_that_somebody_else_holds_does_not_hold_up_an_answer(
    exchange: Exchange, tmp_path: Path
) -> None:
    data = MarketData(base_url=exchange.url, deadline_s=0.5, memory=tmp_path)
    path = data.transport.file("cooldown")
    assert path is not None
    exchange.faults["time"] = [answer("{}", 429, Retry_After="60")]
    begun = time.monotonic()
    with FileLock(f"{path}.lock"), pytest.raises(ExchangeRefused):
        data.server_time()
    assert time.monotonic() - begun < 3.0
    with pytest.raises(ExchangeRefused, match="asked to wait"):
        data.server_time()


@pytest.mark.parametrize("status", [429, 503])
def test_a_date_to_ask_again_at_is_kept_to_whatever_the_status(
    exchange: Exchange, status: int
) -> None:
    later = formatdate(time.time() + 90, usegmt=True)
    exchange.faults["time"] = [answer("{}", status, Retry_After=later)]
    with pytest.raises(ExchangeRefused, match=r"Wait (8[89]|90) s"):
        market(exchange, None).server_time()
    assert len(exchange.asked) == 1


def test_waits_and_attempts_share_one_budget(exchange: Exchange) -> None:
    exchange.faults["time"] = [answer("{}", 429, Retry_After="1")] * 100
    begun = time.monotonic()
    with pytest.raises(ExchangeRefused):
        MarketData(base_url=exchange.url, deadline_s=1.0, patience_s=2.5).server_time()
    assert time.monotonic() - begun < 4.0
    assert len(exchange.asked) <= 4


def test_an_endless_limit_of_no_seconds_still_ends(exchange: Exchange) -> None:
    exchange.faults["time"] = [answer("{}", 429, Retry_After="0")] * 100
    begun = time.monotonic()
    with pytest.raises(ExchangeRefused):
        MarketData(base_url=exchange.url, deadline_s=1.5, patience_s=2.0).server_time()
    assert time.monotonic() - begun < 6.0
    assert len(exchange.asked) <= 6


def test_the_minute_s_weight_is_left_in_part(exchange: Exchange) -> None:
    body = json.dumps({"serverTime": NOW})
    second = NOW // 1000 % 60
    exchange.faults["time"] = [answer(body, X_MBX_USED_WEIGHT_1M="4799")] * 3
    data = market(exchange, None)
    for _ in range(3):
        assert data.server_time() == NOW
    exchange.faults["time"] = [answer(body, X_MBX_USED_WEIGHT_1M="4800")]
    assert data.server_time() == NOW, "the answer itself is good"
    with pytest.raises(ExchangeRefused, match=f"4800 of 6000.*another {61 - second} s"):
        data.server_time()
    assert len(exchange.asked) == 4


def test_an_answer_without_end_is_broken_off(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("research.transport.LARGEST_ANSWER", 10_000)
    exchange.faults["time"] = [answer(" " * 20_000 + "{}")] * 10
    with pytest.raises(ExchangeUnreachable):
        market(exchange, None).server_time()
    exchange.faults["time"] = [answer(" " * 9_000 + json.dumps({"serverTime": NOW}))]
    assert market(exchange, None).server_time() == NOW


def test_prices_and_statistics_are_asked_for_once_in_their_time(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    price = json.dumps({"symbol": "BTCUSDT", "price": "101.50000000"})
    day = json.dumps(
        {
            **{"symbol": "BTCUSDT", "openTime": NOW - 86_400_000, "closeTime": NOW, "count": 3},
            **{"highPrice": "110.0", "lowPrice": "90.0", "lastPrice": "101.5"},
            **{"volume": "7.0", "quoteVolume": "700.0"},
        }
    )
    exchange.faults = {"ticker/price": [answer(price)] * 9, "ticker/24hr": [answer(day)] * 9}
    data, clock = market(exchange, None), [1000.0]
    monkeypatch.setattr("research.exchange.time.monotonic", lambda: clock[0])
    for at, prices, days in ((0, 1, 1), (29.9, 1, 1), (30, 2, 1), (299, 3, 1), (300, 3, 2)):
        clock[0] = 1000.0 + at
        assert data.latest_price("BTCUSDT") == 101.5
        assert data.day_statistics("BTCUSDT").quote_volume == 700.0
        counts = [name for name, _ in exchange.asked]
        assert (counts.count("ticker/price"), counts.count("ticker/24hr")) == (prices, days)


def test_listings_are_kept_with_their_hash_for_every_process(
    exchange: Exchange, tmp_path: Path
) -> None:
    first = market(exchange, tmp_path).listings(["BTCUSDT", "ETHUSDT"])
    asked = len(exchange.asked)
    assert market(exchange, tmp_path).listings(["ETHUSDT"], 60.0) == {"ETHUSDT": first["ETHUSDT"]}
    assert len(exchange.asked) == asked
    market(exchange, tmp_path).listings(["SOLUSDT"], 60.0)
    assert len(exchange.asked) == asked + 1, "what is not kept is asked for"
    (file,) = tmp_path.glob("*-listings.json")
    kept = file.read_text()
    file.write_text(kept.replace('"tick": "0.01000000"', '"tick": "0.02000000"'))
    assert file.read_text() != kept
    again = market(exchange, tmp_path).listings(["SOLUSDT"], 60.0)
    assert str(again["SOLUSDT"].filters.tick) == "0.01000000", "changed bytes are not believed"
    assert len(exchange.asked) == asked + 2


def test_a_cooldown_is_never_shortened_and_ends(tmp_path: Path) -> None:
    now = 1_700_000_000_000
    memory = CooldownFile(tmp_path / "deep" / "cooldown.json")
    assert memory.read(now) is None
    memory.impose(Cooldown(now + 60_000, "long"), now)
    memory.impose(Cooldown(now + 30_000, "short"), now)
    assert memory.read(now + 59_999) == Cooldown(now + 60_000, "long")
    assert memory.read(now + 60_000) is None
    back = now - 2 * LONGEST_MS
    set_back = memory.read(back)
    assert set_back is not None
    assert set_back.until == back + LONGEST_MS, "a clock that was set back does not lift a ban"
    assert CooldownFile(None).read(now) is None


def test_a_memory_that_cannot_be_read_is_no_leave_to_ask(
    exchange: Exchange, tmp_path: Path
) -> None:
    data = market(exchange, tmp_path)
    path = data.transport.file("cooldown")
    assert path is not None
    path.write_text("{")
    with pytest.raises(ExchangeRefused, match="cannot be read"):
        data.server_time()
    assert not exchange.asked
