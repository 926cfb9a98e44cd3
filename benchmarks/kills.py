"""What clients notice when a worker is killed, and when the service is asked to end.

    python benchmarks/kills.py

Two workers under load. Some clients send each request once, the others, as `service.client` does by default, send a
lost request again. One worker gets SIGKILL; when it has been replaced, the service gets SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import harness, traffic
from benchmarks.harness import Report, Service, Shots
from benchmarks.traffic import Callers, Request

PLAIN, RETRYING = 6, 2
WORKERS = 2
RECOVERED_SECONDS = 2.0
PAUSE_SECONDS = 0.005
"""Between two requests of a client, so that a worker that starts has the processor too."""
LOST = ("ReadError", "RemoteProtocolError", "WriteError", "CloseError")
"""What httpx says where the connection ended before the answer."""


@dataclass(frozen=True)
class Times:
    """When what was done."""

    killed: float
    replaced: float
    ended: float
    """SIGTERM."""


async def measure(running: Service, shots: Shots, *, calm_seconds: float) -> tuple[list[Request], Times, int]:
    """Kills, waits, and ends the service; also its exit status.

    Args:
        running: with `WORKERS` workers, all of them ready.
        shots: to ask for.
        calm_seconds: before the kill, and after the replacement.
    """
    callers = Callers(running.url, shots, model=harness.MODEL["id"], once=PLAIN, retrying=RETRYING, pause=PAUSE_SECONDS)
    asking = asyncio.create_task(callers.ask())
    await asyncio.sleep(calm_seconds)
    os.kill(running.workers()[0], signal.SIGKILL)
    killed = time.monotonic()
    await _until(lambda: len(re.findall(r"worker \d+ is ready", running.log.read_text())) > WORKERS)
    replaced = time.monotonic()
    await asyncio.sleep(max(calm_seconds, RECOVERED_SECONDS + 1))
    running.process.send_signal(signal.SIGTERM)
    ended = time.monotonic()
    status = await asyncio.to_thread(running.process.wait, 120)
    callers.stop()
    await asking
    return callers.requests, Times(killed, replaced, ended), status


async def _until(condition: Callable[[], bool], seconds: float = 180) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


def report(running: Service, requests: Sequence[Request], times: Times, status: int) -> Report:
    # Whoever finds nobody listening after SIGTERM has sent nothing.
    asked = [one for one in requests if one.outcome != traffic.REFUSED_CONNECTION or one.started < times.ended]
    found = Report("kills", "A worker killed, and the service ended, under load")
    answered = [one.started for one in asked if one.outcome == traffic.RIGHT]
    lost = [one.started for one in asked if not one.retrying and one.outcome in LOST]
    spans = {
        "before the kill": (0.0, times.killed),
        "until the worker is replaced": (times.killed, times.replaced),
        "until SIGTERM": (times.replaced, times.ended),
        "after SIGTERM": (times.ended, float("inf")),
    }
    for name, (begin, end) in spans.items():
        right, none = (sum(begin <= sent < end for sent in some) for some in (answered, lost))
        found.rows.append({"requests sent": name, "answered": right, "connection lost": none})
    by_kill = [sent for sent in lost if sent < times.ended]
    late = [sent for sent in by_kill if sent > times.killed + RECOVERED_SECONDS]
    at_the_end = len(lost) - len(by_kill)
    errors = [one for one in asked if one.retrying and one.outcome != traffic.RIGHT]
    wrong = Counter(one.outcome for one in asked if not one.retrying and one.outcome not in (traffic.RIGHT, *LOST))
    found.goal("no wrong answer, no other error", f"wrong: {harness.most_common(wrong)}", met=not wrong)
    found.goal(
        f"kill -9: at most the requests in flight are lost, {PLAIN} of the plain clients, each with an error",
        f"{len(by_kill)}",
        met=len(by_kill) <= PLAIN,
    )
    wanted = "`service.client` sends those again and raises nothing"
    found.goal(wanted, f"{len(errors)} errors", met=not errors)
    wanted = f"all requests sent {RECOVERED_SECONDS:g} s after the kill, or later, succeed"
    found.goal(wanted, f"{len(late)} lost", met=not late)
    found.goal("SIGTERM: no request fails", f"{at_the_end} lost, exit status {status}", met=not at_the_end + status)
    found.goal_of_tracebacks(running)
    found.notes += [
        f"bb72, Z memory, 6 rounds, one shot a request; `--workers {WORKERS}`, {PLAIN} plain clients and {RETRYING} of "
        f"`service.client`; the replacement was ready after {times.replaced - times.killed:.1f} s.",
        "Services and clients on all cores.",
    ]
    return found


def main() -> int:
    options = harness.arguments(
        __doc__,
        calm_seconds=(10.0, "before the kill, and after the replacement"),
        p=(0.001, ""),
        shots=(1024, "different ones"),
    )
    shots = harness.sample_shots(options.shots, p=options.p, seed=options.seed)
    with harness.serve("--workers", str(WORKERS), core=None) as running:
        return report(running, *traffic.run(measure(running, shots, calm_seconds=options.calm_seconds))).write(
            options.out
        )


if __name__ == "__main__":
    harness.run_script(main)
