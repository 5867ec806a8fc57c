"""The reading order, as a test: a walk over every import in research/ and live/.

A module imports, when it is itself imported, only modules that stand before it in READING_ORDER. An
import inside a function (lazy) or under ``TYPE_CHECKING`` (never run) is free of the order, not of
the other rules. A folder such as ``research/rag`` is one module here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

ROOT = Path(__file__).resolve().parents[2]

READING_ORDER = """
research: errors durable code_hash account variables yaml_file params settings
research: candles history_manifest history_files history history_import resampling known_gaps
research: klines answers cooldown transport binance unified listing_cache exchange fetching
research: synthetic workspace
research: indicators strategy signals strategies risk tape compiled state engine blotter
research: metrics chart_theme report_tables charts sweep_charts html_page report_page report
research: daily sketch stretch rows daily_file kept_rows cluster
research: trial_clusters trials trial_ledger backtesting vectorbt_adapter
research: stop_findings stop_replay stop_audit combinations search tpe
research: evidence artefact promotion rag
live: orders broker ledger kill_switch feed session parity paper replay runner
live: monitor api agents demo cli
"""
ORDER: dict[str, list[str]] = {"research": [], "live": []}
for _line in READING_ORDER.strip().splitlines():
    _side, _, _names = _line.partition(": ")
    ORDER[_side] += _names.split()

NETWORK = (
    *("ccxt", "requests", "urllib.request", "urllib3", "socket", "http"),
    *("httpx", "aiohttp", "websockets"),
)
MODEL = ("llama_index", "openai")
MAY_USE_NETWORK = {"research.transport", "research.rag", "live.replay"}
CLUSTER = ("dask", "distributed", "ray")
MAY_USE_MODEL = {"research.rag", "live.agents"}
MAY_USE_CLUSTER = {"research.cluster"}

When = Literal["top", "lazy", "typing"]


@dataclass(frozen=True)
class Import:
    """One imported dotted name, as written after relative dots were resolved."""

    name: str
    line: int
    when: When


def imports(source: str, package: str) -> Iterator[Import]:
    """Every import in ``source``, whose relative imports start from ``package``.

    ``from a import b`` gives ``a.b``: whether ``b`` is a module or a name in ``a`` is for the
    reader to decide. ``import_module("a")`` and ``__import__("a")`` count as well.
    """
    pending: list[tuple[ast.AST, When]] = [(ast.parse(source), "top")]
    while pending:
        node, when = pending.pop()
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, when) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            parts = (above if node.level else []) + ([node.module] if node.module else [])
            base = ".".join(parts) or "<above the top>"
            yield from (Import(f"{base}.{alias.name}", node.lineno, when) for alias in node.names)
        elif isinstance(node, ast.Call) and _name(node.func) in {"import_module", "__import__"}:
            if node.args and isinstance(node.args[0], ast.Constant):
                yield Import(str(node.args[0].value), node.lineno, when)
            pending += [(child, when) for child in ast.iter_child_nodes(node)]
        elif isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING":
            pending += [(child, "typing") for child in node.body]
            pending += [(child, when) for child in node.orelse]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner: When = "lazy" if when == "top" else when
            pending += [(child, inner) for child in ast.iter_child_nodes(node)]
        else:
            pending += [(child, when) for child in ast.iter_child_nodes(node)]


def _name(expression: ast.expr) -> str:
    return ast.unparse(expression).rpartition(".")[2]


def violations(sources: dict[str, str]) -> list[str]:
    """What is wrong with a tree of ``{"research/risk.py": source}``, one sentence each."""
    found: list[str] = []
    vectorbt_in: set[str] = set()
    for path, source in sorted(sources.items()):
        package, parts = _place(path)
        module = f"{parts[0]}.{parts[1]}" if len(parts) > 1 else parts[0]
        if len(parts) > 1 and parts[1] not in ORDER[parts[0]]:
            found.append(f"{path}: {module} is not in READING_ORDER; add it where it is to be read")
            continue
        for imported in imports(source, package):
            where = f"{path}:{imported.line}"
            if _is(imported.name, "vectorbt"):
                vectorbt_in.add(path)
            found += [f"{where}: {fault}" for fault in _faults(module, imported)]
    if len(vectorbt_in) > 1:
        found.append(f"vectorbt is imported in more than one module: {sorted(vectorbt_in)}")
    return found


def _place(path: str) -> tuple[str, list[str]]:
    """The package that a file's relative imports start from, and its dotted name in parts."""
    parts = path.removesuffix(".py").split("/")
    package = ".".join(parts[:-1])
    return package, parts[:-1] if parts[-1] == "__init__" else parts


def _is(name: str, library: str) -> bool:
    return f"{name}.".startswith(f"{library}.")


def _faults(module: str, imported: Import) -> Iterator[str]:
    name, side = imported.name, module.split(".")[0]
    if _is(name, "notebooks") or _is(name, "tests"):
        yield f"{module} imports {name}; nothing imports a notebook or a test"
    if side == "research" and _is(name, "live"):
        yield f"{module} imports {name}; live imports research, never the reverse"
    offline = side == "research" and module not in MAY_USE_NETWORK
    if offline and any(_is(name, library) for library in NETWORK):
        yield f"{module} imports {name}; only {sorted(MAY_USE_NETWORK)} use the network"
    if module not in MAY_USE_MODEL and any(_is(name, library) for library in MODEL):
        yield f"{module} imports {name}; only {sorted(MAY_USE_MODEL)} call a model"
    if any(_is(name, library) for library in CLUSTER):
        if module not in MAY_USE_CLUSTER:
            yield f"{module} imports {name}; only {sorted(MAY_USE_CLUSTER)} starts clusters"
        elif imported.when == "top":
            yield f"{module} imports {name} when it is itself imported; import it in the function"
    if _is(name, "vectorbt") and side == "live":
        yield f"{module} imports {name}; vectorbt is for research"
    if _is(name, "vectorbt") and imported.when == "top":
        yield f"{module} imports {name} when it is itself imported; import it in the function"
    if _is(name, side) and imported.when == "top":
        yield from _out_of_order(module, name)


def _out_of_order(module: str, name: str) -> Iterator[str]:
    side, _, unit = module.partition(".")
    if not unit:
        return  # a facade gathers what stands in its package
    target = name.split(".")[1] if "." in name else ""
    order = ORDER[side]
    if target not in order:
        if name.count(".") < 2:  # deeper names are in a module that violations() calls unknown
            yield f"{module} imports {name} from the facade; name the module that defines it"
    elif order.index(target) > order.index(unit):
        yield f"{module} imports {name}, which comes after it in the reading order"


def project() -> dict[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for side in ORDER
        for path in (ROOT / side).rglob("*.py")
    }


def test_every_import_follows_the_reading_order() -> None:
    assert violations(project()) == []


def test_the_walk_reads_the_whole_project() -> None:
    assert {"research/__init__.py", "research/errors.py", "live/__init__.py"} <= project().keys()


PLANTED = {
    "a later module": ({"research/risk.py": "import research.engine"}, "comes after it"),
    "a later module by name": (
        {"research/risk.py": "from research import errors, engine"},
        "research.engine, which comes after it",
    ),
    "from . import": ({"research/risk.py": "from . import engine"}, "comes after it"),
    "from .x import": ({"research/risk.py": "from .engine import step"}, "comes after it"),
    "from .. import, in a folder": (
        {"research/strategies/sma.py": "from .. import engine"},
        "comes after it",
    ),
    "relative, in a folder's own __init__": (
        {"research/strategies/__init__.py": "from ..engine import step"},
        "comes after it",
    ),
    "a later module inside try": (
        {"research/risk.py": "try:\n    from . import engine\nexcept ImportError:\n    pass"},
        "risk.py:2: research.risk imports research.engine",
    ),
    "a later module, unless checking types": (
        {"research/risk.py": "if not TYPE_CHECKING:\n    from . import engine"},
        "comes after it",
    ),
    "a later module in a class body": (
        {"research/risk.py": "class Limits:\n    from research.engine import step"},
        "comes after it",
    ),
    "a later module by import_module": (
        {"research/risk.py": "import importlib\nx = importlib.import_module('research.engine')"},
        "comes after it",
    ),
    "the facade": ({"research/risk.py": "import research as rs"}, "from the facade"),
    "a name of the facade": ({"research/risk.py": "from research import backtest"}, "the facade"),
    "a later module of live": ({"live/orders.py": "from live import broker"}, "comes after it"),
    "live, from research": ({"research/risk.py": "from live import orders"}, "never the reverse"),
    "live, lazily, from research": (
        {"research/risk.py": "def f():\n    import live.orders"},
        "never the reverse",
    ),
    "live, from the facade of research": (
        {"research/__init__.py": "import live"},
        "never the reverse",
    ),
    "a notebook": ({"live/cli.py": "from notebooks import paper_trading"}, "nothing imports a"),
    "a test": ({"live/cli.py": "def f():\n    import tests.unit"}, "nothing imports a"),
    "a notebook, lazily": (
        {"research/report.py": "def f():\n    __import__('notebooks.first')"},
        "nothing imports a",
    ),
    "vectorbt at the top": ({"research/backtesting.py": "import vectorbt as vbt"}, "in the func"),
    "vectorbt in two modules": (
        {
            "research/backtesting.py": "def f():\n    import vectorbt",
            "research/search.py": "def f():\n    from vectorbt import Portfolio",
        },
        "more than one module",
    ),
    "vectorbt in live": ({"live/session.py": "def f():\n    import vectorbt"}, "for research"),
    "vectorbt in the facade": ({"research/__init__.py": "import vectorbt"}, "in the function"),
    "openai outside": ({"live/session.py": "def f():\n    import openai"}, "call a model"),
    "llama_index outside": (
        {"research/report.py": "from llama_index.core import Document"},
        "call a model",
    ),
    "dask outside, lazily": (
        {"research/search.py": "def f():\n    import distributed"},
        "starts clusters",
    ),
    "ray at the top": ({"research/cluster/on_ray.py": "import ray"}, "in the function"),
    "ccxt outside": ({"research/history.py": "import ccxt"}, "use the network"),
    "requests, lazily": ({"research/report.py": "async def f():\n    import requests"}, "network"),
    "urllib.request by name": ({"research/report.py": "from urllib import request"}, "network"),
    "http.client": ({"research/report.py": "from http.client import HTTPConnection"}, "network"),
    "socket under a lambda": (
        {"research/report.py": "f = lambda: __import__('socket')"},
        "network",
    ),
    "an unknown module": (
        {"research/magic.py": ""},
        "research.magic is not in READING_ORDER",
    ),
    "an unknown folder": ({"live/web/__init__.py": ""}, "live.web is not in READING_ORDER"),
}


@pytest.mark.parametrize(("sources", "message"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_violation_is_caught(sources: dict[str, str], message: str) -> None:
    found = violations(sources)
    assert len(found) == 1
    assert message in found[0]


ALLOWED = {
    "an earlier module": {"research/engine.py": "from . import errors, risk"},
    "a neighbour in the same folder": {"research/rag/index.py": "from .chunks import Chunk"},
    "its own folder, by name": {"live/ledger/query.py": "from live.ledger import models"},
    "a later module, lazily": {"research/risk.py": "def f():\n    from . import engine"},
    "a later module, for types only": {
        "research/risk.py": "if TYPE_CHECKING:\n    from research.engine import State"
    },
    "research, from live": {
        "live/session.py": "import research as rs\nfrom research import engine"
    },
    "anything, from the facade": {"research/__init__.py": "from . import promotion, errors"},
    "vectorbt, lazily, in one module": {
        "research/backtesting.py": "def f():\n    import vectorbt as vbt\n    import vectorbt.base"
    },
    "the network, where it belongs": {"research/transport.py": "import ccxt, socket"},
    "the network, in live": {"live/replay.py": "from http.server import HTTPServer"},
    "urllib.parse": {"research/report.py": "from urllib.parse import quote"},
    "names that only begin alike": {"research/report.py": "import socketserver_like, https"},
    "a model, where it belongs": {
        "research/rag/answer.py": "import openai",
        "live/agents/research.py": "from llama_index.core import Settings",
    },
}


@pytest.mark.parametrize("sources", ALLOWED.values(), ids=ALLOWED.keys())
def test_an_allowed_import_passes(sources: dict[str, str]) -> None:
    assert violations(sources) == []


def test_a_lazy_import_is_told_from_one_at_the_top() -> None:
    source = (
        "import a\nif TYPE_CHECKING:\n    import b\nelse:\n    import c\ndef f():\n    import d"
    )
    assert {(i.name, i.when) for i in imports(source, "research")} == {
        ("a", "top"),
        ("b", "typing"),
        ("c", "top"),
        ("d", "lazy"),
    }
