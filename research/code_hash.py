"""What the code of a run *is*: one digest a module, over everything of the project that it imports.

A module counts by its syntax tree without docstrings, so comments and formatting do not matter and
a changed operator does. Imports count wherever they stand (at the top, in a function, relative),
except those under ``if TYPE_CHECKING``, which never run; so do the packages around a module.
Libraries do not: a run records their versions. Nothing is imported or executed to find out, hence
a module whose name is computed (``import_module(name)``) is not seen.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from research.errors import InputError

__all__ = ["code_hashes", "imported_modules"]

ROOT: Final = Path(__file__).resolve().parent.parent
# The package whose names are looked up when they are first used: its code tells nothing.
FACADE: Final = "research"


def code_hashes(modules: Iterable[str], root: Path = ROOT) -> dict[str, str]:
    """SHA-256 of every module of the project in the import closure of ``modules``.

    ``modules`` are dotted names (``research.engine``). Raises InputError for one without a file
    below ``root``, for a file that cannot be parsed, and for one that takes names from ``research``
    itself, since what those stand for cannot be read off the file.
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
        try:
            tree = ast.parse(path.read_text("utf-8"), str(path))
        except (SyntaxError, ValueError) as err:
            raise InputError(f"it cannot be parsed: {err}", field=_shown(path, root)) from err
        found[name] = hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest()
        waiting += imported_modules(tree, name, root)
    return dict(sorted(found.items()))


def imported_modules(tree: ast.AST, module: str, root: Path = ROOT) -> list[str]:
    """Dotted names of the project's modules that ``module``, whose tree this is, imports.

    Raises InputError for a name that is taken from ``research`` itself.
    """
    path = _file_of(module, root)
    is_package = path is not None and path.name == "__init__.py"
    package = module if is_package else module.rpartition(".")[0]
    names: list[str] = []
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base_of(node, package)
            # What is not a module is a name in ``base``, which then counts as a whole.
            parts = [f"{base}.{alias.name}" for alias in node.names]
            inside = [one for one in parts if _file_of(one, root) is not None]
            wanted = inside if len(inside) == len(parts) else [base, *inside]
        elif isinstance(node, ast.Attribute) and _is_facade(node.value):
            is_module = _file_of(f"{FACADE}.{node.attr}", root) is not None
            wanted = [] if is_module else [FACADE]
        else:
            continue
        if FACADE in wanted:
            raise InputError(
                f"line {node.lineno}: takes a name from the package {FACADE} itself, and what that "
                "stands for cannot be hashed",
                field=module if path is None else _shown(path, root),
                remedy="Import it from the module that defines it: "
                "from research.strategy import Strategy.",
            )
        names += wanted
    around = [above for name in [module, *names] for above in _packages_around(name)]
    return [
        name
        for name in dict.fromkeys([*names, *around])
        if name != FACADE and _file_of(name, root) is not None
    ]


def _executed(tree: ast.AST) -> Iterator[ast.stmt | ast.expr]:
    """Every statement and expression but those that only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in _TYPING:
            yield from _executed(ast.Module(node.orelse, []))
            continue
        if isinstance(node, (ast.stmt, ast.expr)):
            yield node
        yield from _executed(node)


_TYPING: Final = {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def _base_of(node: ast.ImportFrom, package: str) -> str:
    """The absolute name of what stands between ``from`` and ``import``."""
    if not node.level:
        return str(node.module)
    parts = package.split(".")
    above = parts[: len(parts) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def _is_facade(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id == FACADE


def _packages_around(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _file_of(name: str, root: Path) -> Path | None:
    # Installed beside other libraries, only our own package is the project's code.
    if str(root) in _SITE and name.partition(".")[0] != FACADE:
        return None
    path = root / Path(*name.split("."))
    for candidate in (path / "__init__.py", path.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


_SITE: Final = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree
