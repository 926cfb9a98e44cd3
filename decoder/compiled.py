"""Functions compiled by numba, and many shots shared among threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numba

# Not arcp nor reassoc: sums would depend on the width of the machine's vectors, and long runs amplify each rounding.
FAST = {"nnan", "ninf", "nsz", "contract"}


def compiled(function: Any) -> Any:
    """The function, compiled at its first call, and kept for later processes where there is a place to write to.

    What is kept is out of date when the function's own file changes, but not when another one does whose functions it
    calls, or whose constants it reads: such functions and constants belong in one file.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(**options)(function)


def in_pieces(work: Callable[[slice], None], *, shots: int, threads: int) -> None:
    """Calls `work` with as many pieces of the shots as there are threads, the first one in the calling thread.

    `work` must not call this function itself.
    """
    share = max(1, -(-shots // threads))
    pieces = [slice(first, first + share) for first in range(0, shots, share)]
    others = [_threads(os.getpid()).submit(work, piece) for piece in pieces[1:]]
    for piece in pieces[:1]:
        work(piece)
    for other in others:
        other.result()


@lru_cache(maxsize=1)
def _threads(process: int) -> ThreadPoolExecutor:
    """The threads of this process, which are started as they are needed; a forked process has none of its parent's."""
    return ThreadPoolExecutor(os.cpu_count())
