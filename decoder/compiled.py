"""Functions compiled by numba, and many shots shared among threads."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba.core import event

log = logging.getLogger(__name__)

# Not arcp nor reassoc: sums would depend on the width of the machine's vectors, and long runs amplify each rounding.
FAST = {"nnan", "ninf", "nsz", "contract"}


class _Announcement(event.Listener):
    """Logs the first compilation of a process, as it begins; numba tells of none when it loads what is kept."""

    told = False

    def on_start(self, event: event.Event) -> None:
        ours = event.data["dispatcher"].py_func.__module__.startswith("decoder.")
        if ours and not _Announcement.told:
            _Announcement.told = True
            log.info(
                "compiling for this machine, once, which takes up to a minute or two; "
                "`tandem warm-up` does it beforehand"
            )

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _Announcement())  # type: ignore[no-untyped-call]


def compiled(function: Any) -> Any:
    """The function, compiled at its first call, and kept for later processes where there is a place to write to.

    What is kept is out of date as soon as any Python file of the function's room, such as `decoder/serial`, changes. So
    functions that it calls and constants that it reads belong in that room.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
    try:
        kept = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(**options)(function)
    # numba itself looks at the function's own file alone.
    file = kept._cache._cache_file
    inner = max(0, function.__module__.count(".") - 2)  # how many folders of the room it is in
    room = Path(function.__code__.co_filename).parents[inner]
    file._source_stamp = (file._source_stamp, _stamps(room))
    kept._cache = _Forgiving(kept._cache)
    return kept


class _Forgiving:
    """numba's kept machine code of a function; a file that was cut short, or a full disk, is no error."""

    def __init__(self, kept: Any) -> None:
        self._kept = kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kept, name)

    def load_overload(self, *args: Any) -> Any:
        """What is kept for a signature; None has numba compile it."""
        try:
            return self._kept.load_overload(*args)
        except Exception:  # whatever unpickling half a file raises
            with suppress(OSError):
                self._kept.flush()  # or it would be read again before anything else is kept
            return None

    def save_overload(self, *args: Any) -> None:
        """Keeps machine code, if there is room."""
        with suppress(OSError):
            self._kept.save_overload(*args)


@lru_cache
def _stamps(folder: Path) -> tuple[tuple[str, float, int], ...]:
    """The name, the time of the last change and the size of each Python file in a folder, and in those within it."""
    found = [(path.name, path.stat()) for path in sorted(folder.rglob("*.py"))]
    return tuple((name, state.st_mtime, state.st_size) for name, state in found)


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
