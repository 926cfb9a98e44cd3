"""What is too much, too slow or gone is refused at once and told so."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import ModelSettings, Settings
from tests.helpers import eventually_async

pytestmark = pytest.mark.anyio

URL = "/v1/models/m/decode"
B8 = {"content-type": "application/octet-stream"}
SHOT = bytes(9)  # bb72, one round: 72 detectors


def kind(response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    return response.json()["type"].rpartition(":")[2]


def queued(client, count: int):
    async def condition() -> bool:
        return f'tandem_queued_shots{{model="m"}} {count}.0' in (await client.get("/metrics")).text

    return condition


async def hold(client, echo) -> asyncio.Task:
    """Keeps the worker busy with one shot until `echo.gate` is set."""
    echo.hold()
    task = asyncio.create_task(client.post(URL, content=SHOT, headers=B8))
    await eventually_async(lambda: echo.batches)
    return task


async def test_a_body_over_the_limit(serve, make):
    async with serve(make, max_body_bytes=90) as client:
        assert (await client.post(URL, content=SHOT * 10, headers=B8)).status_code == 200
        response = await client.post(URL, content=SHOT * 11, headers=B8)
        assert (response.status_code, kind(response)) == (413, "body-too-large")
        assert "90 bytes" in response.json()["detail"]
        response = await client.post(URL, json={"shots": [[0] * 72]})
        assert (response.status_code, kind(response)) == (413, "body-too-large")


async def test_a_chunked_body_over_the_limit_is_not_read_to_its_end(serve, make):
    read = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            read.append(9)
            yield SHOT

    async with serve(make, max_body_bytes=90) as client:
        response = await client.post(URL, content=endless(), headers=B8)
        assert (response.status_code, kind(response)) == (413, "body-too-large")
        assert len(read) == 11


@pytest.mark.parametrize("form", ["lists", "base64", "b8"])
async def test_too_many_shots(serve, make, form):
    async with serve(make, max_shots_per_request=5) as client:
        for count, status in ((5, 200), (6, 413)):
            if form == "lists":
                response = await client.post(URL, json={"shots": [[0] * 72] * count})
            elif form == "base64":
                encoded = base64.b64encode(SHOT * count).decode()
                response = await client.post(URL, json={"shots_b8": encoded})
            else:
                response = await client.post(URL, content=SHOT * count, headers=B8)
            assert response.status_code == status
        assert kind(response) == "too-many-shots"


async def test_a_full_queue(serve, make, echo):
    async with serve(make, max_queued_shots=10, max_shots_per_request=10) as client:
        held = await hold(client, echo)
        waiting = asyncio.create_task(client.post(URL, content=SHOT * 10, headers=B8))
        await eventually_async(queued(client, 10))
        response = await client.post(URL, content=SHOT, headers=B8)
        assert (response.status_code, kind(response)) == (503, "busy")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        echo.gate.set()
        assert [(await task).status_code for task in (held, waiting)] == [200, 200]
        assert (await client.post(URL, content=SHOT, headers=B8)).status_code == 200


async def test_too_many_requests_at_once(serve, make, echo):
    async with serve(make, max_requests_in_flight=1) as client:
        held = await hold(client, echo)
        response = await client.post(URL, content=SHOT, headers=B8)
        assert (response.status_code, kind(response)) == (503, "busy")
        assert response.headers["retry-after"] == "1"
        assert (await client.get("/healthz")).status_code == 200
        echo.gate.set()
        assert (await held).status_code == 200
        assert (await client.post(URL, content=SHOT, headers=B8)).status_code == 200


async def test_an_answer_that_takes_too_long(serve, make, echo):
    async with serve(make, decode_timeout_seconds=2) as client:
        held = await hold(client, echo)
        response = await client.post(URL, content=SHOT * 2, headers=B8)
        assert (response.status_code, kind(response)) == (503, "decode-timeout")
        assert (await held).status_code == 503
        assert await queued(client, 0)()
        echo.gate.set()
        assert (await client.post(URL, content=SHOT * 3, headers=B8)).status_code == 200
        assert echo.batches == [1, 3]


async def test_a_deadline_takes_shots_out_of_the_queue(serve, make, echo):
    async with serve(make, decode_timeout_seconds=600) as client:
        held = await hold(client, echo)
        started = time.perf_counter()
        response = await client.post(f"{URL}?timeout_ms=150", content=SHOT * 2, headers=B8)
        assert (response.status_code, kind(response)) == (504, "deadline-exceeded")
        assert time.perf_counter() - started > 0.1
        await eventually_async(queued(client, 0))
        echo.gate.set()
        assert (await held).status_code == 200
        assert (await client.post(f"{URL}?timeout_ms=600000", content=SHOT * 3, headers=B8)).status_code == 200
        assert echo.batches == [1, 3]
        for wrong in ("0", "-1", "600001", "soon"):
            response = await client.post(f"{URL}?timeout_ms={wrong}", content=SHOT, headers=B8)
            assert (response.status_code, kind(response)) == (422, "invalid-parameters")
            assert response.json()["errors"][0]["parameter"] == "timeout_ms"


async def test_a_deadline_counts_the_time_that_the_body_takes(make):
    app = _app(make)
    async with app.router.lifespan_context(app):
        await _loaded(app)
        arriving = [{"type": "http.request", "body": SHOT, "more_body": True}]
        sent = await _call(app, arriving, query=b"timeout_ms=100")
    assert sent[0]["status"] == 504


async def test_too_many_experiments_at_once(serve, make, echo):
    async with serve(make) as client:
        echo.gate.clear()  # the warm-up of each new decoder waits
        builds = [
            asyncio.create_task(client.post(f"{URL}?p=1e-{9 + index}", content=SHOT, headers=B8)) for index in range(9)
        ]
        done, _ = await asyncio.wait(builds, return_when=asyncio.FIRST_COMPLETED)
        response = done.pop().result()
        assert (response.status_code, kind(response)) == (503, "busy")
        echo.gate.set()
        assert sorted([(await task).status_code for task in builds]) == [200] * 8 + [503]


async def test_a_slow_body(make):
    app = _app(make, body_timeout_seconds=0.1)
    async with app.router.lifespan_context(app):
        await _loaded(app)
        arriving = [{"type": "http.request", "body": SHOT, "more_body": True}]
        sent = await _call(app, arriving)
    assert sent[0]["status"] == 408
    assert b"body-timeout" in sent[1]["body"]


async def test_a_client_that_leaves_while_it_waits_does_not_break_the_batch(make, echo):
    app = _app(make)
    async with app.router.lifespan_context(app):
        await _loaded(app)
        worker = app.state.engine.models["m"].worker
        echo.hold()
        body = [{"type": "http.request", "body": SHOT, "more_body": False}]
        held = asyncio.create_task(_call(app, list(body)))
        await eventually_async(lambda: echo.batches)
        leaves = asyncio.Event()
        gone = asyncio.create_task(_call(app, list(body), leaves))
        stays = asyncio.create_task(_call(app, [{"type": "http.request", "body": SHOT * 3, "more_body": False}]))
        await eventually_async(lambda: worker.queued_shots == 4)
        leaves.set()
        await gone
        assert worker.queued_shots == 3
        echo.gate.set()
        for task in (held, stays):
            assert (await task)[0]["status"] == 200
        assert echo.batches == [1, 3]
        failures = app.state.engine.metrics.exposition("")[0].decode()
        assert 'tandem_failures_total{model="m",reason="disconnected"} 1.0' in failures


async def test_a_client_that_leaves_while_it_sends(make, echo):
    app = _app(make)
    async with app.router.lifespan_context(app):
        await _loaded(app)
        leaves = asyncio.Event()
        leaves.set()
        await _call(app, [{"type": "http.request", "body": SHOT, "more_body": True}], leaves)
        sent = await _call(app, [{"type": "http.request", "body": SHOT, "more_body": False}])
        assert sent[0]["status"] == 200


async def test_closing_answers_what_is_queued(make, echo):
    app = _app(make)
    async with app.router.lifespan_context(app):
        await _loaded(app)
        echo.hold()
        body = [{"type": "http.request", "body": SHOT, "more_body": False}]
        tasks = [asyncio.create_task(_call(app, list(body)))]
        await eventually_async(lambda: echo.batches)
        tasks += [asyncio.create_task(_call(app, list(body))) for _ in range(4)]
        await eventually_async(lambda: app.state.engine.models["m"].worker.queued_shots == 4)
        asyncio.get_running_loop().call_later(0.2, echo.gate.set)
    assert [(await task)[0]["status"] for task in tasks] == [200] * 5
    late = await _call(app, body)
    assert late[0]["status"] == 503
    assert b"closing" in late[1]["body"]


async def test_a_request_that_the_server_gives_up_on_gets_an_answer(make, echo):
    """Servers cancel what is still at work when the time for a graceful shutdown is over."""
    app = _app(make)
    async with app.router.lifespan_context(app):
        await _loaded(app)
        echo.hold()
        task = asyncio.create_task(_call(app, [{"type": "http.request", "body": SHOT, "more_body": False}]))
        await eventually_async(lambda: echo.batches)
        task.cancel()
        sent = await task
    echo.gate.set()
    assert sent[0]["status"] == 503
    assert b"closing" in sent[1]["body"]


def _app(make, **settings: object) -> FastAPI:
    model = ModelSettings(id="m", code="bb72", decoder="bposd", rounds=1, own_process=False)
    return create_app(Settings(models=(model,), **settings), make_decoder=make)  # type: ignore[arg-type]


async def _loaded(app: FastAPI) -> None:
    await eventually_async(lambda: app.state.engine.models["m"].ready)


async def _call(
    app: FastAPI, arriving: list[dict], leaves: asyncio.Event | None = None, query: bytes = b""
) -> list[dict]:
    """Speaks ASGI itself, to send bodies slowly and to leave."""
    sent = []

    async def receive() -> dict:
        if arriving:
            return arriving.pop(0)
        await (leaves or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": URL,
        "raw_path": URL.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [(b"content-type", b"application/octet-stream")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    return sent


async def test_all_bodies_together_have_a_bound(serve, make, echo):
    """Each within its own, 256 of them took more than the machine had."""
    sizes = {"max_body_bytes": 90, "max_bodies_bytes": 100}
    async with serve(make, **sizes) as client:
        echo.hold()
        first = asyncio.create_task(client.post(URL, content=SHOT * 10, headers=B8))
        await eventually_async(lambda: echo.batches)
        assert (second := await client.post(URL, content=SHOT * 2, headers=B8)).status_code == 503
        assert (kind(second), second.headers["retry-after"]) == ("busy", "1")
        third = asyncio.create_task(client.post(URL, content=SHOT, headers=B8))
        await eventually_async(queued(client, 1))
        echo.gate.set()
        assert [(await first).status_code, (await third).status_code] == [200, 200]
        for _ in range(3):  # what was held is given back, also by those that were refused
            assert (await client.post(URL, content=SHOT * 10, headers=B8)).status_code == 200


def test_a_bound_that_no_body_fits_is_refused():
    with pytest.raises(ValueError, match="max_bodies_bytes"):
        Settings(max_body_bytes=10, max_bodies_bytes=9)
