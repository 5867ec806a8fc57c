"""What the replay exchange shows of stored candles: true, one story, nothing of the future."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live.replay.clock import VirtualClock
from live.replay.faults import FAULTS, Fault, bent
from live.replay.market import ApiError, Market, market_of, text
from live.replay.walk import FIRST_TRADE_MS, Bar, price_at, reached, seen
from research.account import Filters
from research.candles import COLUMNS, Candles, CandleSet, find_gaps, utc_ms
from research.errors import CandlebookError, InputError, UnknownNameError
from research.klines import parse_klines
from research.resampling import resample
from research.synthetic import synthetic_candles

MINUTE = 60_000
HOUR = 60 * MINUTE
START = utc_ms("2024-01-01")
TICK = Decimal("0.01")
FILTERS = {"BTCUSDT": Filters(lot_step="0.00001", tick="0.01")}

HOURS = synthetic_candles(["BTCUSDT"], "1h", START, 60)
MINUTES = synthetic_candles(["BTCUSDT"], "1m", START + 10 * HOUR, 20 * 60)
WITH_MINUTES = market_of([MINUTES, CandleSet((resample(MINUTES["BTCUSDT"], "1h"),))], FILTERS)
ALONE = market_of([HOURS], FILTERS)
_MINUTES = synthetic_candles(["BTCUSDT"], "1m", START, 60 * 60)["BTCUSDT"]
TRUTH = (_MINUTES, resample(_MINUTES, "1h"), resample(_MINUTES, "1d"))


@given(st.floats(1e-300, 1e300) | st.floats(1e-9, 1e9))
def test_a_number_s_text_parses_back_to_it(number: float) -> None:
    written = text(number)
    assert float(written) == number
    assert len(written.partition(".")[2]) >= 8
    assert "e" not in written.lower()


# The walk within a bar

prices = st.integers(1, 50_000).map(lambda cents: cents / 100)


@st.composite
def bars(draw: st.DrawFn) -> Bar:
    four = [draw(prices) for _ in range(4)]
    volume = draw(st.integers(1, 10_000)) / 10
    return Bar(START, four[0], max(four), min(four), four[1], volume)


@given(bars(), st.floats(0.001, 0.999))
def test_what_is_seen_of_a_bar_lies_within_it_and_grows_into_it(bar: Bar, elapsed: float) -> None:
    now = seen(bar, elapsed, TICK)
    assert bar.low <= now.low <= min(now.open, now.close)
    assert max(now.open, now.close) <= now.high <= bar.high
    assert (now.ts, now.open) == (bar.ts, bar.open)
    assert now.volume <= bar.volume
    later = seen(bar, (1 + elapsed) / 2, TICK)
    assert later.low <= now.low
    assert later.high >= now.high
    assert later.volume >= now.volume
    end = seen(bar, 1 - 1e-12, TICK)
    assert (end.high, end.low) == (bar.high, bar.low)
    assert end.close == pytest.approx(bar.close, abs=0.006)


def minutes_of(walked: list[Bar]) -> Candles:
    ts = np.array([one.ts for one in walked])
    return Candles("BTCUSDT", "1m", ts, *map(np.array, list(zip(*walked, strict=True))[1:]))


def first_met(walked: list[Bar], begin: int, end: int, level: float, rising: bool) -> int:
    """Millisecond by millisecond; ``end + 1`` for never."""
    for bar in walked:
        up = bar.close >= bar.open
        corners = (bar.open, *((bar.low, bar.high) if up else (bar.high, bar.low)), bar.close)
        times = np.arange(FIRST_TRADE_MS, MINUTE + 1)
        prices = np.interp(times, [0, 20_000, 40_000, 60_000], corners)
        met = prices >= level if rising else prices <= level
        met[0] |= bar.open >= level if rising else bar.open <= level
        here = bar.ts + times[met & (bar.ts + times > begin) & (bar.ts + times <= end)]
        if len(here) and bar.volume:
            return int(here[0])
    return end + 1


@given(
    st.lists(bars(), min_size=1, max_size=3),
    st.integers(0, 4 * MINUTE),
    st.integers(0, 4 * MINUTE),
    prices,
    st.booleans(),
    st.booleans(),
)
def test_a_level_is_met_when_a_walk_millisecond_by_millisecond_meets_it(
    drawn: list[Bar], one: int, other: int, level: float, rising: bool, traded: bool
) -> None:
    # Minutes 0, 2, 3: with a gap; perhaps the first of them did not trade.
    walked = [
        bar._replace(ts=START + place * MINUTE)
        for bar, place in zip(drawn, (0, 2, 3), strict=False)
    ]
    walked[0] = walked[0]._replace(volume=walked[0].volume if traded else 0.0)
    begin, end = START + min(one, other), START + max(one, other)
    found = reached(minutes_of(walked), begin, end, level, rising)
    expected = first_met(walked, begin, end, level, rising)
    assert abs((end + 1 if found is None else found) - expected) <= 1  # floats, at whole moments
    if found is not None:
        assert begin < found <= end


def test_an_open_that_is_left_at_once_has_traded() -> None:
    candles = minutes_of([Bar(START, 100.0, 110.0, 90.0, 105.0, 9.0)])
    # At the first second the walk is at 99.5 already.
    assert reached(candles, START, START + MINUTE, 99.8, rising=True) == START + FIRST_TRADE_MS
    assert reached(candles, START + 1_000, START + MINUTE, 99.8, rising=True) == START + 29_800
    assert reached(candles, START, START + MINUTE, 110.1, rising=True) is None


def test_nothing_is_met_where_nothing_is_stored() -> None:
    assert reached(HOURS["BTCUSDT"].rows(0, 0), START, START + HOUR, 1.0, rising=True) is None


def test_the_first_third_of_a_rising_bar_falls_and_of_a_falling_one_rises() -> None:
    up = Bar(START, 100.0, 110.0, 90.0, 105.0, 9.0)
    assert [price_at(up, part, TICK) for part in (0, 1 / 3, 2 / 3, 1)] == [100, 90, 110, 105]
    down = up._replace(close=95.0)
    assert [price_at(down, part, TICK) for part in (0, 1 / 3, 2 / 3, 1)] == [100, 110, 90, 95]
    assert seen(up, 0.25, TICK).high == 100.0, "the high is still to come"


# Candles

moments = st.integers(START - HOUR, START + 62 * HOUR)


@given(
    moments,
    st.none() | moments,
    st.none() | moments,
    st.integers(1, 1000),
    st.sampled_from([ALONE, WITH_MINUTES]),
)
def test_klines_are_those_of_the_question(
    now: int, start: int | None, end: int | None, limit: int, market: Market
) -> None:
    rows = market.klines("BTCUSDT", "1h", now, start, end, limit)
    stored = market.series["BTCUSDT"]["1h"]
    opens = [int(ts) for ts in stored.ts if ts <= now]
    wanted = [ts for ts in opens if (start is None or ts >= start) and (end is None or ts <= end)]
    wanted = wanted[:limit] if start is not None else wanted[-limit:]
    assert [row[0] for row in rows] == wanted
    klines = parse_klines(rows, "BTCUSDT", "1h", now)
    for row, i in zip(rows, np.searchsorted(stored.ts, wanted), strict=True):
        if row[0] + HOUR <= now:
            assert [float(one) for one in row[1:6]] == [
                float(getattr(stored, name)[i]) for name in COLUMNS
            ]
            assert (row[8] == 0) == (stored.volume[i] == 0)
    assert len(klines.candles) == len(rows)


@st.composite
def told(draw: st.DrawFn) -> Market:
    """One truth in minutes, hours and days, each beginning, ending and lacking bars anywhere."""
    sets = []
    for candles in TRUTH:
        count = len(candles)
        first = draw(st.integers(0, count // 2))
        kept = np.zeros(count, dtype=bool)
        kept[first : draw(st.integers(first + 1, count))] = True
        hole = draw(st.integers(0, count))
        kept[hole : hole + draw(st.integers(0, 90))] = False
        if kept.any():
            columns = {name: getattr(candles, name)[kept] for name in ("ts", *COLUMNS)}
            sets.append(CandleSet((replace(candles, **columns),)))
    return market_of(sets or [HOURS], FILTERS)


@given(told(), st.integers(0, 60 * 60), st.lists(st.integers(0, 20 * MINUTE), max_size=8))
def test_what_a_forming_candle_has_shown_is_not_taken_back(
    market: Market, begin: int, steps: list[int]
) -> None:
    now = START + begin * MINUTE
    before: dict[str, list[Any]] = {}
    for step in steps:
        now += step
        for timeframe in market.series["BTCUSDT"]:
            rows = market.klines("BTCUSDT", timeframe, now, limit=1)
            row = rows[0] if rows else None
            known = before.get(timeframe)
            if row and known and row[0] == known[0] and known[8] and row[6] >= now:
                assert row[1] == known[1]
                assert float(row[2]) >= float(known[2])
                assert float(row[3]) <= float(known[3])
                assert float(row[5]) >= float(known[5])
            if row:
                before[timeframe] = row


@given(told(), st.integers(START, START + 61 * HOUR))
def test_however_a_truth_is_stored_every_endpoint_tells_one_story(market: Market, now: int) -> None:
    price = market.price("BTCUSDT", now)
    day = market.day("BTCUSDT", now)
    for timeframe, candles in market.series["BTCUSDT"].items():
        rows = market.klines("BTCUSDT", timeframe, now, limit=1)
        i = int(np.searchsorted(candles.ts, now, side="right")) - 1
        if not rows or rows[0][6] < now or i < 0:
            continue
        assert rows[0][8] == 0 or float(rows[0][4]) == price
        if price is not None:
            assert float(rows[0][3]) <= price <= float(rows[0][2])
        traded = now - int(candles.ts[i]) >= FIRST_TRADE_MS and rows[0][8]
        if traded and not any(find_gaps(one) for one in market.series["BTCUSDT"].values()):
            assert float(rows[0][1]) == candles.open[i]
    if price is not None:
        assert float(day["lowPrice"]) <= price <= float(day["highPrice"])
    assert shown(market, now) == shown(nothing_later(market, now), now)


def test_minutes_that_begin_within_an_hour_do_not_begin_it() -> None:
    minutes, hours, days = TRUTH
    late = minutes.between(START + 5 * HOUR + 30 * MINUTE)
    market = market_of([CandleSet((one,)) for one in (late, hours, days)], FILTERS)
    now = START + 5 * HOUR + 45 * MINUTE
    assert float(market.klines("BTCUSDT", "1h", now, limit=1)[0][1]) == hours.open[5]
    assert float(market.klines("BTCUSDT", "1d", now, limit=1)[0][1]) == days.open[0]


def test_where_minutes_end_within_an_hour_it_goes_on_by_its_own_walk() -> None:
    minutes, hours, _ = TRUTH
    early = minutes.between(None, START + 5 * HOUR + 30 * MINUTE)
    market = market_of([CandleSet((one,)) for one in (early, hours)], FILTERS)
    row = market.klines("BTCUSDT", "1h", START + 6 * HOUR - 1, limit=1)[0]
    half = early.rows(len(early) - 30, len(early))
    assert float(row[5]) == pytest.approx(half.volume.sum() + hours.volume[5] / 2, rel=1e-3)
    assert float(row[1]) == hours.open[5]
    assert float(row[4]) == pytest.approx(hours.close[5], rel=1e-5)


def test_in_a_hole_of_the_minutes_the_price_stands_though_hours_are_stored() -> None:
    minutes, hours, _ = TRUTH
    here = (minutes.ts < START + 330 * MINUTE) | (minutes.ts >= START + 340 * MINUTE)
    columns = {name: getattr(minutes, name)[here] for name in ("ts", *COLUMNS)}
    market = market_of([CandleSet((replace(minutes, **columns),)), CandleSet((hours,))], FILTERS)
    for minute in (330, 335, 339):
        assert market.price("BTCUSDT", START + minute * MINUTE + 30_000) == minutes.close[329]


def nothing_later(market: Market, now: int) -> Market:
    """The same market whose stored candles change after ``now``."""
    series = {}
    for timeframe, candles in market.series["BTCUSDT"].items():
        later = candles.ts > now
        columns = {name: np.where(later, 1.0, getattr(candles, name)) for name in COLUMNS}
        series[timeframe] = replace(candles, **columns)
    return replace(market, series={"BTCUSDT": series})


def shown(market: Market, now: int) -> Any:
    """Everything that can be asked at a moment."""
    klines = {one: market.klines("BTCUSDT", one, now) for one in market.series["BTCUSDT"]}
    tickers = (Market.ticker_price, Market.day, Market.book_ticker)
    return klines, [ticker(market, "BTCUSDT", now) for ticker in tickers]


@given(moments, st.sampled_from([ALONE, WITH_MINUTES]))
def test_nothing_of_a_later_candle_shows(now: int, market: Market) -> None:
    assert shown(market, now) == shown(nothing_later(market, now), now)


@given(moments, st.sampled_from([ALONE, WITH_MINUTES]))
def test_every_endpoint_tells_one_story(now: int, market: Market) -> None:
    price = market.price("BTCUSDT", now)
    if price is None:
        return
    assert float(market.ticker_price("BTCUSDT", now)["price"]) == price
    day = market.day("BTCUSDT", now)
    assert float(day["lastPrice"]) == price
    assert float(market.book_ticker("BTCUSDT", now)["bidPrice"]) == price
    for timeframe, candles in market.series["BTCUSDT"].items():
        rows = market.klines("BTCUSDT", timeframe, now, limit=2)
        if rows and rows[-1][0] + candles.bar_ms > now and rows[-1][8]:
            assert float(rows[-1][4]) == price
            recent = float(rows[-1][2]), float(rows[-1][3])
            assert recent[0] <= float(day["highPrice"])
            assert recent[1] >= float(day["lowPrice"])


def test_before_its_first_trade_the_forming_candle_shows_the_close_before_it() -> None:
    opened = START + 5 * HOUR
    for elapsed, trades in ((0, False), (FIRST_TRADE_MS - 1, False), (FIRST_TRADE_MS, True)):
        row = ALONE.klines("BTCUSDT", "1h", opened + elapsed, limit=1)[0]
        assert (row[8] > 0, float(row[5]) > 0) == (trades, trades)
        before = float(HOURS["BTCUSDT"].close[4])
        expected = float(HOURS["BTCUSDT"].open[5]) if trades else before
        assert float(row[1]) == expected


def test_a_stored_gap_stays_a_gap_and_the_price_stands() -> None:
    candles = HOURS["BTCUSDT"]
    here = [i for i in range(60) if not 20 <= i < 23]
    columns = {name: getattr(candles, name)[here] for name in ("ts", *COLUMNS)}
    market = market_of([CandleSet((replace(candles, **columns),))], FILTERS)
    now = START + 21 * HOUR + MINUTE
    rows = market.klines("BTCUSDT", "1h", now, limit=3)
    assert [row[0] for row in rows] == [START + i * HOUR for i in (17, 18, 19)]
    assert market.price("BTCUSDT", now) == candles.close[19]


@given(moments)
def test_longer_candles_than_those_stored_are_made_up_of_them(now: int) -> None:
    rows = ALONE.klines("BTCUSDT", "4h", now)
    closed = [row for row in rows if row[0] + 4 * HOUR <= now]
    made = resample(HOURS["BTCUSDT"], "4h").closed_by(now)
    assert [row[0] for row in closed] == made.ts.tolist()
    assert [float(row[5]) for row in closed] == made.volume.tolist()
    for row in rows[len(closed) :]:
        hours = ALONE.klines("BTCUSDT", "1h", now, start=row[0])
        traded = [one for one in hours if one[8]]
        if traded:
            assert row[1] == traded[0][1]
            assert float(row[2]) == max(float(one[2]) for one in traded)
            assert row[4] == traded[-1][4]
    with pytest.raises(ApiError):
        ALONE.klines("BTCUSDT", "30m", now)


def test_the_last_day_is_that_of_the_candles() -> None:
    now = START + 48 * HOUR
    day, candles = ALONE.day("BTCUSDT", now), HOURS["BTCUSDT"].rows(24, 48)
    assert float(day["highPrice"]) == candles.high.max()
    assert float(day["lowPrice"]) == candles.low.min()
    assert float(day["volume"]) == pytest.approx(candles.volume.sum(), rel=1e-12)
    assert (day["openTime"], day["closeTime"]) == (now - 24 * HOUR, now)


@pytest.mark.parametrize(
    ("symbol", "code"), [(None, -1102), ("btcusdt", -1100), ("A/B", -1100), ("ETHUSDT", -1121)]
)
def test_a_symbol_that_is_not_served_is_refused_as_by_the_exchange(
    symbol: str | None, code: int
) -> None:
    with pytest.raises(ApiError) as caught:
        ALONE.require(symbol)
    assert caught.value.code == code


def test_a_market_needs_filters_a_known_quote_and_each_series_once() -> None:
    with pytest.raises(UnknownNameError, match="filters"):
        market_of([HOURS], {})
    with pytest.raises(InputError, match="twice"):
        market_of([HOURS, HOURS], FILTERS)
    odd = synthetic_candles(["BTCXYZ"], "1h", START, 3)
    with pytest.raises(UnknownNameError, match="BTCXYZ"):
        market_of([odd], {"BTCXYZ": Filters()})


# The clock and faults


def test_the_clock_stands_or_runs_and_refuses_what_makes_no_sense(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = [100.0]
    monkeypatch.setattr("live.replay.clock.time.monotonic", lambda: real[0])
    clock = VirtualClock(START)
    real[0] += 10
    assert clock.now() == START
    clock.set("2024-01-02", 60.0)
    real[0] += 2
    assert clock.now() == START + 24 * HOUR + 120_000
    clock.set(START)
    assert clock.speed == 60.0
    for now, speed in ((-1, 0), ("soon", 0), (START, -1), (START, float("nan")), (START, "1")):
        with pytest.raises(InputError):
            clock.set(now, speed)  # type: ignore[arg-type]
    assert clock.now() >= START


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "sunspots"},
        {"kind": "hang", "times": 0},
        {"kind": "hang", "times": True},
        {"kind": "gap", "row": "last"},
        {"kind": "gap", "after": -1},
        {"kind": "drip", "seconds": -1},
        {"kind": "drip", "seconds": "long"},
        {"kind": "drip", "endpoint": 5},
        {"kind": "drip", "symbol": ""},
    ],
)
def test_a_fault_that_makes_no_sense_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(CandlebookError, match="fault"):
        Fault(**wrong)


def rows_of(count: int) -> list[list[Any]]:
    return ALONE.klines("BTCUSDT", "1h", START + count * HOUR, limit=count)


DATA = [
    *("gap", "duplicate", "reversed", "nan", "negative", "swapped_high_low", "spike"),
    *("microseconds", "stale_tail", "restated", "short_row", "extra_column"),
]


@pytest.mark.parametrize("kind", DATA)
def test_a_data_fault_changes_the_answer_and_never_fails_on_a_short_one(kind: str) -> None:
    assert kind in FAULTS
    for count in range(9):
        rows = rows_of(count)
        changed = bent(Fault(kind), "klines", rows)
        assert rows == rows_of(count), "the market's own rows are not touched"
        if count > 3:
            assert changed != rows


def test_a_spike_and_a_restated_candle_are_sound_in_themselves() -> None:
    for kind in ("spike", "restated"):
        changed = bent(Fault(kind), "klines", rows_of(8))
        assert len(parse_klines(changed, "BTCUSDT", "1h").candles) == 8
