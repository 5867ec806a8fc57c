"""Another exchange than Binance, through ccxt's unified interface: Kraken's REST on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import ccxt
import numpy as np
import pytest

from research import unified
from research.candles import Candles
from research.errors import CandlesRejected, ExchangeError, ExchangeRefused, UnknownNameError
from research.exchange import MarketData
from research.synthetic import synthetic_candles

HOUR = 3_600_000
START = 1_672_531_200_000
BARS = 900
NOW = START + BARS * HOUR + 20 * 60_000
# Kraken answers with the last 720 candles, whatever `since` is.
DEPTH = 720

PAIR = {
    **{"altname": "XBTUSDT", "wsname": "XBT/USDT", "aclass_base": "currency", "base": "XXBT"},
    **{"aclass_quote": "currency", "quote": "USDT", "lot": "unit", "cost_decimals": 5},
    **{"pair_decimals": 1, "lot_decimals": 8, "lot_multiplier": 1, "leverage_buy": []},
    **{"leverage_sell": [], "fees": [[0, 0.4]], "fees_maker": [[0, 0.25]], "ordermin": "0.0001"},
    **{"fee_volume_currency": "ZUSD", "margin_call": 80, "margin_stop": 40, "costmin": "0.5"},
    **{"tick_size": "0.1", "status": "online"},
}


class Kraken(ThreadingHTTPServer):
    """Serves Time, Assets, AssetPairs, OHLC and Ticker. ``bodies`` answer in place of the true."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.candles = synthetic_candles(["BTCUSDT"], "1h", START, BARS + 1)["BTCUSDT"]
        self.bodies: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, name: str, query: dict[str, str]) -> Any:
        match name:
            case "Time":
                return {"unixtime": NOW // 1000, "rfc1123": ""}
            case "Assets":
                return {
                    asset: {"aclass": "currency", "altname": name, "decimals": 10}
                    | {"display_decimals": 5, "status": "enabled"}
                    for asset, name in (("XXBT", "XBT"), ("USDT", "USDT"))
                }
            case "AssetPairs":
                return {"XBTUSDT": PAIR}
            case "OHLC":
                return {"XBTUSDT": self.rows(int(query.get("since", 0)) * 1000), "last": 0}
            case "Ticker":
                day = {"a": ["101", "1", "1"], "b": ["100", "1", "1"], "c": ["100.5", "1"]}
                day |= {"v": ["5", "10"], "p": ["100", "100"], "t": [3, 6]}
                return {"XBTUSDT": day | {"l": ["90", "90"], "h": ["110", "110"], "o": "95"}}
        return None

    def rows(self, since: int) -> list[list[Any]]:
        c = self.candles
        served = [i for i in range(len(c) - DEPTH, len(c)) if c.ts[i] > since]
        return [
            [int(c.ts[i]) // 1000]
            + [repr(float(column[i])) for column in (c.open, c.high, c.low, c.close)]
            + ["100.0", repr(float(c.volume[i])), 5]
            for i in served
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Kraken

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        name = url.path.rpartition("/")[2]
        body = self.server.bodies.get(name)
        if body is None:
            result = self.server.answer(name, dict(parse_qsl(url.query)))
            body = json.dumps({"error": [], "result": result})
        raw = body.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(NOW / 1000)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def kraken() -> Iterator[Kraken]:
    server = Kraken()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def market(kraken: Kraken) -> MarketData:
    return MarketData("kraken", kraken.url, deadline_s=5.0)


def fetched(kraken: Kraken, start: int) -> Candles:
    pages = list(market(kraken).closed_candles("BTCUSDT", "1h", start))
    columns = ("ts", "open", "high", "low", "close", "volume")
    joined = (np.concatenate([getattr(page, name) for page in pages]) for name in columns)
    return Candles("BTCUSDT", "1h", *joined)


def test_closed_candles_come_without_the_forming_one_and_bit_for_bit(kraken: Kraken) -> None:
    first = BARS + 1 - 300
    got = fetched(kraken, START + first * HOUR)
    assert got.digest() == kraken.candles.rows(first, BARS).digest()


def test_what_an_exchange_no_longer_serves_is_not_made_up(kraken: Kraken) -> None:
    got = fetched(kraken, START)
    assert got.digest() == kraken.candles.rows(BARS + 1 - DEPTH, BARS).digest()


def test_time_prices_and_listings(kraken: Kraken) -> None:
    data = market(kraken)
    assert data.reachable()
    assert data.server_time() == NOW // 1000 * 1000
    assert data.latest_price("BTCUSDT") == 100.5
    day = data.day_statistics("BTCUSDT")
    assert (day.low, day.high, day.volume, day.open_time) == (90.0, 110.0, 10.0, None)
    listing = data.listings(["BTCUSDT"])["BTCUSDT"]
    assert listing.status == "TRADING"
    said = listing.filters
    assert (str(said.tick), str(said.min_quantity)) == ("0.1", "0.0001")
    assert (f"{said.lot_step:f}", f"{said.min_notional:f}") == ("0.00000001", "0.5")
    forming = float(kraken.candles.open[BARS])
    assert data.forming_open("BTCUSDT", "1h") == (START + BARS * HOUR, forming)


def test_a_symbol_or_timeframe_that_it_lacks_is_named(kraken: Kraken) -> None:
    with pytest.raises(UnknownNameError, match="NOPEUSDT"):
        market(kraken).listings(["NOPEUSDT"])
    with pytest.raises(UnknownNameError, match="timeframe of kraken"):
        list(market(kraken).closed_candles("BTCUSDT", "8h", START))


def rows_with(kraken: Kraken, column: int, value: Any) -> str:
    rows = kraken.rows(START)
    rows[-3][column] = value
    return json.dumps({"error": [], "result": {"XBTUSDT": rows, "last": 0}})


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *((1, "NaN"), (1, "-5"), (1, None), (2, "0.0001"), (3, "1e9"), (4, "inf"), (6, "-1")),
        *((0, START // 1000 + 2_000_001), (0, START)),
    ],
)
def test_rows_that_break_a_rule_are_refused(kraken: Kraken, column: int, value: Any) -> None:
    kraken.bodies["OHLC"] = rows_with(kraken, column, value)
    with pytest.raises((CandlesRejected, ExchangeError)):
        fetched(kraken, START + 500 * HOUR)


@pytest.mark.parametrize(
    "body", ["<html>", "null", "", "[]", "{}", '{"error":["EService:Busy"]}', '{"error":[],']
)
@pytest.mark.parametrize("endpoint", ["OHLC", "AssetPairs", "Time", "Ticker"])
def test_nonsense_under_status_200_is_a_typed_error(
    kraken: Kraken, endpoint: str, body: str
) -> None:
    kraken.bodies[endpoint] = body
    data = MarketData("kraken", kraken.url, deadline_s=0.5)

    def ask() -> object:
        if endpoint == "Ticker":
            return data.latest_price("BTCUSDT")
        return list(data.closed_candles("BTCUSDT", "1h", START + 500 * HOUR))

    with pytest.raises((CandlesRejected, ExchangeError, UnknownNameError)):
        ask()


def test_every_address_of_an_exchange_is_moved(kraken: Kraken) -> None:
    for name in ("kraken", "binanceus", "bitstamp", "okx", "coinbase"):
        opened = MarketData(name, kraken.url).transport.open()
        pending, found = [opened.urls["api"]], []
        while pending:
            one = pending.pop()
            if isinstance(one, dict):
                pending += one.values()
            else:
                found.append(one)
        assert found
        assert all(url.startswith(kraken.url) for url in found)


def test_precision_is_counted_as_ccxt_counts_it() -> None:
    assert (unified.TICK_SIZE, unified.DECIMAL_PLACES) == (ccxt.TICK_SIZE, ccxt.DECIMAL_PLACES)


def test_a_wrong_answer_about_filters_is_refused(kraken: Kraken) -> None:
    pair = PAIR | {"ordermin": "-1"}
    kraken.bodies["AssetPairs"] = json.dumps({"error": [], "result": {"XBTUSDT": pair}})
    with pytest.raises(ExchangeRefused, match="filters of BTCUSDT"):
        market(kraken).filters(["BTCUSDT"])
