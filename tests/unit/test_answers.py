"""The strict reader of prices and of the last 24 hours; the fuzz judges the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from research.answers import parse_day, parse_price
from research.errors import ExchangeRefused

START = 1_677_628_800_000
RECORDED = Path(os.environ.get("CANDLEBOOK_SHARED", "../shared")) / "raw" / "binance_http"
RECORDED = Path(__file__).resolve().parents[2] / RECORDED


def day(**changes: Any) -> dict[str, Any]:
    body = {"symbol": "BTCUSDT", "lastPrice": "100.5", "highPrice": "110", "lowPrice": "90.25"}
    body |= {"volume": "12.5", "quoteVolume": "1250.75"}
    return body | {"openTime": START, "closeTime": START + 86_400_000, "count": 3} | changes


def test_the_last_day_is_read_exactly() -> None:
    read = parse_day(day(), "BTCUSDT")
    assert (read.low, read.last, read.high) == (90.25, 100.5, 110.0)
    assert (read.volume, read.quote_volume, read.trades) == (12.5, 1250.75, 3)
    assert (read.open_time, read.close_time) == (START, START + 86_400_000)
    assert read.bears_out(90.25, 110.0)
    assert not read.bears_out(90.24, 100.0)
    assert not read.bears_out(100.0, 110.01)


def test_a_day_without_trades_may_have_no_prices() -> None:
    none = dict.fromkeys(("highPrice", "lowPrice", "lastPrice", "volume", "quoteVolume"), "0.0")
    assert parse_day(day(count=0, **none), "BTCUSDT").volume == 0.0
    with pytest.raises(ExchangeRefused, match="positive prices"):
        parse_day(day(**none), "BTCUSDT")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"symbol": "ETHUSDT"}, "BTCUSDT"),
        ({"lastPrice": "89"}, "low / last / high"),
        ({"highPrice": "80", "lastPrice": "90.25"}, "low / last / high"),
        ({"lowPrice": 90.25}, "lowPrice"),
        ({"volume": "-1"}, "volume"),
        ({"quoteVolume": "NaN"}, "quoteVolume"),
        ({"quoteVolume": None}, "quoteVolume"),
        ({"count": "3"}, "count"),
        ({"count": True}, "count"),
        ({"openTime": START * 1000}, "openTime"),
        ({"closeTime": START}, "closeTime"),
    ],
)
def test_a_figure_that_breaks_a_rule_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ExchangeRefused, match=named) as caught:
        parse_day(day(**changes), "BTCUSDT")
    assert caught.value.remedy


def test_the_documented_example_of_the_exchange_is_read() -> None:
    if not RECORDED.is_dir():
        pytest.skip("needs the recorded answers in CANDLEBOOK_SHARED")
    body = json.loads((RECORDED / "ticker_24hr_example.json").read_text())
    assert parse_day(body, "BNBBTC").quote_volume == float(body["quoteVolume"])


@pytest.mark.parametrize("price", ["0.00000000", "-1", "1e3", "", None, 5, 5.0, "٥"])
def test_a_price_is_a_positive_decimal(price: Any) -> None:
    with pytest.raises(ExchangeRefused, match="ticker/price"):
        parse_price({"symbol": "BTCUSDT", "price": price}, "BTCUSDT")


def test_a_price_of_another_symbol_is_refused() -> None:
    assert parse_price({"symbol": "BTCUSDT", "price": "5.25"}, "BTCUSDT") == 5.25
    for answer in ({"symbol": "ETHUSDT", "price": "5"}, [{"symbol": "BTCUSDT", "price": "5"}], 5):
        with pytest.raises(ExchangeRefused, match="BTCUSDT"):
            parse_price(answer, "BTCUSDT")
