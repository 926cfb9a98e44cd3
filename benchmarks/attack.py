"""Attacks a service, one way after the other: memory, time of /healthz and processes lost tell whether it held.

python benchmarks/attack.py --busy 6

It may hold 3 GB; one that takes more is killed, as a container would be. After an attack that was not held, the next
one finds a fresh service. `--busy` keeps so many other processes busy meanwhile, `--only` runs the attacks whose names
match a regular expression.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import harness
from benchmarks.attacks import experiments, grpc, http, websockets, work
from benchmarks.attacks.attack import CAP_MIB, Attack, Watched, watching
from benchmarks.harness import Report, Service

ATTACKS: list[Attack] = [*http.ATTACKS, *websockets.ATTACKS, *grpc.ATTACKS, *work.ATTACKS, *experiments.ATTACKS]


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keeps so many processes busy that have nothing to do with the service."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


class Fort:
    """The service under attack: a fresh one after an attack that it did not hold, or for other settings."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._stack = ExitStack()
        self._kind: object = None
        self._running: Service | None = None

    def service(self, one: Attack) -> Service:
        """The service that an attack wants."""
        kind = (one.settings, one.options, one.models)
        if self._running is None or kind != self._kind:
            self.leave()
            served = harness.serve(
                *one.options,
                core=None,
                models=one.models,
                server=self._server,
                allowed_hosts='["t"]',
                **one.settings,
            )
            self._running, self._kind = self._stack.enter_context(served), kind
        return self._running

    def leave(self) -> None:
        """Ends the service, which may be dead already or not able to end."""
        try:
            self._stack.close()
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"{error}"[-500:])
        self._running = None


def attack(one: Attack, fort: Fort, *, others: int) -> tuple[Watched, list[str]]:
    """Attacks a service beside busy processes: what was watched, and why it did not hold."""
    running = fort.service(one)
    with busy(others), watching(running) as seen:
        flaw = one.run(running)
    watched = seen[0]
    reasons = [] if flaw is None else [flaw]
    if watched.resident_mib > CAP_MIB:
        reasons.append(f"took more than {CAP_MIB} MiB")
    elif (grown := watched.resident_mib - watched.before_mib) > one.growth_mib:
        reasons.append(f"took {grown:.0f} MiB more than before")
    if watched.health_seconds > one.slow:
        reasons.append(f"/healthz took {watched.health_seconds:.2f} s")
    if watched.health_failures:
        reasons.append(f"/healthz failed {watched.health_failures} times")
    if watched.lost and not one.children_may_end:
        reasons.append(f"processes were lost: {'; '.join(watched.lost)}")
    if reasons:
        fort.leave()
    return watched, reasons


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=0, help="other processes that keep the cores busy")
    parser.add_argument("--only", default="", help="a regular expression that the names of those to run match")
    parser.add_argument("--server", default=harness.SERVER, help="another command that serves, with {port} in it")
    parser.add_argument("--out", type=Path, default=harness.RESULTS, help="where the report goes")
    options = parser.parse_args()
    report, fort = Report("attacks", "Attacks"), Fort(options.server)
    for one in ATTACKS:
        if not re.search(options.only, one.name):
            continue
        watched, reasons = attack(one, fort, others=options.busy)
        print(one.name, "held" if not reasons else "; ".join(reasons), watched, flush=True)
        report.rows.append(
            {
                "attack": one.name,
                "held": "no" if reasons else "yes",
                "memory before, MiB": round(watched.before_mib),
                "most memory, MiB": round(watched.resident_mib),
                "longest /healthz, ms": round(1e3 * watched.health_seconds),
                "why not": "; ".join(reasons),
            }
        )
    fort.leave()
    held = sum(row["held"] == "yes" for row in report.rows)
    report.goal("all attacks are held", f"{held} of {len(report.rows)}", met=held == len(report.rows))
    return report.write(options.out)


if __name__ == "__main__":
    harness.run_script(main)
