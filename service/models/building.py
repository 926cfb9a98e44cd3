"""Circuits and decoders take long to make: threads make them beside the event loop, and decoders are kept."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from decoder.base import Decoder
from service.errors import BusyError, DecodeTimeoutError

K = TypeVar("K", bound=Hashable)
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
class SharedBuilds(Generic[K, T]):
    """Builds by what they are called: however many wait for one, it is built once, and not if nobody waits any more.

    Belongs to one event loop.

    Args:
        builder: the thread.
        on_built: is given what has been built.
    """

    builder: Builder
    on_built: Callable[[K, T], None] = lambda key, built: None
    _builds: dict[K, asyncio.Future[T]] = field(default_factory=dict, init=False)
    _waiting: Counter[K] = field(default_factory=Counter, init=False)
    _begun: set[K] = field(default_factory=set, init=False)

    async def get(self, key: K, build: Callable[[], T], *, seconds: float | None) -> T:
        """Waits for a build, which is begun if need be.

        Args:
            key: what it is called.
            build: builds it, in the builder's thread.
            seconds: how long to wait for it; None for ever.

        Raises:
            BusyError, DecodeTimeoutError: see `Builder.run`.
        """
        future = self._builds.get(key)
        if future is None:

            def begin() -> T:
                self._begun.add(key)
                return build()

            future = self._builds[key] = self.builder.start(begin)
            future.add_done_callback(lambda future: self._ended(key, future))
        self._waiting[key] += 1
        try:
            async with in_time(seconds):
                # A client that leaves does not stop a build that others may wait for.
                return await asyncio.shield(future)
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]
                if not future.done() and key not in self._begun:
                    future.cancel()  # nobody waits for it any more

    def _ended(self, key: K, future: asyncio.Future[T]) -> None:
        self._begun.discard(key)
        del self._builds[key]
        if not future.cancelled() and future.exception() is None:
            self.on_built(key, future.result())


class DecoderCache(Generic[K]):
    """Decoders by what they decode, the least recently used dropped first. Belongs to one event loop.

    Args:
        build: makes a decoder; runs in the builder's thread.
        builder: the thread.
        size: decoders kept besides the first one asked for, which is never dropped.
    """

    def __init__(self, build: Callable[[K], Decoder], builder: Builder, *, size: int) -> None:
        self.builder = builder
        self._build = build
        self._size = size
        self._first: K | None = None
        self._kept: OrderedDict[K, Decoder] = OrderedDict()
        self._builds: SharedBuilds[K, Decoder] = SharedBuilds(builder, self._keep)

    async def get(self, experiment: K, *, seconds: float | None) -> Decoder:
        """The decoder of an experiment, built if need be.

        Args:
            experiment: whose.
            seconds: how long to wait for it; None for ever.

        Raises:
            BusyError, DecodeTimeoutError: see `Builder.run`.
        """
        if (decoder := self._kept.get(experiment)) is not None:
            self._kept.move_to_end(experiment)
            return decoder
        return await self._builds.get(experiment, lambda: self._build(experiment), seconds=seconds)

    def used(self) -> list[K]:
        """The experiments whose decoders are kept, the one used last at the end."""
        return list(self._kept)

    def drop(self) -> int:
        """Drops all decoders but the first one. Those in use live on there.

        Returns:
            How many were dropped.
        """
        dropped = [experiment for experiment in self._kept if experiment != self._first]
        for experiment in dropped:
            del self._kept[experiment]
        return len(dropped)

    def clear(self) -> None:
        """Drops all decoders: what asked for them may live on, also as garbage that is never collected."""
        self._kept.clear()

    def _keep(self, experiment: K, decoder: Decoder) -> None:
        self._first = self._first or experiment
        self._kept[experiment] = decoder
        others = [key for key in self._kept if key != self._first]
        for key in others[: max(0, len(others) - self._size)]:
            del self._kept[key]
