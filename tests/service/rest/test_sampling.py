"""POST /v1/models/{id}/sample: the shots of `simulation.shots.sampling`, in a form that /decode takes."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
import pytest

from decoder.making import make_decoder
from service.rest.sampling import MAX_SAMPLED_SHOTS, SampleResponse
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample
from tests.helpers import eventually_async

pytestmark = pytest.mark.anyio

URL = "/v1/models/bb72-bposd/sample"


async def test_the_shots_are_those_of_the_seed(client):
    response = await client.post(f"{URL}?basis=X&rounds=3&p=0.004&seed=11&shots=20&first=1010")
    assert response.status_code == 200
    answer = SampleResponse.model_validate_json(response.content)
    experiment = MemoryExperiment.create(code="bb72", basis="X", rounds=3, p=0.004)
    samples = sample(experiment.circuit, shots=20, seed=11, first=1010)

    assert (answer.seed, answer.first, answer.num_shots, answer.torus) == (11, 1010, 20, (6, 6))
    assert (answer.experiment.basis, answer.experiment.rounds, answer.experiment.p) == ("X", 3, 0.004)
    assert base64.b64decode(answer.shots_b8) == samples.detection_events.tobytes()
    assert np.array_equal(answer.observable_flips, samples.unpacked_observable_flips())
    assert samples.unpacked_observable_flips().any()
    for events, coordinates, bits in zip(
        answer.detection_events, answer.coordinates, samples.unpacked_detection_events(), strict=True
    ):
        assert np.array_equal(events, bits.nonzero()[0])
        assert np.array_equal(coordinates, experiment.grid.coordinates[bits])


async def test_they_can_be_decoded_as_they_are(client):
    sampled = (await client.post(f"{URL}?p=0.004&seed=1&shots=30")).json()
    response = await client.post(
        "/v1/models/bb72-bposd/decode?p=0.004", json={"shots_b8": sampled["shots_b8"], "num_shots": 30}
    )
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.004)
    shots = sample(experiment.circuit, shots=30, seed=1).unpacked_detection_events()
    assert np.array_equal(response.json()["predictions"], make_decoder("bposd", experiment).decode_batch(shots))


async def test_requests_are_counted(client):
    async def counted() -> float:
        lines = (await client.get("/metrics")).text.splitlines()
        name = 'tandem_sample_requests_total{model="bb72-bposd"} '
        return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before = await counted()
    assert (await client.post(URL)).status_code == 200
    assert await counted() == before + 1


async def test_without_a_seed_a_fresh_one_is_drawn_and_told(client):
    drawn = [(await client.post(f"{URL}?p=0.01&shots=5")).json() for _ in range(2)]
    assert drawn[0]["seed"] != drawn[1]["seed"]
    assert drawn[0]["shots_b8"] != drawn[1]["shots_b8"]
    again = (await client.post(f"{URL}?p=0.01&shots=5&seed={drawn[0]['seed']}")).json()
    assert again == drawn[0]


async def test_the_model_s_own_experiment_is_the_default(client):
    answer = (await client.post(URL)).json()
    assert answer["experiment"] == {"basis": "Z", "rounds": 2, "p": 0.002, "noise": "uniform"}
    assert answer["num_shots"] == 1


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        (f"shots={MAX_SAMPLED_SHOTS + 1}", "shots"),
        ("shots=0", "shots"),
        ("seed=-1", "seed"),
        (f"seed={2**53}", "seed"),
        ("first=-1", "first"),
        ("first=1.5", "first"),
        ("rounds=5", "rounds"),
        ("p=0.5", "p"),
        ("basis=Y", "basis"),
        ("shot=1", "shot"),
    ],
)
async def test_what_is_out_of_bounds_is_named(client, query, parameter):
    response = await client.post(f"{URL}?{query}")
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["errors"][0]["parameter"] == parameter


async def test_the_bounds_themselves_are_inside(client):
    response = await client.post(f"{URL}?shots={MAX_SAMPLED_SHOTS}&seed={2**53 - 1}&first={2**53 - 1}&rounds=4&p=0.49")
    assert response.status_code == 200
    assert len(response.json()["observable_flips"]) == MAX_SAMPLED_SHOTS


async def test_unknown_model(client):
    response = await client.post("/v1/models/none/sample")
    assert (response.status_code, response.json()["type"]) == (404, "urn:problem-type:tandem:unknown-model")


async def test_sampling_counts_among_the_requests_at_work(serve, make, echo):
    async with serve(make, max_requests_in_flight=1) as client:
        echo.hold()
        held = asyncio.create_task(client.post("/v1/models/m/decode", json={"shots": [[0] * 72]}))
        await eventually_async(lambda: echo.batches)
        response = await client.post("/v1/models/m/sample")
        assert (response.status_code, response.json()["type"]) == (503, "urn:problem-type:tandem:busy")
        assert response.headers["retry-after"] == "1"
        echo.gate.set()
        assert (await held).status_code == 200
        assert (await client.post("/v1/models/m/sample")).status_code == 200


async def test_it_is_documented(client):
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/v1/models/{model_id}/sample"]["post"]
    assert set(operation["responses"]) == {"200", "401", "404", "422", "500", "503"}
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/SampleResponse"}
    bounds = {parameter["name"]: parameter["schema"] for parameter in operation["parameters"]}
    assert bounds["shots"]["maximum"] == MAX_SAMPLED_SHOTS
    assert bounds["rounds"]["anyOf"][0]["maximum"] == 4
