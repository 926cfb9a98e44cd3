"""Probabilities of errors that come with shots: the answers are those of the decoder of that error model."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest
import stim

from decoder.base import ErrorDecoder
from decoder.making import make_decoder
from simulation.circuits import MemoryExperiment
from simulation.faults import errors_of_dem
from simulation.shots.sampling import sample

pytestmark = pytest.mark.anyio

URL = "/v1/models/bb72-bposd/decode"
B8 = {"content-type": "application/octet-stream"}
EXPERIMENT = MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.006)
ASKED = {"rounds": 1, "p": 0.006}
PRIORS = errors_of_dem(EXPERIMENT.dem)[1]
SHOTS = sample(EXPERIMENT.circuit, shots=24, seed=9).detection_events
RANDOM = np.random.default_rng(1)
FACTORS = np.concatenate([np.ones((2, len(PRIORS))), RANDOM.choice([0.02, 6.0], (1, len(PRIORS))).repeat(22, 0)])
"""Two shots as they are, and the others of another device."""


def decoder_with(probabilities: np.ndarray) -> Any:
    """The decoder of the experiment's error model with other probabilities."""
    changed, left = stim.DetectorErrorModel(), iter(probabilities.tolist())
    for instruction in EXPERIMENT.dem.flattened():
        if instruction.type == "error":
            instruction = stim.DemInstruction("error", [next(left)], instruction.targets_copy())
        changed.append(instruction)
    return make_decoder("bposd", changed)


def expected(factors: np.ndarray) -> np.ndarray:
    """Predictions of all shots, each with its factors."""
    decoders = {row.tobytes(): decoder_with(row * PRIORS) for row in factors}
    return np.concatenate(
        [
            decoders[row.tobytes()].decode_batch(shot[None], bit_packed_shots=True)
            for row, shot in zip(factors, SHOTS, strict=True)
        ]
    )


async def decode(
    client: httpx.AsyncClient, values: np.ndarray, *, accept: str = "application/json", **query: Any
) -> Any:
    form = "all" if values.ndim == 1 else "each"
    content = SHOTS.tobytes() + values.astype("<f8").tobytes()
    params = ASKED | {"reweights": form} | query
    return await client.post(URL, params=params, content=content, headers=B8 | {"accept": accept})


async def test_answers_are_those_of_the_decoder_of_such_a_model(client):
    each = expected(FACTORS)
    plain = (await client.post(URL, params=ASKED, content=SHOTS.tobytes(), headers=B8)).content
    assert np.packbits(each, axis=1, bitorder="little").tobytes() != plain
    for values, meaning, wanted in (
        (FACTORS * PRIORS, "probabilities", each),
        (FACTORS, "factors", each),
        (FACTORS[5] * PRIORS, "probabilities", expected(FACTORS[[5] * 24])),
        (np.ones(len(PRIORS)), "factors", None),
    ):
        answer = await decode(client, values, reweights_are=meaning)
        assert answer.status_code == 200, answer.text
        if wanted is None:
            packed = np.packbits(answer.json()["predictions"], axis=1, bitorder="little")
            assert packed.astype(np.uint8).tobytes() == plain
        else:
            np.testing.assert_array_equal(answer.json()["predictions"], wanted)
        sent = {"shots_b8": base64.b64encode(SHOTS.tobytes()).decode(), "reweights": values.tolist()}
        listed = await client.post(URL, params=ASKED | {"reweights_are": meaning}, json=sent)
        assert listed.json()["predictions"] == answer.json()["predictions"]


async def test_errors_with_reweights(client):
    decoder = decoder_with(FACTORS[5] * PRIORS)
    assert isinstance(decoder, ErrorDecoder)
    found = decoder.decode_to_errors(SHOTS, bit_packed_shots=True)
    answer = (await decode(client, FACTORS[5], reweights_are="factors", errors=True)).json()
    np.testing.assert_array_equal(answer["predictions"], found.predictions)
    assert answer["errors"] == [np.flatnonzero(error).tolist() for error in found.errors]
    np.testing.assert_array_equal(answer["converged"], found.converged)


async def test_tensors_of_the_open_inference_protocol(client):
    tensor = {"name": "detection_events_b8", "datatype": "UINT8", "shape": SHOTS.shape, "data": SHOTS.ravel().tolist()}
    wanted = expected(FACTORS)
    values = {"name": "reweights", "datatype": "FP64", "shape": FACTORS.shape, "data": FACTORS.ravel().tolist()}
    body = {"inputs": [tensor, values], "parameters": ASKED | {"reweights_are": "factors"}}
    answer = await client.post("/v2/models/bb72-bposd/infer", json=body)
    assert answer.status_code == 200, answer.text
    np.testing.assert_array_equal(np.reshape(answer.json()["outputs"][0]["data"], (24, 12)), wanted)


def with_value(value: float) -> np.ndarray:
    values = np.full(len(PRIORS), 0.01)
    values[3] = value
    return values


@pytest.mark.parametrize(
    ("values", "query", "says"),
    [
        (np.full(7, 0.1), {}, "are no shots of 9 bytes with reweights behind them"),
        (np.full((24, 7), 0.1), {}, "are no shots of 9 bytes"),
        (with_value(np.nan), {}, "make nan the probability of error 3"),
        (with_value(-0.1), {}, "make -0.1 the probability of error 3"),
        (with_value(1.5), {}, "make 1.5 the probability"),
        (with_value(np.inf), {"reweights_are": "factors"}, "make inf the probability"),
        (with_value(1e4), {"reweights_are": "factors"}, "it must be from 0 to 1"),
    ],
    ids=["length", "length of each", "NaN", "negative", "above 1", "infinite", "too large a factor"],
)
async def test_what_is_refused(client, values, query, says):
    answer = await decode(client, values, **query)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (422, "invalid-shots")
    assert says in answer.json()["detail"]


LISTED: dict[str, tuple[Any, str]] = {
    "length": ([0.1] * 7, "of the shape [7]"),
    "shots": ([[0.1] * len(PRIORS)], "or [24, "),
    "ragged": ([[0.1], [0.1, 0.2]], "lists of as many numbers each"),
    "mixed": ([0.1, [0.1]], "numbers, and nothing else"),
    "words": (["0.1"] * len(PRIORS), "numbers, and nothing else"),
    "truth": ([True] * len(PRIORS), "numbers, and nothing else"),
    "nothing": ([], "of the shape [0]"),
    "digits": ([10**400] * len(PRIORS), "float64"),
}


@pytest.mark.parametrize("name", LISTED)
async def test_what_is_refused_of_json(client, name):
    listed, says = LISTED[name]
    sent = {"shots_b8": base64.b64encode(SHOTS.tobytes()).decode(), "reweights": listed}
    answer = await client.post(URL, params=ASKED, json=sent)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (422, "invalid-shots"), answer.text
    assert says in answer.json()["detail"]
    assert answer.json()["errors"][0]["pointer"] == "#/reweights"


async def test_too_many_shots_with_reweights_for_each(serve):
    """Each of them needs a decoder. With the same for all there may be as many as always."""
    async with serve(lambda model, experiment: make_decoder("bposd", experiment), max_reweighted_shots=5) as client:
        for values, status in ((FACTORS, 413), (FACTORS[0], 200)):
            content = SHOTS.tobytes() + values.astype("<f8").tobytes()
            params = {"p": 0.006, "reweights": "all" if values.ndim == 1 else "each", "reweights_are": "factors"}
            answer = await client.post("/v1/models/m/decode", params=params, content=content, headers=B8)
            assert answer.status_code == status, answer.text


def test_networks_take_none(url):
    for model, query in (("bb72", {"reweights": "all"}), ("bb72", {"reweights": "banana"})):
        answer = httpx.post(f"{url}/v1/models/{model}/decode", params=query, content=b"\0" * 300, headers=B8)
        assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "reweights")
    sent = {"shots": [[0] * 144], "reweights": [0.1]}
    answer = httpx.post(f"{url}/v1/models/bb72/decode", json=sent)
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "reweights")
    answer = httpx.post(f"{url}/v1/models/bb72-bposd/decode", params={"reweights": "all"}, json={"shots": [[0] * 144]})
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "reweights")
