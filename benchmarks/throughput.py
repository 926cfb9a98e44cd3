"""How many shots a second 64 clients get, beside `decode_batch` in one process.

    python benchmarks/throughput.py --seconds 10 --rounds 3

Each client has a connection of its own and sends its next request when it has the answer to the last. In turns with
that, a decoder of this process decodes as many shots a call as a batch of the service holds at most: first with all
cores for everybody, then on the service's core, to which that is held.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import sys
import time
from dataclasses import dataclass

import numpy as np
from serving import (
    CLIENT_CORE,
    MODEL_ID,
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

from service.settings import Settings

P = 0.003
CLIENTS = 64
SHARE = 0.7
WARM_UP_SECONDS = 1.0
ONE_CORE, ALL_CORES = "one core", "all cores"


@dataclass(frozen=True)
class Turn:
    """What the clients got in some seconds."""

    shots_per_second: float
    latencies: list[float]
    """Seconds of each request."""
    shots_per_batch: float
    cpu_ms_per_shot: float
    """Of the service, for all that it does."""


Turns = dict[int, list[tuple[Turn, tuple[float, float]]]]
"""By shots a request, what the clients got and beside it what `direct` gave."""


async def load(running: Service, shots: Shots, *, clients: int, per_request: int, seconds: float) -> Turn:
    """Lets the clients ask for so long, and checks every answer.

    Raises:
        ValueError: an answer that is not that of the decoder.
    """
    finished: list[tuple[float, float]] = []
    end = time.perf_counter() + WARM_UP_SECONDS + seconds

    async def client(index: int) -> None:
        draw = np.random.default_rng([shots.seed, index])
        connection = await Connection.open(running.port)
        while (started := time.perf_counter()) < end:
            request, answer = shots.request(int(draw.integers(len(shots) - per_request + 1)), per_request)
            reply = await connection.ask(request)
            if reply.status != 200 or reply.body != answer:
                raise ValueError(f"a wrong answer: {reply}")
            finished.append((started, time.perf_counter()))
        connection.close()

    before, cpu_before = await _decoded(running), Resources.of(running.process.pid).cpu_seconds
    await asyncio.gather(*(client(index) for index in range(clients)))
    after, cpu_after = await _decoded(running), Resources.of(running.process.pid).cpu_seconds
    begin = end - seconds
    counted = [(started, done) for started, done in finished if begin <= done < end]
    return Turn(
        shots_per_second=len(counted) * per_request / seconds,
        latencies=[done - started for started, done in counted],
        shots_per_batch=(after[0] - before[0]) / (after[1] - before[1]),
        cpu_ms_per_shot=(cpu_after - cpu_before) / (after[0] - before[0]) * 1e3,
    )


async def _decoded(running: Service) -> tuple[float, float]:
    """Shots and batches so far."""
    connection = await Connection.open(running.port)
    reply = await connection.ask(b"GET /metrics HTTP/1.1\r\nHost: tandem\r\n\r\n")
    connection.close()
    found = [
        re.search(rf'tandem_{name}_total{{model="{MODEL_ID}"}} (\S+)', reply.body.decode())
        for name in ("shots", "batches")
    ]
    shots, batches = (float(match[1]) if match else 0.0 for match in found)
    return shots, batches


def direct(shots: Shots, *, per_call: int, seconds: float) -> tuple[float, float]:
    """Shots a second of `decode_batch`, and milliseconds of CPU a shot."""
    done, started, cpu = 0, time.perf_counter(), time.process_time()
    while (passed := time.perf_counter() - started) < seconds:
        first = done % (len(shots) - per_call + 1)
        shots.decoder.decode_batch(shots.events[first : first + per_call], bit_packed_shots=True)
        done += per_call
    return done / passed, (time.process_time() - cpu) / done * 1e3


def measure(
    running: Service, shots: Shots, *, sizes: list[int], per_call: int, seconds: float, rounds: int, pinned: bool = True
) -> Turns:
    """Takes turns: the service, and `decode_batch`, for requests of each size.

    Args:
        running: the service.
        shots: to decode.
        sizes: shots a request.
        per_call: shots a call of `decode_batch`.
        seconds: of a turn.
        rounds: turns of each size.
        pinned: whether all that computes runs on the service's core, and the clients on the other.
    """
    turns: Turns = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            if pinned:
                pin(CLIENT_CORE)
            turn = run(load(running, shots, clients=CLIENTS, per_request=size, seconds=seconds))
            if pinned:
                pin(SERVER_CORE)
            turns[size].append((turn, direct(shots, per_call=per_call, seconds=seconds / 2)))
    return turns


def report(measured: dict[str, Turns], *, per_call: int, p: float) -> Report:
    """Args:
    measured: turns, by which cores they could use.
    per_call: shots a call of `decode_batch`.
    p: of the shots.
    """
    found = Report("throughput" if p == P else f"throughput-p{p:g}", f"{CLIENTS} clients at once, p = {100 * p:g} %")
    for cores, sizes in measured.items():
        for size, pairs in sizes.items():
            shares = [turn.shots_per_second / alone for turn, (alone, _) in pairs]
            p50, p99 = milliseconds([value for turn, _ in pairs for value in turn.latencies], 0.5, 0.99)
            share = statistics.median(shares)
            found.rows.append(
                {
                    "cores": cores,
                    "shots a request": size,
                    "service, shots/s": f"{statistics.median(turn.shots_per_second for turn, _ in pairs):.0f}",
                    "shots a batch": f"{statistics.mean(turn.shots_per_batch for turn, _ in pairs):.0f}",
                    "`decode_batch`, shots/s": f"{statistics.median(alone for _, (alone, _) in pairs):.0f}",
                    "CPU ms a shot": f"{statistics.median(turn.cpu_ms_per_shot for turn, _ in pairs):.2f} and "
                    f"{statistics.median(cpu for _, (_, cpu) in pairs):.2f}",
                    "share": f"{100 * share:.0f} % ({', '.join(f'{100 * one:.0f}' for one in shares)})",
                    "p50 ms": f"{p50:.0f}",
                    "p99 ms": f"{p99:.0f}",
                }
            )
            found.goal(
                f"{cores}, {size} shots a request: at least {100 * SHARE:g} % of `decode_batch`",
                f"{100 * share:.0f} %",
                met=share >= SHARE,
            )
    rounds = {len(pairs) for sizes in measured.values() for pairs in sizes.values()}
    found.notes += [
        f"bb72, Z memory, 6 rounds, p = {100 * p:g} %; b8; default settings. `decode_batch`, in one thread, with "
        f"{per_call} shots a call, the most that a batch of the service holds.",
        f"Turns side by side; the share is the median of {max(rounds)} pairs of turns (each in brackets). All answers "
        "were those of the decoder. CPU: of the whole service, and of `decode_batch`.",
        f"{ONE_CORE}: the whole service, and `decode_batch`, on core {SERVER_CORE}; the clients, one process of "
        f"asyncio, on core {CLIENT_CORE}.",
        f"{ALL_CORES}: the service, which decodes in one thread and does all else in another, shares the machine's "
        "cores with the clients.",
    ]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--p", type=float, default=P)
    parser.add_argument("--shots", type=int, default=4096, help="different ones")
    parser.add_argument("--seconds", type=float, default=10, help="of a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=2031)
    options = parser.parse_args()
    shots = sample_shots(options.shots, p=options.p, seed=options.seed)
    per_call = Settings().max_batch_shots
    measured = {}
    for cores in (ALL_CORES, ONE_CORE):  # in this order, as the service inherits this process' core
        with service(core=SERVER_CORE if cores == ONE_CORE else None) as running:
            measured[cores] = measure(
                running,
                shots,
                sizes=[1, 32],
                per_call=per_call,
                seconds=options.seconds,
                rounds=options.rounds,
                pinned=cores == ONE_CORE,
            )
    return report(measured, per_call=per_call, p=shots.p).write(RESULTS)


if __name__ == "__main__":
    sys.exit(main())
