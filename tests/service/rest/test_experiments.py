"""Circuits and error models that clients send, and then decode by their ids."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import stim
from pydantic import SecretStr
from websockets import Subprotocol
from websockets.asyncio.client import connect

from decoder.base import ErrorDecoder
from decoder.making import make_decoder
from service.app import create_app
from service.settings import ModelSettings, Settings
from simulation.bits import pack_bits, unpack_bits
from simulation.circuits import MemoryExperiment
from simulation.foreign.experiment import Source
from simulation.foreign.layers import layer_of_detectors
from simulation.shots.sampling import sample
from tests.helpers import PATIENCE_SECONDS
from tests.simulation.renaming import renamed

ALICE, BOB = "alice-0123456789abcdef", "bob-0123456789abcdef"
MOST_BYTES = 100_000
MOST_EXPERIMENTS = 10


def surface_code(*, rounds: int = 3, p: float = 0.01) -> stim.Circuit:
    return stim.Circuit.generated(
        "surface_code:rotated_memory_z",
        distance=3,
        rounds=rounds,
        after_clifford_depolarization=p,
        before_measure_flip_probability=p,
    )


CIRCUIT = surface_code()
SHUFFLED = stim.DetectorErrorModel("""
    error(0.1) D2
    error(0.2) D0 D1 L0
    error(0.1) D0 D2
    detector(0, 0, 1) D0
    detector(0, 0, 0) D1
    detector(1, 0, 0) D2
""")
"""Layers that are not in the order of the detectors."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(scope="module")
def url(listen, directory) -> Iterator[str]:
    model = ModelSettings(id="bb72-bposd", code="bb72", decoder="bposd", rounds=1, p=0.002)
    settings = Settings(
        models=(model, ModelSettings(id="bb72", code="bb72", rounds=1)),
        api_keys=SecretStr(f"alice:{ALICE},bob:{BOB}"),
        experiments_dir=directory,
        max_experiments=MOST_EXPERIMENTS,
        max_experiment_bytes=MOST_BYTES,
        decoder_cache_size=1,
    )
    with listen(create_app(settings), wait_until_ready=False) as url:
        while not httpx.get(f"{url}/readyz", timeout=PATIENCE_SECONDS).is_success:
            pass
        yield url


def client(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=PATIENCE_SECONDS)


@pytest.fixture
def alice(url) -> Iterator[httpx.Client]:
    with client(url, ALICE) as alice:
        yield alice
        for experiment in alice.get("/v1/experiments").json()["experiments"]:
            alice.delete(f"/v1/experiments/{experiment['id']}")


@pytest.fixture
def bob(url) -> Iterator[httpx.Client]:
    with client(url, BOB) as bob:
        yield bob


def post(client: httpx.Client, source: object, kind: str = "circuit", **headers: str) -> httpx.Response:
    return client.post(
        "/v1/experiments",
        params={"kind": kind},
        content=str(source),
        headers={"content-type": "application/octet-stream"} | headers,
    )


def decode(client: httpx.Client, experiment: str, shots: np.ndarray, **query: Any) -> httpx.Response:
    return client.post(
        "/v1/models/bb72-bposd/decode",
        params={"experiment": experiment} | query,
        content=shots.tobytes(),
        headers={"content-type": "application/octet-stream"},
    )


def infer(client: httpx.Client, experiment: str, shots: np.ndarray, *outputs: str) -> httpx.Response:
    tensor = {"name": "detection_events_b8", "datatype": "UINT8", "shape": shots.shape, "data": shots.ravel().tolist()}
    names = [{"name": name} for name in outputs or ("predictions",)]
    body = {"inputs": [tensor], "parameters": {"experiment": experiment}, "outputs": names}
    return client.post("/v2/models/bb72-bposd/infer", json=body)


def kind_of(response: httpx.Response) -> str:
    return response.json()["type"].rpartition(":")[2]


async def stream(url: str, key: str, experiment: str, layers: list[np.ndarray]) -> list[dict[str, Any]]:
    """Opens a stream, sends its layers, and gives the messages up to the answer."""
    async with connect(
        f"{url.replace('http', 'ws')}/v1/models/bb72-bposd/stream",
        subprotocols=[Subprotocol("tandem.stream.v1")],
        additional_headers={"authorization": f"Bearer {key}"},
    ) as socket:
        await socket.send(json.dumps({"action": "open", "stream": 1, "experiment": experiment}))
        for t, layer in enumerate(layers):
            header = np.array([1, 0, t + (1 << 16) * (t == len(layers) - 1)], dtype="<u4").view(np.uint8)
            await socket.send(header[:4].tobytes() + header[8:].tobytes() + pack_bits(layer[None]).tobytes())
        messages: list[dict[str, Any]] = []
        while not messages or messages[-1]["event"] not in ("answer", "problem"):
            messages.append(json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_SECONDS)))
        return messages


@pytest.mark.parametrize(("source", "kind"), [(CIRCUIT, "circuit"), (SHUFFLED, "dem")], ids=["circuit", "dem"])
def test_all_protocols_decode_it_as_the_decoder_does(url, alice, source, kind):
    posted = post(alice, source, kind)
    assert posted.status_code == 201, posted.text
    record = posted.json()
    assert record["inspection"]["detectors"] == source.num_detectors
    assert {one["decoder"]: one["applies"] for one in record["inspection"]["decoders"]}["bposd"]
    assert alice.get(f"/v1/experiments/{record['id']}").json() == record
    assert alice.get("/v1/experiments").json() == {"experiments": [record]}
    again = post(alice, f"\n{source}\n", kind)
    assert (again.status_code, again.json()) == (200, record)
    about = alice.get("/v1/models/bb72-bposd", params={"experiment": record["id"]}).json()["experiment"]
    assert (about["id"], about["num_detectors"]) == (record["id"], source.num_detectors)

    shots = sample(source, shots=20, seed=1).detection_events
    expected = make_decoder("bposd", source).decode_batch(shots, bit_packed_shots=True)
    assert expected.any()
    answer = decode(alice, record["id"], shots)
    assert answer.content == np.packbits(expected, axis=1, bitorder="little").tobytes()
    sent = {"shots_b8": base64.b64encode(shots.tobytes()).decode()}
    answer = alice.post("/v1/models/bb72-bposd/decode", params={"experiment": record["id"]}, json=sent)
    np.testing.assert_array_equal(answer.json()["predictions"], expected)
    outputs = infer(alice, record["id"], shots).json()["outputs"]
    np.testing.assert_array_equal(np.reshape(outputs[0]["data"], outputs[0]["shape"]), expected)

    tell_errors(alice, record["id"], source, shots)

    layer_of = layer_of_detectors(source)
    shot = int(np.argmax(expected.any(axis=1)))
    events = unpack_bits(shots, source.num_detectors)[shot]
    layers = [events[layer_of == t] for t in range(layer_of.max() + 1)]
    opened, answered = asyncio.run(stream(url, ALICE, record["id"], layers))
    assert opened["detectors"] == record["layers"] == [len(layer) for layer in layers]
    assert answered["predictions"] == expected[shot].tolist()


def test_a_network_decodes_what_is_one_of_its_code_but_for_names(alice):
    """Other qubits, detectors in another order, and other logical operators."""
    circuit = renamed(MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.003).circuit, seed=5).circuit
    posted = post(alice, circuit)
    assert posted.status_code == 201, posted.text
    assert posted.json()["inspection"]["memory"] is None
    shots = sample(circuit, shots=60, seed=1).detection_events
    expected = make_decoder("neural", circuit).decode_batch(shots, bit_packed_shots=True)
    assert expected.any()
    answer = alice.post(
        "/v1/models/bb72/decode",
        params={"experiment": posted.json()["id"]},
        content=shots.tobytes(),
        headers={"content-type": "application/octet-stream", "accept": "application/json"},
    )
    assert answer.status_code == 200, answer.text
    np.testing.assert_array_equal(answer.json()["predictions"], expected)


def tell_errors(client: httpx.Client, experiment: str, source: Source, shots: np.ndarray) -> None:
    """All protocols tell the errors that the decoder tells."""
    decoder = make_decoder("bposd", source)
    assert isinstance(decoder, ErrorDecoder)
    expected = decoder.decode_to_errors(shots, bit_packed_shots=True)
    answer = decode(client, experiment, shots, errors=True)
    packed = [
        np.packbits(part, axis=1, bitorder="little").tobytes() for part in (expected.predictions, expected.errors)
    ]
    assert answer.content == b"".join([*packed, expected.converged.tobytes()])
    assert answer.headers["x-tandem-parts"].split(", ")[1] == f"errors={len(packed[1])}"
    sent = {"shots_b8": base64.b64encode(shots.tobytes()).decode()}
    told = client.post("/v1/models/bb72-bposd/decode", params={"experiment": experiment, "errors": True}, json=sent)
    assert told.json()["errors"] == [np.flatnonzero(error).tolist() for error in expected.errors]
    np.testing.assert_array_equal(told.json()["converged"], expected.converged)
    errors, converged = infer(client, experiment, shots, "errors_b8", "converged").json()["outputs"]
    assert np.array(errors["data"], dtype=np.uint8).tobytes() == packed[1]
    np.testing.assert_array_equal(converged["data"], expected.converged)


def test_another_key_sees_nothing_of_it(url, alice, bob):
    experiment = post(alice, CIRCUIT).json()["id"]
    shots = sample(CIRCUIT, shots=1, seed=1).detection_events
    assert bob.get("/v1/experiments").json() == {"experiments": []}
    for method in ("GET", "DELETE"):
        assert bob.request(method, f"/v1/experiments/{experiment}").status_code == 404
    assert bob.get("/v1/models/bb72-bposd", params={"experiment": experiment}).status_code == 404
    refused = decode(bob, experiment, shots)
    assert (refused.status_code, kind_of(refused)) == (404, "unknown-experiment")
    assert infer(bob, experiment, shots).status_code == 404
    [problem] = asyncio.run(stream(url, BOB, experiment, []))
    assert (problem["event"], problem["status"]) == ("problem", 404)
    assert decode(alice, experiment, shots).status_code == 200
    # What bob sends himself is his own, whatever others have sent.
    assert post(bob, CIRCUIT).status_code == 201
    assert bob.delete(f"/v1/experiments/{experiment}").status_code == 204
    assert decode(alice, experiment, shots).status_code == 200


@pytest.mark.parametrize("experiment", ["0" * 64, "no-such", "../alice", ".", "%2e%2e%2falice"])
def test_an_unknown_id(alice, experiment):
    shots = np.zeros((1, 3), np.uint8)
    assert decode(alice, experiment, shots).status_code == 404
    assert infer(alice, experiment, shots).status_code == 404
    if "." not in experiment:
        assert alice.get(f"/v1/experiments/{experiment}").status_code == 404
        assert alice.delete(f"/v1/experiments/{experiment}").status_code == 404


REFUSED = {
    "text": ("what is this", "circuit", 422, "is not a stim circuit"),
    "a model": (SHUFFLED, "circuit", 422, "kind=dem"),
    "a rate": ("error(2) D0", "dem", 422, "is not a detector error model"),
    "no detectors": ("M 0", "circuit", 422, "has no detectors"),
    "random": ("H 0\nM 0\nDETECTOR rec[-1]", "circuit", 422, "random"),
    "repeats": ("M 0\nREPEAT 9000000000000000000 {\nM 0\nDETECTOR rec[-1]\n}", "circuit", 422, "at most 200000"),
    "detectors": ("REPEAT 300000 {\nerror(0.1) D0\nshift_detectors 1\n}", "dem", 422, "at most 200000"),
    "observables": ("error(0.1) D0 L99999", "dem", 422, "100000 observables, and at most 10000"),
    "layers": (
        "REPEAT 11000 {\nerror(0.1) D0\ndetector(0, 0, 0) D0\nshift_detectors(0, 0, 1) 1\n}",
        "dem",
        422,
        "layers",
    ),
    "long": ("M 0\n" * (MOST_BYTES // 4 + 1), "circuit", 413, "bytes; write repeated rounds as a REPEAT block"),
    "kind": (CIRCUIT, "stim", 422, "kind: Input should be 'circuit' or 'dem'"),
}


def test_what_is_refused_leaves_nothing(alice, directory):
    with ThreadPoolExecutor(len(REFUSED)) as threads:  # at once, so that one process reads all of them
        answers = [threads.submit(post, alice, text, kind) for text, kind, *_ in REFUSED.values()]
    for (name, (_, _, status, message)), answer in zip(REFUSED.items(), answers, strict=True):
        refused = answer.result()
        assert (refused.status_code, message in refused.json()["detail"]) == (status, True), (name, refused.text)
    assert alice.get("/v1/experiments").json() == {"experiments": []}
    assert not list(directory.glob("alice/*"))


def test_many_observables_take_fewer_shots(alice):
    experiment = post(alice, "error(0.1) D0 L9999", "dem").json()["id"]
    refused = decode(alice, experiment, np.zeros((210, 1), np.uint8))
    assert (refused.status_code, kind_of(refused)) == (413, "too-many-shots")
    assert "at most 209 are allowed" in refused.json()["detail"]


def test_other_refusals(alice, bob):
    assert post(alice, CIRCUIT, **{"content-type": "text/plain"}).status_code == 415
    experiment = post(alice, CIRCUIT).json()["id"]
    refused = decode(alice, experiment, np.zeros((1, 3), np.uint8), rounds=2)
    assert (refused.status_code, refused.json()["errors"][0]["parameter"]) == (422, "experiment")
    assert decode(alice, experiment, np.zeros((1, 100), np.uint8)).status_code == 422
    assert alice.get("/v1/models/bb72-bposd/circuit", params={"experiment": experiment}).status_code == 422


def test_errors_that_are_likely_or_certain_and_shots_that_none_explains(alice, directory):
    likely = stim.DetectorErrorModel("error(0.9) D0 L0\nerror(1) D1\nerror(0.1) D0 D2 L1\nerror(0.01) D2 L1")
    experiment = post(alice, likely, "dem").json()["id"]
    shots = np.array([[0b011], [0b010], [0b110]], np.uint8)
    answer = decode(alice, experiment, shots)
    assert answer.status_code == 200
    expected = make_decoder("bposd", likely).decode_batch(shots, bit_packed_shots=True)
    found = np.frombuffer(answer.content, np.uint8)[:, None]
    np.testing.assert_array_equal(unpack_bits(found, 2), expected)
    refused = decode(alice, experiment, np.array([[0b011], [0b001]], np.uint8))
    assert (refused.status_code, kind_of(refused)) == (422, "invalid-shots")
    assert "of 1 of 2 shots, the first of which is shot 1" in refused.json()["detail"]
    [record] = directory.glob("alice/*.json")  # as a version wrote it that did not look for this
    older = {name: value for name, value in json.loads(record.read_text()).items() if name != "fixed"}
    record.write_text(json.dumps(older))
    assert decode(alice, experiment, shots).content == answer.content


def test_a_stream_with_a_wrong_layer(url, alice):
    experiment = post(alice, SHUFFLED, "dem").json()["id"]
    for layers, message in (
        ([np.ones(2, np.bool_)], "has 2 layers"),
        ([np.ones(20, np.bool_), np.ones(1, np.bool_)], "bytes of events"),
    ):
        *_, problem = asyncio.run(stream(url, ALICE, experiment, layers))
        assert message in problem["detail"]


def test_ten_are_read_while_a_model_answers_and_one_too_many_is_refused(url, alice):
    """Also: more decoders than are kept, and what was deleted."""

    async def run() -> int:
        headers = {"authorization": f"Bearer {ALICE}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_SECONDS) as client:
            texts = [str(surface_code(rounds=rounds)) for rounds in range(5, 5 + MOST_EXPERIMENTS)]
            b8 = {"content-type": "application/octet-stream"}
            posts = [client.post("/v1/experiments", content=text, headers=b8) for text in texts]
            sent = asyncio.gather(*posts)
            answers = 0
            while not sent.done():
                answer = await client.post("/v1/models/bb72-bposd/decode", content=bytes(9), headers=b8)
                assert answer.status_code == 200
                answers += 1
                await asyncio.sleep(0.02)  # they are read meanwhile, at a lower priority
            assert [response.status_code for response in await sent] == [201] * MOST_EXPERIMENTS
            return answers

    assert asyncio.run(run()) > 10
    kept = [one["id"] for one in alice.get("/v1/experiments").json()["experiments"]]
    assert len(kept) == MOST_EXPERIMENTS
    refused = post(alice, CIRCUIT)
    assert (refused.status_code, kind_of(refused)) == (409, "conflict")
    assert alice.delete(f"/v1/experiments/{kept[0]}").status_code == 204
    assert post(alice, CIRCUIT).status_code == 201
    sizes = {one["id"]: one["inspection"]["detectors"] for one in alice.get("/v1/experiments").json()["experiments"]}
    for experiment in (kept[1], kept[2], kept[1]):  # one decoder is kept
        shots = np.zeros((1, (sizes[experiment] + 7) // 8), np.uint8)
        assert decode(alice, experiment, shots).status_code == 200
    assert alice.delete(f"/v1/experiments/{kept[1]}").status_code == 204
    assert decode(alice, kept[1], shots).status_code == 404
