"""The unmodified `tritonclient` as users of Triton and KServe have it, against a service behind a socket."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from decoder.base import Decoding, SoftDecoder
from decoder.making import make_decoder
from simulation.bits import pack_bits
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import Samples, sample

DECODER = "bposd"
EXPERIMENT = {"basis": "Z", "rounds": 2, "p": 0.002}
SHOTS = 40


@pytest.fixture
def client(url) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(url.removeprefix("http://"), concurrency=4) as client:
        yield client


def tensor(samples: Samples, *, form: str, binary: bool) -> triton.InferInput:
    if form == "b8":
        shots, name = samples.detection_events, "detection_events_b8"
    else:
        shots, name = (
            samples.unpacked_detection_events().astype(bool if form == "BOOL" else np.uint8),
            "detection_events",
        )
    result = triton.InferInput(name, list(shots.shape), "BOOL" if form == "BOOL" else "UINT8")
    return result.set_data_from_numpy(shots, binary_data=binary)


def test_health(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("bb72")
    assert client.is_model_ready("bb72", "1")
    assert not client.is_model_ready("bb72", "2")
    assert not client.is_model_ready("bb73")


def test_metadata(client):
    server = client.get_server_metadata()
    assert server["name"] == "tandem"
    assert server["extensions"] == ["binary_tensor_data", "model_configuration", "statistics"]
    events = {"name": "detection_events", "datatype": "BOOL", "shape": [-1, 144]}
    predictions = {"name": "predictions", "datatype": "BOOL", "shape": [-1, 12]}
    assert client.get_model_metadata("bb72-bposd", "1") == {
        "name": "bb72-bposd",
        "versions": ["1"],
        "platform": "tandem_bposd",
        "inputs": [events],
        "outputs": [predictions],
    }
    assert client.get_model_metadata("bb72")["outputs"] == [
        predictions,
        {"name": "confidence", "datatype": "FP64", "shape": [-1]},
        {"name": "flip_probabilities", "datatype": "FP32", "shape": [-1, 12]},
    ]


def test_configuration_and_index(client):
    config = client.get_model_config("bb72", "1")
    assert (config["name"], config["platform"], config["max_batch_size"]) == ("bb72", "tandem_neural", 50)
    assert config["input"] == [{"name": "detection_events", "data_type": "TYPE_BOOL", "dims": [144]}]
    dims = {output["name"]: output["dims"] for output in config["output"]}
    assert dims == {"predictions": [12], "confidence": [1], "flip_probabilities": [12]}
    assert config["parameters"]["rounds"] == {"string_value": "2"}
    found = client.get_model_repository_index()
    assert found == [
        {"name": model, "version": "1", "state": "READY", "reason": ""} for model in ("bb72", "bb72-bposd")
    ]


def test_statistics(client, samples):
    def read() -> dict:
        (found,) = client.get_inference_statistics("bb72-bposd", "1")["model_stats"]
        everything = client.get_inference_statistics()["model_stats"]
        assert [model["name"] for model in everything] == ["bb72", "bb72-bposd"]
        return found

    before = read()
    client.infer("bb72-bposd", [tensor(samples, form="b8", binary=True)])
    with pytest.raises(InferenceServerException):
        client.infer("bb72-bposd", [tensor(samples, form="b8", binary=True)], parameters={"rounds": 3})
    after = read()
    assert after["inference_count"] - before["inference_count"] == SHOTS
    assert after["execution_count"] > before["execution_count"]
    assert after["last_inference"] > before["last_inference"]
    took = {
        name: {key: value - before["inference_stats"][name][key] for key, value in duration.items()}
        for name, duration in after["inference_stats"].items()
    }
    assert [took[name]["count"] for name in ("success", "fail", "queue")] == [1, 1, 1]
    assert took["compute_infer"]["count"] == after["execution_count"] - before["execution_count"]
    assert took["success"]["ns"] > took["queue"]["ns"] + took["compute_infer"]["ns"] > 0


@pytest.mark.parametrize("answer_binary", [True, False])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("form", ["BOOL", "UINT8", "b8"])
def test_answers_are_those_of_the_decoder_bit_for_bit(client, samples, expected, form, binary, answer_binary):
    outputs = [
        triton.InferRequestedOutput("predictions_b8", binary_data=answer_binary),
        triton.InferRequestedOutput("predictions", binary_data=answer_binary),
    ]
    inputs = [tensor(samples, form=form, binary=binary)]
    result = client.infer("bb72-bposd", inputs, outputs=outputs, model_version="1", request_id="shots of today")
    predictions = result.as_numpy("predictions")
    assert predictions.dtype == np.bool_
    np.testing.assert_array_equal(predictions, expected)
    np.testing.assert_array_equal(result.as_numpy("predictions_b8"), pack_bits(expected))
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("shots of today", "bb72-bposd", "1")
    assert [output["name"] for output in response["outputs"]] == ["predictions_b8", "predictions"]


def test_without_outputs_the_answer_holds_what_the_metadata_says(client, samples, expected):
    inputs = [tensor(samples, form="BOOL", binary=True)]
    result = client.infer("bb72-bposd", inputs)
    np.testing.assert_array_equal(result.as_numpy("predictions"), expected)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["predictions"]
    result = client.infer("bb72", inputs)
    names = [output["name"] for output in client.get_model_metadata("bb72")["outputs"]]
    assert [output["name"] for output in result.get_response()["outputs"]] == names


def test_the_network_and_its_probabilities_for_another_experiment(client):
    experiment = MemoryExperiment.create(code="bb72", basis="X", rounds=3, p=0.005)
    samples = sample(experiment.circuit, shots=40, seed=2)
    decoder = make_decoder("neural", experiment)
    assert isinstance(decoder, SoftDecoder)
    direct: Decoding = decoder.decode_soft(samples.detection_events, bit_packed_shots=True)
    inputs = [tensor(samples, form="b8", binary=True)]
    result = client.infer("bb72", inputs, parameters={"basis": "X", "rounds": 3, "p": 0.005})
    np.testing.assert_array_equal(result.as_numpy("predictions"), direct.predictions)
    np.testing.assert_allclose(result.as_numpy("confidence"), direct.confidence, atol=1e-4)
    np.testing.assert_allclose(result.as_numpy("flip_probabilities"), direct.flip_probabilities, atol=1e-4)
    assert result.as_numpy("confidence").dtype == np.float64
    assert result.as_numpy("flip_probabilities").dtype == np.float32


def test_requests_at_once(client, samples, expected):
    inputs = [tensor(samples, form="b8", binary=True)]
    waiting = [client.async_infer("bb72-bposd", inputs, request_id=str(index)) for index in range(8)]
    for index, request in enumerate(waiting):
        result = request.get_result()
        assert result.get_response()["id"] == str(index)
        np.testing.assert_array_equal(result.as_numpy("predictions"), expected)


@pytest.mark.anyio
async def test_the_asyncio_client(url, samples, expected):
    async with triton_aio.InferenceServerClient(url.removeprefix("http://")) as client:
        assert await client.is_server_ready()
        inputs = [tensor(samples, form="UINT8", binary=False)]
        result = await client.infer("bb72-bposd", inputs, request_id="7")
        np.testing.assert_array_equal(result.as_numpy("predictions"), expected)
        with pytest.raises(InferenceServerException, match="bb73"):
            await client.infer("bb73", inputs)


def test_errors(client, samples):
    good = [tensor(samples, form="b8", binary=True)]

    def fails(status: int, says: str, *, model: str = "bb72-bposd", inputs=good, **options) -> None:
        with pytest.raises(InferenceServerException, match=says) as caught:
            client.infer(model, inputs, **options)
        assert caught.value.status() == str(status)

    fails(404, "there is no model 'bb73'", model="bb73")
    fails(404, "there is no version '2'", model_version="2")
    fails(400, "rounds", parameters={"rounds": 5})  # more than the settings allow
    fails(400, "basis", parameters={"basis": "Y"})
    fails(400, "round", parameters={"round": 2})
    fails(400, "timeout", timeout=1000)
    fails(400, "216 detectors", parameters={"rounds": 3})
    fails(400, "gives no confidence", outputs=[triton.InferRequestedOutput("confidence")])
    fails(400, "outputs", outputs=[triton.InferRequestedOutput("prediction")])
    fails(415, "'deflate' is not known", request_compression_algorithm="deflate")
    many = np.zeros((51, 18), dtype=np.uint8)
    wrong = triton.InferInput("detection_events_b8", [51, 18], "UINT8").set_data_from_numpy(many)
    fails(413, "at most 50", inputs=[wrong])
    shared = triton.InferInput("detection_events_b8", [1, 18], "UINT8").set_shared_memory("mine", 18)
    fails(400, "shared_memory", inputs=[shared])
    floats = np.zeros((1, 144), dtype=np.float32)
    fails(400, "datatype", inputs=[triton.InferInput("detection_events", [1, 144], "FP32").set_data_from_numpy(floats)])
    assert client.infer("bb72-bposd", good).as_numpy("predictions").shape == (40, 12)
