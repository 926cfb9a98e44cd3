"""Many experiments streamed at once, round by round: each gets the answer that the whole shot gets.

    python benchmarks/streams.py --streams 1000

All streams are open before the first layer is sent; then each round's layers of all of them, one round after the other.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from dataclasses import dataclass, field

import numpy as np
from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection, connect

from benchmarks import harness, traffic
from benchmarks.harness import Report, Resources, Service, Shots
from simulation.bits import PackedBits, pack_bits, unpack_bits

CONNECTIONS = 10


@dataclass
class Outcome:
    """What came of the streams."""

    right: int = 0
    wrong: int = 0
    seconds: list[float] = field(default_factory=list)
    """Of each, from its last layer to its answer, as the client sees it."""


async def stream_all(running: Service, shots: Shots, *, streams: int, rounds: int) -> tuple[Outcome, list[Resources]]:
    """Streams the first so many shots; also what the service holds before, and while all streams are open."""
    outcome = Outcome()
    held = [running.resources()]
    opened, go = asyncio.Semaphore(0), asyncio.Event()
    layers = [split(shots.events[index], cells=shots.decoder.num_detectors // (2 * rounds)) for index in range(streams)]

    async def client(numbers: range) -> None:
        url = f"ws://127.0.0.1:{running.port}/v1/models/{harness.MODEL['id']}/stream"
        async with connect(url, subprotocols=[Subprotocol("tandem.stream.v1")], compression=None) as socket:
            for number in numbers:
                await socket.send(json.dumps({"action": "open", "stream": number, "rounds": rounds}))
            for _ in numbers:
                assert json.loads(await socket.recv())["event"] == "opened"
            opened.release()
            await go.wait()
            sent = asyncio.create_task(send(socket, numbers))
            finished = await receive(socket, numbers, shots, outcome)
            outcome.seconds += [finished[number] - at for number, at in (await sent).items()]

    async def send(socket: ClientConnection, numbers: range) -> dict[int, float]:
        times = {}
        for t in range(rounds + 1):
            for number in numbers:
                times[number] = time.perf_counter()
                await socket.send(struct.pack("<IHBB", number, t, t == rounds, 0) + layers[number][t])
        return times

    share = -(-streams // CONNECTIONS)
    groups = [range(first, min(first + share, streams)) for first in range(0, streams, share)]
    async with asyncio.TaskGroup() as tasks:
        for group in groups:
            tasks.create_task(client(group))
        for _ in groups:
            await opened.acquire()
        held.append(running.resources())
        go.set()
    return outcome, held


async def receive(socket: ClientConnection, numbers: range, shots: Shots, outcome: Outcome) -> dict[int, float]:
    """Waits for all answers; when each came."""
    finished: dict[int, float] = {}
    while len(finished) < len(numbers):
        message = json.loads(await socket.recv())
        finished[message["stream"]] = time.perf_counter()
        found = message["event"] == "answer" and pack_bits(np.array([message["predictions"]], dtype=np.bool_))[0]
        right = np.array_equal(found, shots.answers[message["stream"]])
        outcome.right += right
        outcome.wrong += not right
    return finished


def split(shot: PackedBits, *, cells: int) -> list[bytes]:
    """The layers of a packed shot, each packed for itself: `cells` bits first and last, twice as many in between."""
    rounds = 8 * len(shot) // (2 * cells)
    bits = unpack_bits(shot[None], 2 * cells * rounds)
    return [pack_bits(layer).tobytes() for layer in np.split(bits, list(range(cells, bits.size, 2 * cells)), axis=1)]


def report(outcome: Outcome, held: list[Resources], *, streams: int, seconds: float) -> Report:
    found = Report("streams", f"{streams} streams at once")
    p50, p99, most = harness.milliseconds(outcome.seconds, 0.5, 0.99, 1)
    open_kib = 1024 * (held[1].resident_mib - held[0].resident_mib) / streams
    found.rows.append(
        {
            "streams": streams,
            "connections": CONNECTIONS,
            "seconds, all": f"{seconds:.2f}",
            "last layer to answer, p50 ms": f"{p50:.0f}",
            "p99 ms": f"{p99:.0f}",
            "max ms": f"{most:.0f}",
            "memory of an open stream, KiB": f"{open_kib:.0f}",
        }
    )
    found.goal(
        "all answers equal those of the whole shots",
        f"{outcome.right} of {streams}",
        met=outcome.right == streams and not outcome.wrong,
    )
    found.notes += [
        "bb72, Z memory, 6 rounds, p = 0.3 %; predictions compared with those of `decode_batch`. Seconds from the "
        "first connection to the last answer.",
        f"Service on core {harness.SERVER_CORE}, client on core {harness.CLIENT_CORE}.",
    ]
    return found


def main() -> int:
    options = harness.arguments(__doc__, streams=(1000, "at once"), p=(0.003, ""))
    shots = harness.sample_shots(options.streams, p=options.p, seed=options.seed)
    harness.pin(harness.CLIENT_CORE)
    with harness.serve() as running:
        work = stream_all(running, shots, streams=options.streams, rounds=harness.MODEL["rounds"])
        started = time.perf_counter()
        outcome, held = traffic.run(work)
        return report(outcome, held, streams=options.streams, seconds=time.perf_counter() - started).write(options.out)


if __name__ == "__main__":
    harness.run_script(main)
