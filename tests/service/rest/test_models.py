"""Health, models, circuits and metrics."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest
import stim
from prometheus_client.parser import text_string_to_metric_families

from decoder.making import make_decoder
from simulation.circuits import MemoryExperiment
from tests.helpers import eventually_async

pytestmark = pytest.mark.anyio


def assert_problem(response, status: int, kind: str | None) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["type"] == (f"urn:problem-type:tandem:{kind}" if kind else "about:blank")
    assert problem["detail"]
    return problem


async def test_probes_may_ask_for_the_head_alone(client):
    for path in (
        "/healthz",
        "/readyz",
        "/metrics",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/bb72-bposd/ready",
    ):
        response = await client.head(path)
        assert (response.status_code, response.content) == (200, b"")


async def test_healthz(client):
    response = await client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_importing_the_service_imports_nothing_that_draws_or_computes():
    heavy = ("matplotlib", "sinter", "torch", "numba", "ldpc")
    code = f"import sys, service.app; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


async def test_the_limits_are_told(serve, echo):
    bounds = {"max_streams": 7, "max_stream_connections": 5, "stream_idle_seconds": 1.5, "max_rounds": 9}
    async with serve(lambda model, experiment: matching(echo, experiment), **bounds) as client:
        limits = (await client.get("/v1/models/m")).json()["limits"]
        assert limits.items() >= bounds.items()
        assert {"max_body_bytes", "max_streams_per_connection", "max_stream_message_bytes"} <= set(limits)


async def test_readyz_answers_503_until_every_model_has_decoded(serve, echo):
    echo.gate.clear()
    async with serve(lambda model, experiment: matching(echo, experiment), wait_until_ready=False) as client:
        problem = assert_problem(await client.get("/readyz"), 503, "not-ready")
        assert "m" in problem["detail"]
        assert (await client.get("/healthz")).status_code == 200
        assert not (await client.get("/v1/models")).json()["models"][0]["ready"]
        refused = await client.post("/v1/models/m/decode", json={"shots": [[0] * 72]})
        assert_problem(refused, 503, "not-ready")
        assert int(refused.headers["retry-after"]) >= 1

        async def ready() -> httpx.Response | None:
            response = await client.get("/readyz")
            if response.is_success:
                return response
            assert_problem(response, 503, "not-ready")
            return None

        echo.gate.set()
        response = await eventually_async(ready)
        assert response.json() == {"status": "ready"}
        assert echo.batches == [4]  # the warm-up
        assert (await client.get("/v1/models")).json()["models"][0]["ready"]


async def test_a_model_that_cannot_be_loaded_is_named(serve, caplog):
    def make(model, experiment):
        raise FileNotFoundError("no such weights")

    async with serve(make, wait_until_ready=False) as client:

        async def failed() -> httpx.Response | None:
            response = await client.get("/readyz")
            return response if "cannot be loaded" in response.text else None

        response = await eventually_async(failed)
        assert "model m cannot be loaded: no such weights" in assert_problem(response, 503, "not-ready")["detail"]
    assert "no such weights" in caplog.text
    assert "Traceback" not in caplog.text


async def test_models(client):
    (model,) = (await client.get("/v1/models")).json()["models"]
    assert model == (await client.get("/v1/models/bb72-bposd")).json()
    assert model["code"] == {"id": "bb72", "n": 72, "k": 12, "d": 6}
    assert (model["decoder"], model["detectors"], model["gives_confidence"]) == ("bposd", "XZ", False)
    assert model["experiment"] == {
        "id": None,
        "basis": "Z",
        "rounds": 2,
        "p": 0.002,
        "noise": "uniform",
        "num_detectors": 144,
        "num_observables": 12,
    }


async def test_a_model_tells_the_size_of_the_shots_of_another_experiment(client):
    model = (await client.get("/v1/models/bb72-bposd?rounds=3&basis=X&p=0.01")).json()
    assert model["experiment"] | {"noise": None} == {
        "id": None,
        "basis": "X",
        "rounds": 3,
        "p": 0.01,
        "noise": None,
        "num_detectors": 216,
        "num_observables": 12,
    }


@pytest.mark.parametrize(
    ("query", "chosen"),
    [("", {}), ("?basis=X", {"basis": "X"}), ("?rounds=3&p=0.004", {"rounds": 3, "p": 0.004})],
)
async def test_circuit_and_dem_are_those_of_the_experiment(client, query, chosen):
    experiment = MemoryExperiment.create(**({"code": "bb72", "basis": "Z", "rounds": 2, "p": 0.002} | chosen))
    circuit = await client.get(f"/v1/models/bb72-bposd/circuit{query}")
    dem = await client.get(f"/v1/models/bb72-bposd/dem{query}")
    for response in (circuit, dem):
        assert response.headers["content-type"].startswith("text/plain")
    assert stim.Circuit(circuit.text) == experiment.circuit
    assert stim.DetectorErrorModel(dem.text) == experiment.dem


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("basis=Y", "basis"),
        ("rounds=0", "rounds"),
        ("rounds=5", "rounds"),  # more than the service's settings allow
        ("rounds=two", "rounds"),
        ("p=0", "p"),
        ("p=0.5", "p"),
        ("p=-1", "p"),
        ("p=nan", "p"),
        ("round=3", "round"),
        ("basis=Z&rounds=2&b%61sis=X", "basis"),
    ],
)
@pytest.mark.parametrize("path", ["", "/circuit", "/dem", "/decode"])
async def test_parameters_out_of_range(client, path, query, parameter):
    ask = client.post if path == "/decode" else client.get
    response = await ask(f"/v1/models/bb72-bposd{path}?{query}", **({"json": {}} if path == "/decode" else {}))
    problem = assert_problem(response, 422, "invalid-parameters")
    assert [flaw["parameter"] for flaw in problem["errors"]] == [parameter]
    assert parameter in problem["detail"]


@pytest.mark.parametrize("path", ["", "/circuit", "/dem", "/decode"])
async def test_unknown_model(client, path):
    ask = client.post if path == "/decode" else client.get
    problem = assert_problem(await ask(f"/v1/models/bb73{path}"), 404, "unknown-model")
    assert "bb73" in problem["detail"]
    assert "bb72-bposd" in problem["detail"]


async def test_unknown_routes_and_methods(client):
    assert_problem(await client.get("/v3/nothing"), 404, None)
    assert_problem(await client.get("/v1/models/"), 404, None)  # not another name of /v1/models
    response = await client.delete("/v1/models")
    assert_problem(response, 405, None)
    assert response.headers["allow"] == "GET"


async def test_metrics(serve, echo):
    async with serve(lambda model, experiment: matching(echo, experiment)) as client:
        good = [[0] * 72, [0] * 72]
        assert (await client.post("/v1/models/m/decode", json={"shots": good})).status_code == 200
        assert (await client.post("/v1/models/m/decode", json={"shots": [[2] * 72]})).status_code == 422
        assert (await client.get("/v1/models/unknown-1")).status_code == 404
        response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    values = {
        (sample.name, *(value for name, value in sorted(sample.labels.items()) if name != "le")): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if sample.labels.get("le", "+Inf") == "+Inf"
    }
    assert values["tandem_requests_total", "m"] == 2
    assert values["tandem_shots_total", "m"] == 2
    assert values["tandem_batches_total", "m"] == 1
    assert values["tandem_failures_total", "m", "invalid-shots"] == 1
    assert values["tandem_failures_total", "", "unknown-model"] == 1
    assert values["tandem_queued_shots", "m"] == 0
    assert values["tandem_queue_seconds_bucket", "m"] == 1
    assert values["tandem_compute_seconds_bucket", "m"] == 1
    assert "unknown-1" not in response.text  # a client cannot make labels up


async def test_an_unexpected_error_is_a_problem_without_its_traceback(serve, caplog):
    made = []

    def make(model, experiment):
        made.append(experiment)
        if len(made) > 1:
            raise RuntimeError("the secret of the house")
        return make_decoder("bposd", experiment)

    async with serve(make) as client:
        response = await client.post("/v1/models/m/decode?p=0.1", json={"shots": [[0] * 72]})
        problem = assert_problem(response, 500, "internal-error")
        assert problem["instance"].startswith("urn:uuid:")
        assert "secret" not in response.text
        assert problem["instance"] in caplog.text
        assert (await client.post("/v1/models/m/decode", json={"shots": [[0] * 72]})).status_code == 200


def matching(echo, experiment):
    echo.num_detectors = experiment.num_detectors
    return echo
