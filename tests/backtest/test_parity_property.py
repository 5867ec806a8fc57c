"""Paper equals backtest: whatever the market, the account, the schedule of polls and the crashes.

A drawn story is lived through poll by poll, each with a new session on a new connection; people
move the kill switch in between, candles come late, opens are restated, processes die. At the end
(and half of the time after every step) the ledger must equal a backtest bit for bit, and it must
equal the ledger of one single poll at the end. Three engines that are wrong on purpose show that
the check would notice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from live import kill_switch
from live.broker import PaperBroker
from live.ledger import Ledger, read, write
from live.parity import Parity, compare
from live.session import Session, advance
from research.account import Account, Filters, Limits, Stops, TradingHours
from research.backtesting import Backtest
from research.blotter import OrderStatus
from research.candles import CandleSet, iso
from research.errors import CandlesRejected, DataError
from research.promotion import Artefact
from research.risk import Rules
from research.state import Log, State
from research.strategies.momentum_rotation import MomentumRotation
from research.strategies.rsi_reversal import RsiReversal
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import Strategy, registry
from research.tape import Tape
from tests.backtest.paper import (
    HOUR,
    START,
    SYMBOLS,
    DyingLedger,
    FaultyFeed,
    Killed,
    TableTargets,
    artefact_of,
    dump,
    emptied,
    fresh_ledger,
    market,
    reconnected,
    scratch_folder,
)

pick = st.sampled_from


@pytest.fixture(scope="module", autouse=True)
def table_targets() -> Iterator[None]:
    """Lets an artefact name the tests' own strategy; production code is as it is."""
    shipped = registry()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "research.strategy.registry", lambda: {**shipped, "TableTargets": TableTargets}
        )
        yield


@pytest.fixture(scope="module")
def ledgers() -> Iterator[tuple[Ledger, Ledger]]:
    """Two ledgers, used again and again."""
    with scratch_folder() as folder:
        pair = fresh_ledger(folder / "paper.db"), fresh_ledger(folder / "twin.db")
        yield pair
        for one in pair:
            one.close()


MOVES = ("kill", "reset", "reduce_only", "resume")


@dataclass(frozen=True)
class Step:
    """``wait`` milliseconds, then ``act``: poll, die while polling, or what a person does."""

    wait: int
    act: str
    lives: int


@dataclass(frozen=True)
class Story:
    """One example: what the world shows, what trades, and when somebody looks."""

    candles: CandleSet
    strategy: Strategy
    account: Account
    shown: dict[tuple[str, int], float | None]
    late: dict[tuple[str, int], int]
    trade_from: int | None
    started: bool
    first_poll: int
    steps: tuple[Step, ...]
    watched: bool

    @property
    def feed(self) -> FaultyFeed:
        return FaultyFeed(self.candles, self.shown, self.late)

    @property
    def artefact(self) -> Artefact:
        return artefact_of(self.strategy, self.candles, self.account)

    @property
    def end(self) -> int:
        return int(self.candles.clock()[-1]) + 12 * HOUR


limits = st.builds(
    Limits,
    max_position_pct=pick([5, 30, 50, 100]),
    max_position_usd=pick([None, None, 400]),
    max_daily_loss_pct=pick([100, 100, 5, 1]),
    max_daily_loss_usd=pick([None, None, 50]),
    max_drawdown_pct=pick([100, 100, 20, 5]),
    max_positions=pick([1, 2, 3]),
    trading_hours=pick(
        [TradingHours(), TradingHours(), TradingHours(start="22:00", end="09:30", days=("fri",))]
    ),
    kill_switch_armed=st.booleans(),
    on_trip=pick(["hold", "flatten"]),
    min_fresh_bars=pick([None, None, None, 3]),
    cooldown_minutes=pick([None, None, 60, 200]),
    max_exposure_pct=pick([None, None, 2, 40]),
    max_exposure_pct_by_symbol=pick([None, None, {SYMBOLS[0]: 0.5, SYMBOLS[1]: 20}]),
    max_orders_per_day=pick([None, None, 2, 4]),
    max_daily_turnover_pct=pick([None, None, 30, 150]),
    price_collar_pct=pick([None, None, 0.5, 2]),
    target_volatility_pct=pick([None, None, None, 50]),
    volatility_bars=pick([2, 4]),
)
stops = st.builds(
    Stops,
    stop_loss_pct=pick([None, 2, 5]),
    take_profit_pct=pick([None, 2, 5]),
    trailing_stop_pct=pick([None, 2, 5]),
    time_stop_minutes=pick([None, None, None, 120, 500]),
)
filters = st.builds(
    Filters,
    lot_step=pick([Decimal("0.00000001"), Decimal("0.1"), Decimal("0.3")]),
    min_notional=pick([Decimal(0), Decimal(10)]),
    min_trade_size=pick([Decimal(0), Decimal(1)]),
)
accounts = st.builds(
    Account,
    initial_cash=pick([10_000.0, 10_000.0, 1_000.0, 100.0]),
    fee_rate=pick([0.0, 0.001, 0.05]),
    slippage_bps=pick([0.0, 5.0, 300.0]),
    volume_share_pct=pick([None, None, 1.0, 10.0, 50.0]),
    unfilled=pick(["wait", "cancel"]),
    limits=st.none() | limits,
    stops=stops,
    filters=st.none() | filters.map(lambda one: dict.fromkeys(SYMBOLS, one)),
)
strategies = st.one_of(
    st.integers(0, 2**31).map(lambda table: TableTargets(table=table)),
    st.builds(
        lambda fast, more: SmaCrossover(fast=fast, slow=fast + more),
        st.integers(2, 4),
        st.integers(1, 4),
    ),
    st.builds(RsiReversal, window=st.integers(2, 5), oversold=pick([30, 45.0, 49.5])),
    st.builds(
        MomentumRotation,
        lookback=st.integers(2, 5),
        top=st.integers(1, 2),
        rebalance_every=st.integers(1, 2),
        floor=pick([-100.0, 0.0, 1.0]),
    ),
)
waits = pick([1, 59_999, HOUR // 2, HOUR - 1, HOUR, HOUR + 1, 6 * HOUR]) | st.integers(1, 3 * HOUR)
steps = st.builds(Step, waits, pick(["poll"] * 5 + ["die", "die", *MOVES]), st.integers(0, 7))


@st.composite
def stories(draw: st.DrawFn) -> Story:
    count, bars = draw(st.integers(1, 3)), draw(st.integers(20, 32))
    candles = market(
        draw(st.integers(0, 2**32)),
        bars,
        count,
        absent=draw(pick([0.0, 0.05, 0.2])),
        coarse=draw(st.booleans()),
    )
    places = st.tuples(pick(SYMBOLS[:count]), st.integers(0, bars - 1).map(_bar))
    # What a forming candle shows, as a factor of the true open: a cycle over bars and symbols.
    drift = draw(st.lists(pick([1, 1, None, 0.97, 1 + 1e-15, 1.02]), max_size=5))
    shown: dict[tuple[str, int], float | None] = {}
    for s, one in enumerate(candles) if drift else ():
        for i, ts in enumerate(one.ts):
            factor = drift[(i + s) % len(drift)]
            shown[one.symbol, int(ts)] = None if factor is None else float(one.open[i] * factor)
    return Story(
        candles=candles,
        strategy=draw(strategies),
        account=draw(accounts),
        shown=shown,
        late=draw(st.dictionaries(places, pick([1, HOUR // 2, 3 * HOUR]), max_size=4)),
        trade_from=draw(st.none() | st.integers(-2 * HOUR, 8 * HOUR).map(lambda ms: START + ms)),
        started=draw(pick([True, True, True, False])),
        first_poll=START + draw(st.integers(HOUR, 8 * HOUR)),
        steps=tuple(draw(st.lists(steps, min_size=4, max_size=12))),
        watched=draw(st.booleans()),
    )


def _bar(t: int) -> int:
    return START + t * HOUR


def live_through(story: Story, ledger: Ledger, counts: Counter[str]) -> Ledger:
    """Every step of the story, then a poll at its end; returns the ledger."""
    feed, artefact = story.feed, story.artefact
    if story.started:
        kill_switch.reset(ledger, "go", START - 1, who="test")
    now, trade_from = story.first_poll, story.trade_from
    for step in (Step(0, "poll", 0), *story.steps):
        now += step.wait
        ledger = reconnected(ledger)
        if step.act in MOVES:
            getattr(kill_switch, step.act)(ledger, "because", now, who="test")
        elif step.act == "poll":
            _poll(Session(ledger, artefact, feed, "replay"), now, trade_from)
        else:
            dying = DyingLedger(ledger.engine, iter(range(step.lives)))
            try:
                _poll(Session(dying, artefact, feed, "replay"), now, trade_from)
            except Killed:
                counts["deaths"] += 1
        if story.watched:
            parity = compare(ledger, artefact, story.candles)
            assert parity.equal, parity
            counts["looks"] += 1
    _poll(Session(ledger, artefact, feed, "replay"), max(now, story.end), trade_from)
    return ledger


def _poll(session: Session, now: int, trade_from: int | None) -> None:
    advance(session, session.feed.closed(now), now, trade_from)


def live_at_once(story: Story, ledger: Ledger, paper: Ledger) -> None:
    """The same story in one poll at the end, given what people did and when the account began."""
    with paper.reading() as conn:
        acts = read.interventions(conn)[1:]  # the first is every new ledger's own
        account = read.account_of(conn, "paper")
    assert account is not None
    with ledger.writing() as conn:
        for act in acts:
            write.add_intervention(conn, act.at, act.move, act.reason, act.who, 0)
    now = max(story.end, story.first_poll + sum(step.wait for step in story.steps))
    _poll(Session(ledger, story.artefact, story.feed, "replay"), now, account.trade_from)


@pytest.mark.timeout(900)  # a minute of work on an idle machine, and several on a busy one
def test_paper_equals_backtest_in_every_story(ledgers: tuple[Ledger, Ledger]) -> None:
    counts: Counter[str] = Counter()

    @settings(
        max_examples=500,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(stories())
    def tell(story: Story) -> None:
        paper = live_through(story, emptied(ledgers[0]), counts)
        parity = compare(paper, story.artefact, story.candles)
        assert parity.equal, parity
        assert parity.bars > 0
        counts.update(parity.compared)
        count_parts(parity.twin, counts)
        rows = dump(paper)
        counts["restated"] += len(rows["revisions"])
        if not rows["revisions"]:
            twin = emptied(ledgers[1])
            live_at_once(story, twin, paper)
            assert rows == dump(twin)
            counts["twins"] += 1

    tell()
    # The stories must have had something to tell.
    assert counts["fills"] > 2_000, counts
    assert min(counts["restated"], counts["deaths"], counts["twins"], counts["looks"]) > 100, counts
    assert min(counts["in parts"], counts["cut by volume"]) > 20, counts
    assert counts["part waits"] > 3, counts


def count_parts(run: Backtest, counts: Counter[str]) -> None:
    """How many orders were filled in parts, lost their rest, or still wait with a part filled."""
    parts = Counter(fill.order_id for fill in run.fill_list)
    counts["in parts"] += sum(one > 1 for one in parts.values())
    for order in run.order_list:
        cut = order.status is OrderStatus.CANCELLED and order.filled_quantity > 0
        counts["cut by volume"] += cut
        counts["part waits"] += order.status is OrderStatus.PARTIALLY_FILLED


# One story in which much is traded, told honestly and then with something broken in paper alone.

CANDLES = market(seed=7, bars=30, symbols=2)
FIRST, LAST = START + HOUR, START + 30 * HOUR
ARTEFACT = artefact_of(SmaCrossover(fast=2, slow=3), CANDLES, Account(limits=None, filters=None))


def paper_run(
    ledger: Ledger, broker: Any, feed: Any = None, artefact: Artefact = ARTEFACT
) -> Parity:
    ledger = emptied(ledger)
    kill_switch.reset(ledger, "go", START - 1, who="test")
    session = Session(ledger, artefact, feed or FaultyFeed(CANDLES), "replay", broker)
    for now in range(FIRST, LAST + 1, HOUR):
        _poll(session, now, FIRST)
    return compare(ledger, artefact, CANDLES)


class LateBroker(PaperBroker):
    """Wrong: what was decided at a close is filled one open too late."""

    def fill(self, state: State, tape: Tape, rules: Rules, log: Log) -> State:
        opened = tape.close_time[0] - HOUR
        return state if opened in state.pending_since else super().fill(state, tape, rules, log)


class FreeBroker(PaperBroker):
    """Wrong: takes no fee."""

    def fill(self, state: State, tape: Tape, rules: Rules, log: Log) -> State:
        return super().fill(state, tape, rules._replace(fee_rate=0.0), log)


class WholeBroker(PaperBroker):
    """Wrong: fills all at once, whatever the volume."""

    def fill(self, state: State, tape: Tape, rules: Rules, log: Log) -> State:
        return super().fill(state, tape, rules._replace(volume_share=math.inf), log)


@dataclass(frozen=True)
class HastyFeed(FaultyFeed):
    """Wrong: hands out the forming candle, half of the way to its close, as if it had closed."""

    def closed(self, now: int) -> CandleSet:
        there = super().closed(now + HOUR)
        parts = []
        for one in there:
            close = one.close.copy()
            close[-1] = (one.open[-1] + one.close[-1]) / 2
            parts.append(replace(one, close=close))
        return CandleSet(tuple(parts))


def test_the_honest_broker_and_feed_show_no_difference(ledgers: tuple[Ledger, Ledger]) -> None:
    parity = paper_run(ledgers[0], PaperBroker())
    assert parity.equal, parity
    assert parity.compared["fills"] > 15
    assert str(parity).endswith("Paper equals replay.")


def test_a_fill_shifted_by_one_bar_is_caught(ledgers: tuple[Ledger, Ledger]) -> None:
    parity = paper_run(ledgers[0], LateBroker())
    first, fill = parity.differences[0], parity.twin.fill_list[0]
    assert (first.stage, first.at, first.symbol) == ("orders", fill.at, fill.symbol)
    fills = [one for one in parity.differences if one.stage == "fills"]
    assert (fills[0].at, fills[0].paper) == (fill.at, "missing")
    missing = {(one.at + HOUR, one.symbol) for one in fills if one.paper == "missing"}
    assert missing & {(one.at, one.symbol) for one in fills if one.paper == "there"}
    assert parity.cause.startswith("the ledger's rows were edited")


def test_a_fee_that_was_dropped_is_caught(ledgers: tuple[Ledger, Ledger]) -> None:
    parity = paper_run(ledgers[0], FreeBroker())
    fees = [one for one in parity.differences if (one.stage, one.field) == ("fills", "fee")]
    assert [one.paper for one in fees] == [0.0] * len(fees)
    assert min(one.backtest for one in fees) > 0.0
    assert parity.differences[0].stage == "orders"


def test_volume_that_was_not_there_is_caught(ledgers: tuple[Ledger, Ledger]) -> None:
    account = Account(limits=None, filters=None, volume_share_pct=50)
    artefact = artefact_of(SmaCrossover(fast=2, slow=3), CANDLES, account)
    assert paper_run(ledgers[0], PaperBroker(), artefact=artefact).equal
    parity = paper_run(ledgers[0], WholeBroker(), artefact=artefact)
    assert ("fills", "lots") in {(one.stage, one.field) for one in parity.differences}


def test_a_forming_candle_is_refused_as_a_closed_one(ledgers: tuple[Ledger, Ledger]) -> None:
    with pytest.raises(CandlesRejected, match="still_forming"):
        paper_run(ledgers[0], PaperBroker(), HastyFeed(CANDLES))


def test_a_forming_candle_taken_for_a_closed_one_is_caught(
    ledgers: tuple[Ledger, Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("live.session.require_sound", lambda *_: None)
    wrong = set()
    for now in range(FIRST + 4 * HOUR, FIRST + 12 * HOUR, HOUR):
        ledger = emptied(ledgers[0])
        kill_switch.reset(ledger, "go", START - 1, who="test")
        _poll(Session(ledger, ARTEFACT, HastyFeed(CANDLES), "replay"), now, FIRST)
        parity = compare(ledger, ARTEFACT, CANDLES)
        at = parity.differences[0].at
        assert at == now + HOUR
        assert parity.cause == f"the candles were restated: not what was decided on at {iso(at)}"
        wrong |= {one.stage for one in parity.differences}
    assert wrong >= {"candles", "signals", "marks"}
    with pytest.raises(DataError, match="decided on have changed since"):
        _poll(Session(ledger, ARTEFACT, FaultyFeed(CANDLES), "replay"), LAST, FIRST)
