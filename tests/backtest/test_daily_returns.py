"""Daily returns of a row: those of its backtest to the bit, and on disk as they were written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock, Timeout

from research import rows, search
from research.account import Account, Limits, Stops
from research.backtesting import backtest
from research.candles import DAY, CandleSet, utc_ms
from research.compiled import compile_kernel
from research.daily import daily_returns, day_ends
from research.daily_file import DailyReturns, read_returns, writing_returns
from research.engine import fold
from research.errors import Busy, CorruptHistory, InputError
from research.history import History
from research.metrics import opening_tally
from research.rows import ROW_MODULES, figures_of_rows, live_through
from research.search import Sweep, sweep
from research.state import as_arrays, new_log, opening_state
from research.strategies.sma_crossover import SmaCrossover
from research.stretch import new_scratch
from research.synthetic import synthetic_candles
from tests.backtest.test_stretch import world_of
from tests.backtest.worlds import World

ROOT = Path(__file__).resolve().parents[2]
BUSY = Account(
    limits=Limits(max_position_pct=40, max_drawdown_pct=20, max_daily_loss_pct=3, max_positions=2),
    stops=Stops(stop_loss_pct=4, trailing_stop_pct=6, take_profit_pct=9),
)
GRID: dict[str, Any] = {"fast": range(2, 27), "slow": range(30, 50)}


@pytest.fixture(scope="module")
def candles() -> CandleSet:
    return synthetic_candles(("AAAUSDT", "BBBUSDT"), "1h", utc_ms("2024-01-01T07:00"), 1_500)


def swept(folder: Path | None, resume: Path | None = None, bars: int = 600) -> Sweep:
    candles = synthetic_candles(("BTCUSDT",), "1h", utc_ms("2024"), bars)
    return sweep(SmaCrossover, candles, BUSY, returns=folder, resume=resume, **GRID)


def same(one: DailyReturns, other: DailyReturns) -> bool:
    return (
        one.days.equals(other.days)
        and one.matrix.tobytes() == other.matrix.tobytes()
        and one.parameters.equals(other.parameters)
    )


# Against the fold


def by_hand(equity: np.ndarray, close_time: np.ndarray, cash: float) -> list[float]:
    """The definition, spelt out: the last equity of each date over the last of the one before."""
    last: dict[int, float] = {}
    for value, moment in zip(equity.tolist(), close_time.tolist(), strict=True):
        last[moment // DAY] = value
    values = [cash, *last.values()]
    return [after / before - 1.0 for before, after in pairwise(values)]


def by_row(world: World, kernel: Callable[..., Any]) -> list[float]:
    tape, cash, symbols = world.tape(), world.account.initial_cash, len(world.series)
    scratch = new_scratch(len(tape.close_time), day_ends(tape.close_time))
    scratch.day_equity[:] = np.nan
    state, tally = as_arrays(opening_state(cash, symbols)), as_arrays(opening_tally(cash, symbols))
    kernel(state, tape, scratch, as_arrays(world.rules()), new_log(1, symbols), tally)
    return daily_returns(scratch.day_equity, cash).tolist()


def wrong_in(world: World, kernel: Callable[..., Any]) -> bool:
    tape, cash = world.tape(), world.account.initial_cash
    if not len(tape.close_time):
        return False
    _, log = fold(opening_state(cash, len(world.series)), tape, world.rules())
    return by_hand(log.equity, tape.close_time, cash) != by_row(world, kernel)


def test_a_row_notes_what_the_fold_has_at_each_days_end_over_random_worlds() -> None:
    compiled = compile_kernel(live_through, ROW_MODULES)
    assert [seed for seed in range(1_500) if wrong_in(world_of(seed), compiled)] == []
    assert [seed for seed in range(20_000, 20_060) if wrong_in(world_of(seed), live_through)] == []


def off_by_a_day(scratch: Any, day: int, t: int, equity: float) -> int:
    while day < len(scratch.day_ends) and scratch.day_ends[day] < t:
        scratch.day_equity[day] = equity if day == 0 else scratch.day_equity[0]
        day += 1
    return day


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("is_invested", lambda _: False),  # runs past a day's end while something is held
        ("_note_days", lambda _scratch, day, *_: day),
        ("_note_days", off_by_a_day),
    ],
)
def test_a_day_that_is_noted_wrongly_is_noticed(
    name: str, broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, name, broken)
    assert any(wrong_in(world_of(seed), live_through) for seed in range(100))


def test_no_bar_is_stepped_through_because_a_day_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [0]
    real = rows.step

    def counting(*arguments: Any) -> Any:
        steps[0] += 1
        return real(*arguments)

    monkeypatch.setattr(rows, "step", counting)
    for seed in range(40):
        world = world_of(seed)
        tape, symbols = world.tape(), len(world.series)
        counts = []
        for ends in (None, day_ends(tape.close_time)):
            steps[0] = 0
            state = as_arrays(opening_state(world.account.initial_cash, symbols))
            tally = as_arrays(opening_tally(world.account.initial_cash, symbols))
            scratch = new_scratch(len(tape.close_time), ends)
            log = new_log(1, symbols)
            live_through(state, tape, scratch, as_arrays(world.rules()), log, tally)
            counts.append(steps[0])
        assert counts[0] == counts[1]


# By hand


def test_days_are_utc_dates_of_closes_and_those_without_a_close_are_not_there() -> None:
    hour = DAY // 24
    closes = np.array([DAY - hour, DAY, DAY + hour, 4 * DAY + hour, 4 * DAY + 2 * hour])
    assert day_ends(closes).tolist() == [0, 2, 4]
    assert day_ends(closes[:0]).tolist() == []
    assert daily_returns(np.array([110.0, 99.0]), 100.0).tolist() == [110 / 100 - 1, 99 / 110 - 1]


def test_a_backtests_daily_returns_are_those_of_its_equity(candles: CandleSet) -> None:
    run = backtest(SmaCrossover(3, 10), candles, BUSY)
    last = run.equity.resample("1D").last()
    assert run.daily_returns.index.equals(last.index.rename("day"))
    before = last.shift(1, fill_value=BUSY.initial_cash)
    assert run.daily_returns.tolist() == (last / before - 1.0).tolist()
    assert run.daily_returns.index[0] == pd.Timestamp("2024-01-01", tz="UTC")
    grown = BUSY.initial_cash * (1 + run.daily_returns).prod()
    assert grown == pytest.approx(run.metrics.final_equity, rel=1e-12)


# On disk


@pytest.mark.parametrize("start", [None, "2024-01-20T05:00"])
def test_every_row_on_disk_is_its_backtests(
    candles: CandleSet, tmp_path: Path, start: str | None
) -> None:
    grid = {"fast": [3, 7, 15], "slow": [10, 30]}
    found = sweep(SmaCrossover, candles, BUSY, trade_from=start, returns=tmp_path, **grid)
    assert found.returns == tmp_path
    days, matrix, parameters = read_returns(tmp_path)
    assert isinstance(matrix, np.memmap)
    assert matrix.shape == (len(found), len(days))
    pd.testing.assert_frame_equal(parameters, found.frame.index.to_frame(index=False))
    for strategy, row in zip(found.strategies, matrix, strict=True):
        alone = found.run(strategy).daily_returns
        assert alone.tolist() == row.tolist()
        assert alone.index.equals(days)
    plain = sweep(SmaCrossover, candles, BUSY, trade_from=start, **grid)
    pd.testing.assert_frame_equal(found.frame, plain.frame, check_exact=True)
    assert plain.returns is None


def test_real_candles_with_the_real_outage(shared_history: History, tmp_path: Path) -> None:
    candles = shared_history.load(["BTCUSDT", "ETHUSDT"], "1h", "2023-01-01", "2023-07-01")
    found = sweep(SmaCrossover, candles, BUSY, returns=tmp_path, fast=[5, 20], slow=[50])
    for strategy, row in zip(found.strategies, read_returns(tmp_path).matrix, strict=True):
        assert found.run(strategy).daily_returns.tolist() == row.tolist()


def test_one_flipped_bit_anywhere_is_not_read_as_returns(tmp_path: Path) -> None:
    swept(tmp_path)
    whole = read_returns(tmp_path)
    (matrix,) = tmp_path.glob("returns-*.npy")
    for path in (matrix, tmp_path / "returns.json"):
        raw = path.read_bytes()
        for place in (0, 9, 130, len(raw) // 2, len(raw) - 9, len(raw) - 2):
            spoilt = bytearray(raw)
            spoilt[place] ^= 4
            path.write_bytes(spoilt)
            with pytest.raises(CorruptHistory):
                read_returns(tmp_path)
        path.write_bytes(raw)
    assert same(read_returns(tmp_path), whole)
    matrix.unlink()
    with pytest.raises(CorruptHistory):
        read_returns(tmp_path)


def test_the_matrix_is_a_numpy_file_that_anybody_can_read(tmp_path: Path) -> None:
    swept(tmp_path)
    (path,) = tmp_path.glob("returns-*.npy")
    assert np.load(path).tobytes() == read_returns(tmp_path).matrix.tobytes()


def test_a_search_that_fails_leaves_the_returns_that_were_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="a folder of daily returns"):
        read_returns(tmp_path / "nowhere")
    swept(tmp_path)
    before = read_returns(tmp_path)

    def failing(strategies: Any, *others: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "figures_of_rows", failing)
    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path, bars=700)
    assert same(read_returns(tmp_path), before)
    monkeypatch.undo()
    swept(tmp_path, bars=700)
    assert len(read_returns(tmp_path).days) == len(before.days) + 4
    assert len(list(tmp_path.glob("*.npy"))) == 1
    assert list(tmp_path.glob(".returns*")) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(InputError, match=r"returns: expected an empty folder"):
        swept(tmp_path)
    with pytest.raises(InputError, match=r"returns: expected a folder that can be written"):
        swept(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "do not touch"


def test_two_searches_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(Busy):
        swept(tmp_path)
    lock = FileLock(tmp_path / ".lock")
    days = pd.DatetimeIndex(["2024-01-01"], tz="UTC")
    with writing_returns(tmp_path, days) as out, pytest.raises(Timeout):
        lock.acquire(timeout=0)
    assert not out.temporary.exists()
    with lock.acquire(timeout=0):
        assert lock.is_locked


def test_a_matrix_that_lacks_a_row_is_not_published(tmp_path: Path) -> None:
    days = pd.DatetimeIndex(["2024-01-01", "2024-01-02"], tz="UTC")
    parameters = pd.DataFrame({"fast": [1, 2, 3]})
    with writing_returns(tmp_path, days) as out:
        out.put([2, 0], np.ones((2, 2)))
        with pytest.raises(ValueError, match="2 rows were put"):
            out.finish(parameters, {})
        out.put([1], np.zeros((1, 2)))
        out.finish(parameters, {})
    assert read_returns(tmp_path).matrix.tolist() == [[1, 1], [0, 0], [1, 1]]


def test_no_more_than_some_chunks_of_returns_are_ever_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def noting(strategies: Any, *others: Any) -> Any:
        sizes.append(others[4].size)
        return figures_of_rows(strategies, *others)

    monkeypatch.setattr(search, "figures_of_rows", noting)
    swept(tmp_path)
    assert sum(sizes) == read_returns(tmp_path).matrix.size
    assert max(sizes) <= search.LARGEST_CHUNK * len(read_returns(tmp_path).days)


# Together with resume


def test_what_is_kept_is_not_computed_again_and_the_returns_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept(tmp_path / "plain")
    plain = read_returns(tmp_path / "plain")
    swept(tmp_path / "first", tmp_path / "rows")
    computed: list[int] = []

    def counting(strategies: Any, *others: Any) -> Any:
        computed.append(len(strategies))
        return figures_of_rows(strategies, *others)

    monkeypatch.setattr(search, "figures_of_rows", counting)
    swept(tmp_path / "again", tmp_path / "rows")
    assert computed == []
    lost = sorted((tmp_path / "rows").glob("rows-*.npy"))[0]
    held = len(np.load(lost))
    lost.unlink()
    swept(tmp_path / "mended", tmp_path / "rows")
    assert sum(computed) == held
    for name in ("first", "again", "mended"):
        assert same(read_returns(tmp_path / name), plain), name


def test_rows_that_were_kept_without_returns_are_computed_again_for_them(tmp_path: Path) -> None:
    frame = swept(None, tmp_path / "rows").frame
    found = swept(tmp_path / "returns", tmp_path / "rows")
    swept(tmp_path / "plain")
    assert same(read_returns(tmp_path / "returns"), read_returns(tmp_path / "plain"))
    pd.testing.assert_frame_equal(found.frame, frame, check_exact=True)
    pd.testing.assert_frame_equal(swept(None, tmp_path / "rows").frame, frame, check_exact=True)


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.backtest.test_daily_returns import *
search.LARGEST_CHUNK = 8
swept(Path(sys.argv[2]) / "returns", Path(sys.argv[2]) / "rows", bars=20_000)
print("done", flush=True)
"""


def test_a_sweep_that_is_killed_again_and_again_ends_with_the_same_returns(tmp_path: Path) -> None:
    ends, kept_before = [], 0
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(ROOT), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            kept = len(list((tmp_path / "rows").glob("rows-*.npy")))
            if kept >= kept_before + 22:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        out, _ = process.communicate(timeout=60)
        kept_before = len(list((tmp_path / "rows").glob("rows-*.npy")))
        ends.append(process.returncode)
        if "done" in out:
            break
        with pytest.raises(InputError):
            read_returns(tmp_path / "returns")
    assert ends[-1] == 0
    assert -signal.SIGKILL in ends, "otherwise nothing was killed"
    swept(tmp_path / "plain", bars=20_000)
    assert same(read_returns(tmp_path / "returns"), read_returns(tmp_path / "plain"))
    assert list((tmp_path / "returns").glob(".returns*")) == []
