"""How many shots a second 64 clients get, beside `decode_batch` in one process.

    python benchmarks/throughput.py --seconds 10 --rounds 3

Each client has a connection of its own and sends its next request when it has the answer to the last. In turns with
that, a decoder of this process decodes as many shots a call as a batch of the service holds at most: first with all
cores for everybody, then on the service's core, to which that is held.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from benchmarks import harness, traffic
from benchmarks.harness import Cores, Report, Service, Shots
from benchmarks.traffic import Turn
from service.settings import Settings

P = 0.003
CLIENTS = 64
SIZES = (1, 32)
"""Shots a request."""
SHARE = 0.7
ONE_CORE, ALL_CORES = "one core", "all cores"

Turns = dict[int, list[tuple[Turn, tuple[float, float]]]]
"""By shots a request, what the clients got and beside it what `direct` gave."""


def direct(shots: Shots, *, per_call: int, seconds: float) -> tuple[float, float]:
    """Shots a second of `decode_batch`, and milliseconds of CPU a shot; one call at least."""
    done, passed = 0, 0.0
    started, cpu = time.perf_counter(), time.process_time()
    while not done or passed < seconds:
        first = done % (len(shots) - per_call + 1)
        shots.decoder.decode_batch(shots.events[first : first + per_call], bit_packed_shots=True)
        done += per_call
        passed = time.perf_counter() - started
    return done / passed, (time.process_time() - cpu) / done * 1e3


def measure(
    running: Service,
    shots: Shots,
    *,
    per_call: int,
    seconds: float,
    rounds: int,
    cores: Cores,
    sizes: Sequence[int] = SIZES,
) -> Turns:
    """Takes turns: the service, and `decode_batch`, for requests of each size.

    Args:
        running: the service.
        shots: to decode.
        per_call: shots a call of `decode_batch`.
        seconds: of a turn.
        rounds: turns of each size.
        cores: of the clients, and of all that computes.
        sizes: shots a request.
    """
    turns: Turns = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            harness.pin(cores[0])
            turn = traffic.run(traffic.saturate(running, shots, clients=CLIENTS, per_request=size, seconds=seconds))
            harness.pin(cores[1])
            turns[size].append((turn, direct(shots, per_call=per_call, seconds=seconds / 2)))
    return turns


def report(measured: dict[str, Turns], *, per_call: int, p: float) -> Report:
    """The report of turns, by which cores they could use; `per_call` shots of this p went into a `decode_batch`."""
    found = Report("throughput" if p == P else f"throughput-p{p:g}", f"{CLIENTS} clients at once, p = {100 * p:g} %")
    for cores, sizes in measured.items():
        for size, pairs in sizes.items():
            shares = [turn.shots_per_second / alone for turn, (alone, _) in pairs]
            share = statistics.median(shares)
            found.rows.append({"cores": cores, "shots a request": size} | _columns(pairs, shares))
            found.goal(
                f"{cores}, {size} shots a request: at least {100 * SHARE:g} % of `decode_batch`",
                f"{100 * share:.0f} %",
                met=share >= SHARE,
            )
    rounds = max(len(pairs) for sizes in measured.values() for pairs in sizes.values())
    found.notes += [
        f"bb72, Z memory, 6 rounds, p = {100 * p:g} %; b8; default settings. `decode_batch`, in one thread, with "
        f"{per_call} shots a call, the most that a batch of the service holds.",
        f"Turns side by side; the share is the median of {rounds} pairs of turns (each in brackets). All answers "
        "were those of the decoder. CPU: of the whole service, and of `decode_batch`.",
        f"{ONE_CORE}: the whole service, and `decode_batch`, on core {harness.SERVER_CORE}; the clients, one process "
        f"of asyncio, on core {harness.CLIENT_CORE}.",
        f"{ALL_CORES}: the service, which decodes in one thread and does all else in another, shares the machine's "
        "cores with the clients.",
    ]
    return found


def _columns(pairs: list[tuple[Turn, tuple[float, float]]], shares: list[float]) -> dict[str, object]:
    turns, (alone, alone_cpu) = [turn for turn, _ in pairs], zip(*(own for _, own in pairs), strict=True)
    p50, p99 = harness.milliseconds([value for turn in turns for value in turn.latencies], 0.5, 0.99)
    cpu = statistics.median(turn.cpu_ms_per_shot for turn in turns)
    return {
        "service, shots/s": f"{statistics.median(turn.shots_per_second for turn in turns):.0f}",
        "shots a batch": f"{statistics.mean(turn.shots_per_batch for turn in turns):.0f}",
        "`decode_batch`, shots/s": f"{statistics.median(alone):.0f}",
        "CPU ms a shot": f"{cpu:.2f} and {statistics.median(alone_cpu):.2f}",
        "share": f"{100 * statistics.median(shares):.0f} % ({', '.join(f'{100 * one:.0f}' for one in shares)})",
        "p50 ms": f"{p50:.0f}",
        "p99 ms": f"{p99:.0f}",
    }


def main() -> int:
    options = harness.arguments(
        __doc__,
        p=(P, ""),
        shots=(4096, "different ones"),
        seconds=(10.0, "of a turn"),
        rounds=(3, "turns of each kind"),
    )
    per_call = Settings().max_batch_shots
    shots = harness.sample_shots(max(options.shots, per_call), p=options.p, seed=options.seed)
    measured = {}
    # In this order, as the service inherits this process' core.
    for name, cores in ((ALL_CORES, (None, None)), (ONE_CORE, (harness.CLIENT_CORE, harness.SERVER_CORE))):
        with harness.serve(core=cores[1]) as running:
            measured[name] = measure(
                running, shots, per_call=per_call, seconds=options.seconds, rounds=options.rounds, cores=cores
            )
    return report(measured, per_call=per_call, p=shots.p).write(options.out)


if __name__ == "__main__":
    harness.run_script(main)
