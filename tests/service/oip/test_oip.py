"""What of the Open Inference Protocol a well-behaved client does not show: bodies by hand, refusals, counts."""

from __future__ import annotations

import asyncio
import json
import threading

import numpy as np
import pytest

from decoder.base import Decoding
from decoder.making import make_decoder
from service.oip.requests import HEADER_LENGTH
from tests.helpers import eventually_async

pytestmark = pytest.mark.anyio

URL = "/v2/models/m/infer"
NUM_DETECTORS = 72  # bb72, one round
QUIET = {"name": "detection_events_b8", "shape": [1, 9], "datatype": "UINT8", "data": [0] * 9}


@pytest.fixture
async def served(serve, make):
    async with serve(make, max_shots_per_request=5) as client:
        yield client


def events(values, shape=None, **changes) -> dict:
    shape = list(np.shape(values)) if shape is None else shape
    return {"name": "detection_events", "shape": shape, "datatype": "BOOL", "data": values} | changes


def error_of(response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    return response.json()["error"]


@pytest.mark.parametrize("form", ["flat", "nested", "numbers"])
async def test_json_tensors(served, shots_of, form):
    shots = shots_of(3, num_detectors=NUM_DETECTORS)
    values = {"flat": shots.ravel(), "nested": shots, "numbers": shots.astype(int)}[form].tolist()
    response = await served.post(URL, json={"inputs": [events(values, [3, NUM_DETECTORS])]})
    assert response.headers["content-type"] == "application/json"
    (output,) = response.json().pop("outputs")
    assert output == {
        "name": "predictions",
        "datatype": "BOOL",
        "shape": [3, 12],
        "data": shots[:, :12].ravel().tolist(),
    }
    assert set(response.json()) == {"model_name", "model_version", "outputs"}


async def test_outputs_binary_and_not_in_one_answer(served, shots_of):
    shots = shots_of(3, num_detectors=NUM_DETECTORS)
    outputs = [
        {"name": "predictions_b8"},
        {"name": "predictions", "parameters": {"binary_data": False}},
    ]
    request = {
        "inputs": [events(shots.tolist())],
        "outputs": outputs,
        "parameters": {"binary_data_output": True},
    }
    response = await served.post(URL, json=request)
    length = int(response.headers[HEADER_LENGTH])
    packed, plain = json.loads(response.content[:length])["outputs"]
    assert packed["parameters"] == {"binary_data_size": 6}
    assert "data" not in packed
    assert plain["data"] == shots[:, :12].ravel().tolist()
    predictions = np.frombuffer(response.content[length:], np.uint8).reshape(3, 2)
    np.testing.assert_array_equal(np.unpackbits(predictions, axis=1, count=12, bitorder="little"), shots[:, :12])


class Exact:
    """A decoder whose probabilities have digits that neither float32 nor a shortened text would keep."""

    def __init__(self, experiment) -> None:
        self.num_detectors, self.num_observables = experiment.num_detectors, experiment.num_observables

    def decode_batch(self, shots, *, bit_packed_shots=False, bit_packed_predictions=False):
        raise AssertionError("decode_soft says more")

    def decode_soft(self, shots, *, bit_packed_shots=False):
        count = len(shots)
        confidence = 1 - 1e-12 / np.arange(3, 3 + count)
        flips = (np.arange(1, 1 + count * 12) / 777).astype(np.float32).reshape(count, 12)
        return Decoding(np.zeros((count, 12), dtype=np.bool_), confidence, flips)


@pytest.mark.parametrize("binary", [True, False])
async def test_probabilities_to_the_last_bit(serve, binary):
    async with serve(lambda model, experiment: Exact(experiment)) as client:
        request = {
            "inputs": [QUIET | {"shape": [4, 9], "data": [0] * 36}],
            "parameters": {"binary_data_output": binary},
        }
        response = await client.post(URL, json=request)
    length = int(response.headers.get(HEADER_LENGTH, len(response.content)))
    rest = response.content[length:]
    _, confidence, flips = json.loads(response.content[:length])["outputs"]
    if binary:
        assert len(rest) == 48 + 32 + 192
        sent = np.frombuffer(rest[48:80], "<f8"), np.frombuffer(rest[80:], "<f4").reshape(4, 12)
    else:
        sent = np.array(confidence["data"]), np.array(flips["data"], np.float32).reshape(4, 12)
    direct = Exact(type("Sizes", (), {"num_detectors": 72, "num_observables": 12})).decode_soft(np.zeros((4, 9)))
    np.testing.assert_array_equal(sent[0], direct.confidence)
    np.testing.assert_array_equal(sent[1], direct.flip_probabilities)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff", "JSON"),
        (b"[" * 1000, "JSON"),
        ([], "object"),
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [QUIET, QUIET]}, "inputs"),
        ({"inputs": [QUIET], "output": []}, "output"),
        ({"inputs": [QUIET], "id": 7}, "id"),
        ({"inputs": [QUIET | {"name": "shots"}]}, "detection_events"),
        ({"inputs": [QUIET | {"datatype": "INT8"}]}, "UINT8"),
        ({"inputs": [QUIET | {"datatype": "BOOL"}]}, "UINT8"),
        ({"inputs": [QUIET | {"shape": [9]}]}, "shape"),
        ({"inputs": [QUIET | {"shape": [1, 1, 9]}]}, "shape"),
        ({"inputs": [QUIET | {"shape": [1, 10]}]}, r"[shots, 9]"),
        ({"inputs": [QUIET | {"shape": [9, 1]}]}, r"[shots, 9]"),
        ({"inputs": [QUIET | {"shape": [0, 9], "data": []}]}, "at least one shot"),
        ({"inputs": [QUIET | {"shape": [-1, 9]}]}, "at least one shot"),
        ({"inputs": [QUIET | {"shape": ["1", 9]}]}, "shape"),
        ({"inputs": [QUIET | {"shape": [2, 9]}]}, "18"),
        ({"inputs": [QUIET | {"shape": [10**30, 9]}]}, "shape"),
        ({"inputs": [QUIET | {"data": [0] * 8 + [256]}]}, "255"),
        ({"inputs": [QUIET | {"data": [0] * 8 + [-1]}]}, "255"),
        ({"inputs": [QUIET | {"data": [0] * 8 + [10**30]}]}, "255"),
        ({"inputs": [QUIET | {"data": [0] * 8 + [0.0]}]}, "whole numbers"),
        ({"inputs": [QUIET | {"data": [0] * 8 + ["0"]}]}, "whole numbers"),
        ({"inputs": [QUIET | {"data": [0] * 8 + [None]}]}, "whole numbers"),
        ({"inputs": [QUIET | {"data": [[0] * 8, [0]]}]}, "lists"),
        ({"inputs": [QUIET | {"data": [[[0]] * 9]}]}, "whole numbers"),
        ({"inputs": [{key: QUIET[key] for key in ("name", "shape", "datatype")}]}, "either data or"),
        ({"inputs": [QUIET | {"parameters": {"binary_data_size": 9}}]}, "either data or"),
        ({"inputs": [QUIET | {"parameters": {"content_type": "np"}}]}, "content_type"),
        ({"inputs": [events([[0] * 71 + [2]])]}, "shot 0 holds 2 at detector 71"),
        ({"inputs": [events([[0] * 71])]}, r"[shots, 72]"),
        ({"inputs": [events([[0] * 72], datatype="FP32")]}, "datatype"),
        ({"inputs": [QUIET], "outputs": [{"name": "prediction"}]}, "outputs"),
        ({"inputs": [QUIET], "outputs": [{"name": "predictions"}] * 2}, "twice"),
        ({"inputs": [QUIET], "outputs": [{"name": "confidence"}]}, "gives no confidence"),
        ({"inputs": [QUIET], "outputs": [{"name": "predictions", "parameters": {"classification": 2}}]}, "classif"),
        ({"inputs": [QUIET], "parameters": {"basis": "Y"}}, "basis"),
        ({"inputs": [QUIET], "parameters": {"rounds": 0}}, "rounds"),
        ({"inputs": [QUIET], "parameters": {"rounds": True}}, "rounds"),
        ({"inputs": [QUIET], "parameters": {"rounds": 41}}, "rounds=41"),
        ({"inputs": [QUIET], "parameters": {"p": 0.5}}, "p"),
        ({"inputs": [QUIET], "parameters": {"p": "0.1"}}, "p"),
        ({"inputs": [QUIET], "parameters": {"sequence_id": 1}}, "sequence_id"),
        ({"inputs": [QUIET], "model_name": "n"}, "the URL means 'm'"),
        ({"inputs": [QUIET], "model_version": "2"}, "the URL means '1'"),
        (b'{"inputs": [], "id": "a", "id": "b"}', "id"),
    ],
)
async def test_what_is_refused(served, body, says):
    content = body if isinstance(body, bytes) else json.dumps(body)
    message = error_of(await served.post(URL, content=content), 400)
    assert says in message
    assert len(message) < 400
    assert (await served.post(URL, json={"inputs": [QUIET]})).status_code == 200


@pytest.mark.parametrize("where", ["", "parameters", "inputs"])
async def test_many_unknown_names_are_one_error(served, where):
    """pydantic would list them all."""
    names = {f"name{index}": 0 for index in range(50_000)}
    body = {"": {"inputs": [QUIET]} | names, "parameters": {"inputs": [QUIET], "parameters": names}}
    body["inputs"] = {"inputs": [QUIET | names]}
    message = error_of(await served.post(URL, json=body[where]), 400)
    assert "there is no 'name0'; known are" in message


async def test_bits_past_the_last_detector(serve):
    """A code of 3 x 3 cells has 18 detectors after one round: its shots end inside a byte."""
    async with serve(lambda model, experiment: make_decoder("bposd", experiment), code="3,3,1+x+y,1+x+y") as client:
        good = QUIET | {"shape": [1, 3], "data": [0, 0, 0]}
        assert (await client.post(URL, json={"inputs": [good]})).status_code == 200
        response = await client.post(URL, json={"inputs": [good | {"data": [0, 0, 128]}]})
        assert "past" in error_of(response, 400)


def with_binary(tensor: dict, binary: bytes, **request) -> tuple[bytes, dict[str, str]]:
    header = json.dumps({"inputs": [tensor], **request}).encode()
    return header + binary, {HEADER_LENGTH: str(len(header))}


BINARY = {"name": "detection_events", "shape": [1, 72], "datatype": "BOOL", "parameters": {"binary_data_size": 72}}


async def test_binary_tensors_of_the_wrong_length(served):
    content, headers = with_binary(BINARY, bytes(72))
    assert (await served.post(URL, content=content, headers=headers)).status_code == 200
    for binary in (b"", bytes(71), bytes(73)):
        content, headers = with_binary(BINARY, binary)
        assert "72" in error_of(await served.post(URL, content=content, headers=headers), 400)
    content, headers = with_binary(BINARY | {"parameters": {"binary_data_size": 71}}, bytes(71))
    assert "71 values" in error_of(await served.post(URL, content=content, headers=headers), 400)
    content, headers = with_binary(BINARY, bytes(71) + b"\x02")
    assert "detector 71" in error_of(await served.post(URL, content=content, headers=headers), 400)
    content, _ = with_binary(BINARY, bytes(72))
    error_of(await served.post(URL, content=content), 400)  # where the JSON ends is not said
    for length in ("-1", "0", "1_0", "+9", "x", "", str(len(content) + 1), "9" * 5000):
        response = await served.post(URL, content=content, headers={HEADER_LENGTH: length})
        assert HEADER_LENGTH in error_of(response, 400)


@pytest.mark.parametrize("version", ["", "/versions/1"])
async def test_too_much(served, version):
    url = f"/v2/models/m{version}/infer"
    many = QUIET | {"shape": [6, 9], "data": [0] * 54}
    assert "at most 5" in error_of(await served.post(url, json={"inputs": [many]}), 413)


async def test_a_deadline(serve, make, echo):
    async with serve(make, decode_timeout_seconds=600) as client:
        echo.hold()
        held = asyncio.create_task(client.post(URL, json={"inputs": [QUIET]}))
        await eventually_async(lambda: echo.batches)
        late = await client.post(URL, json={"inputs": [QUIET], "parameters": {"timeout_ms": 100}})
        assert "100 ms" in error_of(late, 504)
        echo.gate.set()
        assert (await held).status_code == 200
        assert (await client.post(URL, json={"inputs": [QUIET], "parameters": {"timeout_ms": 600_000}})).is_success
        for wrong in (0, 600_001, "100", 1.5):
            response = await client.post(URL, json={"inputs": [QUIET], "parameters": {"timeout_ms": wrong}})
            assert "timeout_ms" in error_of(response, 400)
        assert echo.batches == [1, 1]


async def test_bounds_are_those_of_the_native_api(serve, make, echo):
    async with serve(make, max_requests_in_flight=1, max_body_bytes=500) as client:
        long = {"inputs": [QUIET], "id": "x" * 500}
        assert "500 bytes" in error_of(await client.post(URL, json=long), 413)
        echo.hold()
        held = asyncio.create_task(client.post(URL, json={"inputs": [QUIET]}))
        await eventually_async(lambda: echo.batches)
        native = await client.post("/v1/models/m/decode", json={"shots": [[0] * 72]})
        assert native.status_code == 503
        response = await client.post(URL, json={"inputs": [QUIET]})
        error_of(response, 503)
        assert response.headers["retry-after"] == native.headers["retry-after"] == "1"
        echo.gate.set()
        assert (await held).status_code == 200


async def test_a_decoder_that_raises_names_the_occurrence(served, caplog):
    message = error_of(await served.post(URL, json={"inputs": [events([[0] * 71 + [1]])]}), 500)
    assert "cannot bear" not in message
    assert message.rpartition("(")[2].removesuffix(")") in caplog.text


async def test_a_model_that_the_body_names_too(served):
    """As KServe's Python client does, whatever it sends."""
    body = {"inputs": [QUIET], "model_name": "m", "model_version": "1"}
    assert (await served.post(URL, json=body)).status_code == 200


async def test_a_query_is_refused(served):
    """It chose nothing, and its author thought otherwise."""
    for query in ("basis=X", "rounds=banana"):
        assert "parameters" in error_of(await served.post(f"{URL}?{query}", json={"inputs": [QUIET]}), 400)


async def test_readiness(serve, make, echo):
    echo.gate.clear()
    paths = ("/v2/health/ready", "/v2/models/m/ready", "/v2/models/m/versions/1/ready", "/v2/models/m")
    async with serve(make, wait_until_ready=False) as client:
        assert (await client.get("/v2/health/live")).json() == {"live": True}
        for path in paths:
            error_of(await client.get(path), 503)
        error_of(await client.post(URL, json={"inputs": [QUIET]}), 503)

        async def ready() -> bool:
            return (await client.get("/v2/health/ready")).is_success

        echo.gate.set()
        await eventually_async(ready)
        assert (await client.get("/v2/health/ready")).json() == {"ready": True}
        for path in paths[1:3]:
            assert (await client.get(path)).json() == {"name": "m", "ready": True}
        failures = (await client.get("/metrics")).text
        assert 'tandem_failures_total{model="m",reason="not-ready"} 2.0' in failures  # metadata and infer, not probes


@pytest.mark.parametrize(
    "path",
    [
        "/v2/",
        "/v2/nothing",
        "/v2/models",
        "/v2/models/",
        "/v2/models/m/",
        "/v2//models/m",
        "/v2/models/m/infer/../ready/",
        "/v2/models/..%2fm",
        "/v2/models/m%2Fready%2F",
        "/v2/models/%2e%2e/%2e%2e/healthz",
        "/v2/models/m%00",
        "/v2/models/m/versions/1%00",
        "/v2/models/m/versions/01",
        "/v2/models/m/versions//ready",
        "/v2/models/M",
    ],
)
async def test_paths_that_lead_nowhere(served, path):
    error_of(await served.get(path), 404)


async def test_other_methods(served):
    response = await served.get(URL)
    error_of(response, 405)
    assert response.headers["allow"] == "POST"


async def test_requests_count_as_those_of_the_native_api(served):
    assert (await served.post(URL, json={"inputs": [QUIET]})).status_code == 200
    error_of(await served.post(URL, json={"inputs": []}), 400)
    error_of(await served.get("/v2/models/unknown-1"), 404)
    text = (await served.get("/metrics")).text
    assert 'tandem_requests_total{model="m"} 2.0' in text
    assert 'tandem_shots_total{model="m"} 1.0' in text
    assert 'tandem_failures_total{model="m",reason="invalid-shots"} 1.0' in text
    assert 'tandem_failures_total{model="",reason="unknown-model"} 1.0' in text
    assert "unknown-1" not in text


async def test_the_index_while_models_are_loaded(serve, echo):
    made = threading.Event()

    def make(model, experiment):
        made.wait()
        return echo.make(model, experiment)

    async with serve(make, wait_until_ready=False) as client:
        try:
            response = await client.post("/v2/repository/index")
            assert [(model["name"], model["state"]) for model in response.json()] == [("m", "LOADING")]
            assert (await client.post("/v2/repository/index", json={"ready": True})).json() == []
        finally:
            made.set()
        await eventually_async(lambda: client.get("/v2/models/m/ready"))
        for wrong in (b"[]", b'{"ready": 1}', b'{"load": true}', b"{"):
            error_of(await client.post("/v2/repository/index", content=wrong), 400)
        error_of(await client.post("/v2/repository/index", content=bytes(5000)), 413)
