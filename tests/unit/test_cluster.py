"""What a sweep is told about a cluster, and what a worker shows before it computes."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import pickle
import threading
from typing import Any

import pytest

from research import cluster
from research.account import Account
from research.candles import CandleSet, utc_ms
from research.cluster import Job, Place, place_of, rows_a_chunk
from research.cluster import chunk as worker
from research.cluster.chunk import Common, code_of, compute_chunk, forget, packed
from research.errors import InputError, WorkerDiffers
from research.rows import course_of
from research.search import sweep
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import Strategy
from research.synthetic import synthetic_candles

STRATEGIES = tuple(SmaCrossover(fast, 30) for fast in (3, 5, 7, 9))


def made() -> CandleSet:
    return synthetic_candles(("AAAUSDT",), "1h", utc_ms("2024"), 400)


def common(**changes: Any) -> Common:
    job = Job(STRATEGIES, made(), Account(), None, 2**20)
    course = course_of(job.candles, job.start, job.account)
    return dataclasses.replace(cluster._common(job, course, range(4)), **changes)


def computed(asked: Common) -> list[Any]:
    forget("a sweep")
    return compute_chunk("a sweep", lambda: packed(asked, "it"), packed(STRATEGIES, "they"))


@pytest.mark.parametrize(
    ("on", "workers", "place"),
    [
        (None, None, None),
        ("dask", None, Place("dask")),
        ("ray", 2, Place("ray", None, 2)),
        ("tcp://10.0.0.7:8786", None, Place("dask", "tcp://10.0.0.7:8786")),
        ("tls://lab.example:8786", None, Place("dask", "tls://lab.example:8786")),
        ("ray://head:10001", None, Place("ray", "ray://head:10001")),
    ],
)
def test_where_a_sweep_is_computed_is_read_from_one_word(
    on: str | None, workers: int | None, place: Place | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert place_of(on, workers) == place


@pytest.mark.parametrize(
    ("on", "workers", "words"),
    [
        ("spark", None, r'on: expected "dask" or "ray" .*, got "spark"'),
        ("tcp://host", None, "an address with its port"),
        ("tcp://host:0", None, "an address with its port"),
        ("tcp://host:99999", None, "an address with its port"),
        ("tcp://[::1:8786", None, "an address with its port"),
        ("http://host:8786", None, r"tcp://host:8786"),
        (8786, None, "an address with its port"),
        ("dask", 0, "workers: expected a whole number from 1, got 0"),
        ("ray", 1.5, "workers: expected a whole number from 1"),
        ("dask", True, "workers: expected a whole number from 1"),
        (None, 2, "workers: expected None, or a cluster named by on"),
        ("tcp://host:8786", 2, "workers: expected None: the cluster at tcp://host:8786"),
    ],
)
def test_a_place_that_is_none_is_refused(on: Any, workers: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        sweep(SmaCrossover, made(), on=on, workers=workers, fast=[3], slow=[30])


@pytest.mark.parametrize(
    ("on", "lacking", "words"),
    [
        ("dask", "distributed", r"Dask is not installed.*candlebook\[dask\]"),
        ("tcp://h:1", "distributed", r"Dask is not installed.*candlebook\[dask\]"),
        ("ray", "ray", r"Ray is not installed.*candlebook\[ray\]"),
        ("ray://h:1", "grpc", r"without its client.*ray\[client\].*on=.ray"),
    ],
)
def test_a_missing_extra_is_named(
    on: str, lacking: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != lacking or None)
    with pytest.raises(InputError, match=words):
        place_of(on)


@pytest.mark.parametrize(
    ("rows", "bars", "workers", "days", "size"),
    [
        (1_000, 35_000, 2, 0, 63),  # eight chunks for each worker
        (1_000_000, 35_000, 2, 0, 2_857),  # 100 million bars
        (1_000_000, 525_600, 100, 0, 190),
        (1_000_000, 35_000, 2, 1_461, 717),  # 8 MiB of daily returns
        (10, 10**9, 2, 0, 1),
        (1, 100, 8, 10**9, 1),
        (5, 0, 0, 0, 1),
    ],
)
def test_a_chunk_is_a_good_task_and_everybody_has_several(
    rows: int, bars: int, workers: int, days: int, size: int
) -> None:
    assert rows_a_chunk(rows, bars, workers, days) == size


def test_the_rows_of_a_chunk_are_the_rows_of_this_process() -> None:
    alone = sweep(SmaCrossover, made(), Account(), fast=[3, 5, 7, 9], slow=[30]).frame
    found = computed(common())
    assert [repr([*one.figures, one.halted]) for one in found.rows] == [
        repr(row) for row in alone.astype(object).to_numpy().tolist()
    ]


def test_what_chunks_have_in_common_is_unpacked_once_a_process() -> None:
    asked: list[str] = []
    raw = packed(common(), "it")

    def send() -> bytes:
        asked.append("again")
        return raw

    chunk = packed(STRATEGIES, "they")
    threads = [threading.Thread(target=compute_chunk, args=("one", send, chunk)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == ["again"]
    forget("another")
    compute_chunk("one", send, chunk)
    assert asked == ["again"]
    forget("one")
    assert worker._ready == []


def test_other_libraries_are_refused() -> None:
    with pytest.raises(
        WorkerDiffers, match=r"process \d+ .*another version of numpy: expected 0\.9"
    ):
        computed(common(libraries={**worker.libraries(), "numpy": "0.9"}))


def test_other_code_is_refused_by_module() -> None:
    code = code_of(SmaCrossover)
    assert {"research.engine", "research.strategies.sma_crossover"} <= code.keys()
    for name in ("research.engine", "research.strategies.sma_crossover", "research.cluster.chunk"):
        with pytest.raises(WorkerDiffers, match=f"another code of {name}: expected"):
            computed(common(code={**code, name: "0" * 64}))
    with pytest.raises(WorkerDiffers, match=r"research\.nowhere"):
        computed(common(code={**code, "research.nowhere": "0" * 64}))


def test_one_bit_of_one_figure_of_a_control_row_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "code_hashes", lambda _: {})  # the same code, quicker
    control = common().control
    assert [one for one, _ in control] == [STRATEGIES[0], STRATEGIES[2], STRATEGIES[3]]
    strategy, row = control[1]
    for name in row.figures._fields:
        value = getattr(row.figures, name)
        other = 1.5 if math.isnan(value) else math.nextafter(value, math.inf)
        off = row._replace(figures=row.figures._replace(**{name: other}))
        with pytest.raises(WorkerDiffers, match=f"fast=7.*another {name}"):
            computed(common(control=(control[0], (strategy, off))))
    with pytest.raises(WorkerDiffers, match="another halted"):
        computed(common(control=((strategy, row._replace(halted=not row.halted)),)))


def test_code_is_what_a_process_first_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_of(SmaCrossover)
    edited = dict.fromkeys(before, "edited")
    monkeypatch.setattr(worker, "code_hashes", lambda _: edited)
    assert code_of(SmaCrossover) == before


def test_a_strategy_of_a_notebook_counts_by_its_class_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SmaCrossover, "__module__", "__main__")
    code = code_of(SmaCrossover)
    assert "research.rows" in code
    assert "research.strategies.sma_crossover" not in code


def test_a_strategy_that_cannot_be_sent_is_refused_by_name() -> None:
    lock = threading.Lock()

    class Locked(SmaCrossover):
        def target(self, candles: Any) -> Any:
            with lock:
                return super().target(candles)

    with pytest.raises(InputError, match=r"Locked: it cannot be sent to another process: .*lock"):
        packed((Locked(3, 30),), "Locked")


def test_a_module_that_a_worker_lacks_is_named() -> None:
    raw = packed(STRATEGIES, "they").replace(b"sma_crossover", b"sma_CROSSOVER")
    with pytest.raises(WorkerDiffers, match="lacks code of the sweep: No module named"):
        worker._unpacked(raw)
    assert pickle.loads(packed(STRATEGIES, "they")) == STRATEGIES  # noqa: S301


@pytest.mark.parametrize("name", ["on", "workers"])
def test_a_parameter_called_as_a_keyword_of_sweep_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"Named.{name}"):
        type("Named", (Strategy,), {"__annotations__": {name: int}})
