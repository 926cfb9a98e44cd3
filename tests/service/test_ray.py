"""Replicas on a Ray cluster of this machine, and what their clients see when one is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import ModuleType
from typing import Any

import httpx
import pytest
import yaml
from starlette.types import Message, Receive, Scope, Send

pytest.importorskip("ray.serve")

from benchmarks import ray_replicas
from benchmarks.harness import sample_shots
from benchmarks.traffic import RIGHT, Callers, Request
from service.ray_proxy import AnswerLostRequests, middlewares
from tests.helpers import REPOSITORY, eventually_async

CONFIG = REPOSITORY / "deploy" / "ray" / "serve.yaml"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[ray_replicas.Cluster]:
    """Two replicas. Ray itself gives up when a machine is too busy to start a node in 30 s; then it is asked again."""
    monkeypatch.setattr(ray_replicas, "START_SECONDS", 600)
    for name in ("gcs_server_request_timeout_seconds", "gcs_server_port_wait_time_s"):
        monkeypatch.setenv(f"RAY_{name}", "600")
    for name in ("HEALTH", "READY"):
        monkeypatch.setenv(f"RAY_SERVE_PROXY_{name}_CHECK_TIMEOUT_S", "120")
    with ExitStack() as stack:
        yield stack.enter_context(again_when_ray_gives_up(ray_replicas.cluster))


@contextmanager
def again_when_ray_gives_up(
    start: Callable[[], AbstractContextManager[ray_replicas.Cluster]], *, attempts: int = 5
) -> Iterator[ray_replicas.Cluster]:
    for attempt in range(attempts):
        with ExitStack() as stack:
            try:
                cluster = stack.enter_context(start())
            except RuntimeError as error:
                if "timed out during startup" not in str(error) or attempt == attempts - 1:
                    raise
                continue
            yield cluster
            return


def test_a_replica_that_is_killed_is_replaced_and_costs_who_retries_nothing(cluster: ray_replicas.Cluster):
    shots = sample_shots(200, p=ray_replicas.MODEL["p"], seed=2031, model=ray_replicas.MODEL)
    assert len(cluster.replicas()) == 2

    async def kill_one() -> tuple[list[Request], float]:
        callers = Callers(cluster.url, shots, model="m", once=2, retrying=2, pause=0.1)
        asking = asyncio.create_task(callers.ask())
        await eventually_async(lambda: len(callers.requests) > 20)
        os.kill(cluster.replicas()[0], signal.SIGKILL)
        await eventually_async(lambda: cluster.ready() == 3, limit=600)
        replaced = time.monotonic()
        await eventually_async(lambda: sum(one.started > replaced for one in callers.requests) > 20)
        callers.stop()
        await asking
        return callers.requests, replaced

    requests, replaced = asyncio.run(kill_one())
    lost = [one for one in requests if one.outcome != RIGHT]
    assert {one.outcome for one in lost} <= {"503 urn:problem-type:tandem:replica-lost"}
    assert not any(one.retrying for one in lost)
    assert all(one.started < replaced for one in lost)


@pytest.mark.timing
def test_a_replica_killed_under_load_costs_no_later_request():
    shots = sample_shots(200, p=ray_replicas.MODEL["p"], seed=2031, model=ray_replicas.MODEL)
    with ray_replicas.cluster() as cluster:
        requests = ray_replicas.kill_one(cluster, shots, clients=6, before=1, after=3.5)
        mark = cluster.mark
    assert ray_replicas.marked(mark) == set()

    assert sum(request.outcome == "right" for request in requests) > 20
    lost = [request for request in requests if request.outcome != "right"]
    assert {request.outcome for request in lost} <= {"503 urn:problem-type:tandem:replica-lost"}
    assert not any(request.retrying for request in lost)
    assert all(request.started < 2 for request in lost)
    assert any(request.started > 2 for request in requests)
    assert "0 failed" in ray_replicas.summary(requests, command="-")


@pytest.fixture
def ray_replica(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    from service import ray_serve

    monkeypatch.delenv("TANDEM_INSECURE", raising=False)
    return ray_serve


def test_without_keys_a_replica_does_not_start(ray_replica: ModuleType, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="TANDEM_API_KEYS"):
        ray_replica.make_app()
    monkeypatch.setenv("TANDEM_INSECURE", "0")
    with pytest.raises(ValueError, match="TANDEM_API_KEYS"):
        ray_replica.make_app()


def test_the_configuration_is_one_that_serve_takes(ray_replica: ModuleType):
    from ray.serve import Application
    from ray.serve.schema import ServeDeploySchema

    config = yaml.safe_load(CONFIG.read_text())
    parsed = ServeDeploySchema.model_validate(config)
    [application] = parsed.applications
    module, _, name = application.import_path.partition(":")
    assert module == ray_replica.__name__
    assert isinstance(getattr(ray_replica, name), Application)
    [deployment] = application.deployments
    assert deployment.name == ray_replica.DEPLOYMENT
    assert deployment.num_replicas == 2
    # Ray ignores names that it does not know.
    for given, schema in (
        (config, parsed),
        (config["http_options"], parsed.http_options),
        (config["applications"][0], application),
        (config["applications"][0]["deployments"][0], deployment),
    ):
        assert set(given) <= set(type(schema).model_fields)


async def answers_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def answers_half(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"ab", "more_body": True})


@pytest.mark.anyio
async def test_a_request_without_answer_is_answered_503():
    [middleware] = middlewares()
    made: Any = middleware.cls
    app = made(answers_nothing)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://proxy") as client:
        answer = await client.get("/v1/models")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "0")
        assert answer.json()["type"] == "urn:problem-type:tandem:replica-lost"
        inference = await client.post("/v2/models/m/infer")
        assert (inference.status_code, list(inference.json())) == (503, ["error"])


@pytest.mark.anyio
async def test_nothing_is_added_to_an_answer_that_has_begun():
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    await AnswerLostRequests(answers_half)({"type": "http", "path": "/v1/models"}, receive, send)
    await AnswerLostRequests(answers_nothing)({"type": "websocket", "path": "/v1/models/m/stream"}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
