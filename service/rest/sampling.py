"""A few shots sampled by the service itself, for those who have not installed stim yet."""

from __future__ import annotations

import base64
from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from service.http.dependencies import EngineDependency, GateDependency, ModelDependency
from service.rest.models import PROBLEMS
from service.wire.schemas import Bit, ExperimentQuery, SampledExperiment
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample

MAX_SAMPLED_SHOTS = 100
"""Most shots of one request: for more, sample the model's circuit with stim, which needs no service."""
MAX_EXACT_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""

router = APIRouter(prefix="/v1")


class SampleQuery(ExperimentQuery):
    """The experiment, and which of its shots."""

    shots: int = Field(default=1, ge=1, le=MAX_SAMPLED_SHOTS, description="How many shots.")
    seed: int | None = Field(
        default=None, ge=0, le=MAX_EXACT_INTEGER, description="Draws the same shots again; left out, a fresh one."
    )
    first: int = Field(
        default=0,
        ge=0,
        le=MAX_EXACT_INTEGER,
        description="Number of the first shot: shot i of a seed is the same whichever shots are asked for with it.",
    )


class SampleResponse(BaseModel):
    """Shots, with the truth that a decoder is not told."""

    model: str
    experiment: SampledExperiment
    torus: tuple[int, int] = Field(description="l and m, the numbers of cells along x and y.")
    seed: int = Field(description="The seed that draws these shots again.")
    first: int = Field(description="The number of the first of these shots.")
    num_shots: int
    shots_b8: str = Field(
        description="Base64 of the detection events in stim's b8, as `/decode` takes them.",
        json_schema_extra={"contentEncoding": "base64"},
    )
    detection_events: list[list[int]] = Field(description="For each shot, the detectors that fired, ascending.")
    coordinates: list[list[tuple[int, int, int, int]]] = Field(
        description="For each of these, (x, y, round, type) with type 0 for an X check and 1 for a Z check. "
        "The last round compares the data readout with the last syndrome."
    )
    observable_flips: list[list[Bit]] = Field(description="For each shot, which observables flipped: the truth.")


@router.post("/models/{model_id}/sample", tags=["sample"], response_model=SampleResponse, responses=PROBLEMS)
async def sample_shots(
    engine: EngineDependency, gate: GateDependency, model: ModelDependency, query: Annotated[SampleQuery, Query()]
) -> Response:
    """Samples a few shots of the experiment, with the observables that really flipped.

    Send `shots_b8` to `/v1/models/{id}/decode` for the same basis, rounds and p, and compare the predictions with
    `observable_flips`. Shots of a seed are those of `tandem sample` with that seed.
    """
    engine.metrics.samples.labels(model.id).inc()
    experiment = model.experiment(query)
    with gate.enter():
        content = await model.circuits.run(partial(_sample_json, model.id, replace(experiment), query))
    return Response(content, media_type="application/json")


def _sample_json(model_id: str, experiment: MemoryExperiment, query: SampleQuery) -> bytes:
    """Samples shots and writes a `SampleResponse`; runs in the builder's thread."""
    samples = sample(experiment.circuit, shots=query.shots, seed=query.seed, first=query.first)
    events = [shot.nonzero()[0] for shot in samples.unpacked_detection_events()]
    coordinates = experiment.grid.coordinates
    answer = {
        "model": model_id,
        "experiment": SampledExperiment(
            basis=experiment.basis, rounds=experiment.rounds, p=experiment.noise.p, noise=str(experiment.noise)
        ),
        "torus": (experiment.code.l, experiment.code.m),
        "seed": samples.seed,
        "first": query.first,
        "num_shots": samples.shots,
        "shots_b8": base64.b64encode(samples.detection_events.tobytes()).decode("ascii"),
        "observable_flips": samples.unpacked_observable_flips().view("u1").tolist(),
    }
    # Shot by shot, as each call holds the interpreter: that of 100 shots full of noise did for a quarter of a second.
    by_shot = {
        "detection_events": (to_json(shot.tolist()) for shot in events),
        "coordinates": (to_json(coordinates[shot].tolist()) for shot in events),
    }
    members = {name: to_json(value) for name, value in answer.items()}
    members |= {name: b"[%b]" % b",".join(shots) for name, shots in by_shot.items()}
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), value) for name, value in members.items())
