"""How long until something answers: the facade, the command's help and its status.

Medians of fresh processes, in seconds, byte code cached by one unmeasured run. The aim for
``import research`` is 0.7 s.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

REPEATS = 7
CANDLEBOOK = str(Path(sys.executable).with_name("candlebook"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import pandas": [sys.executable, "-c", "import pandas"],
    "import research": [sys.executable, "-c", "import research"],
    "candlebook --help": [CANDLEBOOK, "--help"],
    "candlebook status": [CANDLEBOOK, "status"],
}


def run(command: list[str], environment: Mapping[str, str], folder: str) -> tuple[float, int]:
    """Wall seconds and exit code of one fresh process."""
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=folder, check=False, capture_output=True)
    return time.perf_counter() - started, done.returncode


def main() -> None:
    """Print one line a command; in an empty folder, so that no one's ledger is opened."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    print(f"{'command':<20}{'median s':>10}{'min s':>10}{'exit':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for label, command in COMMANDS.items():
            _, code = run(command, environment, folder)
            times = [run(command, environment, folder)[0] for _ in range(REPEATS)]
            print(f"{label:<20}{statistics.median(times):>10.3f}{min(times):>10.3f}{code:>6}")


if __name__ == "__main__":
    main()
