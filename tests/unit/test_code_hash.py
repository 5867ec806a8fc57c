"""What counts as the code of a run, shown on small trees written for the purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

import research.code_hash as code_hash
from research.code_hash import code_hashes
from research.errors import InputError
from research.promotion import CORE

STRATEGY = "research.strategies.sma_crossover"


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
    assert list(hashes(tree)) == [
        "research.inner",
        "research.strategies",
        "research.strategies.one",
    ]


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


@pytest.mark.parametrize(
    "written",
    [
        "from . import helper\n",
        "from .helper import x\n",
        "from ..strategies.helper import x as y\n",
        "from .. import helper, inner\n",
        "from research.strategies import helper\n",
        "import research.strategies.helper as h\n",
        "def late():\n    from .helper import x\n    return x\n",
        "class A:\n    async def late(self):\n        import helper\n        return helper.x\n",
        "late = lambda: __import__('os')\ntry:\n    import helper\nexcept ImportError:\n    pass\n",
        "from typing import *\nif TYPE_CHECKING:\n    x = 1\nelse:\n    import helper\n",
        "import typing\nif not typing.TYPE_CHECKING:\n    import helper\n",
        "import tools.helper\n",
        "from tools.helper import x\n",
        "match 1:\n    case 1:\n        from tools import helper\n",
    ],
)
def test_an_import_counts_however_it_is_written(tree: Path, written: str) -> None:
    (tree / "tools").mkdir()
    (tree / "tools" / "__init__.py").write_text("z = 1\n")
    places = ["helper.py", "tools/helper.py", "research/helper.py", "research/strategies/helper.py"]
    for place in places:
        (tree / place).write_text("x = 1\n")
    path = tree / "research" / "strategies" / "one.py"
    path.write_text(f"from research.inner import f\n{written}")
    before = hashes(tree)
    counted = [name for name in before if name.endswith("helper")]
    assert len(counted) == 1
    (tree / Path(*counted[0].split("."))).with_suffix(".py").write_text("x = 2\n")
    after = hashes(tree)
    assert {name for name in before if before[name] != after[name]} == {*counted}
    assert ("tools" in before) is ("tools" in counted[0])


def test_the_code_of_a_package_counts_with_its_modules(tree: Path) -> None:
    before = hashes(tree)
    (tree / "research" / "strategies" / "__init__.py").write_text("import sys\n")
    assert {name for name in before if before[name] != hashes(tree)[name]} == {
        "research.strategies"
    }


def test_imports_for_a_type_checker_alone_stay_out(tree: Path) -> None:
    typing_only = (
        "import typing\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
        "    import research.stranger\nif typing.TYPE_CHECKING:\n    import research.stranger"
    )
    rewrite(tree, "inner.py", "def f", f"{typing_only}\n\ndef f")
    assert "research.stranger" not in hashes(tree)


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("import research\n", 2),
        ("\nimport research as rs\n", 3),
        ("from research import Strategy\n", 2),
        ("from research import inner, Strategy\n", 2),
        ("from research import *\n", 2),
        ("from .. import Strategy\n", 2),
        ("def late():\n    import research\n", 3),
        ("import research.inner\nx = research.Strategy\n", 3),
    ],
)
def test_names_of_the_package_itself_are_refused_with_the_line(
    tree: Path, written: str, line: int
) -> None:
    path = tree / "research" / "strategies" / "one.py"
    path.write_text(f"from research.inner import f\n{written}")
    with pytest.raises(
        InputError, match=rf"research/strategies/one\.py: line {line}: .*research\.strategy import"
    ):
        hashes(tree)


def test_a_module_of_the_package_may_be_used_by_its_dotted_name(tree: Path) -> None:
    path = tree / "research" / "strategies" / "one.py"
    path.write_text("import research.inner\nx = research.inner.f(1)\n")
    assert "research.inner" in hashes(tree)


def test_a_file_that_cannot_be_parsed_is_named(tree: Path) -> None:
    (tree / "research" / "inner.py").write_text("def f(:\n")
    with pytest.raises(InputError, match=r"research/inner\.py: it cannot be parsed"):
        hashes(tree)


def test_a_strategy_from_a_notebook_has_no_file_and_is_refused(tree: Path) -> None:
    with pytest.raises(InputError, match=r"research/strategies"):
        code_hashes(["__main__"], tree)


def test_the_closure_of_a_promoted_strategy_is_what_decides_and_no_more() -> None:
    closure = {name.removeprefix("research.") for name in code_hashes((STRATEGY, *CORE))}
    assert {"engine", "risk", "state", "tape", "blotter", "account", "strategy"} <= closure
    assert {"candles", "errors", "compiled", "indicators", "strategies.sma_crossover"} <= closure
    outside = ("report", "chart", "backtesting", "search", "settings", "vectorbt", "live")
    assert not [name for name in closure if name.startswith(outside)]


def test_installed_beside_other_libraries_only_our_own_package_counts(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "helper.py").write_text("x = 1\n")
    rewrite(tree, "inner.py", "def f", "import helper\n\ndef f")
    assert "helper" in hashes(tree)
    monkeypatch.setattr(code_hash, "_SITE", {str(tree)})
    assert "helper" not in hashes(tree)
    assert "research.inner" in hashes(tree)
