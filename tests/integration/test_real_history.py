"""The exchange's own oddities, as they lie in real candles: outages, restated rows, stamps."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from research.account import Account
from research.backtesting import backtest
from research.candles import COLUMNS, Candles, DefectKind, Gap, iso, utc_ms
from research.errors import GapNotAccepted
from research.history import History
from research.history_import import import_file
from research.known_gaps import accept_known_gaps, load_known_gaps
from research.resampling import resample
from research.strategy import Strategy, Targets, param

ROOT = Path(__file__).resolve().parents[2]
HOUR = 3_600_000
MINUTE = 60_000
NOON = utc_ms("2023-03-24T12:00")
OUTAGE = Gap("BTCUSDT", NOON + HOUR, NOON + 2 * HOUR, "matching_engine_2023")


def known() -> tuple[object, ...]:
    return load_known_gaps(ROOT / "params" / "known_gaps.yaml")


@pytest.fixture
def hours(shared: Path, tmp_path: Path) -> History:
    """The hours of BTCUSDT as they came, with nothing accepted."""
    history = History(tmp_path / "history")
    import_file(history, shared / "history" / "binance" / "BTCUSDT" / "1h.parquet")
    return history


def test_the_outage_of_2023_is_found_after_its_hour_without_trades_and_named(
    hours: History,
) -> None:
    (info,) = hours.inventory()
    assert [(one.start, one.end) for one in info.gaps] == [(OUTAGE.start, OUTAGE.end)]
    assert info.defects == {DefectKind.GAP: 1, DefectKind.ZERO_VOLUME: 1}
    rows = hours.read("binance", "BTCUSDT", "1h", NOON - HOUR, NOON + 3 * HOUR)
    assert [(int(ts) - NOON) // HOUR for ts in rows.ts] == [-1, 0, 2]
    assert rows.volume.tolist()[1] == 0.0
    assert accept_known_gaps(hours, known(), at=1) == [OUTAGE]
    (record,) = hours.manifest("binance", "BTCUSDT", "1h").accepted
    assert (record.name, record.who) == (OUTAGE.name, "candlebook")
    assert "trailing stop" in record.why


@dataclass(frozen=True)
class InAt(Strategy):
    """In from the bar that opens at ``hour`` o'clock of 24 March on, out ``held`` hours later."""

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = ("by the clock",)
    hour: int = param(12, low=0, high=23)
    held: int = param(5, low=1, high=24)

    @property
    def warmup(self) -> int:
        return 0

    def targets(self, candles: Candles) -> Targets:
        since = candles.ts - utc_ms("2023-03-24") - self.hour * HOUR
        wanted = (since >= 0) & (since < self.held * HOUR)
        zeros = np.zeros(len(candles))
        return Targets(wanted.astype(np.float64), zeros, zeros.astype(np.int64))


def test_a_backtest_over_the_outage_is_refused_until_it_is_accepted_and_then_waits_for_the_open(
    hours: History,
) -> None:
    day = (utc_ms("2023-03-24"), utc_ms("2023-03-25"))
    account = Account(filters=None, limits=None)
    with pytest.raises(GapNotAccepted, match="2023-03-24T13:00Z") as caught:
        backtest(InAt(), hours.load(["BTCUSDT"], "1h", *day), account)
    assert "accept-gap" in str(caught.value)
    accept_known_gaps(hours, known())
    run = backtest(InAt(), hours.load(["BTCUSDT"], "1h", *day), account)
    assert len(run.equity) == 23, "no bar is invented"
    assert utc_ms("2023-03-24T14:00") not in {utc_ms(ts) for ts in run.equity.index}
    bought, sold = run.fills.itertuples()
    candles = hours.read("binance", "BTCUSDT", "1h", *day)
    reopened = float(candles.open[int(np.searchsorted(candles.ts, OUTAGE.end))])
    # Decided at the close of 12:00, at 13:00, where nothing traded; filled at the open of 14:00.
    assert utc_ms(bought.Index) == OUTAGE.end
    assert bought.price == pytest.approx(reopened * (1 + account.slippage_bps / 10_000), rel=1e-12)
    assert utc_ms(sold.Index) == NOON + 6 * HOUR, "17:00 is the bar after the last one wanted"


def test_the_minutes_of_2021_are_named_to_the_minute(shared: Path, tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    for symbol in ("BTCUSDT", "ETHUSDT"):
        file = shared / "history" / "binance_2021" / symbol / "1m.parquet"
        import_file(history, file, symbol, "1m", "binance_2021")
    for info in history.inventory():
        assert sum((one.end - one.start) // MINUTE for one in info.gaps) == 434
        assert len(info.gaps) == 2
    names = {(one.name, iso(one.start)) for one in accept_known_gaps(history, known())}
    assert names == {
        ("system_upgrade_2021_04_20", "2021-04-20T02:00Z"),
        ("system_upgrade_2021_04_25", "2021-04-25T04:01Z"),
    }
    history.load(["BTCUSDT", "ETHUSDT"], "1m", exchange="binance_2021").require_gaps_accepted()
    assert history.verify() == []


def test_candles_that_the_exchange_restates_keep_their_first_values(
    shared: Path, tmp_path: Path
) -> None:
    history = History(tmp_path / "history")
    file = shared / "history" / "binance_2021" / "BTCUSDT" / "1m.parquet"
    import_file(history, file, "BTCUSDT", "1m", "binance_2021")
    first = history.read("binance_2021", "BTCUSDT", "1m")
    evening = int(np.searchsorted(first.ts, utc_ms("2021-04-22T23:25")))
    columns = {name: np.array(getattr(first, name)) for name in COLUMNS}
    columns["volume"][evening : evening + 70] *= 1.5
    report = history.append(
        "binance_2021", replace(first, **columns), "binance", now=first.ts[-1] * 2
    )
    assert (report.rows_added, len(report.revisions)) == (0, 70)
    assert report.revisions[0].ts == first.ts[evening]
    assert report.revisions[0].later[4] == columns["volume"][evening]
    assert history.read("binance_2021", "BTCUSDT", "1m").digest() == first.digest()
    assert history.inventory()[0].revisions == 70


def by_hand(path: Path, microseconds: bool) -> list[tuple[float, ...]]:
    """The rows of an archive file, read without the project."""
    with path.open(newline="") as file:
        rows = [row for row in csv.reader(file) if row[0].isdigit()]
    unit = 1000 if microseconds else 1
    return [(int(row[0]) // unit, *map(float, row[1:6])) for row in rows]


def test_the_switch_of_the_archive_to_microseconds_leaves_no_seam(
    shared: Path, tmp_path: Path
) -> None:
    history = History(tmp_path / "history")
    folder, wanted = shared / "raw" / "binance_csv", []
    for day, microseconds in (("2024-12-31", False), ("2025-01-01", True)):
        file = folder / f"BTCUSDT-1m-{day}.csv"
        import_file(history, file)
        wanted += by_hand(file, microseconds)
    stored = history.read("binance", "BTCUSDT", "1m")
    columns = (stored.ts, *(getattr(stored, name) for name in COLUMNS))
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == wanted
    (info,) = history.inventory()
    assert (info.rows, info.gaps) == (2880, ())


@pytest.mark.parametrize(
    ("day", "rows", "last_open", "last_close"),
    [
        # Cut short by the outage: this candle closed at 00:28:14.788.
        ("2018-02-08", 29, "2018-02-08T00:28", 7784.02),
        ("2023-03-24", 1360, "2023-03-24T23:59", 27454.47),
    ],
)
def test_the_days_of_an_outage_are_read_value_by_value(
    shared: Path, tmp_path: Path, day: str, rows: int, last_open: str, last_close: float
) -> None:
    history = History(tmp_path / "history")
    file = shared / "raw" / "binance_csv" / f"BTCUSDT-1m-{day}.csv"
    import_file(history, file)
    stored = history.read("binance", "BTCUSDT", "1m")
    columns = (stored.ts, *(getattr(stored, name) for name in COLUMNS))
    wanted = by_hand(file, microseconds=False)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == wanted
    assert len(stored) == rows
    assert (int(stored.ts[-1]), float(stored.close[-1])) == (utc_ms(last_open), last_close)


def test_the_minutes_around_the_outage_make_up_the_exchange_s_own_hours(
    shared: Path, tmp_path: Path, hours: History
) -> None:
    """12:00 has 40 minutes, none of them with a trade, and is a bar; 13:00 has none and is not."""
    history = History(tmp_path / "minutes")
    import_file(history, shared / "raw" / "binance_csv" / "BTCUSDT-1m-2023-03-24.csv")
    minutes = history.read("binance", "BTCUSDT", "1m")
    made = resample(minutes, "1h")
    noon = minutes.between(NOON, NOON + HOUR)
    assert (len(noon), noon.volume.max()) == (40, 0.0)
    day = utc_ms("2023-03-24")
    own = hours.read("binance", "BTCUSDT", "1h", day, day + 24 * HOUR)
    assert len(made) == 23
    assert made.digest() == own.digest()


def test_an_archive_file_with_a_header_row_is_read_whole(shared: Path, tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    file = shared / "raw" / "binance_csv" / "AVAXUSDT-1m-2026-07-head.csv"
    import_file(history, file, "AVAXUSDT", "1m")
    stored = history.read("binance", "AVAXUSDT", "1m")
    wanted = by_hand(file, microseconds=False)
    assert (len(stored), len(wanted)) == (2999, 2999)
    columns = (stored.ts, *(getattr(stored, name) for name in COLUMNS))
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == wanted
