"""POST /v1/models/{id}/decode: its three forms, what it refuses, and what many clients at once get."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable

import numpy as np
import pytest

from decoder.base import Decoding
from decoder.making import make_decoder
from service.wire.schemas import DecodeResponse
from simulation.bits import pack_bits
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample
from tests.helpers import eventually_async

pytestmark = pytest.mark.anyio

DECODER = "bposd"
EXPERIMENT = {"basis": "Z", "rounds": 2, "p": 0.002}
SHOTS = 60
URL = "/v1/models/bb72-bposd/decode"
B8 = {"content-type": "application/octet-stream"}
NUM_DETECTORS, NUM_OBSERVABLES = 144, 12


def kind(response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    return response.json()["type"].rpartition(":")[2]


async def test_lists(client, samples, expected):
    response = await client.post(URL, json={"shots": samples.unpacked_detection_events().astype(int).tolist()})
    assert response.status_code == 200
    answer = DecodeResponse.model_validate_json(response.content, strict=True)
    assert np.array_equal(answer.predictions, expected)
    assert answer.model == "bb72-bposd"
    assert answer.num_shots == 60
    assert answer.confidence is None
    assert answer.flip_probabilities is None
    assert answer.queue_seconds >= 0
    assert answer.compute_seconds > 0


async def test_booleans_are_bits_too(client, samples, expected):
    response = await client.post(URL, json={"shots": samples.unpacked_detection_events()[:5].tolist()})
    assert np.array_equal(response.json()["predictions"], expected[:5])


@pytest.mark.parametrize("count", [{}, {"num_shots": 60}])
async def test_base64(client, samples, expected, count):
    encoded = base64.b64encode(samples.detection_events.tobytes()).decode()
    response = await client.post(URL, json={"shots_b8": encoded, **count})
    assert np.array_equal(response.json()["predictions"], expected)


async def test_b8(client, samples, expected):
    response = await client.post(URL, content=samples.detection_events.tobytes(), headers=B8)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["x-tandem-num-shots"] == "60"
    assert response.headers["x-tandem-model"] == "bb72-bposd"
    assert response.headers["x-tandem-parts"] == "predictions=120"
    timing = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
    assert float(timing["queue"]) >= 0
    assert float(timing["compute"]) > 0
    assert response.content == pack_bits(expected).tobytes()


async def test_accept_chooses_the_form_of_the_answer(client, samples, expected):
    data = samples.detection_events.tobytes()
    as_json = await client.post(URL, content=data, headers=B8 | {"accept": "application/json"})
    assert np.array_equal(as_json.json()["predictions"], expected)
    encoded = {"shots_b8": base64.b64encode(data).decode()}
    as_b8 = await client.post(URL, json=encoded, headers={"accept": "application/octet-stream"})
    assert as_b8.content == pack_bits(expected).tobytes()
    neither = await client.post(URL, content=data, headers=B8 | {"accept": "text/html"})
    assert (neither.status_code, kind(neither)) == (406, "not-acceptable")


async def test_the_parameters_choose_the_experiment(client):
    experiment = MemoryExperiment.create(code="bb72", basis="X", rounds=3, p=0.004)
    samples = sample(experiment.circuit, shots=20, seed=3)
    response = await client.post(
        f"{URL}?basis=X&rounds=3&p=0.004", content=samples.detection_events.tobytes(), headers=B8
    )
    decoder = make_decoder("bposd", experiment)
    expected = decoder.decode_batch(samples.detection_events, bit_packed_shots=True, bit_packed_predictions=True)
    assert response.content == expected.tobytes()


class Sure:
    """A decoder with probabilities: as sure as many detectors are quiet."""

    def __init__(self, experiment: MemoryExperiment) -> None:
        self.num_detectors, self.num_observables = experiment.num_detectors, experiment.num_observables

    def decode_batch(self, shots, *, bit_packed_shots=False, bit_packed_predictions=False):
        raise AssertionError("decode_soft says more")

    def decode_soft(self, shots, *, bit_packed_shots=False):
        bits = np.unpackbits(shots, axis=1, count=self.num_detectors, bitorder="little").astype(np.bool_)
        quiet = 1 - bits.mean(axis=1, dtype=np.float32)
        return Decoding(bits[:, :12], quiet, (np.outer(quiet, np.arange(12)) / 12).astype(np.float32))


async def test_probabilities(serve):
    async with serve(lambda model, experiment: Sure(experiment)) as client:
        assert (await client.get("/v1/models/m")).json()["gives_confidence"] is True
        shots = [[1, 0, 1] * 24, [0] * 72]
        sure = np.array([1 / 3, 1], np.float32)
        flips = np.outer(sure, np.arange(12)).astype(np.float32) / 12

        answer = (await client.post("/v1/models/m/decode", json={"shots": shots})).json()
        assert np.allclose(answer["confidence"], sure)
        assert answer["flip_probabilities"] is None
        answer = (await client.post("/v1/models/m/decode?flip_probabilities=true", json={"shots": shots})).json()
        assert np.allclose(answer["flip_probabilities"], flips)
        answer = (await client.post("/v1/models/m/decode?confidence=false", json={"shots": shots})).json()
        assert answer["confidence"] is None

        b8 = {"accept": "application/octet-stream"}
        plain = await client.post("/v1/models/m/decode", json={"shots": shots}, headers=b8)
        assert plain.headers["x-tandem-parts"] == "predictions=4"
        url = "/v1/models/m/decode?confidence=true&flip_probabilities=true"
        full = await client.post(url, json={"shots": shots}, headers=b8)
        assert full.headers["x-tandem-parts"] == "predictions=4, confidence=8, flip_probabilities=96"
        assert full.content[:4] == plain.content
        assert np.allclose(np.frombuffer(full.content[4:], "<f4"), np.concatenate([sure, flips.ravel()]))


@pytest.mark.parametrize(("shots", "loud"), [(20, 8), (20, 7), (19, 72)], ids=["unsure", "sure", "few"])
async def test_shots_that_are_hardly_the_experiments_are_warned_of(serve, shots, loud):
    """Below a mean confidence of 0.9, which is here that 7.2 of 72 detectors fire, of at least 20 shots."""
    async with serve(lambda model, experiment: Sure(experiment)) as client:
        body = {"shots": [[1] * loud + [0] * (72 - loud)] * shots}
        answer = await client.post("/v1/models/m/decode", json=body)
        b8 = await client.post("/v1/models/m/decode", json=body, headers={"accept": "application/octet-stream"})
    warning = answer.json().get("warning")
    assert b8.headers.get("x-tandem-warning") == warning
    if (shots, loud) == (20, 8):
        assert warning.startswith("the mean confidence is 0.89, where shots of this experiment have 0.9")
    else:
        assert warning is None


async def test_shots_of_a_noisy_experiment_are_not_warned_of(serve):
    """It is as unsure of all that are sampled of it."""
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.05)
    shots = sample(experiment.circuit, shots=40, seed=3)
    async with serve(lambda model, experiment: Sure(experiment)) as client:
        for p, warned in ((0.05, False), (0.001, True)):
            sent = {"shots": shots.unpacked_detection_events().astype(int).tolist()}
            answer = (await client.post("/v1/models/m/decode", params={"p": p}, json=sent)).json()
            assert np.mean(answer["confidence"]) < 0.9
            assert ("warning" in answer) == warned


async def test_parts_that_a_decoder_does_not_have_are_left_out(client):
    response = await client.post(f"{URL}?confidence=true", content=bytes(18), headers=B8)
    assert response.headers["x-tandem-parts"] == "predictions=2"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"shots": [[0] * NUM_DETECTORS, [0] * 143 + [2]]}, "#/shots/1/143"),
        ({"shots": [[0] * 143 + ["1"]]}, "#/shots/0/143"),
        ({"shots": [[0] * 143 + [0.5]]}, "#/shots/0/143"),
        ({"shots": [[0] * 143 + [None]]}, "#/shots/0/143"),
        ({"shots": [[0] * NUM_DETECTORS, [0] * 143]}, "#/shots/1"),
        ({"shots": [[]]}, "#/shots/0"),
        ({"shots": []}, "#/shots"),
        ({"shots": None}, "#/shots"),
        ({"shots": [0] * NUM_DETECTORS}, "#/shots/0"),
        ({"shots_b8": "not base64!"}, "#/shots_b8"),
        ({"shots_b8": "aé=="}, "#/shots_b8"),
        ({"shots_b8": base64.b64encode(bytes(36)).decode(), "num_shots": 3}, "#/num_shots"),
        ({"shots_b8": base64.b64encode(bytes(36)).decode(), "num_shots": 0}, "#/num_shots"),
        ({"shots": [[0] * NUM_DETECTORS], "shots_b8": ""}, "#"),
        ({"shots": [[0] * NUM_DETECTORS], "num_shots": 1}, "#"),
        ({"shots": [[0] * NUM_DETECTORS], "shot": 1}, "#"),
        ({}, "#"),
        ([], "#"),
    ],
)
async def test_wrong_json(client, body, pointer):
    response = await client.post(URL, json=body)
    assert (response.status_code, kind(response)) == (422, "invalid-shots")
    assert response.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("body", [b"", b"{", b'{"shots": [[0,', b"\xff\xfe", b"NaN"])
async def test_what_is_no_json(client, body):
    response = await client.post(URL, content=body, headers={"content-type": "application/json"})
    assert (response.status_code, kind(response)) == (422, "invalid-shots")


async def test_millions_of_wrong_values_are_one_message(client):
    response = await client.post(URL, json={"shots": [[2] * NUM_DETECTORS] * 5000})
    assert response.status_code == 422
    assert len(response.json()["errors"]) == 1


MANY_NAMES = json.dumps({f"name{index}": 0 for index in range(200_000)})


@pytest.mark.timing
async def test_many_unknown_names_take_no_time(client):
    started = time.process_time()
    await client.post(URL, content=MANY_NAMES, headers={"content-type": "application/json"})
    assert time.process_time() - started < 0.6  # an error each takes more than a second


async def test_many_unknown_names_are_one_error(client):
    response = await client.post(URL, content=MANY_NAMES, headers={"content-type": "application/json"})
    assert (response.status_code, kind(response)) == (422, "invalid-shots")
    (error,) = response.json()["errors"]
    assert "there is no 'name0'; known are shots" in error["detail"]


@pytest.mark.parametrize(
    ("length", "says"), [(0, "no shots"), (17, "18"), (19, "18"), (40, "observables were appended")]
)
async def test_b8_of_the_wrong_length(client, length, says):
    response = await client.post(URL, content=bytes(length), headers=B8)
    assert (response.status_code, kind(response)) == (422, "invalid-shots")
    assert says in response.json()["detail"]


async def test_bits_past_the_last_detector(serve):
    """A code of 3 x 3 cells has 18 detectors after one round: its shots end inside a byte."""
    async with serve(lambda model, experiment: make_decoder("bposd", experiment), code="3,3,1+x+y,1+x+y") as c:
        num_detectors = (await c.get("/v1/models/m")).json()["experiment"]["num_detectors"]
        assert num_detectors == 18
        good = bytes(-(-num_detectors // 8))
        assert (await c.post("/v1/models/m/decode", content=good, headers=B8)).status_code == 200
        response = await c.post("/v1/models/m/decode", content=good[:-1] + b"\x80", headers=B8)
        assert (response.status_code, kind(response)) == (422, "invalid-shots")
        assert "past" in response.json()["detail"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", None])
async def test_other_media_types(client, content_type):
    headers = {} if content_type is None else {"content-type": content_type}
    response = await client.post(URL, content=bytes(18), headers=headers)
    assert (response.status_code, kind(response)) == (415, "unsupported-media-type")


async def test_media_types_may_have_parameters(client):
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    response = await client.post(URL, content=b'{"shots": [[%s]]}' % b",".join([b"0"] * 144), headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("form", ["json", "b8"])
async def test_many_clients_each_get_the_right_answer(client, samples, expected, form):
    events = samples.detection_events

    async def ask(begin: int, end: int) -> None:
        if form == "json":
            shots = samples.unpacked_detection_events()[begin:end].astype(int).tolist()
            answer = (await client.post(URL, json={"shots": shots})).json()["predictions"]
            assert np.array_equal(answer, expected[begin:end])
        else:
            response = await client.post(URL, content=events[begin:end].tobytes(), headers=B8)
            assert response.content == pack_bits(expected[begin:end]).tobytes()

    await asyncio.gather(*(ask(begin, min(60, begin + 1 + begin % 4)) for begin in range(0, 60)))


async def test_requests_that_come_while_one_is_decoded_share_a_batch(serve, make, echo, shots_of: Callable):
    async with serve(make) as client:
        shots = shots_of(31, num_detectors=72)

        async def ask(index: int) -> None:
            response = await client.post("/v1/models/m/decode", json={"shots": shots[[index]].tolist()})
            assert np.array_equal(response.json()["predictions"], shots[[index], :12])

        async def all_wait() -> bool:
            return 'tandem_queued_shots{model="m"} 30.0' in (await client.get("/metrics")).text

        echo.hold()
        first = asyncio.create_task(ask(0))
        await eventually_async(lambda: echo.batches)
        rest = [asyncio.create_task(ask(index)) for index in range(1, 31)]
        await eventually_async(all_wait)
        echo.gate.set()
        await asyncio.gather(first, *rest)
        assert echo.batches == [1, 30]


async def test_a_decoder_that_raises_fails_only_its_batch(serve, make, caplog):
    async with serve(make) as client:
        response = await client.post("/v1/models/m/decode", json={"shots": [[0] * 71 + [1]]})
        assert (response.status_code, kind(response)) == (500, "decoder-failed")
        assert "cannot bear" not in response.text
        assert "cannot bear" in caplog.text
        assert (await client.post("/v1/models/m/decode", json={"shots": [[0] * 72]})).status_code == 200
