"""What an import loads: a paper run starts without a laboratory, a compiler or a language model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("vectorbt", "llama_index", "openai", "jupyterlab", "notebook", "optuna")
HEAVY = (*HEAVY, "dask", "distributed", "ray", "arch", "skfolio", "sklearn", "statsmodels")
# The fold and what surrounds one bar need, beyond that, no compiler, no charts and no shell.
INTERPRETED = (*HEAVY, "IPython", "numba", "plotly")

# Prints {module: the libraries that its import was the first to load}.
PROBE = """
import importlib, json, sys
modules, libraries = json.loads(sys.argv[1])
loaded, first = set(), {}
for module in modules:
    importlib.import_module(module)
    first[module] = sorted(set(libraries) & set(sys.modules) - loaded)
    loaded |= set(sys.modules)
print(json.dumps(first))
"""


def loaded_by(modules: list[str], libraries: tuple[str, ...]) -> dict[str, list[str]]:
    answer = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([modules, libraries])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return {module: names for module, names in json.loads(answer.stdout).items() if names}


def is_there(module: str) -> bool:
    path = ROOT / module.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def modules_of(package: str) -> list[str]:
    paths = (path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))
    names = (".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return sorted(name for name in names if not name.endswith("__main__"))


@pytest.mark.parametrize("module", ["research", "research.engine", "research.risk", "live.session"])
def test_one_bar_needs_no_compiler_and_no_lab(module: str) -> None:
    if not is_there(module):
        pytest.skip(f"{module} is not written yet")
    assert loaded_by([module], INTERPRETED) == {}


def test_live_loads_nothing_that_a_live_machine_lacks() -> None:
    # Migrations are run by Alembic, which has no import of them to look at.
    apart = ("live.agents", "live.ledger.migrations", "live.ledger.alembic")
    modules = [name for name in modules_of("live") if not name.startswith(apart)]
    assert loaded_by(modules, HEAVY) == {}


def test_the_probe_names_the_module_that_loaded_a_library() -> None:
    assert loaded_by(["json", "xml.dom", "xml.sax"], ("xml", "xml.sax")) == {
        "xml.dom": ["xml"],
        "xml.sax": ["xml.sax"],
    }
