"""Compiles the engine with numba: the very source that paper trading interprets.

Compiled code is kept on disk. numba notices when the file of a kernel has changed, but not when a
function or constant that it took from *another* file has; a stale kernel would be a backtest that
lies. So each cache folder is named after all functions and constants that the kernel is made of,
as they are loaded in this process (a file may have been edited since), and after the versions of
numba and Python.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import platformdirs

__all__ = ["cache_folder", "compile_kernel"]

# numba takes the folder from one setting for the whole process.
_ONE_FOLDER_AT_A_TIME = threading.Lock()


def cache_folder(modules: Iterable[ModuleType]) -> Path:
    """Where the compiled code of these modules, as they are loaded now, lives.

    Below ``NUMBA_CACHE_DIR`` where that is set, else in the user's cache folder.
    """
    import numba

    # The last word stands for the options below, with which the code is compiled.
    digest = hashlib.sha256(
        f"{numba.__version__} {sys.version} no-nrt inline nogil numpy-errors".encode()
    )
    for module in modules:
        for part in _parts(module):
            digest.update(part.encode())
    root = os.environ.get("NUMBA_CACHE_DIR") or platformdirs.user_cache_dir("candlebook")
    return Path(root) / f"kernels-{digest.hexdigest()[:16]}"


def _parts(module: ModuleType) -> Iterator[str]:
    """What a kernel can take from a module, in words: its functions, constants, field names."""
    for name, value in sorted(vars(module).items()):
        if isinstance(value, FunctionType) and value.__module__ == module.__name__:
            defaults = [_word(one) for one in value.__defaults__ or ()]
            yield f"{name} {defaults} {_words(value.__code__)}"
        elif isinstance(value, (bool, int, float, str)) and not name.startswith("__"):
            yield f"{name} {value!r}"
        elif isinstance(value, type) and hasattr(value, "_fields"):
            yield f"{name} {value._fields}"


def _words(code: CodeType) -> str:
    constants = [_word(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def _word(value: object) -> str:
    """The same in every process: no address of a function, no order of a set."""
    if isinstance(value, FunctionType):
        return _words(value.__code__)
    if isinstance(value, CodeType):
        return _words(value)
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)


def compile_kernel(kernel: Callable[..., Any], modules: tuple[ModuleType, ...]) -> Any:
    """``kernel`` compiled, with every function of ``modules`` that it calls.

    The functions themselves stay plain Python for whoever calls them from Python. Without numba's
    fast-math every operation rounds as written, so results equal the interpreted ones to the bit.

    A kernel may write into the arrays it is given, and look at rows of them, but make none: it is
    compiled without numba's reference counting, which took 15 of every 16 nanoseconds. What is left
    of them went to handing named tuples of arrays from function to function, 3 KB a call: every
    function is made a part of the kernel. Other threads run while a kernel does. A quotient by zero
    would be numpy's, not an error: nothing here divides by what may be zero, and without that check
    at every division a compiler may do several at a time.
    """
    import numba
    from numba.extending import register_jitable

    for module in modules:
        for value in list(vars(module).values()):
            if isinstance(value, FunctionType) and value.__module__ == module.__name__:
                register_jitable(_nrt=False, forceinline=True, error_model="numpy")(value)
    with _ONE_FOLDER_AT_A_TIME:
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(cache_folder(modules))
        try:
            return numba.njit(cache=True, nogil=True, _nrt=False, error_model="numpy")(kernel)
        finally:
            numba.config.CACHE_DIR = before
