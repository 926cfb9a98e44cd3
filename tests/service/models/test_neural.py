"""The shipped network, over HTTP and in a child process, answers as it does when it is asked directly."""

from __future__ import annotations

import numpy as np
import pytest

from decoder.making import NamedDecoder
from decoder.processes import ChildProcess, SoftProcessDecoder
from service.app import create_app
from service.settings import Settings, default_models
from simulation.bits import pack_bits

DECODER = "neural"
EXPERIMENT = {"basis": "X", "rounds": 2, "p": 0.005}
SHOTS = 40
URL = "/v1/models/bb72/decode"


@pytest.mark.anyio
async def test_over_http(client_of, samples, expected):
    model = next(model for model in default_models() if model.id == "bb72")
    small = model.model_copy(update={"rounds": 2})
    async with client_of(create_app(Settings(models=(small,)))) as client:
        info = (await client.get("/v1/models/bb72")).json()
        assert (info["decoder"], info["detectors"], info["gives_confidence"]) == ("neural", "XYZ", True)
        assert len(info["details"]["weights_sha256"]) == 64

        shots = samples.unpacked_detection_events().tolist()
        response = await client.post(f"{URL}?basis=X&p=0.005&flip_probabilities=true", json={"shots": shots})
        answer = response.json()
        assert np.array_equal(answer["predictions"], expected.predictions)
        assert np.allclose(answer["confidence"], expected.confidence, atol=1e-4)
        assert np.allclose(answer["flip_probabilities"], expected.flip_probabilities, atol=1e-4)

        response = await client.post(
            f"{URL}?basis=X&p=0.005&confidence=true",
            content=samples.detection_events.tobytes(),
            headers={"content-type": "application/octet-stream"},
        )
        assert response.headers["x-tandem-parts"] == "predictions=80, confidence=160"
        assert response.content[:80] == pack_bits(expected.predictions).tobytes()
        assert np.allclose(np.frombuffer(response.content[80:], "<f4"), expected.confidence, atol=1e-4)


def test_in_a_child_process(experiment, samples, expected):
    child = ChildProcess(size=1)
    try:
        decoder = child.decoder(NamedDecoder("neural"), experiment)
        assert isinstance(decoder, SoftProcessDecoder)
        decoding = decoder.decode_soft(samples.detection_events, bit_packed_shots=True)
        assert decoder.model_info["code"] == "bb72"
    finally:
        child.close()
    assert np.array_equal(decoding.predictions, expected.predictions)
    assert np.allclose(decoding.confidence, expected.confidence, atol=1e-4)
