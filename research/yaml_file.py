"""A YAML file that a person wrote, read strictly: one mapping, no key twice, no alias.

The values are those of ``yaml.safe_load``. Besides them the reader keeps the line of every key,
so that a complaint can follow the file's order, and the text before ``${NAME}`` was replaced, so
that a message shows what stands in the file and never what a variable holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from research.account import PathTo, combined, did_you_mean, dotted
from research.errors import SettingsError

__all__ = ["SECRET_NAME", "YamlFile", "read_yaml"]

# Variables that hold secrets by their name: they stay in the environment, never in params/.
SECRET_NAME = re.compile(
    r"(^|_)((API_?)?KEY|TOKEN|SECRET|PASSWORD|PASSWD|CHAT_ID|WEBHOOK_URL|DATABASE_URL)$"
)
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_]\w*)(:-(?P<default>[^{}]*))?\}|(?P<broken>\$\{)")
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null"))
_TEXT = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True)
class YamlFile:
    """One file: ``values`` as used, ``written`` as it stands there, ``lines`` (from 1) by path."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)
    lines: dict[PathTo, int] = field(default_factory=dict)

    def line_of(self, path: PathTo) -> int:
        """The line of ``path`` or of the nearest part above it that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def written_at(self, path: PathTo) -> object:
        """What stands in the file at ``path``, with its ``${NAME}``; None where nothing does."""
        value: Any = self.written
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value


def read_yaml(path: Path, name: str, variables: Mapping[str, str] | None = None) -> YamlFile:
    """The file at ``path``; ``name`` is what messages call it.

    ``variables`` are put in place of ``${NAME}`` and ``${NAME:-default}``; None leaves the text
    alone. An unquoted value is typed after that, as though it had been written out. Raises
    SettingsError, for everything that is wrong at once.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise SettingsError(
            f"cannot be read ({getattr(err, 'strerror', None) or 'not UTF-8 text'})", field=name
        ) from None
    try:
        return _parsed(text, name, variables)
    except yaml.MarkedYAMLError as err:
        where = "" if err.problem_mark is None else f"line {err.problem_mark.line + 1}: "
        problem = f"{where}not YAML: {err.problem}"
    except (yaml.YAMLError, ValueError):
        problem = "not YAML: a character, a date or a number in it is impossible"
    except RecursionError:
        problem = "not YAML that we read: nested too deeply"
    raise SettingsError(problem, field=name)


def _parsed(text: str, name: str, variables: Mapping[str, str] | None) -> YamlFile:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None or root.tag == _NULL:
            return YamlFile(name)
        if not isinstance(root, yaml.MappingNode):
            raise SettingsError("expected a mapping of keys to values", field=name)
        scalars: list[tuple[PathTo, yaml.ScalarNode]] = []
        lines: dict[PathTo, int] = {}
        errors = [
            SettingsError(problem, field=_place(name, path))
            for path, problem in _walk(root, scalars, lines)
        ]
        if errors:
            raise combined(errors)
        written = loader.construct_document(root)
        if variables is not None:
            for path, node in scalars:
                try:
                    _replace(loader, node, variables, _place(name, path))
                except SettingsError as err:
                    errors.append(err)
        if errors:
            raise combined(errors)
        return YamlFile(name, loader.construct_document(root), written, lines)
    finally:
        loader.dispose()


def _place(name: str, path: PathTo) -> str:
    return f"{name}: {dotted(path)}" if path else name


def _walk(
    root: yaml.Node, scalars: list[tuple[PathTo, yaml.ScalarNode]], lines: dict[PathTo, int]
) -> list[tuple[PathTo, str]]:
    """Notes every scalar and line below ``root``; returns the places that are refused."""
    refused: list[tuple[PathTo, str]] = []
    seen: set[int] = set()
    stack: list[tuple[PathTo, yaml.Node]] = [((), root)]
    while stack:
        path, node = stack.pop()
        if id(node) in seen:
            refused.append((path, "a YAML alias (*name); expected the value written out"))
            continue
        seen.add(id(node))
        inside: list[tuple[PathTo, yaml.Node]] = []
        if isinstance(node, yaml.ScalarNode):
            scalars.append((path, node))
        elif isinstance(node, yaml.SequenceNode):
            inside = [((*path, i), item) for i, item in enumerate(node.value)]
            lines.update((place, item.start_mark.line + 1) for place, item in inside)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.tag != _TEXT:
                    shown = key.value if isinstance(key, yaml.ScalarNode) else "a collection"
                    refused.append((path, f"key {shown}: expected text, in quotes if need be"))
                    continue
                place = (*path, key.value)
                line = key.start_mark.line + 1
                if place in lines:
                    again = f"stands twice, on lines {lines[place]} and {line}; expected once"
                    refused.append((place, again))
                lines.setdefault(place, line)
                inside.append((place, value))
        stack.extend(reversed(inside))
    return refused


def _replace(
    loader: yaml.SafeLoader, node: yaml.ScalarNode, variables: Mapping[str, str], place: str
) -> None:
    """Puts the variables into one scalar. Raises SettingsError, which names ``place``."""
    if node.tag != _TEXT or "${" not in node.value:
        return

    def value_of(match: re.Match[str]) -> str:
        name = match["name"]
        if match["broken"]:
            raise SettingsError("expected ${NAME} or ${NAME:-default}", field=place)
        if SECRET_NAME.search(name):
            raise SettingsError(
                f"{name} is a secret; expected none in a file under params/",
                field=place,
                remedy=f"Candlebook reads {name} from .env or the environment where it needs it.",
            )
        value = variables.get(name) or match["default"]
        if value is None:
            raise SettingsError(
                f"variable {name} is not set",
                field=place,
                remedy=did_you_mean(name, variables)
                or f"Set it in .env or the environment, or write ${{{name}:-default}}.",
            )
        return value

    node.value = _VARIABLE.sub(value_of, node.value)
    if node.style is None:  # unquoted: a number stays a number
        tag = loader.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
        node.tag = tag if tag in _PLAIN_TAGS else _TEXT
