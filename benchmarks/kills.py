"""What clients notice when a worker is killed, and when the service is asked to end.

    python benchmarks/kills.py

Two workers under load. Some clients do no more than connect again, the others are `service.client.AsyncClient`, which
sends a lost request again. One worker gets SIGKILL; when it has been replaced, the service gets SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import numpy as np
from serving import MODEL_ID, RESULTS, Connection, Report, Service, Shots, run, sample_shots, service

from service.client import AsyncClient, ServiceError
from simulation.bits import pack_bits

PLAIN, RETRYING = 6, 2
WORKERS = 2
RECOVERED_SECONDS = 2.0
PAUSE_SECONDS = 0.005
"""Between two requests of a client, so that a worker that starts has the processor too."""


@dataclass
class Outcome:
    """What became of the requests, by the time at which they were sent."""

    answered: list[float] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)
    """The connection ended before the answer: an error that says so."""
    wrong: Counter[str] = field(default_factory=Counter)
    after_retries: list[str] = field(default_factory=list)
    """What `AsyncClient` raised."""


class Clients:
    """Ask again and again, until nobody listens any more."""

    def __init__(self, running: Service, shots: Shots) -> None:
        self._running = running
        self._shots = shots
        self._draw = np.random.default_rng(shots.seed)
        self.outcome = Outcome()

    async def ask(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(PLAIN):
                tasks.create_task(self._plain())
            for _ in range(RETRYING):
                tasks.create_task(self._retrying())

    async def _plain(self) -> None:
        connection: Connection | None = None
        while True:
            try:
                connection = connection or await Connection.open(self._running.port)
            except ConnectionError:
                return  # nobody listens: nothing was sent
            request, answer = self._shots.request(int(self._draw.integers(len(self._shots))))
            sent = time.monotonic()
            try:
                reply = await connection.ask(request)
            except ConnectionError:
                self.outcome.lost.append(sent)
                connection = None
                continue
            self._check(sent, reply.status == 200 and reply.body == answer, f"{reply.status} {reply.body[:100]!r}")
            if connection.lost or reply.header("connection") == "close":
                connection.close()
                connection = None
            await asyncio.sleep(PAUSE_SECONDS)

    async def _retrying(self) -> None:
        async with AsyncClient(self._running.url) as client:
            while True:
                index = int(self._draw.integers(len(self._shots)))
                sent = time.monotonic()
                try:
                    decoding = await client.decode(
                        MODEL_ID, self._shots.events[index : index + 1], bit_packed_shots=True
                    )
                except ServiceError as error:
                    if isinstance(error.__context__, httpx.ConnectError):
                        return
                    self.outcome.after_retries.append(error.detail)
                    continue
                found = pack_bits(decoding.predictions)
                self._check(sent, np.array_equal(found[0], self._shots.answers[index]), f"{found}")
                await asyncio.sleep(PAUSE_SECONDS)

    def _check(self, sent: float, right: bool, what: str) -> None:
        if right:
            self.outcome.answered.append(sent)
        else:
            self.outcome.wrong[what] += 1


@dataclass(frozen=True)
class Times:
    """When what was done."""

    killed: float
    replaced: float
    ended: float
    """SIGTERM."""


async def measure(running: Service, shots: Shots, *, calm_seconds: float) -> tuple[Outcome, Times, int]:
    """Kills, waits, and ends the service; also its exit status.

    Args:
        running: with `WORKERS` workers, all of them ready.
        shots: to ask for.
        calm_seconds: before the kill, and after the replacement.
    """
    clients = Clients(running, shots)
    asking = asyncio.create_task(clients.ask())
    await asyncio.sleep(calm_seconds)
    os.kill(running.workers()[0], signal.SIGKILL)
    killed = time.monotonic()
    await _until(lambda: len(re.findall(r"worker \d+ is ready", running.log.read_text())) > WORKERS)
    replaced = time.monotonic()
    await asyncio.sleep(max(calm_seconds, RECOVERED_SECONDS + 1))
    running.process.send_signal(signal.SIGTERM)
    ended = time.monotonic()
    status = await asyncio.to_thread(running.process.wait, 120)
    await asking
    return clients.outcome, Times(killed, replaced, ended), status


async def _until(condition: Callable[[], bool], seconds: float = 180) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


def report(running: Service, outcome: Outcome, times: Times, status: int) -> Report:
    found = Report("kills", "A worker killed, and the service ended, under load")
    by_kill = [sent for sent in outcome.lost if sent < times.ended]
    late = [sent for sent in by_kill if sent > times.killed + RECOVERED_SECONDS]
    at_the_end = len(outcome.lost) - len(by_kill)
    spans = {
        "before the kill": (0.0, times.killed),
        "until the worker is replaced": (times.killed, times.replaced),
        "until SIGTERM": (times.replaced, times.ended),
        "after SIGTERM": (times.ended, float("inf")),
    }
    for name, (begin, end) in spans.items():
        answered = sum(begin <= sent < end for sent in outcome.answered)
        lost = sum(begin <= sent < end for sent in outcome.lost)
        found.rows.append({"requests sent": name, "answered": answered, "connection lost": lost})
    wrong = ", ".join(f"{count} x {what}" for what, count in outcome.wrong.most_common(3)) or "none"
    found.goal("no wrong answer, no other error", f"wrong: {wrong}", met=not outcome.wrong)
    found.goal(
        f"kill -9: at most the requests in flight are lost, {PLAIN} of the plain clients, each with an error",
        f"{len(by_kill)}",
        met=len(by_kill) <= PLAIN,
    )
    found.goal(
        "`service.client.client` sends those again and raises nothing",
        f"{len(outcome.after_retries)} errors",
        met=not outcome.after_retries,
    )
    found.goal(
        f"all requests sent {RECOVERED_SECONDS:g} s after the kill, or later, succeed",
        f"{len(late)} lost",
        met=not late,
    )
    found.goal("SIGTERM: no request fails", f"{at_the_end} lost, exit status {status}", met=not at_the_end + status)
    tracebacks = running.tracebacks()
    found.goal("no traceback in the log", f"{tracebacks}", met=tracebacks == 0)
    found.notes += [
        f"bb72, Z memory, 6 rounds, one shot a request; `--workers {WORKERS}`, {PLAIN} plain clients and {RETRYING} of "
        f"`service.client.client`; the replacement was ready after {times.replaced - times.killed:.1f} s.",
        "Services and clients on all cores.",
    ]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calm-seconds", type=float, default=10)
    parser.add_argument("--p", type=float, default=0.001)
    parser.add_argument("--shots", type=int, default=1024, help="different ones")
    parser.add_argument("--seed", type=int, default=2031)
    options = parser.parse_args()
    shots = sample_shots(options.shots, p=options.p, seed=options.seed)
    with service("--workers", str(WORKERS), core=None) as running:
        return report(running, *run(measure(running, shots, calm_seconds=options.calm_seconds))).write(RESULTS)


if __name__ == "__main__":
    sys.exit(main())
