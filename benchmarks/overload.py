"""What happens at twice the load that the service can bear.

    python benchmarks/overload.py --seconds 60

First as many clients as fill the queue ask as fast as they are answered: that is the load it can bear. Then requests
come at twice that rate, at random times, whether earlier ones have been answered or not.
"""

from __future__ import annotations

import math
import statistics

import numpy as np

from benchmarks import harness, traffic
from benchmarks.harness import NothingMeasured, Report, Service, Shots
from benchmarks.traffic import Outcome
from service.settings import Settings

PER_REQUEST = 4
QUEUED = 512
"""`max_queued_shots`, few enough for a wait of seconds."""
FACTOR = 2.0
PROMPT_SECONDS = 1.0
FLAT = 0.05
STRETCH_SECONDS = 3.0
KEPT = 0.7


def slowest_rate(outcome: Outcome) -> float:
    """Shots answered a second, in the slowest stretch of some seconds: how fast others let the service be.

    Raises:
        NothingMeasured: fewer than two answers, between which no time passed.
    """
    times = sorted(answered for _, answered in outcome.accepted)
    length = min(STRETCH_SECONDS, times[-1] - times[0]) if times else 0.0
    if not length:
        raise NothingMeasured(f"{len(times)} of {outcome.sent} requests were answered: too few; give more --seconds")
    begins = np.linspace(times[0], times[-1] - length, 200)
    counts = np.searchsorted(times, begins + length, side="right") - np.searchsorted(times, begins)
    return float(counts.min() * PER_REQUEST / length)


def answered_meanwhile(outcome: Outcome) -> int:
    """How many shots were answered while a request waited, its own with them: the 99th percentile."""
    times = sorted(answered for _, answered in outcome.accepted)
    sent, answered = np.transpose(outcome.accepted)
    places = np.searchsorted(times, answered) - np.searchsorted(times, sent) + 1
    return int(np.quantile(places, 0.99)) * PER_REQUEST


def measure(running: Service, shots: Shots, *, seconds: float, clients: int, most: float) -> Report:
    """Runs both parts.

    Args:
        running: the service, with `max_queued_shots` of `QUEUED`.
        shots: to send.
        seconds: of the overload; half of it for what can be borne.
        clients: as many as fill the queue.
        most: shots in one batch.
    """
    turn = traffic.run(traffic.saturate(running, shots, clients=clients, per_request=PER_REQUEST, seconds=seconds / 2))
    borne = turn.shots_per_second
    rate = FACTOR * borne / PER_REQUEST
    outcome = traffic.run(traffic.poisson(running, shots, rate=rate, seconds=seconds, per_request=PER_REQUEST))
    return report(outcome, borne=borne, seconds=seconds, most=most)


def report(outcome: Outcome, *, borne: float, seconds: float, most: float) -> Report:
    found = Report("overload", "Twice the load that can be borne")
    for name, some in (("answered", outcome.seconds()), ("503 with Retry-After", outcome.refused)):
        if some:
            found.rows.append(harness.timing_row(name, some))
    wrong = harness.most_common(outcome.wrong)
    found.goal("every answer right, or 503 with Retry-After", f"others: {wrong}", met=not outcome.wrong)
    late = harness.milliseconds(outcome.refused or [0.0], 0.99)[0]
    found.goal(f"the 503 prompt: p99 at most {PROMPT_SECONDS:g} s", f"{late:.0f} ms", met=late <= 1e3 * PROMPT_SECONDS)
    _judge_waits(found, outcome, most=most)
    # Requests in the queue at the end are answered after it.
    kept = len(outcome.accepted) * PER_REQUEST / (seconds + QUEUED / borne) / borne
    found.goal(
        f"at least {100 * KEPT:g} % of {borne:.0f} shots/s are still answered", f"{100 * kept:.0f} %", met=kept >= KEPT
    )
    quarter = max(1, len(outcome.memory) // 4)
    first, last = (statistics.median(some) for some in (outcome.memory[:quarter], outcome.memory[-quarter:]))
    wanted = f"memory grows by at most {100 * FLAT:g} % from the first quarter to the last (medians)"
    found.goal_of_growth(wanted, first, last, most=FLAT)
    found.notes += [
        f"bb72, Z memory, 6 rounds; {PER_REQUEST} shots a request; `max_queued_shots` {QUEUED}, else default settings;"
        f" {outcome.sent} requests in {seconds:g} s.",
        f"{harness.CORES} An accepted request waits for the batch at work and for the shots before it in the queue, "
        "and may meet the answers of the batch before.",
    ]
    return found


def _judge_waits(found: Report, outcome: Outcome, *, most: float) -> None:
    """Whether the queue bounds how long accepted requests wait."""
    slowest, passed = slowest_rate(outcome), answered_meanwhile(outcome)
    bound = (QUEUED + most) / slowest if slowest else math.inf
    found.goal(
        f"the queue bounds the wait: at most {QUEUED} + 2 x {most:g} shots are answered from a request to its answer "
        "(p99)",
        f"{passed}",
        met=passed <= QUEUED + 2 * most,
    )
    p99 = harness.milliseconds(outcome.seconds(), 0.99)[0]
    found.goal(
        f"p99 of answers at most what that takes, {QUEUED + most:g} shots / {slowest:.0f} a second (the slowest "
        f"{STRETCH_SECONDS:g} s) = {bound:.2f} s",
        f"{p99 / 1e3:.2f} s",
        met=p99 <= 1e3 * bound,
    )


def main() -> int:
    options = harness.arguments(__doc__, seconds=(60.0, "of overload"), p=(0.003, ""), shots=(2048, "different ones"))
    shots = harness.sample_shots(max(options.shots, PER_REQUEST), p=options.p, seed=options.seed)
    harness.pin(harness.CLIENT_CORE)
    most = Settings().max_batch_shots
    with harness.serve(max_queued_shots=QUEUED, max_shots_per_request=QUEUED) as running:
        clients = (QUEUED - PER_REQUEST) // PER_REQUEST
        return measure(running, shots, seconds=options.seconds, clients=clients, most=most).write(options.out)


if __name__ == "__main__":
    harness.run_script(main)
