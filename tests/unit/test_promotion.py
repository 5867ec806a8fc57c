"""The promoted artefact: one changed byte anywhere and it does not run."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

import research.promotion as promotion
from research.account import Account, Limits
from research.backtesting import Backtest, backtest
from research.candles import COLUMNS, Candles, CandleSet, utc_ms
from research.errors import (
    ArtefactExpired,
    ArtefactTampered,
    InputError,
    PromotionRefused,
    UnknownNameError,
)
from research.promotion import Artefact, load_artefact, promote, reproduce, verify
from research.search import sweep
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles
from research.tape import Intervention, Move

NOW = utc_ms("2024-06-01")
WIDE = Limits(max_position_pct=40, max_drawdown_pct=50)


@pytest.fixture(scope="module")
def candles() -> CandleSet:
    return synthetic_candles(("AAAUSDT", "BBBUSDT"), "1h", utc_ms("2024-01-01"), 900)


@pytest.fixture(scope="module")
def run(candles: CandleSet) -> Backtest:
    account = Account(limits=WIDE)
    return backtest(
        SmaCrossover(fast=5, slow=20), candles.between(None, candles.clock()[800]), account
    )


@pytest.fixture
def artefact(run: Backtest, tmp_path: Path) -> Artefact:
    return promote(
        run, "trend", why="a test", override="a test", unjudged=True, folder=tmp_path, now=NOW
    )


def test_what_was_written_is_what_is_read_and_it_verifies(
    artefact: Artefact, candles: CandleSet, tmp_path: Path
) -> None:
    loaded = load_artefact("trend", tmp_path)
    assert loaded == artefact
    verify(loaded, candles, NOW)
    assert reproduce(loaded, candles).fill_list


def test_more_candles_after_the_window_change_nothing(
    artefact: Artefact, candles: CandleSet
) -> None:
    assert len(candles["AAAUSDT"]) > len(artefact.research_candles(candles)["AAAUSDT"])
    verify(artefact, candles, NOW)


# In the file: every leaf of every section, changed one at a time.


def leaves(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]
    if isinstance(value, list):
        return [leaf for i, inner in enumerate(value) for leaf in leaves(inner, (*path, i))]
    return [path]


def changed(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return "changed" if value is None else f"{value}x"


def test_every_single_value_in_the_file_is_guarded(artefact: Artefact, tmp_path: Path) -> None:
    path = tmp_path / "trend.yaml"
    original = path.read_text()
    found = leaves(yaml.safe_load(original))
    assert len(found) > 60
    for leaf in found:
        content = yaml.safe_load(original)
        inner = content
        for key in leaf[:-1]:
            inner = inner[key]
        inner[leaf[-1]] = changed(inner[leaf[-1]])
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        with pytest.raises(ArtefactTampered):
            load_artefact("trend", tmp_path)
    path.write_text(original)
    assert load_artefact("trend", tmp_path) == artefact


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("fee_rate: 0.001", "fee_rate: 0.0", "account.fee_rate"),
        ("max_position_pct: 40.0", "max_position_pct: 80.0", "account.limits"),
        ("fast: 5", "fast: 6", "strategy"),
        ("timeframe: 1h", "timeframe: 4h", "market"),
        ("  - AAAUSDT", "  - CCCUSDT", "market"),
        ("why: a test", "why: because", "seal"),
        ("total_return: ", "total_return: 1", "metrics"),
        ("start: 2024-01-01T00:00Z", "start: 2024-01-02T00:00Z", "window"),
    ],
)
def test_the_refusal_names_the_field(
    artefact: Artefact, tmp_path: Path, old: str, new: str, field: str
) -> None:
    path = tmp_path / f"{artefact.name}.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ArtefactTampered, match=rf"trend: {field}"):
        load_artefact("trend", tmp_path)


@pytest.mark.parametrize(
    "content", ["", "name: [", "- a\n- b\n", "name: trend\nstrange: 1\n", "\x00"]
)
def test_an_unreadable_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "trend.yaml").write_text(content)
    with pytest.raises(ArtefactTampered, match=r"params/promoted/trend\.yaml"):
        load_artefact("trend", tmp_path)


# In the world: candles, code, libraries, time.


def one_candle_changed(candles: CandleSet, column: str) -> CandleSet:
    first = candles.series[0]
    columns = {name: np.array(getattr(first, name)) for name in COLUMNS}
    columns[column][100] = np.nextafter(columns[column][100], np.inf)
    return CandleSet((Candles(first.symbol, "1h", first.ts, **columns), *candles.series[1:]))


@pytest.mark.parametrize("column", ["open", "high", "low", "close", "volume"])
def test_one_bit_of_one_candle_in_the_window_is_enough(
    artefact: Artefact, candles: CandleSet, column: str
) -> None:
    with pytest.raises(ArtefactTampered, match=r"trend: data \(2024-01-01T00:00Z"):
        verify(artefact, one_candle_changed(candles, column), NOW)


def test_other_symbols_are_refused(artefact: Artefact, candles: CandleSet) -> None:
    swapped = CandleSet(candles.series[::-1], source=candles.source)
    with pytest.raises(ArtefactTampered, match="trend: market"):
        verify(artefact, swapped, NOW)


def test_changed_code_is_refused_with_its_module(
    artefact: Artefact, candles: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = promotion.code_hashes
    monkeypatch.setattr(
        promotion, "code_hashes", lambda names: before(names) | {"research.indicators": "other"}
    )
    with pytest.raises(ArtefactTampered, match=r"trend: code\.research\.indicators"):
        verify(artefact, candles, NOW)


def test_another_library_version_is_refused(
    artefact: Artefact, candles: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion.importlib.metadata, "version", lambda name: f"{name} 0")
    with pytest.raises(ArtefactTampered, match=r"trend: libraries\.numpy"):
        verify(artefact, candles, NOW)


def test_another_strategy_version_is_refused(
    artefact: Artefact, candles: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SmaCrossover, "version", 2)
    with pytest.raises(ArtefactTampered, match=r"trend: strategy\.version"):
        verify(artefact, candles, NOW)


def test_libraries_come_before_code_and_code_before_candles(
    artefact: Artefact, candles: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New libraries may change code and figures: the cause is named, not what follows from it."""
    wrong = one_candle_changed(candles, "close")
    before = promotion.code_hashes
    monkeypatch.setattr(SmaCrossover, "version", 2)
    with pytest.raises(ArtefactTampered, match=r"trend: strategy\.version"):
        verify(artefact, wrong, NOW)
    monkeypatch.setattr(
        promotion, "code_hashes", lambda names: before(names) | {"research.risk": "other"}
    )
    with pytest.raises(ArtefactTampered, match=r"trend: code\.research\.risk"):
        verify(artefact, wrong, NOW)
    monkeypatch.setattr(promotion.importlib.metadata, "version", lambda name: f"{name} 0")
    with pytest.raises(ArtefactTampered, match=r"trend: libraries\.numpy"):
        verify(artefact, wrong, NOW)


@pytest.mark.parametrize(
    ("update", "field", "words"),
    [
        ({"name": "SmaCrossed"}, "strategy: ", "Did you mean SmaCrossover"),
        ({"name": "RsiReversal", "parameters": {}}, "strategy.name: ", "RsiReversal in research"),
        ({"parameters": {"fats": 5}}, "strategy: ", "SmaCrossover.fats: no such parameter"),
        ({"parameters": {"fast": 90, "slow": 20}}, "strategy: ", "expected less than slow"),
    ],
)
def test_a_strategy_that_cannot_be_built_any_more_was_tampered_with(
    artefact: Artefact, candles: CandleSet, update: dict, field: str, words: str
) -> None:
    other = artefact.model_copy(update={"strategy": artefact.strategy.model_copy(update=update)})
    with pytest.raises(ArtefactTampered, match=f"^trend: {field}") as caught:
        verify(other, candles, NOW)
    assert words in str(caught.value)
    assert caught.value.exit_code == 5


def test_a_module_that_is_gone_is_named(artefact: Artefact, candles: CandleSet) -> None:
    code = {**artefact.code, "research.strategies.gone": "0" * 64}
    with pytest.raises(ArtefactTampered, match=r'trend: code: .*"research\.strategies\.gone"'):
        verify(artefact.model_copy(update={"code": code}), candles, NOW)


def test_the_exchange_is_that_of_the_candles(
    run: Backtest, candles: CandleSet, tmp_path: Path
) -> None:
    elsewhere = dataclasses.replace(candles, exchange="kraken")
    assert elsewhere.between(0, NOW).closed_by(NOW).exchange == "kraken"
    other = promote(
        backtest(run.strategy, elsewhere, run.account),
        "other",
        why="a test",
        override="a test",
        unjudged=True,
        folder=tmp_path,
    )
    assert other.market.exchange == "kraken"
    verify(other, elsewhere, NOW)
    with pytest.raises(
        ArtefactTampered, match=r"other: market: .*expected kraken AAAUSDT BBBUSDT 1h, got"
    ):
        verify(other, candles, NOW)


@pytest.mark.parametrize(("moment", "expired"), [(-1, False), (0, True), (1, True)])
def test_it_expires_at_its_expiry(
    artefact: Artefact, candles: CandleSet, moment: int, expired: bool
) -> None:
    now = utc_ms(artefact.expires_at) + moment
    if not expired:
        verify(artefact, candles, now)
        return
    with pytest.raises(ArtefactExpired, match="expired"):
        verify(artefact, candles, now)


def test_reproduce_finds_an_engine_that_trades_differently(
    artefact: Artefact, candles: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dearer(*args: object, **kwargs: object) -> Backtest:
        account = artefact.account.model_copy(update={"fee_rate": 0.002})
        return backtest(args[0], args[1], account, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(promotion, "rerun", dearer)
    with pytest.raises(ArtefactTampered, match="trend: orders"):
        reproduce(artefact, candles)


def test_hashes_are_the_same_in_another_process_with_another_hash_seed(
    artefact: Artefact, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from research.promotion import *;"
        "from research.code_hash import code_hashes;"
        "a = load_artefact('trend', Path(sys.argv[1])); a.strategy.build();"
        "assert code_hashes(a.code) == a.code; print(a.seal)"
    )
    for seed in ("1", "2"):
        said = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout.strip() == artefact.seal


# At the door.


def test_a_name_is_not_overwritten_unless_asked(
    run: Backtest, artefact: Artefact, tmp_path: Path
) -> None:
    with pytest.raises(PromotionRefused, match="promoted already"):
        promote(
            run, "trend", why="again", override="a test", unjudged=True, folder=tmp_path, now=NOW
        )
    assert load_artefact("trend", tmp_path) == artefact
    again = promote(
        run,
        "trend",
        why="again",
        override="a test",
        unjudged=True,
        folder=tmp_path,
        now=NOW,
        replace=True,
    )
    assert load_artefact("trend", tmp_path) == again


@pytest.mark.parametrize("name", ["", "Trend", "1st", "a-b", "../up", "a" * 42, "a b"])
def test_bad_names_are_refused(run: Backtest, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="name"):
        promote(run, name, why="a test", override="a test", unjudged=True, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_reason_is_needed(run: Backtest, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="why"):
        promote(run, "trend", why="  ", override="a test", unjudged=True, folder=tmp_path)


def test_an_unknown_artefact_is_named_with_those_there(artefact: Artefact, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r'expected one of trend, got "tend"'):
        load_artefact("tend", tmp_path)


def test_a_sweeps_best_row_is_promoted_with_the_number_it_was_chosen_from(
    candles: CandleSet, tmp_path: Path
) -> None:
    found = sweep(SmaCrossover, candles, Account(limits=WIDE), fast=[3, 5], slow=[20, 40])
    artefact = promote(
        found, "best", why="a test", override="a test", unjudged=True, folder=tmp_path
    )
    assert artefact.rows_tried == 4
    assert artefact.strategy.build() == found.best()
    verify(artefact, candles, NOW)


def test_a_run_that_was_told_of_people_is_refused(run: Backtest, tmp_path: Path) -> None:
    told = backtest(
        run.strategy,
        run.candles,
        run.account,
        interventions=[Intervention(int(run.candles.clock()[50]), Move.KILL, "a test")],
    )
    with pytest.raises(PromotionRefused, match="kill-switch moves"):
        promote(told, "trend", why="a test", override="a test", unjudged=True, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_without_limits_is_refused(run: Backtest, tmp_path: Path) -> None:
    free = backtest(run.strategy, run.candles, Account(limits=None))
    with pytest.raises(PromotionRefused, match=r"trend: this run had no limits.*Limits"):
        promote(free, "trend", why="a test", override="a test", unjudged=True, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_strategy_from_elsewhere_is_refused_whatever_it_is_called(
    run: Backtest, tmp_path: Path
) -> None:
    @dataclass(frozen=True)
    class Own(SmaCrossover):
        """Of this file."""

    impostor = type("SmaCrossover", (Own,), {"__module__": "__main__"})
    for cls in (Own, impostor):
        own = backtest(cls(5, 20), run.candles, run.account)
        with pytest.raises(InputError, match=r"strategy: expected .* research/strategies/"):
            promote(own, "trend", why="a test", override="a test", unjudged=True, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [SmaCrossover(), "trend", None])
def test_what_is_no_run_is_refused(given: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="what: expected what judge"):
        promote(given, "trend", why="a test", override="a test", unjudged=True, folder=tmp_path)  # type: ignore[arg-type]


def test_a_failed_write_leaves_no_file(
    run: Backtest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path, __: Path) -> Path:
        raise OSError(28, "No space left on device")

    replaced: Callable[..., Path] = full
    monkeypatch.setattr(Path, "replace", replaced)
    with pytest.raises(OSError, match="No space"):
        promote(run, "trend", why="a test", override="a test", unjudged=True, folder=tmp_path)
    assert not list(tmp_path.iterdir())
