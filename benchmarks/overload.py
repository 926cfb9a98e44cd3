"""What happens at twice the load that the service can bear.

    python benchmarks/overload.py --seconds 60

First as many clients as fill the queue ask as fast as they are answered: that is the load it can bear. Then requests
come at twice that rate, at random times, whether earlier ones have been answered or not.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from serving import (
    CLIENT_CORE,
    RESULTS,
    SERVER_CORE,
    Connection,
    Report,
    Resources,
    Service,
    Shots,
    milliseconds,
    pin,
    run,
    sample_shots,
    service,
)
from throughput import load

from service.settings import Settings

PER_REQUEST = 4
QUEUED = 512
"""`max_queued_shots`, few enough for a wait of seconds."""
FACTOR = 2.0
PROMPT_SECONDS = 1.0
FLAT = 0.05
STRETCH_SECONDS = 3.0
KEPT = 0.7


@dataclass
class Outcome:
    """What became of the requests."""

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
        return [answered - sent for sent, answered in self.accepted]

    def slowest(self) -> float:
        """Shots answered a second, in the slowest stretch of some seconds: how fast others let the service be."""
        times = sorted(answered for _, answered in self.accepted)
        length = min(STRETCH_SECONDS, times[-1] - times[0])
        begins = np.linspace(times[0], times[-1] - length, 200)
        counts = np.searchsorted(times, begins + length, side="right") - np.searchsorted(times, begins)
        return float(counts.min() * PER_REQUEST / length)

    def passed(self) -> int:
        """How many shots were answered while a request waited, its own with them: the 99th percentile."""
        times = sorted(answered for _, answered in self.accepted)
        places = (
            np.searchsorted(times, answered) - np.searchsorted(times, sent) + 1 for sent, answered in self.accepted
        )
        return int(np.quantile(list(places), 0.99)) * PER_REQUEST


async def storm(
    running: Service, shots: Shots, *, rate: float, seconds: float, per_request: int = PER_REQUEST
) -> Outcome:
    """Sends requests as a Poisson process of `rate` a second, and waits for all answers."""
    draw = np.random.default_rng(shots.seed)
    outcome, idle = Outcome(), list[Connection]()

    async def one() -> None:
        request, answer = shots.request(int(draw.integers(len(shots) - per_request + 1)), per_request)
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
        took = time.perf_counter() - started
        if reply.status == 200 and reply.body == answer:
            outcome.accepted.append((started, started + took))
        elif reply.status == 503 and reply.header("retry-after"):
            outcome.refused.append(took)
        else:
            outcome.wrong[f"{reply.status} {reply.body[:100]!r}"] += 1
        idle.append(connection)

    async def watch() -> None:
        while True:
            outcome.memory.append(Resources.of(running.process.pid).resident_mib)
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    async with asyncio.TaskGroup() as tasks:
        due = started = time.perf_counter()
        while due < started + seconds:
            due += draw.exponential(1 / rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.create_task(one())
    watching.cancel()
    for connection in idle:
        connection.close()
    return outcome


def measure(running: Service, shots: Shots, *, seconds: float, clients: int, most: float) -> Report:
    """Runs both parts.

    Args:
        running: the service, with `max_queued_shots` of `QUEUED`.
        shots: to send.
        seconds: of the storm; half of it for what can be borne.
        clients: as many as fill the queue.
        most: shots in one batch.
    """
    borne = run(load(running, shots, clients=clients, per_request=PER_REQUEST, seconds=seconds / 2)).shots_per_second
    outcome = run(storm(running, shots, rate=FACTOR * borne / PER_REQUEST, seconds=seconds))
    return report(outcome, borne=borne, seconds=seconds, most=most)


def report(outcome: Outcome, *, borne: float, seconds: float, most: float) -> Report:
    found = Report("overload", "Twice the load that can be borne")
    # Requests in the queue at the end are answered after it.
    rate = len(outcome.accepted) * PER_REQUEST / (seconds + QUEUED / borne)
    slowest = outcome.slowest()
    bound = (QUEUED + most) / slowest
    for name, some in (("answered", outcome.seconds()), ("503 with Retry-After", outcome.refused)):
        if some:
            p50, p99, longest = milliseconds(some, 0.5, 0.99, 1)
            row = {"requests": len(some), "p50 ms": f"{p50:.0f}", "p99 ms": f"{p99:.0f}", "max ms": f"{longest:.0f}"}
            found.rows.append({"": name} | row)
    wrong = ", ".join(f"{count} x {what}" for what, count in outcome.wrong.most_common(3)) or "none"
    found.goal("every answer right, or 503 with Retry-After", f"others: {wrong}", met=not outcome.wrong)
    late = milliseconds(outcome.refused or [0.0], 0.99)[0]
    found.goal(f"the 503 prompt: p99 at most {PROMPT_SECONDS:g} s", f"{late:.0f} ms", met=late <= 1e3 * PROMPT_SECONDS)
    passed = outcome.passed()
    found.goal(
        f"the queue bounds the wait: at most {QUEUED} + 2 x {most:g} shots are answered from a request to its answer "
        "(p99)",
        f"{passed}",
        met=passed <= QUEUED + 2 * most,
    )
    p99 = milliseconds(outcome.seconds(), 0.99)[0]
    found.goal(
        f"p99 of answers at most what that takes, {QUEUED + most:g} shots / {slowest:.0f} a second (the slowest "
        f"{STRETCH_SECONDS:g} s) = {bound:.2f} s",
        f"{p99 / 1e3:.2f} s",
        met=p99 <= 1e3 * bound,
    )
    found.goal(
        f"at least {100 * KEPT:g} % of {borne:.0f} shots/s are still answered",
        f"{100 * rate / borne:.0f} %",
        met=rate >= KEPT * borne,
    )
    quarter = max(1, len(outcome.memory) // 4)
    first, last = (statistics.median(some) for some in (outcome.memory[:quarter], outcome.memory[-quarter:]))
    grown = last / first - 1
    found.goal(
        f"memory grows by at most {100 * FLAT:g} % from the first quarter to the last (medians)",
        f"{first:.0f} to {last:.0f} MiB ({100 * grown:+.1f} %)",
        met=grown <= FLAT,
    )
    found.notes += [
        f"bb72, Z memory, 6 rounds; {PER_REQUEST} shots a request; `max_queued_shots` {QUEUED}, else default settings; "
        f"{outcome.sent} requests in {seconds:g} s.",
        f"Service on core {SERVER_CORE}, clients on core {CLIENT_CORE}. An accepted request waits for the batch at "
        "work and for the shots before it in the queue, and may meet the answers of the batch before.",
    ]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--p", type=float, default=0.003)
    parser.add_argument("--shots", type=int, default=2048, help="different ones")
    parser.add_argument("--seed", type=int, default=2031)
    options = parser.parse_args()
    shots = sample_shots(options.shots, p=options.p, seed=options.seed)
    pin(CLIENT_CORE)
    most = Settings().max_batch_shots
    with service(max_queued_shots=QUEUED, max_shots_per_request=QUEUED) as running:
        clients = (QUEUED - PER_REQUEST) // PER_REQUEST
        return measure(running, shots, seconds=options.seconds, clients=clients, most=most).write(RESULTS)


if __name__ == "__main__":
    sys.exit(main())
