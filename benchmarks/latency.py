"""How long one shot takes over HTTP, beside the decoder asked directly.

    python benchmarks/latency.py --shots 4000

The same shots, in turns of a few at a time: by REST to a service on one core, and by a decoder of this process moved to
the same core. One shot a request, b8, over one connection that is kept.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks import harness, traffic
from benchmarks.harness import Cores, Report, Service, Shots
from benchmarks.traffic import Connection

P = 0.003
TURN = 25
EXTRA_MS = 1.0
TAIL = 3.0


async def rest_turn(connection: Connection, shots: Shots, first: int, count: int) -> list[float]:
    """Seconds of so many shots, one after the other.

    Raises:
        RuntimeError: an answer that is not that of the decoder.
    """
    seconds = []
    for index in range(first, first + count):
        request, answer = shots.request(index)
        started = time.perf_counter()
        reply = await connection.ask(request)
        seconds.append(time.perf_counter() - started)
        if reply.status != 200 or reply.body != answer:
            raise RuntimeError(f"a wrong answer to shot {index}: {reply}")
    return seconds


def direct_turn(shots: Shots, first: int, count: int) -> list[float]:
    """The same, decoded in this process."""
    seconds = []
    for index in range(first, first + count):
        shot = shots.events[index : index + 1]
        started = time.perf_counter()
        shots.decoder.decode_batch(shot, bit_packed_shots=True)
        seconds.append(time.perf_counter() - started)
    return seconds


async def measure(running: Service, shots: Shots, *, cores: Cores) -> tuple[list[float], list[float]]:
    """Seconds of every shot by REST, and asked directly.

    Args:
        running: the service.
        shots: to decode; the first turn is the warm-up and not counted.
        cores: of the client and of the service.
    """
    rest: list[float] = []
    direct: list[float] = []
    connection = await Connection.open(running.port)
    for first in range(0, len(shots), TURN):
        count = min(TURN, len(shots) - first)
        harness.pin(cores[0])
        by_rest = await rest_turn(connection, shots, first, count)
        harness.pin(cores[1])
        by_hand = direct_turn(shots, first, count)
        if first:
            rest += by_rest
            direct += by_hand
    connection.close()
    return rest, direct


def report(rest: list[float], direct: list[float], *, p: float) -> Report:
    found = Report("latency" if p == P else f"latency-p{p:g}", f"One shot at a time over HTTP, p = {100 * p:g} %")
    for name, seconds in (("REST", rest), ("decoder asked directly", direct)):
        p50, p90, p99, most = (f"{value:.2f}" for value in harness.milliseconds(seconds, 0.5, 0.9, 0.99, 1))
        row = {"": name, "shots": len(seconds), "p50 ms": p50, "p90 ms": p90, "p99 ms": p99, "max ms": most}
        found.rows.append(row)
    median, tail = harness.milliseconds(rest, 0.5, 0.99)
    own, own_tail = harness.milliseconds(direct, 0.5, 0.99)
    extra = harness.milliseconds(np.subtract(rest, direct), 0.5)[0]
    found.goal(f"p50 at most the decoder's + {EXTRA_MS:g} ms", f"+ {median - own:.2f} ms", met=median <= own + EXTRA_MS)
    found.goal(f"p99 at most {TAIL:g} times p50", f"{tail / median:.2f} times", met=tail <= TAIL * median)
    found.notes += [
        f"bb72, Z memory, 6 rounds, p = {100 * p:g} %; one shot a request, b8, one connection; default settings.",
        f"Shot by shot, REST takes {extra:.2f} ms more (median); the decoder's own p99 is {own_tail / own:.2f} times "
        "its p50. All answers were those of the decoder.",
        f"Turns of {TURN} shots. Service and decoder on core {harness.SERVER_CORE} with one thread of torch, client on "
        f"core {harness.CLIENT_CORE}.",
    ]
    return found


def main() -> int:
    options = harness.arguments(__doc__, shots=(4000, "to time"), p=(P, ""))
    shots = harness.sample_shots(options.shots + TURN, p=options.p, seed=options.seed)
    with harness.serve() as running:
        rest, direct = traffic.run(measure(running, shots, cores=(harness.CLIENT_CORE, harness.SERVER_CORE)))
    return report(rest, direct, p=options.p).write(options.out)


if __name__ == "__main__":
    harness.run_script(main)
