"""The replay exchange over real HTTP: unmodified ccxt, the project's own client, raw sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ccxt
import numpy as np
import pytest
import requests
from requests.adapters import HTTPAdapter

from live.replay import API_KEY, API_SECRET, FAULTS, Fault, ReplayExchange
from live.replay.control import set_clock
from live.replay.faults import STATUS_FAULTS
from research.account import Filters
from research.candles import COLUMNS, Candles, CandleSet, utc_ms
from research.errors import ExchangeUnreachable, UnknownNameError
from research.exchange import MarketData
from research.history import History
from research.synthetic import synthetic_candles

HOUR = 3_600_000
START = utc_ms("2024-01-01")
BARS = 1_300
NOW = START + 1_200 * HOUR + 20 * 60_000
SYMBOLS = ("BTCUSDT", "ETHUSDT")
CANDLES = synthetic_candles(SYMBOLS, "1h", START, BARS)
FILTERS = dict.fromkeys(SYMBOLS, Filters(lot_step="0.00001", tick="0.01", min_notional="5"))


@pytest.fixture
def exchange() -> Iterator[ReplayExchange]:
    with ReplayExchange([CANDLES], FILTERS, NOW) as server:
        yield server


def client(exchange: ReplayExchange, **options: Any) -> Any:
    """ccxt as its documentation has it, but for the address."""
    known = {"fetchMarkets": {"types": ["spot"]}, "adjustForTimeDifference": True}
    made = ccxt.binance(
        {"apiKey": API_KEY, "secret": API_SECRET, "options": known | options, "rateLimit": 1}
    )
    made.urls["api"] = {
        name: exchange.url + urlsplit(url).path for name, url in made.urls["api"].items()
    }
    return made


def get(exchange: ReplayExchange, path: str, **query: Any) -> Any:
    return requests.get(f"{exchange.url}/api/v3/{path}", params=query, timeout=10)


# ccxt


def test_unmodified_ccxt_reads_the_market(exchange: ReplayExchange) -> None:
    binance = client(exchange)
    markets = binance.load_markets()
    assert set(markets) == {"BTC/USDT", "ETH/USDT"}
    assert markets["BTC/USDT"]["precision"] == {
        **markets["BTC/USDT"]["precision"],
        **{"amount": 1e-05, "price": 0.01},
    }
    assert markets["BTC/USDT"]["active"]
    assert binance.fetch_time() == NOW
    rows = binance.fetch_ohlcv("BTC/USDT", "1h", since=START + 10 * HOUR, limit=5)
    columns = [getattr(CANDLES["BTCUSDT"], name)[10:15] for name in ("ts", *COLUMNS)]
    assert rows == [list(row) for row in zip(*(one.tolist() for one in columns), strict=True)]
    ticker = binance.fetch_ticker("BTC/USDT")
    assert ticker["last"] == exchange.market.price("BTCUSDT", NOW)
    assert ticker["low"] <= ticker["last"] <= ticker["high"]
    assert binance.fetch_bids_asks(["BTC/USDT"])["BTC/USDT"]["bid"] == ticker["last"]
    assert set(binance.fetch_tickers()) == {"BTC/USDT", "ETH/USDT"}


def test_unmodified_ccxt_trades(exchange: ReplayExchange) -> None:
    binance = client(exchange)
    binance.load_markets()
    assert binance.fetch_balance()["USDT"]["free"] == 10_000
    bought = binance.create_order("BTC/USDT", "market", "buy", 0.01)
    assert (bought["status"], bought["filled"]) == ("closed", 0.01)
    ask = bought["average"]
    assert ask == pytest.approx(exchange.market.price("BTCUSDT", NOW) + 0.01)
    again = binance.fetch_order(bought["id"], "BTC/USDT")
    assert (again["status"], again["cost"]) == ("closed", bought["cost"])
    balance = binance.fetch_balance()
    assert balance["BTC"]["free"] == pytest.approx(0.01 * 0.999)
    assert balance["USDT"]["free"] == pytest.approx(10_000 - 0.01 * ask)
    sold = binance.create_order("BTC/USDT", "limit", "sell", 0.005, round(ask * 2, 2))
    assert sold["status"] == "open"
    assert binance.fetch_balance()["BTC"]["used"] == 0.005
    assert [one["id"] for one in binance.fetch_open_orders("BTC/USDT")] == [sold["id"]]
    assert binance.cancel_order(sold["id"], "BTC/USDT")["status"] == "canceled"
    assert binance.fetch_balance()["BTC"]["used"] == 0
    assert [one["order"] for one in binance.fetch_my_trades("BTC/USDT")] == [bought["id"]]


def test_orders_that_the_exchange_would_refuse_are_refused(exchange: ReplayExchange) -> None:
    binance = client(exchange)
    binance.load_markets()
    price = exchange.market.price("BTCUSDT", NOW)
    for error, order in (
        (ccxt.InsufficientFunds, ("limit", "buy", 1.0, price)),
        (ccxt.InsufficientFunds, ("limit", "sell", 0.01, price)),
        (ccxt.BadRequest, ("limit", "buy", 0.00001, price)),
        (ccxt.InvalidOrder, ("limit", "buy", 0.01, price * 2, {"postOnly": True})),
    ):
        kind, side, amount, *rest = order
        with pytest.raises(error):
            binance.create_order("BTC/USDT", kind, side, amount, *rest)
    with pytest.raises(ccxt.OrderNotFound):
        binance.fetch_order("77", "BTC/USDT")
    with pytest.raises(ccxt.OrderNotFound):
        binance.cancel_order("77", "BTC/USDT")
    assert binance.fetch_balance()["USDT"]["free"] == 10_000


def test_a_resting_order_fills_when_the_price_walks_through_it(exchange: ReplayExchange) -> None:
    binance = client(exchange, adjustForTimeDifference=False)
    binance.load_time_difference()
    binance.options["timeDifference"] = binance.milliseconds() - NOW
    bar = 1_200
    low = float(CANDLES["BTCUSDT"].low[bar + 1 :].min())
    limit = round(low * 1.0001, 2)
    placed = binance.create_order("BTC/USDT", "limit", "buy", 0.001, limit)
    assert placed["status"] == "open"
    exchange.clock.set(START + BARS * HOUR - 1)
    binance.options["timeDifference"] = binance.milliseconds() - exchange.clock.now()
    filled = binance.fetch_order(placed["id"], "BTC/USDT")
    assert (filled["status"], filled["average"]) == ("closed", limit)


def test_a_stop_waits_for_its_price(exchange: ReplayExchange) -> None:
    binance = client(exchange)
    binance.load_markets()
    binance.create_order("BTC/USDT", "market", "buy", 0.01)
    price = exchange.market.price("BTCUSDT", NOW)
    params = {"stopPrice": round(price * 0.5, 2)}
    limit = round(price * 0.49, 2)
    stop = binance.create_order("BTC/USDT", "limit", "sell", 0.005, limit, params)
    assert stop["status"] == "open"
    params = {"stopPrice": round(price * 2, 2)}
    with pytest.raises(ccxt.ExchangeError, match="trigger immediately"):
        binance.create_order("BTC/USDT", "limit", "sell", 0.004, limit, params)


def test_a_client_id_is_unique_among_open_orders_only_so_a_lost_answer_can_trade_twice(
    exchange: ReplayExchange,
) -> None:
    binance = client(exchange)
    binance.load_markets()
    mine = {"newClientOrderId": "once-and-only"}
    exchange.inject(Fault("reset_after", "order", times=1))
    with pytest.raises(ccxt.NetworkError):
        binance.create_order("BTC/USDT", "market", "buy", 0.01, None, mine)
    # It took effect. A retry is a new order, since the first one is no longer open.
    binance.create_order("BTC/USDT", "market", "buy", 0.01, None, mine)
    assert len(binance.fetch_my_trades("BTC/USDT")) == 2
    exchange.inject(Fault("reset_before", "order", times=1))
    with pytest.raises(ccxt.NetworkError):
        binance.create_order("BTC/USDT", "market", "buy", 0.01, None, mine)
    assert len(binance.fetch_my_trades("BTC/USDT")) == 2, "before the effect there is none"
    price = round(exchange.market.price("BTCUSDT", NOW) / 2, 2)
    resting = binance.create_order("BTC/USDT", "limit", "buy", 0.01, price, mine)
    with pytest.raises(ccxt.ExchangeError, match="Duplicate order sent"):
        binance.create_order("BTC/USDT", "limit", "buy", 0.01, price, mine)
    params = {"origClientOrderId": "once-and-only"}
    assert binance.fetch_order(None, "BTC/USDT", params)["id"] == resting["id"], "the latest"


def test_a_wrong_key_signature_or_clock_is_refused_as_by_the_exchange(
    exchange: ReplayExchange,
) -> None:
    for changes, error in (
        ({"apiKey": "somebody"}, ccxt.AuthenticationError),
        ({"secret": "guessed"}, ccxt.AuthenticationError),
    ):
        binance = client(exchange)
        for name, value in changes.items():
            setattr(binance, name, value)
        binance.load_markets()
        with pytest.raises(error):
            binance.fetch_balance()
    late = client(exchange, adjustForTimeDifference=False)
    with pytest.raises(ccxt.InvalidNonce):
        late.fetch_balance()


# The project's own client


def test_the_project_s_client_gets_the_stored_candles_bit_for_bit(
    exchange: ReplayExchange,
) -> None:
    market = MarketData(base_url=exchange.url)
    pages = list(market.closed_candles("BTCUSDT", "1h", START))
    joined = {
        name: np.concatenate([getattr(page, name) for page in pages]) for name in ("ts", *COLUMNS)
    }
    got = Candles("BTCUSDT", "1h", **joined)
    assert got.digest() == CANDLES["BTCUSDT"].rows(0, 1_200).digest()
    forming = float(CANDLES["BTCUSDT"].open[1_200])
    assert market.forming_open("BTCUSDT", "1h") == (START + 1_200 * HOUR, forming)
    assert market.latest_price("BTCUSDT") == exchange.market.price("BTCUSDT", NOW)
    assert market.filters(SYMBOLS) == FILTERS
    day = market.day_statistics("ETHUSDT")
    assert day.quote_volume > 0
    assert day.close_time == NOW


def test_real_candles_are_served_as_the_exchange_served_them(
    shared: Path, shared_history: History
) -> None:
    first, stop = utc_ms("2023-03-01"), utc_ms("2023-04-02")
    hours = shared_history.load(["BTCUSDT", "ETHUSDT"], "1h", first, stop)
    with ReplayExchange([hours], FILTERS, stop) as exchange:
        for symbol in SYMBOLS:
            file = shared / "raw" / "binance_http" / f"klines_{symbol}_1h_2023-03-01.json"
            recorded = json.loads(file.read_text())
            query = {"symbol": symbol, "interval": "1h", "limit": 1000}
            query |= {"startTime": first, "endTime": recorded[-1][0]}
            served = get(exchange, "klines", **query).json()
            for mine, theirs in zip(served, recorded, strict=True):
                assert [type(one) for one in mine] == [type(one) for one in theirs]
                assert mine[0] == theirs[0]
                assert list(map(float, mine[1:6])) == list(map(float, theirs[1:6]))
                # The hour that the outage cut short tells its true end only there.
                assert mine[6] == theirs[6] or theirs[0] == utc_ms("2023-03-24T12:00")


def shape(value: Any) -> Any:
    """Keys and types; lists by the shapes of their first entries."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value[:1]]
    return type(value).__name__


def test_answers_have_the_shape_of_the_recorded_ones(
    exchange: ReplayExchange, shared: Path
) -> None:
    folder = shared / "raw" / "binance_http"
    recorded = json.loads((folder / "exchangeInfo_2021-10-12.json").read_text())
    served = get(exchange, "exchangeInfo").json()
    assert served.keys() == recorded.keys()
    assert shape(served["rateLimits"]) == shape(recorded["rateLimits"])
    theirs = next(one for one in recorded["symbols"] if one["symbol"] == "BTCUSDT")
    mine = next(one for one in served["symbols"] if one["symbol"] == "BTCUSDT")
    assert mine.keys() == theirs.keys()
    assert {key: type(one) for key, one in mine.items()} == {
        key: type(one) for key, one in theirs.items()
    }
    kinds = {one["filterType"]: shape(one) for one in theirs["filters"]}
    for one in mine["filters"]:
        # The exchange has come to call it NOTIONAL since; both are served.
        if one["filterType"] != "NOTIONAL":
            assert shape(one) == kinds[one["filterType"]]
    day = json.loads((folder / "ticker_24hr_example.json").read_text())
    answered = get(exchange, "ticker/24hr", symbol="BTCUSDT").json()
    assert shape(answered) == shape(day)


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("klines", {}, 400, -1102),
        ("klines", {"symbol": "BTCUSDT"}, 400, -1102),
        ("klines", {"symbol": "BTCUSDT", "interval": "7m"}, 400, -1120),
        ("klines", {"symbol": "NOPEUSDT", "interval": "1h"}, 400, -1121),
        ("klines", {"symbol": "BTCUSDT", "interval": "1h", "limit": "0"}, 400, -1100),
        ("klines", {"symbol": "BTCUSDT", "interval": "1h", "limit": "x"}, 400, -1100),
        ("klines", {"symbol": "BTCUSDT", "interval": "1h", "startTime": "-1"}, 400, -1100),
        ("ticker/price", {"symbol": "btcusdt"}, 400, -1100),
        ("ticker/price", {"symbols": "BTCUSDT"}, 400, -1100),
        ("exchangeInfo", {"symbol": "BTCUSDT", "symbols": '["BTCUSDT"]'}, 400, -1128),
        ("nothing", {}, 404, -1000),
        ("order", {"symbol": "BTCUSDT"}, 401, -2015),
    ],
)
def test_wrong_questions_get_the_exchange_s_own_errors(
    exchange: ReplayExchange, path: str, query: dict[str, Any], status: int, code: int
) -> None:
    answer = get(exchange, path, **query)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_what_is_about_every_symbol_weighs_more(exchange: ReplayExchange) -> None:
    used = 0
    for path, query, weight in (
        ("ping", {}, 1),
        ("klines", {"symbol": "BTCUSDT", "interval": "1h"}, 2),
        ("ticker/price", {"symbol": "BTCUSDT"}, 2),
        ("ticker/price", {"symbols": '["BTCUSDT"]'}, 4),
        ("ticker/price", {}, 4),
        ("ticker/24hr", {"symbols": '["BTCUSDT"]'}, 2),
        ("ticker/24hr", {}, 80),
        ("exchangeInfo", {}, 20),
    ):
        now = int(get(exchange, path, **query).headers["X-MBX-USED-WEIGHT-1M"])
        assert now - used == weight or now == weight, path  # a new minute counts anew
        used = now


def test_requests_are_weighed_and_too_many_are_refused_and_then_banned() -> None:
    with ReplayExchange([CANDLES], FILTERS, NOW, weight_limit=30) as exchange:
        second = int(time.time()) % 60
        if second > 50:
            time.sleep(61 - second)
        weights = [get(exchange, "exchangeInfo") for _ in range(4)]
        assert [one.status_code for one in weights] == [200, 429, 429, 418]
        used = [int(one.headers["X-MBX-USED-WEIGHT-1M"]) for one in weights]
        assert used == [20, 40, 60, 80]
        assert int(weights[1].headers["Retry-After"]) > 0
        assert weights[0].headers["Server"] == "candlebook-replay"


# Faults on the wire


def raw_get(exchange: ReplayExchange, path: str, timeout_s: float = 1.0) -> tuple[bytes, str]:
    """All bytes of an answer, and how the connection ended: closed, reset or silent."""
    port = urlsplit(exchange.url).port
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as link:
        link.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
        )
        got = b""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            try:
                chunk = link.recv(65_536)
            except ConnectionResetError:
                return got, "reset"
            except TimeoutError:
                return got, "silent"
            if not chunk:
                return got, "closed"
            got += chunk
        return got, "going on"


KLINES = f"/api/v3/klines?symbol=BTCUSDT&interval=1h&startTime={START}&endTime={START + 9 * HOUR}"


@pytest.mark.parametrize("kind", [one for one in FAULTS if one not in STATUS_FAULTS])
def test_every_fault_does_on_the_wire_what_its_name_says(
    exchange: ReplayExchange, kind: str
) -> None:
    true, ended = raw_get(exchange, KLINES)
    assert ended == "closed"
    exchange.inject(Fault(kind))
    path = {"clock_skew": "/api/v3/time", "changed_filters": "/api/v3/exchangeInfo"}.get(kind)
    if kind == "halted":
        path = KLINES.partition("&startTime")[0] + "&limit=3"
    if kind == "forming_as_closed":
        path = KLINES.partition("&startTime")[0] + f"&endTime={START + 1_199 * HOUR}"
    got, ended = raw_get(exchange, path or KLINES)
    head, _, body = got.partition(b"\r\n\r\n")
    whole = true.partition(b"\r\n\r\n")[2]
    match kind:
        case "hang":
            assert (got, ended) == (b"", "silent")
        case "drip":
            assert ended == "going on"
            assert body.strip() == b""
            assert len(body) > 3
        case "reset_before" | "reset_after":
            assert (got, ended) == (b"", "reset")
        case "half_body":
            assert whole.startswith(body)
            assert f"Content-Length: {len(whole)}".encode() in head
            assert len(body) < len(whole)
        case "html":
            assert body.startswith(b"<html>")
        case "truncated_json":
            assert whole.startswith(body)
            assert len(body) < len(whole)
        case "null" | "empty":
            assert body == {"null": b"null", "empty": b""}[kind]
        case "gzip_garbage":
            assert b"Content-Encoding: gzip" in head
        case "redirect_loop":
            assert b"302" in head.splitlines()[0]
            assert f"Location: {exchange.url}{KLINES}".encode() in head
        case "error_object":
            assert json.loads(body)["code"] == -1000
        case "clock_skew":
            assert json.loads(body)["serverTime"] == NOW + HOUR
        case "changed_filters":
            listing = json.loads(body)["symbols"][0]
            assert {"0.10000000"} <= {one.get("tickSize") for one in listing["filters"]}
        case "halted":
            hours = [(row[0] - START) // HOUR for row in json.loads(body)]
            assert hours == [1_196, 1_197, 1_198]
        case "forming_as_closed":
            last = json.loads(body)[-1]
            assert last[0] == START + 1_200 * HOUR
            assert last[6] < NOW
        case _:
            assert body != whole
            assert b"200" in head.splitlines()[0]
    exchange.clear_faults()
    assert raw_get(exchange, KLINES)[0].partition(b"\r\n\r\n")[2] == whole


@pytest.mark.parametrize("kind", STATUS_FAULTS)
def test_every_status_is_sent_as_named(exchange: ReplayExchange, kind: str) -> None:
    exchange.inject(Fault(kind, "ping", seconds=7))
    answer = get(exchange, "ping")
    assert answer.status_code == STATUS_FAULTS[kind]
    assert answer.headers.get("Retry-After") == (
        "7" if kind in ("status_429", "status_418") else None
    )
    assert get(exchange, "time").status_code == 200


def test_a_fault_comes_after_so_many_requests_and_lasts_for_so_many(
    exchange: ReplayExchange,
) -> None:
    exchange.inject(Fault("status_503", "klines", symbol="BTCUSDT", after=1, times=2))

    def statuses(symbol: str) -> list[int]:
        query = {"symbol": symbol, "interval": "1h"}
        return [get(exchange, "klines", **query).status_code for _ in range(5)]

    assert statuses("ETHUSDT") == [200] * 5
    assert statuses("BTCUSDT") == [200, 503, 503, 200, 200]


def test_a_fault_of_one_symbol_leaves_the_others_alone(exchange: ReplayExchange) -> None:
    exchange.inject(Fault("halted", symbol="ETHUSDT"))
    listed = get(exchange, "exchangeInfo").json()["symbols"]
    assert [one["status"] for one in listed] == ["TRADING", "BREAK"]
    exchange.clear_faults()
    exchange.inject(Fault("status_503", symbol="ETHUSDT"))
    assert get(exchange, "time").status_code == 200, "it is about no symbol"
    assert get(exchange, "ticker/price", symbol="BTCUSDT").status_code == 200
    assert get(exchange, "ticker/price").status_code == 503, "it is about them all"
    assert get(exchange, "ticker/price", symbols='["BTCUSDT","ETHUSDT"]').status_code == 503


def test_a_halted_symbol_s_candles_stop_while_time_goes_on(exchange: ReplayExchange) -> None:
    exchange.inject(Fault("halted"))
    query = {"symbol": "BTCUSDT", "interval": "1h"}
    before = get(exchange, "klines", **query).json()
    assert before[-1][0] == START + 1_198 * HOUR
    exchange.clock.set(NOW + 20 * HOUR)
    assert get(exchange, "klines", **query).json() == before
    old = get(exchange, "klines", **query, startTime=START, endTime=START + 3 * HOUR).json()
    assert [row[0] for row in old] == [START + i * HOUR for i in range(4)]


@pytest.mark.parametrize(
    "fault", [Fault("gap", "klinez"), Fault("gap", symbol="NOPEUSDT"), Fault("hang", "orders")]
)
def test_a_fault_that_could_never_hit_is_refused_by_name(
    exchange: ReplayExchange, fault: Fault
) -> None:
    with pytest.raises(UnknownNameError, match=fault.endpoint or fault.symbol):
        exchange.inject(fault)
    assert exchange.faults() == []


def test_a_fault_that_has_hit_as_often_as_it_should_is_off(exchange: ReplayExchange) -> None:
    exchange.inject(Fault("status_503", "ping", after=1, times=2))
    for _ in range(2):
        get(exchange, "ping")
        assert len(exchange.faults()) == 1
    get(exchange, "ping")
    assert exchange.faults() == []


# Connections


def test_a_closed_exchange_answers_nothing_and_leaves_no_thread() -> None:
    before = threading.active_count()
    exchange = ReplayExchange([CANDLES], FILTERS, NOW)
    exchange.start()
    with requests.Session() as kept:
        kept.mount("http://", HTTPAdapter(max_retries=0))
        assert kept.get(f"{exchange.url}/api/v3/ping", timeout=5).status_code == 200
        links = []
        for kind, endpoint in (("hang", "time"), ("drip", "klines")):
            exchange.inject(Fault(kind, endpoint))
            link = socket.create_connection(("127.0.0.1", urlsplit(exchange.url).port or 0), 5)
            link.sendall(f"GET /api/v3/{endpoint} HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n".encode())
            links.append(link)
        while len(exchange.requests) < 3:
            time.sleep(0.01)
        began = time.monotonic()
        exchange.close()
        assert time.monotonic() - began < 3
        with pytest.raises(requests.ConnectionError):
            kept.get(f"{exchange.url}/api/v3/ping", timeout=5)
        for link in links:
            while link.recv(65_536):
                pass
            link.close()
    assert threading.active_count() == before


def test_an_answer_on_a_kept_connection_does_not_wait_for_the_network(
    exchange: ReplayExchange,
) -> None:
    with requests.Session() as kept:
        took = []
        for _ in range(30):
            began = time.monotonic()
            kept.get(f"{exchange.url}/api/v3/ping", timeout=5)
            took.append(time.monotonic() - began)
    # Headers and body in two packets cost 40 ms of delayed acknowledgement each time.
    assert sorted(took)[10] < 0.03


# The control path


def test_the_clock_and_the_faults_are_controlled_over_http(exchange: ReplayExchange) -> None:
    control = f"{exchange.url}/replay"
    state = requests.post(
        f"{control}/clock", json={"now": "2024-01-10T00:00Z", "speed": 0}, timeout=10
    ).json()
    assert (state["now"], state["speed"]) == ("2024-01-10T00:00Z", 0)
    fault = {"kind": "gap", "endpoint": "klines", "times": 1}
    assert requests.post(f"{control}/faults", json=fault, timeout=10).status_code == 200
    (on,) = requests.get(control, timeout=10).json()["faults"]
    assert (on["kind"], on["times"]) == ("gap", 1)
    assert requests.delete(f"{control}/faults", timeout=10).json()["faults"] == []
    set_clock(exchange.url, START + 5 * HOUR)
    assert get(exchange, "time").json() == {"serverTime": START + 5 * HOUR}
    date = get(exchange, "time").headers["Date"]
    assert date == "Mon, 01 Jan 2024 05:00:00 GMT"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "clock", {"now": "soon"}, 400),
        ("POST", "clock", {"later": 1}, 400),
        ("POST", "clock", [1], 400),
        ("POST", "faults", {"kind": "nope"}, 400),
        ("POST", "faults", {}, 400),
        ("POST", "faults", {"kind": ["gap"]}, 400),
        ("POST", "faults", {"kind": "gap", "endpoint": "klinez"}, 400),
        ("POST", "faults", {"kind": "gap", "symbol": "NOPEUSDT"}, 400),
        ("GET", "elsewhere", None, 404),
    ],
)
def test_wrong_control_is_answered_with_what_was_expected(
    exchange: ReplayExchange, method: str, path: str, body: Any, status: int
) -> None:
    answer = requests.request(method, f"{exchange.url}/replay/{path}", json=body, timeout=10)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert exchange.clock.now() == NOW
    assert exchange.faults() == []


def test_no_web_page_can_move_it(exchange: ReplayExchange) -> None:
    named = {"Host": "exchange.example"}
    assert requests.get(f"{exchange.url}/replay", headers=named, timeout=10).status_code == 403
    plain = requests.post(
        f"{exchange.url}/replay/clock",
        data='{"now": 5}',
        headers={"Content-Type": "text/plain"},
        timeout=10,
    )
    assert plain.status_code == 400
    assert exchange.clock.now() == NOW


def test_moving_the_clock_of_nobody_says_so() -> None:
    with pytest.raises(ExchangeUnreachable, match="no replay exchange"):
        set_clock("http://127.0.0.1:9", NOW)


def test_it_serves_several_timeframes_of_several_symbols() -> None:
    days = synthetic_candles(["BTCUSDT"], "1d", START, 40)
    with ReplayExchange([CANDLES, CandleSet(days.series)], FILTERS, NOW) as exchange:
        assert len(get(exchange, "klines", symbol="BTCUSDT", interval="1d").json()) == 40
        made = get(exchange, "klines", symbol="ETHUSDT", interval="1d").json()
        assert len(made) == 51, "of hours, as far as they cover a day"
        refused = get(exchange, "klines", symbol="ETHUSDT", interval="15m")
        assert refused.json()["code"] == -1120
