"""Candles: every kind of defect on a table that one can check by eye, and the two doors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.candles import (
    COLUMNS,
    HARMLESS,
    TIMEFRAMES,
    Candles,
    CandleSet,
    DefectKind,
    Gap,
    find_defects,
    find_gaps,
    iso,
    not_covered,
    require_sound,
    timeframe_ms,
    utc_ms,
)
from research.errors import (
    CandlebookError,
    CandlesRejected,
    GapNotAccepted,
    InputError,
    UnknownNameError,
)

HOUR = 3_600_000
START = utc_ms("2024-03-01")
NAN, INF = math.nan, math.inf

# hour, open, high, low, close, volume: four sound candles.
SOUND = [
    (0, 10.0, 12.0, 9.0, 11.0, 5.0),
    (1, 11.0, 11.0, 8.0, 9.0, 4.0),
    (2, 9.0, 9.0, 9.0, 9.0, 1.0),
    (3, 9.0, 14.0, 9.0, 14.0, 7.0),
]


def table(rows: list[tuple[float, ...]], symbol: str = "BTCUSDT") -> Candles:
    hours, *columns = (np.array(column) for column in zip(*rows, strict=True))
    return Candles(symbol, "1h", (START + hours * HOUR).astype(np.int64), *columns)


def hours(*opens: int, symbol: str = "BTCUSDT") -> Candles:
    return table([(hour, *SOUND[0][1:]) for hour in opens], symbol)


def empty() -> Candles:
    return Candles("BTCUSDT", "1h", *(np.empty(0) for _ in range(6)))


DEFECTS: list[tuple[DefectKind, int, list[tuple[float, ...]]]] = [
    # The row named by the number is the one that is wrong.
    (DefectKind.GAP, 1, [SOUND[0], (3, 9.0, 14.0, 9.0, 14.0, 7.0)]),
    (DefectKind.DUPLICATE, 1, [SOUND[0], SOUND[0], SOUND[1]]),
    (DefectKind.OFF_GRID, 0, [(0.25, 10.0, 12.0, 9.0, 11.0, 5.0)]),
    (DefectKind.NON_FINITE, 1, [SOUND[0], (1, NAN, 11.0, 8.0, 9.0, 4.0)]),
    (DefectKind.NON_FINITE, 1, [SOUND[0], (1, 11.0, INF, 8.0, 9.0, 4.0)]),
    (DefectKind.NON_FINITE, 1, [SOUND[0], (1, 11.0, 11.0, -INF, 9.0, 4.0)]),
    (DefectKind.NON_FINITE, 1, [SOUND[0], (1, 11.0, 11.0, 8.0, NAN, 4.0)]),
    (DefectKind.NON_FINITE, 1, [SOUND[0], (1, 11.0, 11.0, 8.0, 9.0, NAN)]),
    (DefectKind.NON_POSITIVE, 2, [*SOUND[:2], (2, 9.0, 9.0, 0.0, 9.0, 1.0)]),
    (DefectKind.NON_POSITIVE, 2, [*SOUND[:2], (2, -1.0, 9.0, -1.0, 9.0, 1.0)]),
    (DefectKind.HIGH_BELOW_LOW, 0, [(0, 10.0, 9.0, 12.0, 11.0, 5.0)]),
    (DefectKind.OPEN_OUTSIDE, 0, [(0, 12.5, 12.0, 9.0, 11.0, 5.0)]),
    (DefectKind.OPEN_OUTSIDE, 0, [(0, 8.5, 12.0, 9.0, 11.0, 5.0)]),
    (DefectKind.CLOSE_OUTSIDE, 0, [(0, 10.0, 12.0, 9.0, 12.5, 5.0)]),
    (DefectKind.CLOSE_OUTSIDE, 0, [(0, 10.0, 12.0, 9.0, 8.5, 5.0)]),
    (DefectKind.NEGATIVE_VOLUME, 3, [*SOUND[:3], (3, 9.0, 14.0, 9.0, 14.0, -7.0)]),
    (DefectKind.ZERO_VOLUME, 3, [*SOUND[:3], (3, 9.0, 14.0, 9.0, 14.0, 0.0)]),
]


def test_sound_candles_have_no_defect() -> None:
    assert find_defects(table(SOUND)) == []
    require_sound(table(SOUND))


@pytest.mark.parametrize(("kind", "row", "rows"), DEFECTS)
def test_each_defect_is_found_alone_and_at_its_candle(
    kind: DefectKind, row: int, rows: list[tuple[float, ...]]
) -> None:
    candles = table(rows)
    found = find_defects(candles)
    assert [(one.kind, one.ts) for one in found] == [(kind, int(candles.ts[row]))]
    assert str(found[0]).startswith(f"{kind.value} at {iso(int(candles.ts[row]))}: ")


@pytest.mark.parametrize(("kind", "row", "rows"), DEFECTS)
def test_the_strict_door_refuses_every_defect_but_gaps_and_zero_volume(
    kind: DefectKind, row: int, rows: list[tuple[float, ...]]
) -> None:
    if kind in HARMLESS or kind is DefectKind.GAP:
        require_sound(table(rows))
        return
    with pytest.raises(CandlesRejected, match=f"BTCUSDT 1h: {kind.value} at ") as caught:
        require_sound(table(rows))
    assert caught.value.field == "BTCUSDT 1h"


def test_the_table_of_defects_holds_every_kind_that_rows_alone_can_show() -> None:
    shown = {kind for kind, _, _ in DEFECTS}
    # The other three need more: a second look at the order, or a clock.
    assert set(DefectKind) - shown == {DefectKind.UNSORTED, DefectKind.FORMING, DefectKind.STALE}


def test_an_earlier_candle_after_a_later_one_is_unsorted() -> None:
    candles = hours(0, 2, 1, 3)
    kinds = [(one.kind, one.ts) for one in find_defects(candles)]
    assert (DefectKind.UNSORTED, START + HOUR) in kinds
    with pytest.raises(CandlesRejected, match=r"unsorted at 2024-03-01T01:00Z: follows .*02:00Z"):
        require_sound(candles)


def test_the_detail_of_a_gap_counts_the_missing_bars() -> None:
    (gap,) = find_defects(hours(0, 1, 5))
    assert gap.detail == "3 bars missing before it, since 2024-03-01T01:00Z"


def test_several_defects_are_told_by_kind_and_then_by_time() -> None:
    rows = [
        (0, 10.0, 12.0, 9.0, 11.0, -1.0),
        (1, 10.0, 12.0, 9.0, 13.0, 0.0),
        (1, 10.0, 12.0, 9.0, 11.0, -1.0),
    ]
    found = [(one.kind.value, (one.ts - START) // HOUR) for one in find_defects(table(rows))]
    assert found == [
        ("duplicate", 1),
        ("close_outside_range", 1),
        ("negative_volume", 0),
        ("negative_volume", 1),
        ("zero_volume", 1),
    ]


@pytest.mark.parametrize(("late", "forming"), [(-1, True), (0, False), (1, False)])
def test_a_candle_forms_until_the_millisecond_of_its_close(late: int, forming: bool) -> None:
    now = START + 4 * HOUR + late
    found = find_defects(table(SOUND), now)
    assert [one.kind for one in found] == ([DefectKind.FORMING] if forming else [])
    if forming:
        with pytest.raises(CandlesRejected, match="still_forming at 2024-03-01T03:00Z"):
            require_sound(table(SOUND), now)
    else:
        require_sound(table(SOUND), now)


@pytest.mark.parametrize("max_age", [0, 1, 5])
def test_a_series_is_stale_once_a_further_bar_has_closed_than_allowed(max_age: int) -> None:
    last_close = START + 4 * HOUR
    limit = last_close + (max_age + 1) * HOUR
    require_sound(table(SOUND), limit - 1, max_age)
    with pytest.raises(CandlesRejected, match=r"stale at 2024-03-01T04:00Z: .* now 2024-03-01T"):
        require_sound(table(SOUND), limit, max_age)


def test_no_candle_at_all_is_stale_but_has_no_defect() -> None:
    assert find_defects(empty(), START) == []
    require_sound(empty(), START)
    with pytest.raises(CandlesRejected, match="stale"):
        require_sound(empty(), START, 0)


def test_gaps_are_the_runs_of_missing_opens() -> None:
    gaps = find_gaps(hours(0, 1, 4, 5, 7))
    assert gaps == [
        Gap("BTCUSDT", START + 2 * HOUR, START + 4 * HOUR),
        Gap("BTCUSDT", START + 6 * HOUR, START + 7 * HOUR),
    ]
    assert find_gaps(empty()) == find_gaps(hours(3)) == find_gaps(hours(3, 4)) == []
    assert str(gaps[1]) == "BTCUSDT 2024-03-01T06:00Z .. 2024-03-01T07:00Z"


@settings(deadline=None)
@given(st.sets(st.integers(0, 60), min_size=1))
def test_candles_and_gaps_together_tile_the_range_exactly(opens: set[int]) -> None:
    candles = hours(*sorted(opens))
    missing = {ts for gap in find_gaps(candles) for ts in range(gap.start, gap.end, HOUR)}
    present = set(candles.ts.tolist())
    assert not missing & present
    assert missing | present == set(range(min(present), max(present) + HOUR, HOUR))


@pytest.mark.parametrize(
    ("known", "covers"),
    [
        (Gap("BTCUSDT", START, START + 3 * HOUR), True),
        (Gap("BTCUSDT", START + HOUR, START + 2 * HOUR, "outage"), True),
        (Gap("BTCUSDT", START + HOUR + 1, START + 3 * HOUR), False),
        (Gap("BTCUSDT", START, START + 2 * HOUR - 1), False),
        (Gap("ETHUSDT", START, START + 3 * HOUR), False),
    ],
)
def test_a_gap_is_accepted_only_whole_and_only_for_its_symbol(known: Gap, covers: bool) -> None:
    candles = hours(0, 2)
    (gap,) = find_gaps(candles)
    assert known.covers(gap) is covers
    judged = CandleSet((candles,), (known,))
    if covers:
        judged.require_gaps_accepted()
    else:
        with pytest.raises(GapNotAccepted, match="1 bar is missing"):
            judged.require_gaps_accepted()


@settings(deadline=None)
@given(
    opens=st.sets(st.integers(0, 12), min_size=2).map(sorted),
    accepted=st.lists(
        st.tuples(st.integers(-1, 26), st.integers(1, 12), st.sampled_from(["BTCUSDT", "ETHUSDT"])),
        max_size=5,
    ),
)
def test_gaps_are_accepted_bar_by_bar_however_they_were_accepted(
    opens: list[int], accepted: list[tuple[int, int, str]]
) -> None:
    """As paper trading has it: a bar is accepted where one accepted gap holds it whole."""
    half = HOUR // 2
    gaps = tuple(
        Gap(symbol, START + start * half, START + (start + length) * half, "outage")
        for start, length, symbol in accepted
    )
    candles = hours(*opens)
    open_bars = [
        ts
        for ts in range(START + opens[0] * HOUR, START + opens[-1] * HOUR, HOUR)
        if ts not in candles.ts
        and not any(known.covers(Gap("BTCUSDT", ts, ts + HOUR)) for known in gaps)
    ]
    found = [
        ts
        for hole in find_gaps(candles)
        for part in not_covered(hole, gaps, HOUR)
        for ts in range(part.start, part.end, HOUR)
    ]
    assert found == open_bars
    judged = CandleSet((candles,), gaps)
    if open_bars:
        with pytest.raises(GapNotAccepted, match=iso(open_bars[0])):
            judged.require_gaps_accepted()
    else:
        judged.require_gaps_accepted()


@settings(deadline=None)
@given(
    opens=st.sets(st.integers(0, 40)).map(sorted),
    start=st.none() | st.integers(-3 * HOUR, 44 * HOUR),
    end=st.none() | st.integers(-3 * HOUR, 44 * HOUR),
)
def test_between_keeps_the_opens_from_start_up_to_end(
    opens: list[int], start: int | None, end: int | None
) -> None:
    candles = hours(*opens) if opens else empty()
    first, stop = (None if one is None else START + one for one in (start, end))
    kept = candles.between(first, stop).ts.tolist()
    low, high = (-INF if first is None else first), (INF if stop is None else stop)
    assert kept == [ts for ts in candles.ts.tolist() if low <= ts < high]


@settings(deadline=None)
@given(now=st.integers(-2 * HOUR, 44 * HOUR).map(lambda ms: START + ms))
def test_closed_by_keeps_exactly_the_candles_that_are_not_forming(now: int) -> None:
    candles = hours(*range(40))
    closed = candles.closed_by(now)
    assert closed.ts.tolist() == [ts for ts in candles.ts.tolist() if ts + HOUR <= now]
    forming = [one for one in find_defects(candles, now) if one.kind is DefectKind.FORMING]
    assert len(closed) + len(forming) == len(candles)


def test_rows_are_views_of_the_same_memory() -> None:
    candles = table(SOUND)
    part = candles.rows(1, 3)
    assert part.close.tolist() == [9.0, 9.0]
    assert np.shares_memory(part.close, candles.close)


def stored_apart(candles: Candles) -> Candles:
    """The same values after a trip through another memory layout, frame and zone."""
    frame = candles.frame().iloc[::-1].copy().iloc[::-1]
    frame.index = frame.index.tz_convert("Asia/Tokyo")
    return Candles.from_frame(candles.symbol, candles.timeframe, frame)


def strided(candles: Candles) -> Candles:
    columns = [np.repeat(getattr(candles, name), 2)[::2] for name in COLUMNS]
    return Candles(candles.symbol, candles.timeframe, candles.ts.astype(">i8"), *columns)


@pytest.mark.parametrize("rebuilt", [stored_apart, strided, lambda c: c.rows(0, len(c))])
def test_the_digest_does_not_depend_on_how_rows_are_stored(
    rebuilt: Callable[[Candles], Candles],
) -> None:
    assert rebuilt(table(SOUND)).digest() == table(SOUND).digest()


def test_the_digest_does_not_depend_on_what_the_rows_were_cut_from() -> None:
    longer = hours(*range(10))
    assert longer.between(None, START + 4 * HOUR).digest() == hours(0, 1, 2, 3).digest()


@pytest.mark.parametrize("name", ["ts", *COLUMNS])
@settings(deadline=None)
@given(row=st.integers(0, 3), bit=st.integers(0, 63))
def test_one_flipped_bit_anywhere_changes_the_digest(name: str, row: int, bit: int) -> None:
    candles = table(SOUND)
    raw = getattr(candles, name).copy()
    raw.view(np.uint64)[row] ^= np.uint64(1) << np.uint64(bit)
    changed = dataclasses.replace(candles, **{name: raw})
    assert changed.digest() != candles.digest()


def test_the_digest_tells_symbols_timeframes_and_their_order_apart() -> None:
    one, other = hours(0, 1), hours(0, 1, symbol="ETHUSDT")
    longer = dataclasses.replace(one, timeframe="2h")
    digests = {one.digest(), other.digest(), longer.digest(), one.rows(0, 1).digest()}
    assert len(digests) == 4
    assert CandleSet((one, other)).digest() != CandleSet((other, one)).digest()


def test_nothing_of_a_candle_can_be_changed() -> None:
    candles = table(SOUND)
    for name in ("ts", *COLUMNS):
        with pytest.raises(ValueError, match="read-only"):
            getattr(candles, name)[0] = 1
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(candles, name, np.zeros(4))
    with pytest.raises(ValueError, match="read-only"):
        candles.rows(0, 2).close[0] = 1.0


def test_a_frame_that_changes_later_does_not_change_its_candles() -> None:
    frame = table(SOUND).frame()
    candles = Candles.from_frame("BTCUSDT", "1h", frame)
    before = candles.digest()
    frame.iloc[0, 0] = 99.0
    assert candles.digest() == before
    for name in COLUMNS:
        assert not np.shares_memory(getattr(candles, name), frame[name].to_numpy())


def frame_of(**columns: Any) -> pd.DataFrame:
    sound = {name: [10.0, 10.0] for name in COLUMNS}
    moments = pd.to_datetime(["2024-03-01T00:00", "2024-03-01T01:00"])
    return pd.DataFrame({**sound, "ts": moments} | columns)


def test_a_frame_is_read_by_its_column_or_its_index_and_in_any_zone_or_unit() -> None:
    want = Candles.from_frame("X", "1h", frame_of())
    assert want.ts.tolist() == [START, START + HOUR]
    naive = frame_of()["ts"]
    for moments in (
        naive.dt.tz_localize("UTC"),
        naive.dt.tz_localize("UTC").dt.tz_convert("America/New_York"),
        naive.astype("datetime64[ns]"),
        naive.astype("datetime64[s]"),
    ):
        assert Candles.from_frame("X", "1h", frame_of(ts=moments)).digest() == want.digest()
        indexed = frame_of().drop(columns="ts").set_index(pd.DatetimeIndex(moments))
        assert Candles.from_frame("X", "1h", indexed).digest() == want.digest()


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (frame_of().drop(columns=["low"]), "X columns: expected columns open, high, low"),
        (frame_of().drop(columns=["ts"]), "X ts: expected a datetime in every row, got dtype"),
        (frame_of(ts=[START, START + HOUR]), "X ts: expected a datetime in every row, got dtype"),
        (frame_of(ts=[START / 1000, 0.0]), "X ts: expected a datetime in every row, got dtype"),
        (frame_of(ts=["2024-03-01", "abc"]), "X ts: expected a datetime in every row"),
        (frame_of(ts=pd.to_datetime(["2024-03-01", None])), "X ts: expected a datetime in every"),
        (frame_of(close=["10", "abc"]), "candles.close: could not convert.*: expected numbers"),
        (frame_of(volume=[[1.0], [2.0]]), "candles.volume: .*expected"),
    ],
)
def test_a_frame_that_is_not_candles_is_refused_by_name(frame: pd.DataFrame, says: str) -> None:
    with pytest.raises(CandlesRejected, match=says):
        Candles.from_frame("X", "1h", frame)


def test_a_missing_number_becomes_a_defect_not_a_guess() -> None:
    candles = Candles.from_frame("X", "1h", frame_of(close=[10.0, None]))
    assert [one.kind for one in find_defects(candles)] == [DefectKind.NON_FINITE]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ([np.zeros((2, 2)), *[np.zeros(2)] * 5], "candles.ts: expected one dimension"),
        ([np.zeros(2), np.zeros(3), *[np.zeros(2)] * 4], "candles.open: expected 2 values"),
        ([np.zeros(2), *[np.zeros(2)] * 4, np.zeros(1)], "candles.volume: expected 2 values"),
    ],
)
def test_columns_that_do_not_fit_together_are_refused(columns: list[Any], says: str) -> None:
    with pytest.raises(CandlesRejected, match=says):
        Candles("X", "1h", *columns)


@pytest.mark.parametrize("timeframe", ["1s", "", "60m", "1H", None, 60, ["1h"]])
def test_an_unknown_timeframe_is_refused_with_the_known_ones(timeframe: Any) -> None:
    with pytest.raises(UnknownNameError, match=r"timeframe: expected one of 1m, .*, 1d"):
        timeframe_ms(timeframe)
    with pytest.raises(UnknownNameError):
        Candles("X", timeframe, *(np.empty(0) for _ in range(6)))


def test_timeframes_are_what_pandas_says_they_are_and_divide_a_day() -> None:
    for name, ms in TIMEFRAMES.items():
        assert pd.Timedelta(name.replace("m", "min").replace("d", "D")) == pd.Timedelta(
            milliseconds=ms
        )
        assert 86_400_000 % ms == 0


@pytest.mark.parametrize(
    "moment",
    [
        "2024-03-01",
        "2024-03",
        "2024-03-01T00:00Z",
        "2024-03-01 01:00+01:00",
        "2024-02-29T19:00-05:00",
        START,
        np.int64(START),
        datetime(2024, 3, 1, tzinfo=UTC),
        datetime(2024, 3, 1),  # noqa: DTZ001 - no zone means UTC
        datetime(2024, 3, 1, 9, tzinfo=timezone(timedelta(hours=9))),
        pd.Timestamp("2024-03-01", tz="UTC"),
        np.datetime64("2024-03-01"),
    ],
)
def test_one_moment_can_be_written_in_many_ways(moment: Any) -> None:
    assert utc_ms(moment) == START


@pytest.mark.parametrize(
    "moment",
    [
        *("", "soon", "now", "today", "12:00", "5", "2024-02-30", "9999"),
        *(None, True, pd.NaT, []),
        # Seconds or milliseconds as a float would be read as nanoseconds.
        *(1_709_251_200_000.0, np.float64(1.7e9), math.nan, "1709251200000"),
    ],
)
def test_what_is_no_moment_or_would_depend_on_the_clock_is_refused(moment: Any) -> None:
    with pytest.raises(InputError, match="time: expected a UTC date or time"):
        utc_ms(moment)


@settings(deadline=None)
@given(st.integers(utc_ms("1970"), utc_ms("2200")))
def test_a_stamp_survives_being_written_down_and_read(ts: int) -> None:
    assert utc_ms(iso(ts)) == ts


def test_a_stamp_shows_seconds_only_where_there_are_any() -> None:
    assert iso(START + 12 * HOUR) == "2024-03-01T12:00Z"
    assert iso(START + 1) == "2024-03-01T00:00:00.001Z"


def test_a_set_keeps_the_order_it_was_given_and_finds_symbols_by_name() -> None:
    eth, btc = hours(0, 1, symbol="ETHUSDT"), hours(1, 3)
    both = CandleSet((eth, btc), (Gap("BTCUSDT", START + 2 * HOUR, START + 3 * HOUR),), "binance")
    assert both.symbols == ("ETHUSDT", "BTCUSDT")
    assert both["BTCUSDT"] is btc
    assert list(both) == [eth, btc]
    assert both.clock().tolist() == [START, START + HOUR, START + 3 * HOUR]
    cut = both.between(START + HOUR, START + 3 * HOUR)
    assert [len(one) for one in cut] == [1, 1]
    assert (cut.gaps, cut.source, cut.symbols) == (both.gaps, both.source, both.symbols)
    assert [len(one) for one in both.closed_by(START + 2 * HOUR)] == [2, 1]
    with pytest.raises(UnknownNameError, match="symbol: expected one of ETHUSDT, BTCUSDT"):
        both["SOLUSDT"]


@pytest.mark.parametrize(
    ("series", "says"),
    [
        ((), "symbols: expected at least one symbol"),
        ((hours(0), hours(1)), "symbols: expected each symbol once"),
        (
            (hours(0), dataclasses.replace(hours(0, symbol="ETHUSDT"), timeframe="2h")),
            "timeframe: expected one timeframe for all symbols",
        ),
    ],
)
def test_a_set_that_cannot_be_one_run_is_refused(series: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        CandleSet(series)


def test_an_unaccepted_gap_is_named_with_the_command_that_accepts_it() -> None:
    candles = CandleSet((hours(0, 1), hours(0, 3, symbol="ETHUSDT")))
    with pytest.raises(GapNotAccepted) as caught:
        candles.require_gaps_accepted()
    assert isinstance(caught.value, CandlebookError)
    assert caught.value.field == "ETHUSDT 1h at 2024-03-01T01:00Z"
    assert "2 bars are missing" in str(caught.value)
    assert (
        "accept-gap ETHUSDT --timeframe 1h --start 2024-03-01T01:00Z --end 2024-03-01T03:00Z"
    ) in str(caught.value.remedy)
