"""Strict YAML: what safe_load says, minus everything that hides a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research.errors import SettingsError
from research.yaml_file import read_yaml


def read(tmp_path: Path, text: str | bytes, variables: dict[str, str] | None = None) -> Any:
    path = tmp_path / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path, "file.yaml", variables)


keys = st.text("abcdef_", min_size=1, max_size=6)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="$"), max_size=12)
    | st.dates()
)
trees = st.dictionaries(
    keys,
    st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tree=trees, flow=st.booleans())
def test_values_are_those_of_safe_load(tmp_path: Path, tree: dict[str, Any], flow: bool) -> None:
    class WithoutAliases(yaml.SafeDumper):
        def ignore_aliases(self, _data: Any) -> bool:
            return True

    text = yaml.dump(tree, Dumper=WithoutAliases, default_flow_style=flow)
    document = read(tmp_path, text, {})
    assert document.values == document.written == (yaml.safe_load(text) or {}) == tree


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "file.yaml: a: stands twice, on lines 1 and 3; expected once"),
        (
            "s:\n  - x: 1\n    x: 1\n",
            "file.yaml: s[0].x: stands twice, on lines 2 and 3; expected once",
        ),
        ("a: &x {k: 1}\nb: *x\n", "file.yaml: b: a YAML alias (*name)"),
        ("a: &x [*x]\n", "file.yaml: a[0]: a YAML alias (*name)"),
        ("on: 1\n", "file.yaml: key on: expected text"),
        ("a: {1: 2}\n", "file.yaml: a: key 1: expected text"),
        ("a: {<<: {b: 1}}\n", "file.yaml: a: key <<: expected text"),
        ("? [x]\n: 1\n", "file.yaml: key a collection: expected text"),
        ("- a\n", "file.yaml: expected a mapping of keys to values"),
        ("a: [1\nb: 2\n", "file.yaml: line 2: not YAML: "),
        ("a: 1\n---\na: 2\n", "file.yaml: line 2: not YAML: but found another document"),
        ("a: !!python/object/apply:os.getcwd []\n", "file.yaml: line 1: not YAML: "),
        ("a: 2021-13-45\n", "file.yaml: not YAML: a character, a date"),
        ("a: \x01\n", "file.yaml: not YAML: a character, a date"),
        ("a: " + "[" * 2000 + "]" * 2000, "file.yaml: not YAML that we read: nested"),
        (b"a: \xff\n", "file.yaml: cannot be read (not UTF-8 text)"),
    ],
)
def test_what_hides_a_mistake_is_refused_by_place(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(message)


def test_every_duplicate_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, "a: 1\na: 2\nb: {c: 1, c: 2}\n")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    "text", ["", "# only a comment\n", "---\n", "\ufeff# with a byte order mark"]
)
def test_an_empty_file_is_an_empty_mapping(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text).values == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${DIR}", "store"),
        ("${DIR}/x/${DIR}", "store/x/store"),
        ("${NONE:-fall}", "fall"),
        ("${EMPTY:-fall}", "fall"),
        ("${DIR:-fall}", "store"),
        ("${NONE:-}", None),
        ('"${NONE:-}"', ""),
        ("${COUNT}", 20),
        ('"${COUNT}"', "20"),
        ("${COUNT}0", 200),
        ("${FLAG}", True),
        ("${DAY}", "2021-13-45"),
        ("a $DIR stays, $ too", "a $DIR stays, $ too"),
    ],
)
def test_a_variable_stands_for_its_text(tmp_path: Path, text: str, value: object) -> None:
    variables = {"DIR": "store", "COUNT": "20", "FLAG": "true", "EMPTY": "", "DAY": "2021-13-45"}
    document = read(tmp_path, f"a:\n- k: {text}\n", variables)
    assert document.values == {"a": [{"k": value}]}
    assert document.written_at(("a", 0, "k")) == yaml.safe_load(text)


def test_a_variable_cannot_bring_structure_or_another_variable(tmp_path: Path) -> None:
    variables = {"A": "{x: 1}\nb: 2", "B": "${A}"}
    assert read(tmp_path, "a: ${A}\nc: ${B}\n", variables).values == {
        "a": variables["A"],
        "c": "${A}",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${MISSING}", "file.yaml: a[0].k: variable MISSING is not set"),
        ("${EMPTY}", "file.yaml: a[0].k: variable EMPTY is not set"),
        ("${DIRR}", "Did you mean DIR?"),
        ('"${}"', "file.yaml: a[0].k: expected ${NAME} or ${NAME:-default}"),
        ('"${a-b}"', "file.yaml: a[0].k: expected ${NAME} or ${NAME:-default}"),
        ('"${open"', "file.yaml: a[0].k: expected ${NAME} or ${NAME:-default}"),
        ("${OPENAI_API_KEY}", "OPENAI_API_KEY is a secret"),
        ("${DATABASE_URL:-x}", "DATABASE_URL is a secret"),
        ("${MY_PASSWORD}", "MY_PASSWORD is a secret"),
    ],
)
def test_a_variable_that_cannot_be_used_names_file_and_key(
    tmp_path: Path, text: str, message: str
) -> None:
    canary = "canary-3f9a"
    variables = {"DIR": "x", "EMPTY": "", "OPENAI_API_KEY": canary, "MY_PASSWORD": canary}
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, f"a:\n- k: {text}\n", variables)
    assert message in str(caught.value)
    assert "file.yaml: a[0].k" in str(caught.value)
    assert canary not in str(caught.value)


def test_the_line_of_a_path_is_known(tmp_path: Path) -> None:
    document = read(tmp_path, "# note\na:\n  - k: 1\n  - k: 2\n")
    assert document.line_of(("a", 1, "k")) == 4
    assert document.line_of(("a", 1, "absent")) == 4
    assert document.line_of(("absent",)) == 0
    assert document.written_at(("a", 7, "k")) is None
