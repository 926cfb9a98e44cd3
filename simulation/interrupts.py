"""Ctrl-C reaches every process of a terminal; the one that started the others alone ends the run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """Starts processes that Ctrl-C does not end before they have come to `leave_to_the_parent`.

    A process starts with the blocked signals of the thread that starts it. Where that is the only thread, its own
    Ctrl-C comes when it leaves the block.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_the_parent() -> None:
    """What a process that was started for a part of the work calls first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
