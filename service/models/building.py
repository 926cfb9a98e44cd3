"""Circuits and decoders take long to make: threads make them beside the event loop, and decoders are kept."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from decoder.base import Decoder
from service.errors import BusyError, DecodeTimeoutError
from simulation.experiments import Experiment

T = TypeVar("T")

MAX_PENDING_BUILDS = 8
"""How many circuits or decoders of one model may wait to be built."""
BUILD_RETRY_SECONDS = 5


class Builder:
    """One thread that builds what one model needs; how many may wait is bounded, and so is how long.

    Args:
        seconds: how long a request waits for what it needs.
        most: how many builds may wait.
    """

    def __init__(self, *, seconds: float, most: int = MAX_PENDING_BUILDS) -> None:
        self.seconds = seconds
        self._most = most
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="build")
        self._pending = 0

    async def run(self, build: Callable[[], T]) -> T:
        """Builds something in the thread, and waits for it. Cancelling takes out what has not been begun.

        Raises:
            BusyError: too many builds wait.
            DecodeTimeoutError: it is not built in time.
        """
        async with in_time(self.seconds):
            return await self.start(build)

    @property
    def pending(self) -> int:
        """How many builds are at work or wait."""
        return self._pending

    def start(self, build: Callable[[], T]) -> asyncio.Future[T]:
        """Begins to build something; see `run`.

        Raises:
            BusyError: too many builds wait.
        """
        if self._pending >= self._most:
            raise BusyError(
                f"{self._pending} other experiments are being prepared; try again later",
                retry_after=BUILD_RETRY_SECONDS,
            )
        self._pending += 1
        loop = asyncio.get_running_loop()
        future = self._executor.submit(build)

        def ended(_: Future[T]) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._ended)

        future.add_done_callback(ended)
        return asyncio.wrap_future(future)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _ended(self) -> None:
        self._pending -= 1


@asynccontextmanager
async def in_time(seconds: float | None) -> AsyncIterator[None]:
    """A limit of time for an `async with` block that waits for a build; None for none.

    Raises:
        DecodeTimeoutError: the time is over.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        detail = f"the experiment was not prepared within {seconds:g} s; ask again, it may be by then"
        raise DecodeTimeoutError(detail, retry_after=BUILD_RETRY_SECONDS) from None


@dataclass(eq=False)
class DecoderCache:
    """Decoders by experiment, the least recently used dropped first. However many ask, each is built once.

    Belongs to one event loop.

    Args:
        build: makes a decoder; runs in the builder's thread.
        builder: the thread.
        size: decoders kept besides the first one asked for, which is never dropped.
    """

    build: Callable[[Experiment], Decoder]
    builder: Builder
    size: int
    _first: Experiment | None = field(default=None, init=False)
    _builds: OrderedDict[Experiment, asyncio.Future[Decoder]] = field(default_factory=OrderedDict, init=False)
    _waiting: Counter[Experiment] = field(default_factory=Counter, init=False)
    _begun: set[Experiment] = field(default_factory=set, init=False)

    async def get(self, experiment: Experiment, *, seconds: float | None) -> Decoder:
        """The decoder of an experiment, built if need be.

        Args:
            experiment: whose.
            seconds: how long to wait for it; None for ever.

        Raises:
            BusyError, DecodeTimeoutError: see `Builder.run`.
        """
        build = self._builds.get(experiment)
        if build is None:
            build = self.builder.start(lambda: self._build(experiment))
            self._builds[experiment] = build
            build.add_done_callback(lambda build: self._built(experiment, build))
        self._builds.move_to_end(experiment)
        self._waiting[experiment] += 1
        try:
            async with in_time(seconds):
                # A client that leaves does not stop a build that others may wait for.
                return await asyncio.shield(build)
        finally:
            self._waiting[experiment] -= 1
            if not self._waiting[experiment]:
                del self._waiting[experiment]
                if not build.done() and experiment not in self._begun:
                    build.cancel()  # nobody waits for it any more

    def used(self) -> list[Experiment]:
        """The experiments whose decoders are kept, the one used last at the end."""
        return [experiment for experiment, build in self._builds.items() if build.done()]

    def drop(self) -> int:
        """Drops all decoders but the first one. Those in use live on there.

        Returns:
            How many were dropped.
        """
        dropped = [experiment for experiment in self.used() if experiment != self._first]
        for experiment in dropped:
            del self._builds[experiment]
        return len(dropped)

    def _build(self, experiment: Experiment) -> Decoder:
        self._begun.add(experiment)
        return self.build(experiment)

    def _built(self, experiment: Experiment, build: asyncio.Future[Decoder]) -> None:
        self._begun.discard(experiment)
        if build.cancelled() or build.exception() is not None:
            self._builds.pop(experiment, None)  # the next request tries again
            return
        self._first = self._first or experiment
        done = [key for key in self.used() if key != self._first]
        for key in done[: max(0, len(done) - self.size)]:
            del self._builds[key]
