"""How long a request takes, the busier the service is.

    python benchmarks/load.py --seconds 15

64 clients that ask without a pause say what the service can bear; then requests of one shot come at shares of that
rate, at random times.
"""

from __future__ import annotations

from benchmarks import harness, traffic
from benchmarks.harness import Report, Service, Shots

CLIENTS = 64
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)


def measure(running: Service, shots: Shots, *, seconds: float, start_mib: float) -> Report:
    """Measures what can be borne, and then each share of it; `start_mib` is the memory when the service was ready."""
    borne = traffic.run(
        traffic.saturate(running, shots, clients=CLIENTS, per_request=1, seconds=seconds)
    ).shots_per_second
    found = Report("load", "Latency against load")
    failed = 0
    for share in SHARES:
        outcome = traffic.run(traffic.poisson(running, shots, rate=share * borne, seconds=seconds, per_request=1))
        failed += sum(outcome.wrong.values())
        p50, p90, p99 = harness.milliseconds(outcome.seconds(), 0.5, 0.9, 0.99)
        found.rows.append(
            {
                "load": f"{100 * share:.0f} %",
                "requests/s": f"{share * borne:.0f}",
                "p50 ms": f"{p50:.1f}",
                "p90 ms": f"{p90:.1f}",
                "p99 ms": f"{p99:.1f}",
                "503": f"{100 * len(outcome.refused) / outcome.sent:.0f} %",
            }
        )
    found.goal("every answer right, or 503 with Retry-After", f"others: {failed or 'none'}", met=not failed)
    end_mib = running.resources().resident_mib
    found.notes += [
        f"bb72, Z memory, 6 rounds, p = {100 * shots.p:g} %; one shot a request, b8. 100 % is what {CLIENTS} clients "
        f"that never pause got: {borne:.0f} shots/s.",
        f"Memory of the service: {start_mib:.0f} MiB when ready, {end_mib:.0f} MiB at the end.",
        harness.CORES,
    ]
    return found


def main() -> int:
    options = harness.arguments(__doc__, seconds=(15.0, "of each load"), p=(0.003, ""), shots=(2048, "different ones"))
    shots = harness.sample_shots(options.shots, p=options.p, seed=options.seed)
    harness.pin(harness.CLIENT_CORE)
    with harness.serve() as running:
        start_mib = running.resources().resident_mib
        return measure(running, shots, seconds=options.seconds, start_mib=start_mib).write(options.out)


if __name__ == "__main__":
    harness.run_script(main)
