"""The strict reader of klines and exchangeInfo: what is accepted, and that nothing else is."""

from __future__ import annotations

import copy
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.answers import parse_listings, parse_time
from research.candles import require_sound
from research.errors import CandlesRejected, ExchangeRefused, UnknownNameError
from research.klines import KLINE_COLUMNS, parse_klines
from research.synthetic import synthetic_candles

HOUR = 3_600_000
START = 1_677_628_800_000
SHARED = Path(os.environ.get("CANDLEBOOK_SHARED", "../shared"))
RECORDED = SHARED / "raw" / "binance_http"
needs_recorded = pytest.mark.skipif(
    not RECORDED.is_dir(), reason="needs recorded Binance bodies: set CANDLEBOOK_SHARED"
)


def body(bars: int = 6) -> list[list[Any]]:
    """A sound answer in Binance's shape."""
    one = synthetic_candles(["BTCUSDT"], "1h", START, bars)["BTCUSDT"]
    return [
        [
            int(one.ts[i]),
            *(f"{getattr(one, c)[i]:.8f}" for c in ("open", "high", "low", "close", "volume")),
            int(one.ts[i]) + HOUR - 1,
            "1000.50000000",
            12,
            "0.50000000",
            "500.25000000",
            "0",
        ]
        for i in range(bars)
    ]


def is_sound(rows: object) -> bool:
    """The oracle: the rules again, by character and comparison; no code of the parser in it."""

    def number(text: object) -> Decimal | None:
        if not isinstance(text, str) or set(text) - set("0123456789."):
            return None
        whole, dot, part = text.partition(".")
        good = 1 <= len(whole) <= 20 and (not dot or 1 <= len(part) <= 20) and "." not in part
        return Decimal(text) if good else None

    if not isinstance(rows, list):
        return False
    last = 0
    for row in rows:
        if not isinstance(row, list) or len(row) != 12:
            return False
        whole = [row[i] for i in (0, 6, 8)]
        if any(isinstance(v, bool) or not isinstance(v, int) or v < 0 for v in whole):
            return False
        if row[8] >= 2**53:
            return False
        numbers = [number(row[i]) for i in (1, 2, 3, 4, 5, 7, 9, 10, 11)]
        if any(n is None for n in numbers):
            return False
        # As the doubles that are stored: 1e-20 and 2e-20 apart are not zero, but may be equal.
        o, h, lo, c = (float(n) for n in numbers[:4] if n is not None)
        if min(o, h, lo, c) <= 0 or h != max(o, h, lo, c) or lo != min(o, h, lo, c):
            return False
        ts, close = row[0], row[6]
        if ts % HOUR or ts <= last or len(str(ts)) != 13 or close - ts != 3_599_999:
            return False
        last = ts
    return True


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=13) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=15,
)
odd_values = st.one_of(
    json_values,
    st.sampled_from(
        ["NaN", "Infinity", "-1.0", "1e5", "", " 1", "1.", ".5", "٣", "1_0", "0", "9" * 400]
    ),
    st.sampled_from([0, -1, START * 1000, START // 1000, START + 1, True, None, [], {}, 0.5]),
    st.decimals(0, 10**6, places=8).map(str),
    st.integers(-3, 9).map(lambda n: START + n * HOUR),
    st.integers(-3, 9).map(lambda n: START + n * HOUR - 1),
)


@st.composite
def mutated(draw: st.DrawFn) -> object:
    rows: list[Any] = copy.deepcopy(body())
    for _ in range(draw(st.integers(0, 2))):
        if not rows:
            break
        at = draw(st.integers(0, len(rows) - 1))
        kind = draw(st.sampled_from(["value", "value", "value", "swap", "copy", "drop", "row"]))
        if kind == "value" and isinstance(rows[at], list) and rows[at]:
            rows[at][draw(st.integers(0, len(rows[at]) - 1))] = draw(odd_values)
        elif kind == "swap":
            other = draw(st.integers(0, len(rows) - 1))
            rows[at], rows[other] = rows[other], rows[at]
        elif kind == "copy":
            rows.insert(draw(st.integers(0, len(rows))), copy.deepcopy(rows[at]))
        elif kind == "drop":
            del rows[at]
        elif isinstance(rows[at], list):
            rows[at] = draw(
                st.sampled_from([rows[at][:11], [*rows[at], "0"], tuple(rows[at]), None, {}])
            )
    return rows


@settings(max_examples=600, deadline=None)
@given(rows=mutated())
def test_an_answer_is_accepted_if_and_only_if_it_keeps_every_rule(rows: object) -> None:
    if is_sound(rows):
        require_sound(parse_klines(rows, "BTCUSDT", "1h").candles)
    else:
        with pytest.raises(CandlesRejected, match=r"^BTCUSDT 1h (answer|row \d)"):
            parse_klines(rows, "BTCUSDT", "1h")


@settings(max_examples=200, deadline=None)
@given(rows=json_values)
def test_any_json_at_all_ends_in_klines_or_in_the_typed_error(rows: object) -> None:
    if is_sound(rows):
        assert parse_klines(rows, "BTCUSDT", "1h").candles.bar_ms == HOUR
    else:
        with pytest.raises(CandlesRejected):
            parse_klines(rows, "BTCUSDT", "1h")


def changed(row: int, column: str, value: object) -> list[list[Any]]:
    rows = body()
    rows[row][KLINE_COLUMNS.index(column)] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        (None, "BTCUSDT 1h answer"),
        ("<html>Sign in to this network</html>", "BTCUSDT 1h answer"),
        ({"code": -1121, "msg": "Invalid symbol."}, "BTCUSDT 1h answer"),
        ([None], "BTCUSDT 1h row 0"),
        (["<", "h"], "BTCUSDT 1h row 0"),
        ([*body()[:2], body()[2][:11]], "BTCUSDT 1h row 2"),
        ([[*body()[0], "0"]], "BTCUSDT 1h row 0"),
        (changed(3, "open", 101.5), "BTCUSDT 1h row 3, open"),
        (changed(3, "close", "NaN"), "BTCUSDT 1h row 3, close"),
        (changed(3, "high", "Infinity"), "BTCUSDT 1h row 3, high"),
        (changed(3, "volume", "-1.00000000"), "BTCUSDT 1h row 3, volume"),
        (changed(3, "low", "0.00000000"), "BTCUSDT 1h row 3, low"),
        (changed(3, "high", "1.00000000"), "BTCUSDT 1h row 3, high"),
        (changed(3, "open", "9000000.00000000"), "BTCUSDT 1h row 3, open"),
        (changed(3, "close", "1.00000000"), "BTCUSDT 1h row 3, close"),
        (changed(3, "trades", True), "BTCUSDT 1h row 3, trades"),
        (changed(3, "trades", -1), "BTCUSDT 1h row 3, trades"),
        (changed(3, "taker quote volume", None), "BTCUSDT 1h row 3, taker quote volume"),
        (changed(3, "open time", START * 1000), "BTCUSDT 1h row 3, open time"),
        (changed(3, "open time", START // 1000), "BTCUSDT 1h row 3, open time"),
        (changed(3, "open time", START + 3 * HOUR + 1), "BTCUSDT 1h row 3, open time"),
        (changed(3, "open time", str(START + 3 * HOUR)), "BTCUSDT 1h row 3, open time"),
        (changed(3, "close time", START + 4 * HOUR), "BTCUSDT 1h row 3, close time"),
        (changed(3, "close time", START + 3 * HOUR + 59_999), "BTCUSDT 1h row 3, close time"),
        ([body()[0], body()[0]], "BTCUSDT 1h row 1, open time"),
        (body()[::-1], "BTCUSDT 1h row 1, open time"),
    ],
)
def test_each_known_fault_is_named_with_row_and_column(rows: object, where: str) -> None:
    with pytest.raises(CandlesRejected) as caught:
        parse_klines(rows, "BTCUSDT", "1h")
    assert caught.value.field == where
    assert caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize(
    "text", ["1e5", "+1", " 1", "1 ", "1_0", "٣", "1.", ".5", "", "0x1", "1,5", "1\n", "9" * 400]
)
def test_texts_that_float_would_take_or_nearly_take_are_no_decimals(text: str) -> None:
    with pytest.raises(CandlesRejected, match="row 3, volume"):
        parse_klines(changed(3, "volume", text), "BTCUSDT", "1h")


def test_a_gap_passes_and_an_empty_answer_is_empty() -> None:
    rows = body()
    del rows[2:4]
    assert len(parse_klines(rows, "BTCUSDT", "1h").candles) == 4
    empty = parse_klines([], "BTCUSDT", "1h")
    assert len(empty.candles) == len(empty.trades) == len(empty.close_ts) == 0


def test_values_arrive_as_they_were_written() -> None:
    one = synthetic_candles(["BTCUSDT"], "1h", START, 6)["BTCUSDT"]
    klines = parse_klines(body(), "BTCUSDT", "1h")
    assert klines.candles.digest() == one.digest()
    assert klines.close_ts.tolist() == [START + (i + 1) * HOUR - 1 for i in range(6)]
    assert klines.quote_volume.tolist() == [1000.5] * 6
    assert klines.trades.tolist() == [12] * 6


@pytest.mark.parametrize(
    ("close_offset", "age_bars", "accepted"),
    [
        (2_381_646, 2, True),  # 2023-03-24 12:00, cut short at 12:39:41.646, once it is history
        (2_381_646, 1.99, False),  # the same, while it could still be a fault of the moment
        (2_381_646, None, False),  # the same, without a clock
        (59_999, 100, False),  # a one-minute candle under an hour's name is no outage
        (3_600_000, 100, False),  # later than it may be is never right
        (0, 100, False),
        (-1, 100, False),
    ],
)
def test_a_candle_cut_short_by_an_outage_is_taken_only_as_history(
    close_offset: int, age_bars: float | None, accepted: bool
) -> None:
    rows = body(1)
    rows[0][6] = START + close_offset
    now = None if age_bars is None else START + int(age_bars * HOUR)
    if accepted:
        assert parse_klines(rows, "BTCUSDT", "1h", now).close_ts.tolist() == [START + close_offset]
        return
    with pytest.raises(CandlesRejected, match="row 0, close time"):
        parse_klines(rows, "BTCUSDT", "1h", now)


@needs_recorded
@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_what_binance_really_answered_is_accepted(symbol: str) -> None:
    rows = json.loads((RECORDED / f"klines_{symbol}_1h_2023-03-01.json").read_text())
    now = START + 365 * 24 * HOUR
    klines = parse_klines(rows, symbol, "1h", now)
    assert len(klines.candles) == len(rows) > 500
    assert klines.candles.open.tolist() == [float(row[1]) for row in rows]
    assert klines.trades.tolist() == [row[8] for row in rows]


def exchange_info(**changes: object) -> dict[str, Any]:
    lot = {
        "filterType": "LOT_SIZE",
        "minQty": "0.00001000",
        "maxQty": "9000.00000000",
        "stepSize": "0.00001000",
    } | changes
    price = {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "tickSize": "0.01000000"}
    notional = {"filterType": "NOTIONAL", "minNotional": "5.00000000"}
    listed = {"symbol": "BTCUSDT", "status": "TRADING", "filters": [price, lot, notional]}
    return {"symbols": [listed]}


def test_filters_are_exact_decimals() -> None:
    found = parse_listings(exchange_info(), ["BTCUSDT"])["BTCUSDT"].filters
    assert found.lot_step == found.min_quantity == Decimal("0.00001")
    assert (found.max_quantity, found.tick) == (Decimal(9000), Decimal("0.01"))
    assert (found.min_notional, found.min_trade_size) == (Decimal(5), Decimal(0))


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "<html>",
        [],
        {"symbols": None},
        {"symbols": [{}]},
        {"symbols": [{"symbol": "BTCUSDT", "filters": None}]},
        {"symbols": [{"symbol": "BTCUSDT", "filters": [{"filterType": "LOT_SIZE"}]}]},
        {"symbols": [{"symbol": [], "filters": []}]},
        exchange_info(stepSize="0.00000000"),
        exchange_info(stepSize="NaN"),
        exchange_info(stepSize=0.00001),
        exchange_info(minQty="-1"),
        exchange_info(maxQty="0.00000100"),
        exchange_info(filterType=[]),
    ],
)
def test_unusable_filters_are_refused(answer: object) -> None:
    with pytest.raises(ExchangeRefused) as caught:
        parse_listings(answer, ["BTCUSDT"])
    assert "exchangeInfo" in str(caught.value)
    assert caught.value.remedy


def test_a_symbol_that_the_exchange_does_not_list_is_named() -> None:
    with pytest.raises(UnknownNameError, match="NOPEUSDT"):
        parse_listings(exchange_info(), ["NOPEUSDT"])


@needs_recorded
def test_the_recorded_exchange_info_gives_filters_for_the_demonstration_symbols() -> None:
    answer = json.loads((RECORDED / "exchangeInfo_2021-10-12.json").read_text())
    listed = parse_listings(answer, ["SOLUSDT", "BTCUSDT"])
    assert {one.status for one in listed.values()} == {"TRADING"}
    found = {symbol: one.filters for symbol, one in listed.items()}
    assert list(found) == ["SOLUSDT", "BTCUSDT"]
    assert found["BTCUSDT"].lot_step == Decimal("0.00001")
    assert found["BTCUSDT"].tick == Decimal("0.01")
    assert found["BTCUSDT"].min_notional == Decimal(10)


@pytest.mark.parametrize(
    "answer",
    [None, "", [], {}, {"serverTime": "1677628800000"}, {"serverTime": True}]
    + [{"serverTime": value} for value in (START // 1000, START * 1000, -1, float(START))],
)
def test_a_clock_that_is_no_millisecond_stamp_is_refused(answer: object) -> None:
    with pytest.raises(ExchangeRefused, match="server time"):
        parse_time(answer)
    assert parse_time({"serverTime": START}) == START
