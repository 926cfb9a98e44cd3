"""Circuits and decoders take long to make: a thread makes them beside the event loop, and decoders are kept."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from decoder.base import Decoder
from service.errors import BusyError
from simulation.circuits import MemoryExperiment

T = TypeVar("T")

MAX_PENDING_BUILDS = 8
"""How many circuits and decoders may wait to be built."""
BUILD_RETRY_SECONDS = 5


class Builder:
    """One thread that builds circuits and decoders beside the event loop; how many may wait is bounded."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="build")
        self._pending = 0

    async def run(self, build: Callable[[], T]) -> T:
        """Builds something in the thread, and waits for it.

        Raises:
            BusyError: too many builds wait.
        """
        if self._pending >= MAX_PENDING_BUILDS:
            raise BusyError(
                f"{self._pending} other experiments are being prepared; try again later",
                retry_after=BUILD_RETRY_SECONDS,
            )
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, build)
        finally:
            self._pending -= 1

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


@dataclass(eq=False)
class DecoderCache:
    """Decoders by experiment, the least recently used dropped first. However many ask, each is built once.

    Belongs to one event loop.

    Args:
        build: makes a decoder; runs in the builder's thread.
        builder: the thread.
        size: decoders kept besides the first one asked for, which is never dropped.
    """

    build: Callable[[MemoryExperiment], Decoder]
    builder: Builder
    size: int
    _first: MemoryExperiment | None = field(default=None, init=False)
    _tasks: OrderedDict[MemoryExperiment, asyncio.Task[Decoder]] = field(default_factory=OrderedDict, init=False)

    async def get(self, experiment: MemoryExperiment) -> Decoder:
        task = self._tasks.get(experiment)
        if task is None:
            task = asyncio.create_task(self.builder.run(partial(self.build, experiment)))
            self._tasks[experiment] = task
            task.add_done_callback(lambda task: self._built(experiment, task))
        self._tasks.move_to_end(experiment)
        # A client that leaves does not stop a build that others may wait for.
        return await asyncio.shield(task)

    def _built(self, experiment: MemoryExperiment, task: asyncio.Task[Decoder]) -> None:
        if task.cancelled() or task.exception() is not None:
            del self._tasks[experiment]  # the next request tries again
            return
        self._first = self._first or experiment
        done = [key for key, task in self._tasks.items() if task.done() and key != self._first]
        for key in done[: max(0, len(done) - self.size)]:
            del self._tasks[key]
