"""Models that are pairs: who answered each shot, in every form of answer, whatever becomes of the second decoder."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import threading
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import ValidationError

from decoder.tandem.pairs import make_pair
from decoder.tandem.rule import Opinion
from service.client import Client
from service.settings import ModelSettings
from simulation.bits import pack_bits
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample
from tests.helpers import PATIENCE_SECONDS, spawned_by

pytestmark = pytest.mark.anyio

PAIR = ModelSettings(id="pair", code="bb72", decoder="tandem", rounds=2, p=0.005, threshold=0.97, second_processes=1)
B8 = {"content-type": "application/octet-stream"}
URL = "/v1/models/pair/decode"


@pytest.fixture(scope="module")
def experiment() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.005)


@pytest.fixture(scope="module")
def events(experiment):
    return sample(experiment.circuit, shots=60, seed=3).detection_events


@pytest.fixture(scope="module")
def expected(experiment, events):
    decoded = make_pair("serial-deep", experiment, threshold=0.97).decode_soft(events, bit_packed_shots=True)
    assert 0 < decoded.opinions.sum() < 60
    return decoded


async def warmed_up() -> None:
    """Waits until the second decoder's workers do nothing but what they are asked."""
    for thread in threading.enumerate():
        if thread.name == "warm-up-pair":
            await asyncio.to_thread(thread.join)


@pytest.fixture
def others() -> set[int]:
    """Processes that other tests have left at work."""
    return set(spawned_by(os.getpid()))


@pytest.fixture
async def server(lab_server, others):
    async with lab_server(PAIR, ModelSettings(id="plain", code="bb72", rounds=2)) as server:
        await warmed_up()
        yield server


@pytest.fixture
async def http(server):
    async with httpx.AsyncClient(base_url=server.http, timeout=PATIENCE_SECONDS) as client:
        yield client


def worker_beside(others: set[int]) -> int:
    """The process of the second decoder."""
    [pid] = set(spawned_by(os.getpid())) - others
    return pid


@pytest.fixture
def worker(server, others) -> int:
    return worker_beside(others)


@contextmanager
def stopped(pid: int):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def names(opinions) -> list[str]:
    return [Opinion(opinion).name.lower() for opinion in opinions]


async def test_every_form_of_answer_tells_who_answered(server, http, experiment, events, expected):
    shots = np.unpackbits(events, axis=1, count=experiment.num_detectors, bitorder="little")
    response = await http.post(URL, json={"shots": shots.tolist()})
    answer = response.json()
    assert answer["answered_by"] == names(expected.opinions)
    timing = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
    assert float(timing["second"]) / 1e3 == pytest.approx(answer["second_seconds"], abs=1e-6)
    assert answer["second_seconds"] > 0
    assert np.array_equal(answer["predictions"], expected.predictions)
    assert np.allclose(answer["confidence"], expected.confidence, atol=1e-4)

    packed = await http.post(f"{URL}?opinions=true", content=events.tobytes(), headers=B8)
    assert packed.headers["x-tandem-parts"] == "predictions=120, opinions=60"
    assert packed.content == pack_bits(expected.predictions).tobytes() + expected.opinions.tobytes()

    tensor = {"name": "detection_events", "shape": list(shots.shape), "datatype": "BOOL", "data": shots.tolist()}
    inferred = (await http.post("/v2/models/pair/infer", json={"inputs": [tensor]})).json()
    outputs = {output["name"]: output for output in inferred["outputs"]}
    assert (outputs["opinions"]["datatype"], outputs["opinions"]["shape"]) == ("UINT8", [60])
    assert outputs["opinions"]["data"] == expected.opinions.tolist()
    metadata = (await http.get("/v2/models/pair")).json()
    assert {"name": "opinions", "datatype": "UINT8", "shape": [-1]} in metadata["outputs"]

    async with server.lab("pair") as lab:
        for stream in range(60):
            await lab.open(stream)
            await lab.shot(stream, shots[stream].astype(bool))
        for message in await lab.until("answer", 60):
            row = message["stream"]
            assert message["answered_by"] == names(expected.opinions)[row]
            assert np.array_equal(message["predictions"], expected.predictions[row])

    with Client(server.http) as client:
        decoded = await asyncio.to_thread(client.decode, "pair", shots.astype(bool))
        assert np.array_equal(decoded.opinions, expected.opinions)
        assert (await asyncio.to_thread(client.decode, "plain", shots.astype(bool))).opinions is None

    for kind in Opinion:
        count = await server.metric(f'tandem_opinions_total{{model="pair",opinion="{kind.name.lower()}"}}')
        assert count == 5 * (expected.opinions == kind).sum()
    seconds = await server.metric('tandem_second_opinion_seconds_count{model="pair"}')
    assert seconds == 5 * (expected.opinions == Opinion.SECOND).sum()
    info = (await http.get("/v1/models/pair")).json()
    assert info["pair"] == {"second": "serial-deep", "threshold": 0.97, "deadline_ms": None}


async def test_sure_shots_do_not_wait_for_unsure_ones(worker, http, events, expected):
    unsure = expected.opinions == Opinion.SECOND
    with stopped(worker):
        waiting = asyncio.create_task(http.post(URL, content=events[unsure].tobytes(), headers=B8))
        sure = await http.post(URL, content=events[~unsure].tobytes(), headers=B8)
        assert sure.content == pack_bits(expected.predictions[~unsure]).tobytes()
        late = await http.post(f"{URL}?deadline_ms=50&opinions=true", content=events.tobytes(), headers=B8)
        assert late.content[-60:] == np.where(unsure, Opinion.LATE, Opinion.FIRST).astype(np.uint8).tobytes()
        assert not waiting.done()
        async with http.stream(
            "POST", f"{URL}?partial=true", json={"shots_b8": base64.b64encode(events.tobytes()).decode()}
        ) as partial:
            assert partial.headers["content-type"] == "application/x-ndjson"
            lines = partial.aiter_lines()
            first = json.loads(await anext(lines))
            assert first["answered_by"] == ["pending" if one else "first" for one in unsure]
            os.kill(worker, signal.SIGCONT)
            rest = [json.loads(line) async for line in lines]
    assert rest[-1] == {"done": True}
    assert sorted(line["shot"] for line in rest[:-1]) == np.flatnonzero(unsure).tolist()
    for line in rest[:-1]:
        assert line["answered_by"] == "second"
        assert np.array_equal(line["prediction"], expected.predictions[line["shot"]])
    assert (await waiting).content == pack_bits(expected.predictions[unsure]).tobytes()


async def test_a_second_decoder_that_crashes_is_flagged_and_the_service_stays_up(
    server, worker, http, events, expected
):
    unsure = expected.opinions == Opinion.SECOND
    one = events[unsure][:1].tobytes()
    batches = await server.metric('tandem_batches_total{model="pair"}')
    os.kill(worker, signal.SIGSTOP)
    waiting = asyncio.create_task(http.post(f"{URL}?opinions=true", content=one, headers=B8))
    await server.until_metric('tandem_batches_total{model="pair"}', batches + 1)  # the network has answered
    os.kill(worker, signal.SIGKILL)
    failed = await waiting
    assert failed.status_code == 200
    assert failed.content[-1] == Opinion.FAILED
    assert await server.metric('tandem_opinions_total{model="pair",opinion="failed"}') == 1
    again = await http.post(f"{URL}?opinions=true", content=one, headers=B8)
    assert again.content == pack_bits(expected.predictions[unsure][:1]).tobytes() + bytes([Opinion.SECOND])


async def test_a_second_decoder_that_hangs_is_flagged_and_replaced(lab_server, others, events, expected):
    unsure = expected.opinions == Opinion.SECOND
    one = events[unsure][:1].tobytes()
    async with lab_server(PAIR.model_copy(update={"second_patience_seconds": PATIENCE_SECONDS})) as server:
        await warmed_up()
        [child] = server.app.state.engine.models["pair"].second.pool.children
        child.patience_seconds = 0.5  # now that it has started
        async with httpx.AsyncClient(base_url=server.http, timeout=PATIENCE_SECONDS) as http:
            os.kill(worker_beside(others), signal.SIGSTOP)
            hung = await http.post(f"{URL}?opinions=true", content=one, headers=B8)
            child.patience_seconds = PATIENCE_SECONDS
            again = await http.post(f"{URL}?opinions=true", content=one, headers=B8)
    assert (hung.status_code, hung.content[-1]) == (200, Opinion.FAILED)
    assert again.content == pack_bits(expected.predictions[unsure][:1]).tobytes() + bytes([Opinion.SECOND])


async def test_a_second_decoder_that_is_missing_is_flagged_and_the_model_is_served(
    lab_server, events, tmp_path, monkeypatch, caplog
):
    (tmp_path / "tesseract_decoder.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)  # worker processes have it from here
    missing = PAIR.model_copy(update={"decoder": "tandem-tesseract", "threshold": 1.0})
    async with lab_server(missing) as server, httpx.AsyncClient(base_url=server.http, timeout=PATIENCE_SECONDS) as http:
        answer = await http.post(f"{URL}?opinions=true", content=events[:2].tobytes(), headers=B8)
        assert answer.status_code == 200
        assert list(answer.content[-2:]) == [Opinion.FAILED] * 2
        assert await server.metric('tandem_opinions_total{model="pair",opinion="failed"}') == 2
        assert (await http.get("/readyz")).status_code == 200
    assert "needs the package tesseract-decoder" in caplog.text


async def test_estimates_while_layers_come_ask_no_second_decoder(server, events, experiment, expected):
    row = int(np.flatnonzero(expected.opinions == Opinion.SECOND)[0])
    shot = np.unpackbits(events[row], count=experiment.num_detectors, bitorder="little").astype(bool)
    async with server.lab("pair") as lab:
        await lab.open(1)
        first, second, last = lab.layers(shot)
        await lab.layer(1, 0, first, flags=2)
        await lab.layer(1, 1, second)
        assert len((await lab.until("running"))[0]["flip_probabilities"]) == 12
        await lab.layer(1, 2, last, flags=1)
        assert (await lab.until("answer"))[0]["answered_by"] == "second"
    counted = [
        await server.metric(f'tandem_opinions_total{{model="pair",opinion="{kind}"}}') for kind in ("first", "second")
    ]
    assert counted == [0, 1]


async def test_bad_questions(server, http, events):
    for url, status in [
        (f"{URL}?deadline_ms=0", 422),
        (f"{URL}?deadline_ms=-1", 422),
        (f"{URL}?deadline_ms=nan", 422),
        (f"{URL}?deadline_ms=soon", 422),
        (f"{URL}?partial=true", 422),  # in b8
        ("/v1/models/plain/decode?deadline_ms=5", 422),
        ("/v1/models/plain/decode?opinions=true", 422),
        ("/v1/models/plain/decode?partial=true", 422),
    ]:
        response = await http.post(url, content=events.tobytes(), headers=B8)
        assert (url, response.status_code) == (url, status)
        assert response.headers["content-type"] == "application/problem+json"
    async with server.lab("plain") as lab:
        await lab.open(1, deadline_ms=5)
        message = await lab.receive()
        assert message["event"] == "problem"
        assert "none" in message["detail"]


@pytest.mark.parametrize(
    "setting", [{"threshold": 0.9}, {"deadline_ms": 5}, {"second_processes": 1}, {"second_patience_seconds": 5}]
)
def test_settings_of_pairs_are_refused_elsewhere(setting):
    with pytest.raises(ValidationError, match="belongs to pairs"):
        ModelSettings(id="m", code="bb72", decoder="neural", **setting)
    wrong: dict[str, Any] = dict.fromkeys(setting, -1)
    with pytest.raises(ValidationError, match=next(iter(setting))):
        ModelSettings(id="m", code="bb72", decoder="tandem", **wrong)
