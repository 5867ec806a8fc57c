"""Runs every benchmark: ``python -m tests.bench [--save FILE] [name ...]``.

A benchmark is a file ``bench_<name>.py`` with a function ``main()`` that prints a table, and may
return its figures, which ``--save`` writes as JSON. One that raises is reported, the others still
run, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str], save: Path | None) -> int:
    """Run the named benchmarks, or all, save what they found, and return the exit code."""
    available = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    unknown = sorted(set(names) - set(available))
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(available)}")
        return 2
    print(f"Python {platform.python_version()}, {platform.machine()}, {platform.system()}")
    failed, found = [], {}
    for name in names or available:
        print(f"\n== {name}", flush=True)
        started = time.perf_counter()
        try:
            found[name] = importlib.import_module(f"tests.bench.bench_{name}").main()
        except Exception:  # noqa: BLE001 - reported, and the next benchmark runs
            traceback.print_exc()
            failed.append(name)
        print(f"== {name} took {time.perf_counter() - started:.1f} s", flush=True)
    if save is not None:
        save.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--save", type=Path, metavar="FILE", help="the figures, as JSON")
    parser.add_argument("names", nargs="*", help="those of bench_*.py; none means all")
    given = parser.parse_args()
    sys.exit(main(given.names, given.save))
