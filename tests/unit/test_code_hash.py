"""What counts as the code of a run, shown on small trees written for the purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.code_hash import code_hashes
from research.errors import InputError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    package = tmp_path / "research"
    (package / "strategies").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "strategies" / "__init__.py").write_text("")
    (package / "strategies" / "one.py").write_text("from research.inner import f\n\nx = f(1)\n")
    (package / "inner.py").write_text(
        '"""Says."""\n\ndef f(n):\n    """Adds."""\n    return n + 1\n'
    )
    (package / "stranger.py").write_text("y = 2\n")
    return tmp_path


def hashes(tree: Path) -> dict[str, str]:
    return code_hashes(["research.strategies.one"], tree)


def rewrite(tree: Path, name: str, old: str, new: str) -> None:
    path = tree / "research" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_closure_holds_what_is_imported_and_nothing_else(tree: Path) -> None:
    assert list(hashes(tree)) == ["research.inner", "research.strategies.one"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("n + 1", "n + 1  # the next"),
        ("n + 1", "(n+1)"),
        ("Adds.", "Adds one."),
        ("Says.", "Says something."),
    ],
)
def test_comments_formatting_and_docstrings_do_not_count(tree: Path, old: str, new: str) -> None:
    before = hashes(tree)
    rewrite(tree, "inner.py", old, new)
    assert hashes(tree) == before


@pytest.mark.parametrize(
    ("old", "new"), [("n + 1", "n - 1"), ("n + 1", "n + 2"), ("def f(n)", "def f(n, m=0)")]
)
def test_a_changed_operator_in_an_imported_module_counts(tree: Path, old: str, new: str) -> None:
    before = hashes(tree)
    rewrite(tree, "inner.py", old, new)
    after = hashes(tree)
    assert {name for name in before if before[name] != after[name]} == {"research.inner"}


def test_a_new_import_enters_the_closure(tree: Path) -> None:
    rewrite(tree, "inner.py", "def f", "from research import stranger\n\ndef f")
    assert "research.stranger" in hashes(tree)


def test_imports_that_do_not_run_at_load_stay_out(tree: Path) -> None:
    rewrite(tree, "inner.py", "return n", "from research import stranger\n    return n")
    typing_only = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import research.stranger"
    )
    rewrite(tree, "inner.py", "def f", f"{typing_only}\n\ndef f")
    assert "research.stranger" not in hashes(tree)


def test_a_strategy_from_a_notebook_has_no_file_and_is_refused(tree: Path) -> None:
    with pytest.raises(InputError, match=r"research/strategies"):
        code_hashes(["__main__"], tree)


def test_the_engine_is_in_every_strategys_closure() -> None:
    closure = code_hashes(["research.strategies.sma_crossover", "research.engine"])
    assert {"research.engine", "research.risk", "research.tape", "research.indicators"} <= {
        *closure
    }
    assert not {name for name in closure if name.startswith("live")}
