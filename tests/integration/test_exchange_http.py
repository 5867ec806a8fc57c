"""ccxt over real HTTP against a loopback stand-in that speaks Binance's REST, with faults."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from research.candles import COLUMNS, Candles
from research.errors import (
    CandlebookError,
    CandlesRejected,
    ExchangeError,
    ExchangeRefused,
    ExchangeUnreachable,
    ParameterError,
    SettingsError,
    UnknownNameError,
)
from research.exchange import MarketData
from tests.integration.stand_in import (
    BARS,
    HOUR,
    NOW,
    START,
    Exchange,
    Fault,
    answer,
    cut_off,
    drip_body,
    drip_headers,
    reset,
    silence,
)


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    server = Exchange()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


def market(exchange: Exchange, deadline_s: float = 5.0) -> MarketData:
    return MarketData(base_url=exchange.url, deadline_s=deadline_s)


def joined(pages: list[Candles]) -> list[list[float]]:
    names = ("ts", "open", "high", "low", "close", "volume")
    return [np.concatenate([getattr(page, name) for page in pages]).tolist() for name in names]


def test_pages_join_to_the_whole_series_without_the_forming_candle(exchange: Exchange) -> None:
    pages = list(market(exchange).closed_candles("BTCUSDT", "1h", START))
    assert [len(page) for page in pages] == [1000, 999, 501]
    assert joined(pages) == joined([exchange.candles.rows(0, BARS)])
    klines = [query for name, query in exchange.asked if name == "klines"]
    assert len(klines) == 3
    assert int(klines[2]["startTime"]) == START + 1998 * HOUR, "a page begins with a known candle"
    assert {query["limit"] for query in klines} == {"1000"}


def test_a_candle_counts_once_a_later_one_shows_or_two_seconds_after_its_close(
    exchange: Exchange,
) -> None:
    edge = START + BARS * HOUR
    cases = ((edge - 1, BARS - 2, False), (edge, BARS - 2, False), (edge + 1, BARS - 1, True))
    lagging = ((edge + 1_999, BARS - 2, False), (edge + 2_000, BARS - 1, False))
    for now, last, shows_later in cases + lagging:
        exchange.absent = set() if shows_later else {BARS}
        exchange.faults["time"] = [answer(json.dumps({"serverTime": now}))]
        exchange.date = now
        pages = market(exchange).closed_candles("BTCUSDT", "1h", edge - 5 * HOUR)
        assert int(list(pages)[-1].ts[-1]) == START + last * HOUR


def test_start_and_end_bound_the_opens_and_text_dates_are_utc(exchange: Exchange) -> None:
    first, last = "2023-01-01T00:30", "2023-01-02"
    (page,) = market(exchange).closed_candles("BTCUSDT", "1h", first, last)
    assert page.ts.tolist() == [START + i * HOUR for i in range(1, 24)]
    assert not list(market(exchange).closed_candles("BTCUSDT", "1h", NOW + HOUR))


def test_gaps_and_short_pages_come_through_as_they_are(exchange: Exchange) -> None:
    exchange.absent = set(range(400, 1500))
    short = json.dumps([exchange.row(i) for i in range(300)])  # fewer than there are
    exchange.faults["klines"] = [answer(short), answer(short)]
    pages = market(exchange).closed_candles("BTCUSDT", "1h", START)
    kept = [i for i in range(BARS) if i not in exchange.absent]
    assert joined(list(pages))[0] == [START + i * HOUR for i in kept]


def test_a_gap_or_an_early_end_that_a_second_answer_does_not_confirm_is_refused(
    exchange: Exchange,
) -> None:
    rows = [exchange.row(i) for i in range(BARS + 1)]
    late, holed, early = rows[1:1000], rows[:500] + rows[501:1000], rows[:300]
    for body in (late, holed, early):
        exchange.faults["klines"] = [answer(json.dumps(body))]
        with pytest.raises(CandlesRejected, match="asked twice"):
            list(market(exchange).closed_candles("BTCUSDT", "1h", START))


def moved(candles: Candles, i: int, factor: float) -> Candles:
    """Candle ``i`` with its high and close multiplied: sound in itself."""
    columns = {name: np.array(getattr(candles, name)) for name in COLUMNS}
    columns["high"][i] *= factor
    columns["close"][i] = columns["high"][i]
    return Candles(candles.symbol, candles.timeframe, candles.ts, **columns)


def scaled(candles: Candles, factor: float, first: int = 0) -> Candles:
    """The prices from candle ``first`` on, multiplied: another market, sound in itself."""
    columns = {name: np.array(getattr(candles, name)) for name in COLUMNS}
    for name in ("open", "high", "low", "close"):
        columns[name][first:] *= factor
    return Candles(candles.symbol, candles.timeframe, candles.ts, **columns)


@pytest.mark.parametrize("factor", [10.0, 0.05, 1.1])
def test_another_market_under_the_name_of_a_stored_one_is_refused(
    exchange: Exchange, factor: float
) -> None:
    true = exchange.candles
    stored, low, high = true.rows(2_490, 2_495), true.low[-24:].min(), true.high[-24:].max()
    exchange.candles = scaled(true, factor)
    exchange.faults["ticker/24hr"] = [day(exchange, float(low), float(high))] * 3
    pages = market(exchange).closed_candles("BTCUSDT", "1h", START + 2_490 * HOUR, stored=stored)
    with pytest.raises(CandlesRejected, match="came again with"):
        list(pages)


def test_a_leap_is_measured_against_what_was_stored(exchange: Exchange) -> None:
    true = exchange.candles
    stored, low, high = true.rows(2_490, 2_495), true.low[-24:].min(), true.high[-24:].max()
    exchange.candles = scaled(true, 3.0, first=2_495)
    exchange.faults["ticker/24hr"] = [day(exchange, float(low), float(high))] * 3
    pages = market(exchange).closed_candles("BTCUSDT", "1h", START + 2_490 * HOUR, stored=stored)
    with pytest.raises(CandlesRejected, match="prices of the last 24 hours"):
        list(pages)


def kept(candles: Candles, positions: list[int]) -> Candles:
    columns = (getattr(candles, name)[positions] for name in ("ts", *COLUMNS))
    return Candles(candles.symbol, candles.timeframe, *columns)


def day(exchange: Exchange, low: float, high: float) -> Fault:
    """A ticker/24hr body with this range."""
    prices = {"lowPrice": low, "highPrice": high, "lastPrice": high}
    body = {name: f"{price:.8f}" for name, price in prices.items()}
    body |= {"volume": "1000.0", "quoteVolume": "20000.0"}
    times = {"openTime": NOW - 24 * HOUR, "closeTime": NOW, "count": 5}
    return answer(json.dumps({"symbol": "BTCUSDT", **body, **times}))


def test_a_leap_of_the_price_is_taken_where_the_last_day_bears_it_out_else_refused(
    exchange: Exchange,
) -> None:
    true = exchange.candles
    exchange.candles = moved(true, BARS - 2, 3.0)
    low, high = float(true.low[-24:].min()), float(exchange.candles.high[-24:].max())

    def fetched() -> list[Candles]:
        pages = market(exchange).closed_candles("BTCUSDT", "1h", NOW - 30 * HOUR)
        return list(pages)

    exchange.faults["ticker/24hr"] = [day(exchange, low, float(true.high.max()))]
    with pytest.raises(CandlesRejected, match="prices of the last 24 hours"):
        fetched()
    exchange.faults["ticker/24hr"] = [day(exchange, low, high)]
    assert float(fetched()[0].high.max()) == high
    exchange.candles = moved(true, BARS - 29, 3.0)
    assert fetched(), "an older one only has to be answered twice"


def test_an_open_that_leaps_must_lie_in_the_range_of_the_last_day(exchange: Exchange) -> None:
    true = exchange.candles
    columns = {name: np.array(getattr(true, name)) for name in COLUMNS}
    for name in ("open", "high"):
        columns[name][BARS] = float(true.high[BARS]) * 2
    exchange.candles = Candles("BTCUSDT", "1h", true.ts, **columns)
    exchange.faults["ticker/24hr"] = [day(exchange, 1.0, float(true.high.max()))]
    with pytest.raises(CandlesRejected, match="open"):
        market(exchange).forming_open("BTCUSDT", "1h")
    wanted = float(columns["open"][BARS])
    exchange.faults["ticker/24hr"] = [day(exchange, 1.0, wanted)]
    assert market(exchange).forming_open("BTCUSDT", "1h") == (START + BARS * HOUR, wanted)


def test_stored_candles_must_come_again_whatever_their_values(exchange: Exchange) -> None:
    first = START + 2_490 * HOUR
    stored = exchange.candles.rows(2_490, 2_495)
    exchange.candles = moved(exchange.candles, 2_493, 1.01)
    (page,) = market(exchange).closed_candles("BTCUSDT", "1h", first, stored=stored)
    assert page.ts.tolist() == [START + i * HOUR for i in range(2_490, 2_500)]
    # Bars that were missing once may have come by now, before and between the stored ones.
    for late in (stored.rows(2, 5), kept(stored, [0, 1, 4])):
        (page,) = market(exchange).closed_candles("BTCUSDT", "1h", first, stored=late)
        assert len(page) == 10
    without = stored.rows(0, 2)
    assert len(next(market(exchange).closed_candles("BTCUSDT", "1h", first, stored=without))) == 10
    for withdrawn in (2_490, 2_492):
        exchange.absent = {withdrawn}
        with pytest.raises(CandlesRejected, match="again"):
            list(market(exchange).closed_candles("BTCUSDT", "1h", first, stored=stored))


def test_a_clock_that_disagrees_with_the_date_of_its_own_answer_is_refused(
    exchange: Exchange,
) -> None:
    exchange.date = NOW - HOUR
    with pytest.raises(ExchangeRefused, match="about the date of the answer"):
        market(exchange).server_time()
    exchange.date = NOW - 50_000
    assert market(exchange).server_time() == NOW


def test_pages_that_do_not_answer_the_question_are_refused(exchange: Exchange) -> None:
    for rows in (range(50, 60), range(130, 260), range(100, 210)):
        exchange.faults["klines"] = [answer(json.dumps([exchange.row(i) for i in rows]))]
        pages = market(exchange).closed_candles(
            "BTCUSDT", "1h", START + 100 * HOUR, START + 200 * HOUR
        )
        with pytest.raises(CandlesRejected, match="rows from"):
            list(pages)
    exchange.faults["klines"] = [answer(json.dumps([exchange.row(i) for i in range(1001)]))]
    with pytest.raises(CandlesRejected, match="at most 1000 rows"):
        list(market(exchange).closed_candles("BTCUSDT", "1h", START))


def test_the_open_of_the_forming_candle_is_known_once_it_has_traded(exchange: Exchange) -> None:
    forming = float(exchange.candles.open[BARS])
    assert market(exchange).forming_open("BTCUSDT", "1h") == (START + BARS * HOUR, forming)
    columns = {name: np.array(getattr(exchange.candles, name)) for name in COLUMNS}
    columns["volume"][BARS] = 0.0
    exchange.candles = Candles("BTCUSDT", "1h", exchange.candles.ts, **columns)
    assert market(exchange).forming_open("BTCUSDT", "1h") is None
    exchange.absent = {BARS}
    assert market(exchange).forming_open("BTCUSDT", "1h") is None


def test_time_filters_and_reachability(exchange: Exchange) -> None:
    data = market(exchange)
    assert data.server_time() == NOW
    assert data.reachable()
    found = data.filters(["ETHUSDT", "BTCUSDT"])
    assert list(found) == ["ETHUSDT", "BTCUSDT"]
    assert str(found["ETHUSDT"].lot_step) == "0.00001000"
    assert dict(exchange.asked)["exchangeInfo"] == {"symbols": '["ETHUSDT","BTCUSDT"]'}
    assert data.filters([]) == {}


@pytest.mark.parametrize("drip", [drip_body, drip_headers, silence])
def test_a_server_that_drips_or_is_silent_ends_at_the_deadline(
    exchange: Exchange, drip: Fault
) -> None:
    exchange.faults["time"] = [drip] * 5
    data = market(exchange, deadline_s=0.5)
    first = data.transport.open()
    begun = time.monotonic()
    with pytest.raises(ExchangeUnreachable) as caught:
        data.server_time()
    assert time.monotonic() - begun < 1.0
    assert caught.value.remedy
    exchange.faults.clear()
    data.transport.deadline_s = 5.0
    assert data.server_time() == NOW
    # A worker that was given up may still write to its connection: it is not used again.
    assert (data.transport.open() is first) == (drip is silence)


@pytest.mark.parametrize(
    ("fault", "lasting"),
    [
        (reset, ExchangeUnreachable),
        (cut_off, ExchangeUnreachable),
        (answer("busy", 503), ExchangeRefused),
        (answer("oh", 500), ExchangeRefused),
    ],
)
def test_a_passing_failure_is_retried_and_a_lasting_one_is_typed(
    exchange: Exchange,
    fault: Fault,
    lasting: type[ExchangeError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("research.transport._pause", lambda _: 0.01)
    exchange.faults["time"] = [fault] * 3
    assert market(exchange).server_time() == NOW
    exchange.asked.clear()
    exchange.faults["time"] = [fault] * 10
    with pytest.raises(lasting) as caught:
        market(exchange).server_time()
    assert caught.value.remedy
    assert len(exchange.asked) == 4


def test_retries_stop_before_the_deadline(exchange: Exchange) -> None:
    exchange.faults["time"] = [answer("busy", 503)] * 10
    begun = time.monotonic()
    with pytest.raises(ExchangeError):
        market(exchange, deadline_s=0.5).server_time()
    assert time.monotonic() - begun < 1.0
    assert len(exchange.asked) < 4


def test_a_wait_that_fits_the_deadline_is_waited_for(exchange: Exchange) -> None:
    exchange.faults["time"] = [answer("{}", 429, Retry_After="1")]
    begun = time.monotonic()
    assert market(exchange).server_time() == NOW
    assert 1.0 <= time.monotonic() - begun < 2.0


@pytest.mark.parametrize("status", [418, 429])
def test_a_longer_wait_is_named_and_nothing_is_asked_during_it(
    exchange: Exchange, status: int
) -> None:
    data = market(exchange)
    exchange.faults["time"] = [answer("{}", status, Retry_After="120")]
    with pytest.raises(ExchangeRefused, match="Wait 120 s"):
        data.server_time()
    with pytest.raises(ExchangeRefused, match=r"another 1(19|20) s"):
        data.server_time()
    assert not data.reachable()
    assert len(exchange.asked) == 1
    assert market(exchange).server_time() == NOW, "negative control: a new client may ask"


def test_a_rate_limit_without_a_wait_is_not_retried(exchange: Exchange) -> None:
    exchange.faults["time"] = [answer("{}", 429), answer("{}", 429, Retry_After="soon")]
    for _ in range(2):
        with pytest.raises(ExchangeRefused, match="Wait 60 s"):
            market(exchange).server_time()
    assert len(exchange.asked) == 2


HTML = "<html><body>Sign in to this network</body></html>"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (HTML, CandlesRejected),
        ("null", CandlesRejected),
        ("", CandlesRejected),
        ("[[1672531200000,", CandlesRejected),
        ("[1, 2]", CandlesRejected),
        ("[[NaN]]", CandlesRejected),
        ("{}", CandlesRejected),
        ('[{"code": -1121, "msg": "Invalid symbol."}]', ExchangeRefused),
        ('{"code": -1003, "msg": "Too many requests."}', ExchangeRefused),
        ("[" * 100_000 + "]" * 100_000, CandlebookError),
    ],
)
def test_nonsense_under_status_200_is_a_typed_error(
    exchange: Exchange, text: str, error: type[Exception]
) -> None:
    exchange.faults["klines"] = [answer(text, kind="text/html")] * 5
    with pytest.raises(error):
        list(market(exchange).closed_candles("BTCUSDT", "1h", START))


def test_a_portal_instead_of_the_exchange_is_not_reachable(exchange: Exchange) -> None:
    exchange.faults["time"] = [answer(HTML, kind="text/html")]
    assert not market(exchange).reachable()
    exchange.faults["time"] = [answer("", 302, Location=exchange.url + "/api/v3/time")] * 2
    assert not market(exchange).reachable()
    with pytest.raises(ExchangeRefused, match="status 302"):
        market(exchange).server_time()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 451])
def test_a_refusal_is_final_and_says_what_to_do(exchange: Exchange, status: int) -> None:
    exchange.faults["time"] = [answer('{"msg": "no"}', status)] * 2
    with pytest.raises(ExchangeRefused, match=f"status {status}") as caught:
        market(exchange).server_time()
    assert caught.value.remedy
    assert len(exchange.asked) == 1


def test_an_unknown_symbol_is_refused_by_the_exchange(exchange: Exchange) -> None:
    with pytest.raises(ExchangeRefused, match="Check symbol"):
        list(market(exchange).closed_candles("NOPEUSDT", "1h", START))


def test_nothing_listening_is_unreachable_and_quickly_known() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = MarketData(base_url=f"http://127.0.0.1:{port}", deadline_s=0.5)
    begun = time.monotonic()
    assert not data.reachable()
    assert time.monotonic() - begun < 1.0
    with pytest.raises(ExchangeUnreachable, match="Check the network"):
        data.server_time()


def test_a_name_lookup_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*args: Any, **kwargs: Any) -> Any:
        release.wait(10)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    begun = time.monotonic()
    assert not MarketData(base_url="http://exchange.invalid").reachable(timeout_s=0.3)
    assert time.monotonic() - begun < 0.8
    release.set()


def test_an_abandoned_request_does_not_keep_the_process(exchange: Exchange) -> None:
    exchange.faults["time"] = [drip_body]
    code = (
        "import sys; from research.exchange import MarketData\n"
        "print(MarketData(base_url=sys.argv[1]).reachable(timeout_s=0.2), 'ccxt' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, exchange.url],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=True,
    )
    assert done.stdout.split() == ["False", "True"]
    assert done.stderr == ""


def test_no_question_can_leave_for_the_real_exchange_and_no_key_is_held(
    exchange: Exchange,
) -> None:
    data = market(exchange)
    data.server_time()
    opened = data.transport.open()
    assert {urlsplit(url).netloc for url in opened.urls["api"].values()} == {
        urlsplit(exchange.url).netloc
    }
    assert not opened.apiKey
    assert not opened.secret


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"exchange": "krakken"}, UnknownNameError),
        ({"base_url": "127.0.0.1:80"}, SettingsError),
        ({"base_url": "http://user:secret@host"}, SettingsError),
        ({"base_url": "http://host/api"}, SettingsError),
        ({"deadline_s": 0}, ParameterError),
        ({"patience_s": -1}, ParameterError),
        ({"deadline_s": float("nan")}, ParameterError),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        MarketData(**arguments)


@pytest.mark.parametrize("symbol", ["BTC/USDT", "btcusdt", "", "../X", "BTCUSDT\n", None])
def test_a_symbol_of_another_form_is_refused_before_any_request(
    exchange: Exchange, symbol: Any
) -> None:
    data = market(exchange)
    for question in (
        lambda: data.closed_candles(symbol, "1h", START),
        lambda: data.forming_open(symbol, "1h"),
        lambda: data.filters([symbol]),
    ):
        with pytest.raises(UnknownNameError):
            question()
    with pytest.raises(UnknownNameError):
        data.closed_candles("BTCUSDT", "1w", START)
    assert not exchange.asked
