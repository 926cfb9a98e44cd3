"""What tests in several folders share: where the repository lies, how to wait for an event, and other processes."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

REPOSITORY = Path(__file__).parents[1]

PATIENCE_SECONDS = 600.0
"""For what takes moments on a free core, or half a minute where numba has to compile first.

It ends a test that hangs, and tells nothing of how fast the code is.
"""
POLL_SECONDS = 0.01


def eventually(condition: Callable[[], T], *, limit: float = PATIENCE_SECONDS) -> T:
    """Asks again and again until a condition holds.

    Args:
        condition: what is asked; it holds when it returns something true.
        limit: after so many seconds the test has failed.

    Returns:
        What the condition returned in the end.

    Raises:
        AssertionError: it never held.
    """
    ends = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < ends, _never(condition, limit)
        time.sleep(POLL_SECONDS)
    return found


async def eventually_async(condition: Callable[[], Any], *, limit: float = PATIENCE_SECONDS) -> Any:
    """As `eventually`, with other tasks at work in between; the condition may be a coroutine function."""
    ends = time.monotonic() + limit
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < ends, _never(condition, limit)
        await asyncio.sleep(POLL_SECONDS)


@contextmanager
def running(*command: str | Path, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Runs a command as `subprocess.Popen` does, and leaves no process behind when a test fails or takes too long."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def children_of(pid: int) -> list[int]:
    """The processes that a process has started, and not waited for."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
            found += map(int, (task / "children").read_text().split())
    return found


def spawned_by(pid: int) -> list[int]:
    """Those that multiprocessing spawned or forked to work; another of its children looks after semaphores."""
    children = children_of(pid)
    forked = [one for child in children if b"forkserver" in command_of(child) for one in children_of(child)]
    return [child for child in children if b"spawn_main" in command_of(child)] + forked


def command_of(pid: int) -> bytes:
    """The command line of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _never(condition: Callable[[], object], limit: float) -> str:
    code = getattr(condition, "__code__", None)
    where = f"{code.co_filename}:{code.co_firstlineno}" if code else repr(condition)
    return f"the condition at {where} did not hold within {limit:g} s"
