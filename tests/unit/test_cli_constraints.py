"""A constraint on the command line is arithmetic on parameters, and never code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live.cli.constraints import constraint_of
from research.errors import InputError, UnknownNameError

NAMES = frozenset({"fast", "slow", "width"})


def holds(text: str, **parameters: float) -> bool:
    answer = constraint_of((text,), NAMES)
    assert answer is not None
    return answer(parameters)


@pytest.mark.parametrize(
    "text",
    [
        "fast * 2 <= slow",
        "fast < slow",
        "2 < fast < slow <= 9",
        "not fast == slow",
        "fast + slow - 3 != 4 and slow / 2 > 1.5",
        "fast > 5 or (slow - fast) * 2 >= -fast or -(fast - 8) > 3",
    ],
)
@given(fast=st.integers(1, 12), slow=st.integers(1, 12))
def test_it_means_what_it_means_in_python(text: str, fast: int, slow: int) -> None:
    expected = eval(text, {"fast": fast, "slow": slow})  # noqa: S307 - the texts above
    assert holds(text, fast=fast, slow=slow) is expected


def test_one_as_deep_as_its_length_lets_it_be_is_answered() -> None:
    assert holds("-" * 480 + "fast < 3", fast=2)
    assert not holds("-" * 480 + "fast < 3", fast=3)


def test_all_of_several_must_hold() -> None:
    both = constraint_of(("fast < slow", "slow < 10"), NAMES)
    assert both is not None
    assert both({"fast": 2, "slow": 9})
    assert not both({"fast": 9, "slow": 2})
    assert not both({"fast": 2, "slow": 11})
    assert constraint_of((), NAMES) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fast",
        "fast <",
        "fast + slow",
        "True",
        "fast < True",
        "fast < 'slow'",
        "fast ** slow < 3",
        "fast in slow",
        "fast is slow",
        "abs(fast) < 3",
        "__import__('os').system('true') == 0",
        "fast.real < 3",
        "[fast][0] < 3",
        "(lambda: 1)() < 3",
        "(fast := 3) < 4",
        "fast < 3 if slow else 4 < 5",
        "fast; slow",
        "f'{fast}' < 3",
        "fast < 3j",
        "fast < 3" + " and fast < 3" * 40,
        "(" * 240 + "fast" + ")" * 240 + " < 3",
        "fast < 3\0",
    ],
)
def test_what_is_no_comparison_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--constraint: expected a comparison of parameters"):
        constraint_of((text,), NAMES)


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(UnknownNameError, match="--constraint: expected one of fast, slow, width"):
        constraint_of(("fsat < slow",), NAMES)
