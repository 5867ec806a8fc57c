"""Runs every benchmark: ``python -m tests.bench [name ...]``, a name being that of a bench_*.py.

A benchmark is a file ``bench_<name>.py`` with a function ``main()`` that prints a table. One that
raises is reported, the others still run, and the exit code is 1.
"""

from __future__ import annotations

import importlib
import platform
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all, and return the exit code."""
    available = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    unknown = sorted(set(names) - set(available))
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(available)}")
        return 2
    print(f"Python {platform.python_version()}, {platform.machine()}, {platform.system()}")
    failed = []
    for name in names or available:
        print(f"\n== {name}", flush=True)
        started = time.perf_counter()
        try:
            importlib.import_module(f"tests.bench.bench_{name}").main()
        except Exception:  # noqa: BLE001 - reported, and the next benchmark runs
            traceback.print_exc()
            failed.append(name)
        print(f"== {name} took {time.perf_counter() - started:.1f} s", flush=True)
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
