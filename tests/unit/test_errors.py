"""The tree of errors: what is drawn is what is there, and every branch has its exit code."""

from __future__ import annotations

import inspect
import re

import pytest

from research import errors
from research.errors import (
    ArtefactTampered,
    Busy,
    CandlebookError,
    CandlesRejected,
    DataError,
    SettingsError,
)

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value)
    and issubclass(value, Exception)
    and value.__module__ == "research.errors"
}


def drawn_tree(drawing: str) -> dict[str, str]:
    """Child -> parent, read from the drawing: four columns a level."""
    path: list[str] = []
    tree = {}
    for line in drawing.splitlines():
        found = re.match(r"^([│├└─ ]*)([A-Z][A-Za-z]+)(\s|$)", line)
        if found is None or (found[2] != "CandlebookError" and not found[1]):
            continue
        depth = len(found[1]) // 4
        assert depth <= len(path), line
        path = [*path[:depth], found[2]]
        if depth:
            tree[found[2]] = path[-2]
    return tree


def drawn_exit_codes(drawing: str) -> dict[str, int]:
    return {
        name: int(code)
        for name, code in re.findall(r"^[├└]── ([A-Za-z]+) +(\d+) ", drawing, re.MULTILINE)
    }


def test_the_drawing_at_the_top_is_the_tree_of_classes() -> None:
    real = {name: cls.__bases__[0].__name__ for name, cls in CLASSES.items()}
    assert real.pop("CandlebookError") == "Exception"
    assert drawn_tree(str(errors.__doc__)) == real


def test_a_class_that_is_missing_from_the_drawing_would_be_noticed() -> None:
    drawing = str(errors.__doc__)
    line = next(one for one in drawing.splitlines() if "CursorError" in one)
    assert "CursorError" in drawn_tree(drawing)
    assert "CursorError" not in drawn_tree(drawing.replace(line, ""))
    moved = drawing.replace("│   ├── CursorError", "├── CursorError    ")
    assert drawn_tree(moved)["CursorError"] == "CandlebookError"


def test_all_names_every_class_and_nothing_else() -> None:
    assert errors.__all__ == sorted(CLASSES)


def test_every_class_says_who_must_act_or_what_happened() -> None:
    for name, cls in CLASSES.items():
        branch = CandlebookError in cls.__bases__
        # Python hands a parent's docstring to nobody: each of these is its own.
        assert branch or cls.__doc__, f"{name} has no docstring"
        assert cls.__doc__ is None or cls.__doc__.strip().split("\n")[0].endswith(".")


def test_each_branch_has_its_own_exit_code_and_its_children_share_it() -> None:
    codes = drawn_exit_codes(str(errors.__doc__))
    branches = {name for name, cls in CLASSES.items() if CandlebookError in cls.__bases__}
    assert codes.keys() == branches
    assert sorted(codes.values()) == list(range(2, 2 + len(branches)))
    for name, cls in CLASSES.items():
        branch = next((one.__name__ for one in cls.__mro__ if one.__name__ in branches), None)
        assert cls.exit_code == (1 if branch is None else codes[branch]), name


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CandlebookError(), ""),
        (Busy("another run holds it"), "another run holds it"),
        (Busy(field="data/runs/lock"), "data/runs/lock"),
        (
            SettingsError(field="symbols[0].tick", value="abc", expected="a positive number"),
            'symbols[0].tick: expected a positive number, got "abc"',
        ),
        (
            SettingsError(field="fee", value=None, expected="a number"),
            "fee: expected a number, got None",
        ),
        (SettingsError(field="fee", expected="a number"), "fee: expected a number"),
        (
            CandlesRejected(
                "bad row", field="BTCUSDT 1h", value=0, expected="1", remedy="Refetch."
            ),
            "BTCUSDT 1h: bad row: expected 1, got 0. Refetch.",
        ),
        (DataError("It is gone.", remedy="Fetch it."), "It is gone. Fetch it."),
    ],
)
def test_the_message_is_built_from_the_parts_that_are_there(
    error: CandlebookError, text: str
) -> None:
    assert str(error) == text


def test_the_parts_stay_readable_on_their_own() -> None:
    error = ArtefactTampered(field="code", value="ab", expected="cd", remedy="Promote it again.")
    parts = (error.field, error.value, error.expected, error.remedy)
    assert parts == ("code", "ab", "cd", "Promote it again.")
    assert (Busy("x").field, Busy("x").value, Busy("x").remedy) == (None, None, None)


def test_a_huge_value_is_cut_in_the_message_and_kept_whole_in_the_error() -> None:
    value = "y" * 10_000
    error = SettingsError(field="key", value=value, expected="less")
    assert len(str(error)) < 300
    assert str(error).endswith("yyy...")
    assert error.value == value
