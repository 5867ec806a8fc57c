"""The order state machine: every pair of statuses, and random walks against a second account."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from live.orders import FINAL, TRANSITIONS, require_transition
from research.blotter import OrderStatus
from research.errors import IllegalTransition

S = OrderStatus

# Written from the drawing, line by line: what stands to the right of a status may follow it.
DRAWN = {
    None: "CREATED",
    S.CREATED: "SUBMITTED CANCELLED REJECTED",
    S.SUBMITTED: "PENDING CANCELLED REJECTED",
    S.PENDING: "PARTIALLY_FILLED FILLED CANCELLED REJECTED",
    S.PARTIALLY_FILLED: "PARTIALLY_FILLED FILLED CANCELLED",
    S.FILLED: "",
    S.CANCELLED: "",
    S.REJECTED: "",
}


@pytest.mark.parametrize("before", [None, *S])
@pytest.mark.parametrize("after", S)
def test_only_what_is_drawn_passes(before: OrderStatus | None, after: OrderStatus) -> None:
    if after.value in DRAWN[before].split():
        require_transition("cb-1", before, after)
    else:
        with pytest.raises(IllegalTransition, match="order cb-1"):
            require_transition("cb-1", before, after)


def test_filled_cancelled_and_rejected_are_final_and_every_status_has_a_rule() -> None:
    assert {S.FILLED, S.CANCELLED, S.REJECTED} == FINAL
    assert set(TRANSITIONS) == set(S)


def test_a_refusal_names_the_order_the_statuses_and_what_could_follow() -> None:
    with pytest.raises(IllegalTransition) as told:
        require_transition("cb-7", S.PARTIALLY_FILLED, S.REJECTED)
    assert str(told.value) == (
        "order cb-7: cannot follow PARTIALLY_FILLED: expected CANCELLED, FILLED, "
        'PARTIALLY_FILLED, got "REJECTED"'
    )
    with pytest.raises(IllegalTransition, match="nothing: it is final"):
        require_transition("cb-7", S.FILLED, S.FILLED)


def test_every_status_can_be_reached_and_every_order_can_end() -> None:
    reached = {S.CREATED}
    for _ in S:
        reached |= {after for before in reached for after in TRANSITIONS[before]}
    assert reached == set(S)
    ending = set(FINAL)
    for _ in S:
        ending |= {before for before, after in TRANSITIONS.items() if after & ending}
    assert ending == set(S)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(list(S)), max_size=12))
def test_nothing_comes_after_the_end(wishes: list[OrderStatus]) -> None:
    status, ended = None, False
    for wish in wishes:
        try:
            require_transition("cb-1", status, wish)
        except IllegalTransition:
            continue
        assert not ended
        status, ended = wish, wish in (S.FILLED, S.CANCELLED, S.REJECTED)


class OneOrder(RuleBasedStateMachine):
    """An order is asked for anything at any time; what it has lived through must stay legal."""

    def __init__(self) -> None:
        super().__init__()
        self.life: list[OrderStatus] = []

    @rule(wish=st.sampled_from(list(S)))
    def ask(self, wish: OrderStatus) -> None:
        before = self.life[-1] if self.life else None
        try:
            require_transition("cb-1", before, wish)
        except IllegalTransition:
            assert wish.value not in DRAWN[before].split()
        else:
            self.life.append(wish)

    @invariant()
    def its_life_makes_sense(self) -> None:
        known = [one.value for one in self.life]
        assert sum(known.count(end) for end in ("FILLED", "CANCELLED", "REJECTED")) <= 1
        assert known.count("CREATED") <= 1
        assert known[:1] in ([], ["CREATED"])
        if "FILLED" in known or "PARTIALLY_FILLED" in known:
            assert known[:3] == ["CREATED", "SUBMITTED", "PENDING"]
        assert not ("PARTIALLY_FILLED" in known and "REJECTED" in known)


TestOneOrder = OneOrder.TestCase
TestOneOrder.settings = settings(max_examples=100, stateful_step_count=15, deadline=None)
