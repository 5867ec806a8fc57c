"""The installer under bad conditions: shims that fail, no Python, a kill half-way.

A stand-in for uv makes an empty environment and writes down what it was asked for, so that each
case takes milliseconds and no network.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

INSTALL = Path(__file__).resolve().parents[2] / ".ci" / "install"
CANDIDATES = ("python3.13", "python3.12", "python3.11", "python3", "python")

UV = """#!/usr/bin/env bash
case "$*" in
  --version) echo "uv 0" ;;
  venv*) venv="${@: -1}"; mkdir -p "$venv/bin"; touch "$venv/pyvenv.cfg"
         ln -s "$REAL_PYTHON" "$venv/bin/python"; echo venv >> calls ;;
  *--requirement*) echo packages >> calls
         if [[ -n "${KILLED:-}" ]]; then kill -9 "$PPID"; fi ;;
  *--editable*) echo project >> calls; touch .venv/bin/candlebook ;;
esac
"""


@dataclass(frozen=True)
class Machine:
    """A folder with a lock, and a PATH whose Pythons all fail until one is made to work."""

    home: Path

    @property
    def venv(self) -> Path:
        return self.home / ".venv"

    def script(self, name: str, text: str) -> None:
        path = self.home / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def working_python(self, name: str) -> None:
        self.script(name, f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')

    def lock(self, text: str) -> None:
        (self.home / "requirements.lock").write_text(text)

    def install(self, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.home / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"
        return subprocess.run(
            ["bash", str(INSTALL), "requirements.lock", ".venv", ".full"],
            cwd=self.home,
            env={"PATH": path, "REAL_PYTHON": sys.executable, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        log = self.home / "calls"
        found = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return found

    def looks_complete(self) -> bool:
        return any((self.venv / name).exists() for name in (".full", ".lock", "bin/candlebook"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "bin").mkdir()
    made = Machine(tmp_path)
    made.lock("numpy==1\n")
    made.script("uv", UV)
    for name in CANDIDATES:
        made.script(name, f"#!/bin/sh\necho 'shim: {name}: command not found' >&2\nexit 127\n")
    return made


def test_shims_that_fail_are_passed_over(machine: Machine) -> None:
    machine.working_python("python3.11")
    result = machine.install()
    assert result.returncode == 0, result.stderr
    assert machine.calls() == ["venv", "packages", "project"]
    assert (machine.venv / ".full").exists()
    assert "Installed in" in result.stdout
    assert "shim" not in result.stdout + result.stderr


def test_without_a_python_the_message_says_what_to_do_and_nothing_is_made(machine: Machine) -> None:
    result = machine.install()
    assert result.returncode == 1
    assert "no working Python 3.11, 3.12 or 3.13 among: python3.13" in result.stderr
    assert "make install PYTHON=" in result.stderr
    assert not machine.venv.exists()


@pytest.mark.parametrize(
    ("version", "code"), [((3, 10), 1), ((3, 11), 0), ((3, 12), 0), ((3, 13), 0), ((3, 14), 1)]
)
def test_only_311_to_313_are_used(machine: Machine, version: tuple[int, int], code: int) -> None:
    pretend = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
    machine.script("chosen", f"""#!/bin/sh\n"$REAL_PYTHON" -c '{pretend}' "$2"\n""")
    machine.working_python("python3")
    result = machine.install(PYTHON=str(machine.home / "bin" / "chosen"))
    assert ("no working Python" in result.stderr) == bool(code)
    assert (machine.calls() == []) == bool(code)


def test_a_kill_half_way_leaves_nothing_that_looks_complete(machine: Machine) -> None:
    machine.working_python("python3")
    assert machine.install(KILLED="yes").returncode == -9
    assert machine.venv.exists()
    assert not machine.looks_complete()
    assert machine.install().returncode == 0
    assert machine.calls() == ["venv", "packages", "venv", "packages", "project"]


def test_a_kill_during_an_upgrade_does_not_leave_the_old_stamp(machine: Machine) -> None:
    machine.working_python("python3")
    assert machine.install().returncode == 0
    assert machine.looks_complete()
    machine.lock("numpy==2\n")
    assert machine.install(KILLED="yes").returncode == -9
    assert not machine.looks_complete()


def test_an_unchanged_lock_reinstalls_the_project_only(machine: Machine) -> None:
    machine.working_python("python3")
    machine.install()
    machine.calls()
    assert machine.install().returncode == 0
    assert machine.calls() == ["project"]
    machine.lock("numpy==2\n")
    assert machine.install().returncode == 0
    assert machine.calls() == ["venv", "packages", "project"]


def test_a_folder_that_is_no_environment_is_left_alone(machine: Machine) -> None:
    machine.working_python("python3")
    machine.venv.mkdir()
    (machine.venv / "thesis.txt").write_text("irreplaceable")
    result = machine.install()
    assert result.returncode == 1
    assert "is not a virtual environment" in result.stderr
    assert (machine.venv / "thesis.txt").read_text() == "irreplaceable"
