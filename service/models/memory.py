"""What the service takes of memory, measured, and what it may take."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from service.errors import BusyError

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Of the container, in versions 2 and 1 of control groups."""
BUILD_BYTES = 400 * 2**20
"""That a new experiment may need: the largest decoder within the default `max_shot_seconds`, and its making."""

LEAST_CHILD_BYTES = 2**29
"""Python with its libraries takes a quarter of that."""
RETRY_SECONDS = 30


class Shedding(Protocol):
    """What can give memory back."""

    @property
    def excess(self) -> int:
        """Bytes that it could give back."""

    def shed(self) -> None:
        """Gives them back."""


class Room:
    """The memory of a process and of its children, and what may be built within it.

    Args:
        limit_bytes: that all of them may take.
        shedding: who can give some back.
    """

    def __init__(self, limit_bytes: int, shedding: Callable[[], Iterable[Shedding]]) -> None:
        self.limit_bytes = limit_bytes
        self._shedding = shedding
        self._lock = threading.Lock()
        self._builds = 0

    @property
    def most_bytes(self) -> int:
        """That one child may take, whatever is decoded there."""
        return max(self.limit_bytes // 2, LEAST_CHILD_BYTES)

    @contextmanager
    def take(self) -> Iterator[None]:
        """Has `BUILD_BYTES` for the `with` block. Where they are not left, those with the most excess shed it.

        Raises:
            BusyError: nobody has enough to shed.
        """
        with self._lock:
            for shedding in sorted(self._shedding(), key=lambda shedding: shedding.excess, reverse=True):
                if self._fits():
                    break
                shedding.shed()
            if not self._fits():
                raise BusyError(
                    f"the service may take {self.limit_bytes >> 20} MiB of memory, and there is no room for another "
                    "experiment now; ask for one in use, or try again later",
                    retry_after=RETRY_SECONDS,
                )
            self._builds += 1
        try:
            yield
        finally:
            with self._lock:
                self._builds -= 1

    def _fits(self) -> bool:
        return taken(family(os.getpid())) + (self._builds + 1) * BUILD_BYTES <= self.limit_bytes


def memory_limit() -> int:
    """Bytes that the container of this process may take, or that the machine has."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # no such file, or "max"
            limits.append(int(path.read_text()))
    return min(limits)


def taken(pids: Iterable[int]) -> int:
    """Bytes that processes have for themselves alone, without the files that they map; those that ended have none."""
    return sum(map(_taken, pids))


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has ended
        return [pid]
    return [pid, *(member for child in children for member in family(child))]


def _taken(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    kib = (line.split()[1] for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
    return 1024 * sum(map(int, kib))
