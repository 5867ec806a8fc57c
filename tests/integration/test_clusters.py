"""A sweep on Dask and on Ray is the sweep of this process, whatever becomes of the workers.

Real clusters of two worker processes each, on this machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from research import cluster, rows, search
from research.account import Account, Limits, Stops
from research.candles import CandleSet, utc_ms
from research.cluster import on_dask, on_ray
from research.daily_file import read_returns
from research.errors import ClusterError, InputError, ParameterError, WorkerDiffers
from research.history import History
from research.search import sweep
from research.strategies.ema_crossover import EmaCrossover
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles
from tests.integration.cli_project import document
from tests.integration.cluster_strategies import deadly, faulty

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = Account(
    limits=Limits(max_position_pct=40, max_drawdown_pct=20, max_daily_loss_pct=3, max_positions=2),
    stops=Stops(stop_loss_pct=4, trailing_stop_pct=6, take_profit_pct=9),
)
GRID: dict[str, Any] = {"fast": range(2, 14), "slow": [10, 30, 50, 90]}
KINDS = ("dask", "ray")


def made(bars: int = 1_000) -> CandleSet:
    return synthetic_candles(("AAAUSDT", "BBBUSDT"), "1h", utc_ms("2024"), bars)


def same_bits(left: pd.DataFrame, right: pd.DataFrame) -> bool:
    """Equal to the last bit, NaN to NaN, 0 not to -0, in order and index."""
    values = [one.to_numpy(np.float64).tobytes() for one in (left, right)]
    return values[0] == values[1] and left.index.equals(right.index)


@pytest.fixture(scope="module")
def dask_address() -> Iterator[str]:
    """The scheduler of the Dask that a sweep starts, open for all tests of this file."""
    pytest.importorskip("distributed", reason="needs the extra dask")
    with on_dask.dask_crew(None, 2) as crew:
        yield crew.address


@pytest.fixture(scope="module")
def connected_ray() -> Iterator[Any]:
    """The Ray that a sweep starts, open for all tests of this file."""
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    with on_ray.ray_crew(None, 2, 0):
        yield ray


@pytest.fixture(params=KINDS)
def on(request: pytest.FixtureRequest) -> str:
    if request.param == "dask":
        address: str = request.getfixturevalue("dask_address")
        return address
    request.getfixturevalue("connected_ray")
    return "ray"


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "BARS_A_CHUNK", 1)


def test_the_frame_is_the_one_of_this_process_to_the_bit(on: str, shared_history: History) -> None:
    candles = shared_history.load(["BTCUSDT", "ETHUSDT"], "1h", "2023-01-01", "2023-07-01")
    start = int(candles.clock()[500])
    alone = sweep(SmaCrossover, candles, ACCOUNT, trade_from=start, **GRID)
    there = sweep(SmaCrossover, candles, ACCOUNT, trade_from=start, on=on, **GRID)
    assert same_bits(alone.frame, there.frame)
    pd.testing.assert_frame_equal(alone.frame, there.frame, check_exact=True)
    assert there.best() == alone.best()
    assert len(set(alone.frame["total_return"])) > 30


def test_a_frame_that_is_off_by_the_last_bit_would_be_noticed() -> None:
    alone = sweep(SmaCrossover, made(), ACCOUNT, fast=[2, 3], slow=[10])
    other = alone.frame.copy()
    other.iloc[1, 0] = np.nextafter(other.iloc[1, 0], 1)
    assert not same_bits(alone.frame, other)
    assert same_bits(alone.frame, alone.frame.copy())


def test_chunks_of_one_row_and_sweeps_in_turn_change_nothing(on: str, small_chunks: None) -> None:
    for candles, strategy in ((made(), SmaCrossover), (made(700), EmaCrossover)):
        alone = sweep(strategy, candles, ACCOUNT, **GRID)
        assert same_bits(alone.frame, sweep(strategy, candles, ACCOUNT, on=on, **GRID).frame)


def test_a_worker_that_is_killed_within_a_chunk_changes_nothing(
    on: str, small_chunks: None, tmp_path: Path
) -> None:
    strategy = deadly(5, tmp_path / "deaths", deaths=1)
    alone = sweep(strategy, made(), ACCOUNT, hold=range(1, 21))
    assert not (tmp_path / "deaths").exists()
    there = sweep(strategy, made(), ACCOUNT, on=on, hold=range(1, 21))
    assert (tmp_path / "deaths").read_text() == "x"
    assert same_bits(alone.frame, there.frame)


@pytest.fixture
def impatient(on: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clusters that give up after the first worker that died; by themselves after the fourth."""
    if on == "ray":
        monkeypatch.setattr(on_ray, "RETRIES", 0)
        yield
        return
    from distributed import Client

    def give_up_after(deaths: int, dask_scheduler: Any) -> int:
        before: int = dask_scheduler.allowed_failures
        dask_scheduler.allowed_failures = deaths
        return before

    with Client(on, set_as_default=False) as client:
        before = client.run_on_scheduler(give_up_after, deaths=0)
        yield
        client.run_on_scheduler(give_up_after, deaths=before)


def test_a_chunk_that_kills_whoever_computes_it_ends_the_sweep(
    on: str, impatient: None, small_chunks: None, tmp_path: Path
) -> None:
    strategy = deadly(5, tmp_path / "deaths", deaths=99)
    with pytest.raises(ClusterError, match="lost with every worker that tried it"):
        sweep(strategy, made(), ACCOUNT, on=on, hold=range(1, 9))
    assert (tmp_path / "deaths").read_text() in {"x", "xx"}  # the chunk beside it may end it first


@pytest.mark.parametrize("target", [2.5, None])
def test_what_a_strategy_raises_is_raised_here(
    on: str, small_chunks: None, target: float | None
) -> None:
    strategy = faulty(5, target)
    kind = ParameterError if target else ZeroDivisionError
    with pytest.raises(kind) as alone:
        sweep(strategy, made(), ACCOUNT, hold=range(1, 21))
    with pytest.raises(kind) as there:
        sweep(strategy, made(), ACCOUNT, on=on, hold=range(1, 21))
    assert (str(there.value), type(there.value)) == (str(alone.value), type(alone.value))
    again = sweep(SmaCrossover, made(), ACCOUNT, on=on, **GRID)  # no worker is left half-stopped
    assert same_bits(again.frame, sweep(SmaCrossover, made(), ACCOUNT, **GRID).frame)


def test_rows_are_kept_as_they_arrive_and_not_computed_again(
    on: str, small_chunks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = sweep(SmaCrossover, made(), ACCOUNT, **GRID)
    folder = tmp_path / "rows"
    computed: list[int] = []
    real = cluster.rows_on_cluster

    def stopping(*asked: Any) -> Iterator[Any]:
        for chunk, found in real(*asked):
            computed.append(len(chunk))
            yield chunk, found
            if len(computed) == 7:
                raise KeyboardInterrupt

    monkeypatch.setattr(search, "rows_on_cluster", stopping)
    with pytest.raises(KeyboardInterrupt):
        sweep(SmaCrossover, made(), ACCOUNT, resume=folder, on=on, **GRID)
    assert len(list(folder.glob("rows-*.npy"))) == 7
    again = sweep(SmaCrossover, made(), ACCOUNT, resume=folder, on=on, **GRID)
    assert sum(computed) == len(alone)
    assert same_bits(alone.frame, again.frame)
    monkeypatch.setattr(search, "rows_on_cluster", None)  # all is there: no cluster is asked
    last = sweep(SmaCrossover, made(), ACCOUNT, resume=folder, on="dask", **GRID)
    assert same_bits(alone.frame, last.frame)
    assert same_bits(alone.frame, sweep(SmaCrossover, made(), ACCOUNT, resume=folder, **GRID).frame)


def test_daily_returns_are_those_of_this_process_to_the_bit(
    on: str, small_chunks: None, tmp_path: Path
) -> None:
    sweep(SmaCrossover, made(), ACCOUNT, returns=tmp_path / "here", **GRID)
    sweep(SmaCrossover, made(), ACCOUNT, returns=tmp_path / "there", on=on, **GRID)
    here, there = (read_returns(tmp_path / name) for name in ("here", "there"))
    assert here.matrix.tobytes() == there.matrix.tobytes()
    assert np.any(here.matrix)


# Workers that would compute something else


def test_a_worker_whose_figures_are_other_ones_is_refused_by_name(dask_address: str) -> None:
    from distributed import Client

    def sabotage() -> int:
        real = rows.metrics_of
        rows.metrics_of = lambda *given: real(*given)._replace(fees_paid=1.0)  # type: ignore[assignment]
        return os.getpid()

    with Client(dask_address, set_as_default=False) as client:
        victim = sorted(client.nthreads())[0]
        (process,) = client.run(sabotage, workers=[victim]).values()
        try:
            with pytest.raises(WorkerDiffers, match=f"process {process} on .* fees_paid: exp") as e:
                sweep(SmaCrossover, made(), ACCOUNT, on=dask_address, **GRID)
            assert "SmaCrossover(fast=" in str(e.value)
        finally:
            os.kill(process, signal.SIGKILL)  # its nanny starts a sound one
    sweep(SmaCrossover, made(), ACCOUNT, on=dask_address, **GRID)


def other_project(folder: Path) -> Path:
    """This project with one operator changed where no control row would show it."""
    shutil.copytree(ROOT / "research", folder / "research")
    file = folder / "research" / "risk.py"
    before = file.read_text("utf-8")
    file.write_text(before.replace("STALE_DATA", "OLD_DATA"), "utf-8")
    assert file.read_text("utf-8") != before
    return folder


def test_a_worker_with_other_code_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="needs the extra dask")
    folder = other_project(tmp_path)
    monkeypatch.setattr(
        on_dask, "child_environment", lambda: {**os.environ, "PYTHONPATH": str(folder)}
    )
    with pytest.raises(WorkerDiffers, match=r"process \d+ on .*: another code of research\.risk"):
        sweep(SmaCrossover, made(), ACCOUNT, on="dask", workers=1, **GRID)


def test_a_worker_without_the_project_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="needs the extra dask")
    (tmp_path / "research.py").write_text("# another project's module of this name\n")
    monkeypatch.setattr(
        on_dask, "child_environment", lambda: {**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    with pytest.raises(WorkerDiffers, match=r"tcp://127.*cannot load the task: .*ModuleNotFound"):
        sweep(SmaCrossover, made(), ACCOUNT, on="dask", workers=1, **GRID)


# What is started, and what is left of it

SCRIPT = """
import sys
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
import research as rs
from research.candles import utc_ms

@dataclass(frozen=True)
class Mine(rs.Strategy):
    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = ("by the clock",)
    hold: int = rs.param(1, low=1, high=24)

    @property
    def warmup(self):
        return 0

    def targets(self, candles):
        bars = len(candles)
        inside = (np.arange(bars) % 24 < self.hold).astype(float)
        return rs.Targets(inside, np.zeros(bars), np.zeros(bars, int))

candles = rs.synthetic_candles(("AAAUSDT",), "1h", utc_ms("2024"), int(sys.argv[2]))
hold = range(1, 25)
if len(sys.argv) > 3:
    rs.sweep(rs.SmaCrossover, candles, rs.Account(), fast=range(2, 100), slow=range(200, 600, 4),
        resume=sys.argv[3], on=sys.argv[1], workers=2)
there = rs.sweep(Mine, candles, rs.Account(), hold=hold, on=sys.argv[1], workers=2)
alone = rs.sweep(Mine, candles, rs.Account(), hold=hold)
assert there.frame.equals(alone.frame) and len(alone) == 24
print("equal", flush=True)
"""


def processes_of(marker: str) -> list[int]:
    """The processes of this machine that were started with ``marker`` in their environment."""
    found = []
    for one in psutil.process_iter():
        try:
            if one.environ().get("CANDLEBOOK_TEST_RUN") == marker and one.status() != "zombie":
                found.append(one.pid)
        except psutil.Error:
            continue
    return found


def gone(marker: str, seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while processes_of(marker) and time.monotonic() < until:
        time.sleep(0.1)
    return not processes_of(marker)


def started(tmp_path: Path, *args: str) -> subprocess.Popen[str]:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CANDLEBOOK_TEST_RUN": str(tmp_path)}
    return subprocess.Popen(
        [sys.executable, str(script), *args],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=tmp_path,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_script_of_a_few_lines_sweeps_its_own_strategy_and_leaves_nothing(
    kind: str, tmp_path: Path
) -> None:
    pytest.importorskip("distributed" if kind == "dask" else "ray", reason=f"needs {kind}")
    process = started(tmp_path, kind, "500")
    assert processes_of(str(tmp_path)) == [process.pid], "the search sees what runs"
    out, err = process.communicate(timeout=150)
    assert (out, process.returncode) == ("equal\n", 0), err
    assert err == ""
    assert gone(str(tmp_path))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_sweep_leaves_its_rows_and_no_process(
    tmp_path: Path, signum: signal.Signals
) -> None:
    pytest.importorskip("distributed", reason="needs the extra dask")
    folder = tmp_path / "rows"
    process = started(tmp_path, "dask", "30000", str(folder))
    until = time.monotonic() + 100
    while not list(folder.glob("rows-*.npy")) and time.monotonic() < until:
        assert process.poll() is None
        time.sleep(0.05)
    assert len(processes_of(str(tmp_path))) >= 4, "this one, a keeper and two workers"
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert out == ""
    assert process.returncode != 0
    assert ("KeyboardInterrupt" in err) == (signum == signal.SIGINT)
    assert gone(str(tmp_path))
    assert list(folder.glob("rows-*.npy"))


def heard_by(process: psutil.Process) -> set[str]:
    """The addresses on which a process and its descendants listen."""
    found = set()
    for one in (process, *process.children(recursive=True)):
        listening = (c for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN)
        found |= {connection.laddr.ip.removeprefix("::ffff:") for connection in listening}
    return found


def test_what_is_started_listens_on_loopback_alone(connected_ray: Any) -> None:
    pytest.importorskip("distributed", reason="needs the extra dask")
    import socket

    with on_dask.dask_crew(None, 2) as crew:
        assert crew.workers() == 2
        assert heard_by(psutil.Process()) == {"127.0.0.1"}
        with socket.socket() as open_to_all:
            open_to_all.bind(("", 0))
            open_to_all.listen()
            assert heard_by(psutil.Process()) == {"127.0.0.1", "0.0.0.0"}  # noqa: S104
    names = {one.name() for one in psutil.Process().children(recursive=True)}
    assert any("raylet" in name for name in names), "Ray was among the descendants"
    assert not any("dask" in name for name in names)


def test_ray_is_started_without_dashboard_and_statistics(connected_ray: Any) -> None:
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()
    assert not connected_ray._private.worker._global_node.address_info["webui_url"]
    reporters = [
        one.environ()
        for one in psutil.Process().children(recursive=True)
        if any("dashboard.py" in word for word in one.cmdline())
    ]
    assert [one["RAY_USAGE_STATS_ENABLED"] for one in reporters] == ["0"]


# What cannot be reached


def test_an_address_that_does_not_answer_is_refused_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("distributed", reason="needs the extra dask")
    import socket

    monkeypatch.setattr(on_dask, "CONNECT_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        for _ in ("closed", "open, and says nothing"):
            with pytest.raises(ClusterError, match=f"tcp://127.0.0.1:{port}: no Dask scheduler"):
                sweep(
                    SmaCrossover, made(), ACCOUNT, on=f"tcp://127.0.0.1:{port}", fast=[2], slow=[10]
                )
            silent.listen()


def test_a_cluster_without_workers_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    monkeypatch.setattr(on_dask, "START_SECONDS", 1)
    with (
        on_dask._scheduler(distributed) as address,
        pytest.raises(ClusterError, match=r"no worker in 1 seconds.*dask worker tcp"),
    ):
        sweep(SmaCrossover, made(), ACCOUNT, on=address, fast=[2], slow=[10])


def test_workers_that_do_not_start_say_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs the extra dask")
    (tmp_path / "dask.py").write_text("raise RuntimeError('broken on purpose')\n")
    monkeypatch.setattr(
        on_dask, "child_environment", lambda: {**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    with pytest.raises(ClusterError, match="workers ended: RuntimeError: broken on purpose"):
        sweep(SmaCrossover, made(), ACCOUNT, on="dask", workers=1, fast=[2], slow=[10])


def test_a_second_ray_beside_the_connected_one_is_refused(connected_ray: Any) -> None:
    with pytest.raises(InputError, match="connected to a Ray already"):
        sweep(SmaCrossover, made(), ACCOUNT, on="ray", workers=3, fast=[2], slow=[10])


# The command


def test_the_command_shows_the_same_from_elsewhere(home: Path, dask_address: str) -> None:
    asked = ("sweep", "sma_crossover", "--grid", "fast=5,10", "--grid", "slow=20,40")
    assert document(*asked, "--on", dask_address) == document(*asked)
