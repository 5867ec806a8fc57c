"""What an artefact says of itself; that its file is guarded is shown in test_promotion.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from research.account import Account, Filters, Limits
from research.artefact import Artefact, load_artefact
from research.backtesting import backtest
from research.candles import Candles, CandleSet, utc_ms
from research.promotion import promote
from research.strategies.sma_crossover import SmaCrossover

START = utc_ms("2024-01-01")
NOW = utc_ms("2024-06-01")
HOUR = 3_600_000


def promoted(close: list[float], folder: Path, **limits: float) -> Artefact:
    """The artefact of a run over these closes, whole account in one position."""
    prices = np.array(close)
    ts = START + HOUR * np.arange(len(close))
    series = Candles("AAAUSDT", "1h", ts, prices, prices, prices, prices, np.ones(len(close)))
    wide = {"max_position_pct": 100, "max_daily_loss_pct": 100, "max_drawdown_pct": 100} | limits
    run = backtest(SmaCrossover(2, 3), CandleSet((series,)), Account(limits=Limits(**wide)))
    return promote(
        run,
        "trend",
        why="<b>test</b>",
        override="a test",
        unjudged=True,
        who="me",
        folder=folder,
        now=NOW,
    )


OVERRIDDEN = "Promoted by me without having been judged: a test"
RISING = [100, 100, 100, 110, 120, 130, 120, 110, 105, 100, 100]
FALLING = [100, 100, 100, 110, 60, 50, 40, 30, 30, 30, 30]
FLAT = [100.0] * 11


def test_a_run_that_made_money_has_nothing_else_to_warn_of(tmp_path: Path) -> None:
    artefact = promoted([100, 100, 100, 110, 120, 200, 190, 180, 170, 160, 160], tmp_path)
    assert artefact.metrics["trades"] == 1
    assert artefact.halted_at is None
    assert artefact.warnings == [OVERRIDDEN]


def test_a_run_that_lost_money_says_how_much(tmp_path: Path) -> None:
    artefact = promoted(FALLING, tmp_path)
    assert artefact.warnings == [
        OVERRIDDEN,
        f"Its backtest lost money: {artefact.metrics['total_return']:+.2%}.",
    ]


def test_a_run_that_halted_says_when_and_the_file_keeps_it(tmp_path: Path) -> None:
    artefact = promoted(FALLING, tmp_path, max_drawdown_pct=9)
    # 90.9 bought at 60 and sold at 50, in the bar that closes at 06:00: 9.2 % of the account.
    assert artefact.halted_at == "2024-01-01T06:00Z"
    assert "halted at 2024-01-01T06:00Z" in artefact.warnings[1]
    assert load_artefact("trend", tmp_path).warnings == artefact.warnings


def test_a_run_without_a_trade_says_so(tmp_path: Path) -> None:
    assert promoted(FLAT, tmp_path).warnings == [
        OVERRIDDEN,
        "Its backtest ended no trade: the figures say nothing of the strategy.",
    ]


def test_it_prints_as_one_line(tmp_path: Path) -> None:
    artefact = promoted(RISING, tmp_path)
    assert repr(artefact) == (
        "Artefact(trend: SmaCrossover(fast=2, slow=3) on AAAUSDT 1h, promoted 2024-06-01T00:00Z "
        f"by me, expires 2024-08-30T00:00Z, seal {artefact.seal[:12]})"
    )
    assert str(artefact) == repr(artefact)


def test_in_a_notebook_it_is_a_table_and_no_text_in_it_is_markup(tmp_path: Path) -> None:
    shown = promoted(FALLING, tmp_path)._repr_html_()
    for words in ("SmaCrossover(fast=2, slow=3), version 1", "AAAUSDT 1h", "lost money"):
        assert words in shown
    assert "&lt;b&gt;test&lt;/b&gt;" in shown
    assert "<b>test" not in shown


def test_equal_accounts_have_equal_hashes_with_filters_or_without() -> None:
    one = Account(filters={"A": Filters(lot_step="0.10"), "B": Filters()})
    other = Account(filters={"B": Filters(), "A": Filters(lot_step="0.1")})
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other, Account(), Account(filters=None), Account(fee_rate=0.002)}) == 3


@pytest.mark.parametrize("part", ["strategy", "market", "window"])
def test_its_parts_are_values(part: str, tmp_path: Path) -> None:
    artefact = promoted(FLAT, tmp_path)
    assert getattr(artefact, part) == getattr(load_artefact("trend", tmp_path), part)
