"""Many requests among which some are malformed and some clients leave: no wrong answer, and nothing is left behind.

python benchmarks/chaos.py --requests 200000
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from benchmarks import harness, traffic
from benchmarks.harness import Report, Resources, Service, Shots
from benchmarks.traffic import Connection

CLIENTS = 32
MALFORMED = DISCONNECTING = 0.01
WARM_UP = 0.05
"""The share of the requests after which the memory is looked at for the first time."""
FLAT = 0.05
SETTLE_SECONDS = 3.0

DECODE = f"POST /v1/models/{harness.MODEL['id']}/decode".encode()
END = b" HTTP/1.1\r\nHost: localhost\r\n"
OCTETS = f"Content-Type: {harness.B8}\r\n".encode()
JSON = b"Content-Type: application/json\r\n"


def _sized(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


MALFORMED_REQUESTS = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no known method": b"BREW /pot" + END + b"\r\n",
    "wrong method": b"GET" + DECODE[4:] + END + b"\r\n",
    "no such path": b"GET /../../etc/passwd" + END + b"\r\n",
    "a path for a model": b"POST /v1/models/..%2f..%2fetc%2fpasswd/decode" + END + OCTETS + _sized(b"x"),
    "no such model": harness.decode_request(bytes(54), model="nobody"),
    "no such parameter": harness.decode_request(bytes(54), query="?colour=red"),
    "no such experiment": harness.decode_request(bytes(54), query="?rounds=0"),
    "no content type": DECODE + END + _sized(bytes(54)),
    "no length that is one": DECODE + END + OCTETS + b"Content-Length: -5\r\n\r\n",
    "two lengths": DECODE + END + OCTETS + b"Content-Length: 54\r\nContent-Length: 4\r\n\r\n" + bytes(54),
    "no chunks": DECODE + END + OCTETS + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "no shots": harness.decode_request(b""),
    "no whole shots": harness.decode_request(bytes(55)),
    "no JSON": DECODE + END + JSON + _sized(b'{"shots": [[0, 1'),
    "no bits": DECODE + END + JSON + _sized(b'{"shots": [[0, 1, 2]]}'),
    "no base64": DECODE + END + JSON + _sized(b'{"shots_b8": "*"}'),
    "headers without end": DECODE + END + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n",
}


@dataclass
class Outcome:
    """What came of all requests."""

    answered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Malformed requests, by what was wrong."""
    left: int = 0
    wrong: Counter[str] = field(default_factory=Counter)


@dataclass(eq=False)
class Client:
    """Sends whatever comes next, on a connection that is kept as long as the service keeps it."""

    port: int
    shots: Shots
    outcome: Outcome
    draw: np.random.Generator
    connection: Connection | None = None

    async def next(self) -> None:
        if self.connection is None or self.connection.lost:
            self.connection = await Connection.open(self.port)
        kind = self.draw.random()
        try:
            if kind < MALFORMED:
                await self._malformed(self.connection)
            elif kind < MALFORMED + DISCONNECTING:
                await self._leave(self.connection)
            else:
                await self._ask(self.connection)
        except ConnectionError as error:
            self.outcome.wrong[f"{error}"] += 1

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    async def _ask(self, connection: Connection) -> None:
        request, answer = self.shots.random_request(self.draw)
        reply = await connection.ask(request)
        if reply.status == 200 and reply.body == answer:
            self.outcome.answered += 1
        else:
            self.outcome.wrong[f"{reply.status} {reply.body[:200]!r}"] += 1

    async def _malformed(self, connection: Connection) -> None:
        name = list(MALFORMED_REQUESTS)[self.draw.integers(len(MALFORMED_REQUESTS))]
        try:
            status = f"{(await connection.ask(MALFORMED_REQUESTS[name])).status}"
        except ConnectionError:
            # Where headers are cut off, the answer may be lost to what was still being sent.
            status = "4xx, lost" if name == "headers without end" else "no answer"
        if status.startswith("4"):
            self.outcome.refused[name] += 1
        else:
            self.outcome.wrong[f"{name}: {status}"] += 1
        self.close()

    async def _leave(self, connection: Connection) -> None:
        request, _ = self.shots.random_request(self.draw)
        whole = self.draw.random() < 0.5
        connection.send(request if whole else request[: self.draw.integers(1, len(request))])
        await asyncio.sleep(float(self.draw.choice([0.0, 0.002, 0.02])))
        connection.abort()
        self.connection = None
        self.outcome.left += 1


async def send(running: Service, shots: Shots, *, requests: int, seed: int, outcome: Outcome) -> None:
    """Sends so many requests, by several clients at once."""
    left = requests

    async def work(client: Client) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await client.next()
        client.close()

    draws = [np.random.default_rng([shots.seed, CLIENTS * seed + index]) for index in range(CLIENTS)]
    clients = [Client(running.port, shots, outcome, draw) for draw in draws]
    await asyncio.gather(*(work(client) for client in clients))


def measure(running: Service, shots: Shots, *, requests: int) -> Report:
    outcome = Outcome()
    first = max(1, int(WARM_UP * requests))
    started = time.monotonic()
    held = []
    for seed, count in enumerate((first, requests - first)):
        traffic.run(send(running, shots, requests=count, seed=seed, outcome=outcome))
        time.sleep(SETTLE_SECONDS)  # for the service to see that the last connections are closed
        held.append(running.resources())
    return report(running, outcome, held, seconds=time.monotonic() - started)


def report(running: Service, outcome: Outcome, held: list[Resources], *, seconds: float) -> Report:
    before, after = held
    found = Report("chaos", "Malformed requests and clients that leave")
    found.rows += [
        {"requests": "answered", "": outcome.answered},
        {"requests": "malformed, refused with 4xx", "": sum(outcome.refused.values())},
        {"requests": "given up by their clients", "": outcome.left},
    ]
    found.goal("no wrong answer", f"wrong: {harness.most_common(outcome.wrong)}", met=not outcome.wrong)
    for name in ("threads", "descriptors"):
        one, other = getattr(before, name), getattr(after, name)
        found.goal(f"no leak of {name}", f"{one} to {other}", met=other <= one)
    wanted = f"memory grows by at most {100 * FLAT:g} %"
    found.goal_of_growth(wanted, before.resident_mib, after.resident_mib, most=FLAT)
    found.goal_of_tracebacks(running)
    kinds = ", ".join(f"{name} ({count})" for name, count in sorted(outcome.refused.items()))
    found.notes += [
        f"bb72, Z memory, 6 rounds, one shot a request; {CLIENTS} clients, {seconds:.0f} s. Before: after the first "
        f"{100 * WARM_UP:g} % of the requests; after: at the end.",
        f"Malformed, at {100 * MALFORMED:g} %: {kinds}.",
        f"Clients that leave, at {100 * DISCONNECTING:g} %: in the middle of a request or before its answer.",
        harness.CORES,
    ]
    return found


def main() -> int:
    options = harness.arguments(__doc__, requests=(200_000, "to send"), p=(0.001, ""), shots=(8192, "different ones"))
    shots = harness.sample_shots(options.shots, p=options.p, seed=options.seed)
    harness.pin(harness.CLIENT_CORE)
    with harness.serve() as running:
        return measure(running, shots, requests=options.requests).write(options.out)


if __name__ == "__main__":
    harness.run_script(main)
