"""What the code of a run *is*: one digest a module, over everything it imports from ``research``.

A module counts by its syntax tree without docstrings, so comments and formatting do not matter and
a changed operator does. Nothing is imported or executed to find out.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

from research.errors import InputError

__all__ = ["code_hashes", "imported_modules"]

ROOT = Path(__file__).resolve().parent.parent


def code_hashes(modules: Iterable[str], root: Path = ROOT) -> dict[str, str]:
    """SHA-256 of every module in the import closure of ``modules`` within ``research``.

    ``modules`` are dotted names (``research.engine``). Raises InputError for one without a file.
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = _file_of(name, root)
        if path is None:
            raise InputError(
                field="code",
                value=name,
                expected="a module that lies in research/",
                remedy="Put the strategy into a file of its own in research/strategies/.",
            )
        tree = ast.parse(path.read_text("utf-8"), str(path))
        found[name] = hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest()
        waiting += imported_modules(tree, root)
    return dict(sorted(found.items()))


def imported_modules(tree: ast.AST, root: Path = ROOT) -> list[str]:
    """Dotted names of the ``research`` modules that this tree imports when it is loaded.

    Imports inside ``if TYPE_CHECKING`` and inside functions do not run then, and do not count.
    """
    names = []
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [
        name
        for name in dict.fromkeys(names)
        if name.startswith("research.") and _file_of(name, root) is not None
    ]


def _executed(tree: ast.AST) -> Iterable[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from _executed(node)


def _file_of(name: str, root: Path) -> Path | None:
    path = root / Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _without_docstrings(tree: ast.Module) -> ast.Module:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree
