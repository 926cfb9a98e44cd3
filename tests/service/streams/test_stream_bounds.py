"""What is wrong, too much, too slow or gone ends its stream or its connection, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import suppress
from itertools import count
from typing import Any

import httpx
import numpy as np
import pytest
from websockets import Subprotocol
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from service.settings import ModelSettings
from tests.helpers import eventually_async

pytestmark = pytest.mark.anyio

MODEL = ModelSettings(id="m", code="bb72", decoder="bposd", rounds=1, own_process=False)
QUIET = np.zeros(36, dtype=np.bool_)
OPEN_STREAMS = 'tandem_open_streams{model="m"}'
OBSERVABLES = 12


def kind(message: dict) -> str:
    assert message["event"] == "problem", message
    assert {"type", "title", "status", "detail", "stream"} <= set(message)
    return message["type"].removeprefix("urn:problem-type:tandem:")


async def problem(lab) -> dict:
    return (await lab.until("problem"))[0]


async def answers(lab, stream: int) -> bool:
    """Whether a new stream gets its right answer."""
    await lab.open(stream)
    await lab.layer(stream, 0, np.arange(36) == 3)
    await lab.layer(stream, 1, QUIET, flags=1)
    message = (await lab.until("answer"))[0]
    return message["stream"] == stream and message["predictions"] == [int(j == 3) for j in range(OBSERVABLES)]


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"basis": "Y"}, "#/basis"),
        ({"rounds": 0}, "#/rounds"),
        ({"rounds": 5}, "more than the 4"),
        ({"p": 0.7}, "#/p"),
        ({"colour": "red"}, "#/colour"),
        ({"flip_probabilities": "perhaps"}, "#/flip_probabilities"),
    ],
)
async def test_an_experiment_that_there_is_not(lab_server, make, members, says):
    async with lab_server(MODEL, make=make, max_rounds=4) as server, server.lab() as lab:
        await lab.open(3, **members)
        await lab.layer(3, 0, QUIET)  # already on its way
        await lab.layer(3, 1, QUIET, flags=1)
        message = await problem(lab)
        assert kind(message) == "invalid-parameters"
        assert (message["stream"], message["status"]) == (3, 422)
        assert says in message["detail"]
        assert await answers(lab, 3)
        assert await server.metric('tandem_failures_total{model="m",reason="invalid-parameters"}') == 1


LAYERS: dict[str, tuple[dict[str, Any], str]] = {
    "a round left out": (dict(round=2), "round 1 is the next"),
    "a round again": (dict(round=0), "round 1 is the next"),
    "a byte too many": (dict(events=np.zeros(80, bool)), "10 bytes"),
    "one check type where there are two": (dict(events=QUIET), "5 bytes"),
    "two check types in the last": (dict(events=np.zeros(72, bool), flags=1, round=1), "9 bytes"),
    "bits past the last": (dict(events=np.ones(40, bool), flags=1), "past its 36"),
    "last and running": (dict(events=QUIET, flags=3), "not both"),
}


@pytest.mark.parametrize("name", LAYERS)
async def test_a_layer_that_is_wrong_ends_its_stream_alone(lab_server, make, name):
    wrong, says = LAYERS[name]
    wrong = {"round": 1, "events": np.zeros(72, bool), "flags": 0} | wrong
    async with lab_server(MODEL, make=make) as server, server.lab() as lab:
        for stream in (0, 1):
            await lab.open(stream)
            await lab.layer(stream, 0, QUIET)
        await lab.layer(0, wrong["round"], wrong["events"], flags=wrong["flags"])
        message = await problem(lab)
        assert kind(message) == "invalid-layer"
        assert message["stream"] == 0
        assert says in message["detail"]
        await lab.layer(1, 1, QUIET, flags=1)
        assert (await lab.until("answer"))[0]["stream"] == 1


async def test_rounds_that_were_said_are_held_to(lab_server, make):
    async with lab_server(MODEL, make=make, max_rounds=2) as server, server.lab() as lab:
        await lab.open(0)
        await lab.layer(0, 0, QUIET, flags=1)
        assert "cannot be the last" in (await problem(lab))["detail"]
        await lab.open(0, rounds=2)
        await lab.layer(0, 0, QUIET)
        await lab.layer(0, 1, QUIET, flags=1)
        assert "opened with rounds=2" in (await problem(lab))["detail"]
        for members, says in (({"rounds": 1}, "opened with rounds=1"), ({}, "decodes at most rounds=2")):
            await lab.open(1, **members)
            for t in range(3):
                await lab.layer(1, t, np.zeros(72 if t else 36, bool))
            assert says in (await problem(lab))["detail"]


async def test_a_stream_that_was_not_opened_or_was_closed(lab_server, make):
    async with lab_server(MODEL, make=make) as server, server.lab() as lab:
        await lab.layer(7, 0, QUIET)
        message = await problem(lab)
        assert (kind(message), message["stream"], message["status"]) == ("unknown-stream", 7, 404)
        await lab.open(7)
        await lab.until("opened")
        assert await server.metric(OPEN_STREAMS) == 1
        await lab.close(7)
        assert await lab.until("closed") == [{"event": "closed", "stream": 7}]
        assert await server.metric(OPEN_STREAMS) == 0
        await lab.layer(7, 1, QUIET)
        assert kind(await problem(lab)) == "unknown-stream"


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        ("{", 1002, "JSON"),
        ("[]", 1002, "action"),
        ('{"action": ["open"], "stream": 0}', 1002, "action"),
        ('{"action": "open"}', 1002, "stream"),
        ('{"action": "open", "stream": "0"}', 1002, "stream"),
        ('{"action": "open", "stream": 4294967296}', 1002, "stream"),
        ('{"action": "open", "stream": 0}', 1002, "open already"),
        ('{"action": "open", "stream": 0, "basis": "Y"}', 1002, "is open"),
        (b"", 1002, "header"),
        (b"\0" * 7, 1002, "header"),
        (struct.pack("<IHBB", 0, 0, 4, 0), 1002, "flags"),
        (struct.pack("<IHBB", 0, 0, 0, 1), 1002, "flags"),
        (bytes(201), 1009, ""),
        (json.dumps("x" * 200), 1009, ""),
    ],
)
async def test_what_no_client_may_send_ends_the_connection(lab_server, make, message, code, says):
    async with lab_server(MODEL, make=make, max_stream_message_bytes=200) as server, server.lab() as lab:
        await lab.open(0)
        await lab.socket.send(message)
        found, reason = await lab.end()
        assert found == code
        assert says in reason
        await server.until_metric(OPEN_STREAMS, 0)
        await server.until_metric("tandem_stream_connections", 0)


@pytest.mark.parametrize(
    ("model", "subprotocols", "status", "says"),
    [
        ("none", ["tandem.stream.v1"], 404, "unknown-model"),
        ("m", ["tandem.stream.v9"], 400, "unsupported-subprotocol"),
        ("m", None, 400, "unsupported-subprotocol"),
    ],
)
async def test_connections_are_refused_with_a_problem(lab_server, make, model, subprotocols, status, says):
    async with lab_server(MODEL, make=make) as server:
        with pytest.raises(InvalidStatus) as refused:
            await connect(
                f"{server.websocket}/v1/models/{model}/stream",
                subprotocols=[Subprotocol(name) for name in subprotocols] if subprotocols else None,
            )
        response = refused.value.response
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        assert json.loads(response.body)["type"].endswith(f":{says}")


async def test_too_many_connections(lab_server, make):
    async with lab_server(MODEL, make=make, max_stream_connections=1) as server:
        async with server.lab():
            with pytest.raises(InvalidStatus) as refused:
                async with server.lab():
                    pass
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["retry-after"] == "1"
        await server.until_metric("tandem_stream_connections", 0)
        async with server.lab() as lab:
            assert await answers(lab, 0)


async def test_open_connections_are_no_requests_in_flight(lab_server, make):
    async with lab_server(MODEL, make=make) as server, server.lab() as lab:
        await lab.open(0)
        await lab.until("opened")
        assert await server.metric("tandem_stream_connections") == 1
        assert await server.metric("tandem_requests_in_flight") == 0


@pytest.mark.parametrize("bound", ["max_streams", "max_streams_per_connection"])
async def test_too_many_streams(lab_server, make, bound):
    async with lab_server(MODEL, make=make, **{bound: 2}) as server, server.lab() as lab:
        for stream in range(3):
            await lab.open(stream)
        message = await problem(lab)
        assert (kind(message), message["stream"], message["retry_after"]) == ("busy", 2, 1)
        await lab.close(0)
        await lab.until("closed")
        assert await answers(lab, 2)


async def test_the_layers_of_all_streams_have_a_bound(lab_server, make):
    async with lab_server(MODEL, make=make, max_bodies_bytes=50, max_body_bytes=1) as server, server.lab() as lab:
        await lab.open(0)
        await lab.open(1)
        await lab.layer(0, 0, QUIET)
        await lab.layer(1, 0, QUIET)
        message = await problem(lab)
        assert (kind(message), message["stream"]) == ("busy", 1)
        await lab.close(0)
        await lab.until("closed")
        await lab.open(1)
        await lab.layer(1, 0, QUIET)
        await lab.close(1)
        await lab.until("closed")


async def test_a_full_queue_fails_the_stream_and_not_the_connection(lab_server, make, echo):
    async with lab_server(MODEL, make=make, max_queued_shots=1, max_shots_per_request=1) as server, server.lab() as lab:
        echo.hold()
        for stream in range(3):
            await lab.open(stream)
            await lab.layer(stream, 0, QUIET)
            await lab.layer(stream, 1, QUIET, flags=1)
            await eventually_async(lambda: echo.batches)  # the first one is at work, the second waits
        message = await problem(lab)
        assert (kind(message), message["stream"]) == ("busy", 2)
        assert message["retry_after"] >= 1
        echo.gate.set()
        assert {message["stream"] for message in await lab.until("answer", 2)} == {0, 1}
        assert await answers(lab, 2)


async def test_a_decoder_that_fails(lab_server, make):
    async with lab_server(MODEL, make=make) as server, server.lab() as lab:
        await lab.open(0)
        await lab.layer(0, 0, QUIET)
        await lab.layer(0, 1, np.arange(36) == 35, flags=1)
        message = await problem(lab)
        assert (kind(message), message["status"]) == ("decoder-failed", 500)
        assert message["instance"].startswith("urn:uuid:")
        assert await answers(lab, 0)


async def test_idle_streams_and_connections_are_ended(lab_server, make):
    async def go_on() -> None:
        for t in count():
            await lab.layer(1, t, np.zeros(72 if t else 36, bool))
            await asyncio.sleep(0.05)

    bounds = {"stream_idle_seconds": 2, "max_rounds": 10**6}
    async with lab_server(MODEL, make=make, **bounds) as server, server.lab() as lab:
        await lab.open(0)
        await lab.open(1)
        going_on = asyncio.create_task(go_on())  # this stream is left alone
        message = await problem(lab)
        assert (kind(message), message["stream"]) == ("stream-timeout", 0)
        going_on.cancel()
        await lab.close(1)
        await lab.until("closed")
        code, reason = await lab.end()
        assert code == 1000
        assert "2 s" in reason
        await server.until_metric("tandem_stream_connections", 0)


async def test_a_client_that_leaves_leaves_nothing_behind(lab_server, make, echo):
    async with lab_server(MODEL, make=make) as server:
        async with server.lab() as held:
            echo.hold()
            await held.open(0)
            await held.layer(0, 0, QUIET)
            await held.layer(0, 1, QUIET, flags=1)
            await eventually_async(lambda: echo.batches)
            async with server.lab() as gone:
                await gone.open(0)
                await gone.layer(0, 0, QUIET)
                await gone.open(1)
                await gone.layer(1, 0, QUIET)
                await gone.layer(1, 1, QUIET, flags=1)
                await server.until_metric('tandem_queued_shots{model="m"}', 1)
                assert await server.metric(OPEN_STREAMS) == 3
                tasks = len(asyncio.all_tasks())
                gone.socket.transport.abort()
            await server.until_metric('tandem_queued_shots{model="m"}', 0)
            await server.until_metric(OPEN_STREAMS, 1)
            await server.until_metric("tandem_stream_connections", 1)
            assert len(asyncio.all_tasks()) < tasks
            echo.gate.set()
            await held.until("answer")
        await server.until_metric(OPEN_STREAMS, 0)
        left = [repr(task.get_coro()) for task in asyncio.all_tasks()]
        assert not [coroutine for coroutine in left if "Connection." in coroutine or "OpenStream." in coroutine]


async def test_a_client_that_does_not_read_is_cut_off(lab_server, make):
    async with (
        lab_server(MODEL, make=make, buffer_bytes=4096, stream_send_seconds=0.5) as server,
        server.lab(buffer_bytes=4096) as lab,
    ):
        lab.socket.transport.pause_reading()
        with suppress(ConnectionClosed):
            async with asyncio.timeout(120):
                while True:
                    await lab.layer(0, 0, QUIET)  # each gets a problem
                    await asyncio.sleep(0)
        lab.socket.transport.abort()
        assert await server.metric('tandem_failures_total{model="m",reason="slow-reader"}') == 1
        await server.until_metric("tandem_stream_connections", 0)


HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "tandem.stream.v1",
}


async def test_shutting_down_answers_what_is_complete(lab_server, make, echo):
    async with (
        lab_server(MODEL, make=make) as server,
        server.lab() as lab,
        server.lab() as other,
        httpx.AsyncClient(base_url=server.http) as early,
    ):
        await early.get("/healthz")  # its connection is there before the port is closed
        await other.open(9)
        await other.until("opened")
        echo.hold()
        for stream in (0, 1):
            await lab.open(stream)
            await lab.layer(stream, 0, np.arange(36) == 3)
        await lab.layer(0, 1, QUIET, flags=1)
        await eventually_async(lambda: echo.batches)
        server.server.stop()
        message = await problem(lab)
        assert (kind(message), message["stream"]) == ("closing", 1)
        assert kind(await problem(other)) == "closing"
        assert await other.end() == (1001, "the service is shutting down")
        await lab.open(2)  # too late
        assert kind(await problem(lab)) == "closing"
        assert (await early.get("/v1/models/m/stream", headers=HANDSHAKE)).status_code == 503
        echo.gate.set()
        assert (await lab.until("answer"))[0]["predictions"][3] == 1
        assert await lab.end() == (1001, "the service is shutting down")


async def test_shutting_down_does_not_wait_for_ever(lab_server, make, echo):
    async with lab_server(MODEL, make=make) as server, server.lab() as lab:
        server.server.config.timeout_graceful_shutdown = 1
        echo.hold()
        await lab.open(0)
        await lab.layer(0, 0, QUIET)
        await lab.layer(0, 1, QUIET, flags=1)
        await eventually_async(lambda: echo.batches)
        server.server.stop()
        code, _ = await lab.end()
        assert code == 1012
        echo.gate.set()


async def test_the_stream_is_no_page(lab_server, make):
    async with lab_server(MODEL, make=make) as server, httpx.AsyncClient() as client:
        assert (await client.get(f"{server.http}/v1/models/m/stream")).status_code == 404
