"""What sends requests: a connection that costs little, and clients that ask without a pause, at random, or again.

`Connection` is a few lines over asyncio and uvloop: it shares the machine with the service that it measures, and httpx
would take more of the time that is measured.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any, TypeVar

import httpx
import numpy as np
import uvloop

from benchmarks.harness import MODEL, NothingMeasured, Service, Shots
from service.client import AsyncClient, Retries, ServiceError
from simulation.bits import pack_bits

T = TypeVar("T")

WARM_UP_SECONDS = 1.0
RIGHT, WRONG, REFUSED_CONNECTION = "right", "WRONG", "ConnectError"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine as the service runs its own, with uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        """A header's value, whatever the case of its name."""
        found = re.search(rf"\r\n{name}: *([^\r]*)".encode(), self.head, re.IGNORECASE)
        return found[1].decode() if found else None


class Connection:
    """One connection that is kept: a request, its answer, and the next."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    @property
    def lost(self) -> bool:
        """Whether the service has closed it."""
        return self._reader.at_eof() or self._reader.exception() is not None

    async def ask(self, request: bytes) -> Reply:
        """Sends a request and waits for the answer.

        Raises:
            ConnectionError: the connection ended before it.
        """
        self.send(request)
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await self._reader.readexactly(int(length[1]) if length else 0)
        except asyncio.IncompleteReadError:
            raise ConnectionResetError("the connection was lost") from None
        return Reply(int(head[9:12]), head, body)

    def send(self, data: bytes) -> None:
        """Sends without waiting."""
        self._writer.write(data)

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        """Leaves without a word."""
        self._writer.transport.abort()


@dataclass(frozen=True)
class Turn:
    """What clients that never pause got."""

    shots_per_second: float
    latencies: list[float]
    """Seconds of each request."""
    shots_per_batch: float
    cpu_ms_per_shot: float
    """Of the service, for all that it does."""


async def saturate(running: Service, shots: Shots, *, clients: int, per_request: int, seconds: float) -> Turn:
    """Lets clients ask without a pause for so long, at least until one was answered after the warm-up.

    Raises:
        RuntimeError: an answer is not that of the decoder.
        NothingMeasured: the service counts no batches.
    """
    finished: list[tuple[float, float]] = []
    begin = time.perf_counter() + WARM_UP_SECONDS

    def measured() -> bool:
        return bool(finished) and finished[-1][0] >= begin

    async def client(index: int) -> None:
        draw = np.random.default_rng([shots.seed, index])
        connection = await Connection.open(running.port)
        while (started := time.perf_counter()) < begin + seconds or not measured():
            request, answer = shots.random_request(draw, per_request)
            reply = await connection.ask(request)
            if reply.status != 200 or reply.body != answer:
                raise RuntimeError(f"a wrong answer: {reply}")
            finished.append((time.perf_counter(), started))
        connection.close()

    before, cpu_before = await _decoded(running), running.resources().cpu_seconds
    await asyncio.gather(*(client(index) for index in range(clients)))
    after, cpu_after = await _decoded(running), running.resources().cpu_seconds
    decoded, batches = after[0] - before[0], after[1] - before[1]
    if not batches:
        raise NothingMeasured("the service counts no batches under /metrics")
    counted = [(done, started) for done, started in finished if done >= begin]
    in_time = [(done, started) for done, started in counted if done < begin + seconds]
    end = begin + seconds if in_time else counted[-1][0]
    counted = in_time or counted
    return Turn(
        shots_per_second=len(counted) * per_request / (end - begin),
        latencies=[done - started for done, started in counted],
        shots_per_batch=decoded / batches,
        cpu_ms_per_shot=(cpu_after - cpu_before) / decoded * 1e3,
    )


async def _decoded(running: Service) -> tuple[float, float]:
    """Shots and batches so far."""
    connection = await Connection.open(running.port)
    reply = await connection.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    connection.close()
    found = [
        re.search(rf'tandem_{name}_total{{model="{MODEL["id"]}"}} (\S+)', reply.body.decode())
        for name in ("shots", "batches")
    ]
    shots, batches = (float(match[1]) if match else 0.0 for match in found)
    return shots, batches


@dataclass
class Outcome:
    """What became of requests that were sent at random times."""

    sent: int = 0
    accepted: list[tuple[float, float]] = field(default_factory=list)
    """When each that was answered was sent, and when its answer came."""
    refused: list[float] = field(default_factory=list)
    """Seconds of each 503 with Retry-After."""
    wrong: Counter[str] = field(default_factory=Counter)
    """All others, by what came."""
    memory: list[float] = field(default_factory=list)
    """MiB of the service, every second."""

    def seconds(self) -> list[float]:
        """What each answered request took."""
        return [answered - sent for sent, answered in self.accepted]


async def poisson(running: Service, shots: Shots, *, rate: float, seconds: float, per_request: int) -> Outcome:
    """Sends requests as a Poisson process of `rate` a second, at least two, and waits for all answers."""
    draw = np.random.default_rng(shots.seed)
    outcome, idle = Outcome(), list[Connection]()

    async def one() -> None:
        request, answer = shots.random_request(draw, per_request)
        while idle and idle[-1].lost:  # the service closes what was not used for long
            idle.pop()
        connection = idle.pop() if idle else await Connection.open(running.port)
        outcome.sent += 1
        started = time.perf_counter()
        try:
            reply = await connection.ask(request)
        except ConnectionError as error:
            outcome.wrong[str(error)] += 1
            return
        ended = time.perf_counter()
        if reply.status == 200 and reply.body == answer:
            outcome.accepted.append((started, ended))
        elif reply.status == 503 and reply.header("retry-after"):
            outcome.refused.append(ended - started)
        else:
            outcome.wrong[f"{reply.status} {reply.body[:100]!r}"] += 1
        idle.append(connection)

    async def watch() -> None:
        while True:
            outcome.memory.append(running.resources().resident_mib)
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    async with asyncio.TaskGroup() as tasks:
        due = started = time.perf_counter()
        requests = 0
        while due < started + seconds or requests < 2:
            due += draw.exponential(1 / rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.create_task(one())
            requests += 1
    watching.cancel()
    for connection in idle:
        connection.close()
    return outcome


@dataclass(frozen=True)
class Request:
    """One request of `Callers`, by `time.monotonic`."""

    started: float
    ended: float
    retrying: bool
    outcome: str
    """`RIGHT`, `WRONG`, or what the error was."""


@dataclass
class Callers:
    """Clients that send single shots, one after the other, to a service whose processes get killed.

    All are `service.client.AsyncClient`. Some may not retry, so that they send each request once; the others send it
    again where that is safe.
    """

    url: str
    shots: Shots
    _: KW_ONLY
    model: str
    once: int
    """How many clients may not retry."""
    retrying: int
    """How many may."""
    pause: float = 0.0
    """What each waits between two requests, in seconds."""
    requests: list[Request] = field(default_factory=list)
    stopped: bool = False

    async def ask(self) -> None:
        """Asks until `stop`."""
        connect = partial(AsyncClient, self.url, timeout_seconds=60)
        async with connect(retries=Retries(attempts=0)) as once, connect() as again, asyncio.TaskGroup() as tasks:
            for number, client in enumerate([once] * self.once + [again] * self.retrying):
                tasks.create_task(self._repeat(client, number, retrying=client is again))

    def stop(self) -> None:
        """Ends `ask`, once the requests under way are answered."""
        self.stopped = True

    async def _repeat(self, client: AsyncClient, number: int, *, retrying: bool) -> None:
        draw = np.random.default_rng([self.shots.seed, number])
        while not self.stopped:
            index, started = int(draw.integers(len(self.shots))), time.monotonic()
            outcome = await self._outcome(client, index)
            self.requests.append(Request(started, time.monotonic(), retrying, outcome))
            await asyncio.sleep(self.pause)

    async def _outcome(self, client: AsyncClient, index: int) -> str:
        try:
            answer = await client.decode(self.model, self.shots.events[[index]], bit_packed_shots=True)
        except ServiceError as error:
            if isinstance(error.__cause__, httpx.RequestError):
                return type(error.__cause__).__name__
            return f"{error.status} {error.type or error.detail[:60]}"
        return RIGHT if (pack_bits(answer.predictions) == self.shots.answers[[index]]).all() else WRONG
