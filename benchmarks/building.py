"""What a model's answers take while large experiments are sent, and their decoders made.

    python benchmarks/building.py --seconds 20

Requests come at random times. At first nothing else happens; then ten circuits of bb144, each with another noise,
are sent to /v1/experiments, read, and one shot of each is decoded by another model, for which its decoder is made.
"""

from __future__ import annotations

import asyncio
import time

import httpx
import numpy as np

from benchmarks import harness, traffic
from benchmarks.harness import B8, NothingMeasured, Report, Service, Shots
from simulation.bits import packed_size
from simulation.circuits import MemoryExperiment

ANY = {"id": "any", "code": "bb144", "decoder": "serial", "rounds": 2, "basis": "Z"}
"""The model that decodes what is sent."""
EXPERIMENTS = 10
PATIENCE_SECONDS = 600
MOST = 2.0
"""How much longer the 99th percentile may be."""


def circuits(count: int, *, rounds: int) -> list[str]:
    """Circuits of as many large experiments."""
    rates = np.linspace(0.001, 0.003, count)
    made = (MemoryExperiment.create(code="bb144", basis="Z", rounds=rounds, p=float(p)) for p in rates)
    return [str(one.circuit) for one in made]


async def build(running: Service, texts: list[str]) -> tuple[float, float]:
    """Sends circuits, all at once, and has a shot of each decoded: when this began and ended.

    Raises:
        RuntimeError: one is refused.
    """
    began = time.perf_counter()
    async with httpx.AsyncClient(base_url=running.url, timeout=PATIENCE_SECONDS) as client:

        async def one(text: str) -> None:
            sent = await client.post("/v1/experiments", content=text.encode(), headers={"content-type": B8})
            if sent.status_code != 201:
                raise running.failure(f"an experiment was answered with {sent.status_code}: {sent.text}")
            record = sent.json()
            query = {"experiment": record["id"]}
            shot = bytes(packed_size(record["inspection"]["detectors"]))
            answer = await client.post(
                f"/v1/models/{ANY['id']}/decode", params=query, content=shot, headers={"content-type": B8}
            )
            if answer.status_code != 200:
                raise running.failure(f"its shot was answered with {answer.status_code}: {answer.text}")

        await asyncio.gather(*map(one, texts))
    return began, time.perf_counter()


async def measure(running: Service, shots: Shots, *, texts: list[str], rate: float, seconds: float) -> Report:
    """Runs both parts, the second for as long as all of it takes.

    Args:
        running: the service, with both models.
        shots: of the model whose answers are timed.
        texts: of the experiments.
        rate: requests a second.
        seconds: of the first part, and of each piece of the second.
    """
    before = await traffic.poisson(running, shots, rate=rate, seconds=seconds, per_request=1)
    building = asyncio.create_task(build(running, texts))
    answered, wrong = list[tuple[float, float]](), before.wrong
    while not building.done():
        some = await traffic.poisson(running, shots, rate=rate, seconds=min(1.0, seconds), per_request=1)
        answered += some.accepted
        wrong += some.wrong
    began, ended = await building
    beside = [end - start for start, end in answered if start < ended]
    if not (before.accepted and beside):
        raise NothingMeasured("no request was answered while the experiments were read; give a higher --rate")
    report = Report("building", "Answers while large experiments are sent and their decoders made")
    for name, times in (("alone", before.seconds()), (f"beside {len(texts)} experiments", beside)):
        report.rows.append(harness.timing_row(name, times, digits=1))
    [alone], [together] = (harness.milliseconds(times, 0.99) for times in (before.seconds(), beside))
    report.goal(f"p99 at most {MOST:g} times as long", f"{together / alone:.2f} times", met=together <= MOST * alone)
    report.goal("every answer right", f"others: {harness.most_common(wrong)}", met=not wrong)
    report.goal_of_tracebacks(running)
    report.notes += [
        f"bb72, Z memory, 6 rounds, one shot a request, {rate:g} requests/s. The {len(texts)} circuits have "
        f"{max(map(len, texts)) / 1e6:.2g} MB; to read them and to make their decoders took {ended - began:.0f} s.",
        "Service, clients and the processes that read and build share all cores.",
    ]
    return report


def main() -> int:
    options = harness.arguments(
        __doc__,
        seconds=(20.0, "before the experiments are sent"),
        rate=(50.0, "requests a second"),
        rounds=(12, "of the experiments"),
        p=(0.003, "of the shots"),
        shots=(2048, "different ones"),
    )
    shots = harness.sample_shots(options.shots, p=options.p, seed=options.seed)
    texts = circuits(EXPERIMENTS, rounds=options.rounds)
    with harness.serve(core=None, models=(harness.MODEL, ANY)) as running:
        return traffic.run(measure(running, shots, texts=texts, rate=options.rate, seconds=options.seconds)).write(
            options.out
        )


if __name__ == "__main__":
    harness.run_script(main)
