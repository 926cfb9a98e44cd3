"""Long JSON is parsed in a process of its own, so that it costs others nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from service.errors import TooManyShotsError
from service.http.parsing import SHORT_BYTES, BodyParser
from service.oip.requests import parse_request
from service.wire.shots import ExpectedShots, parse_json

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}


def where(body: bytes) -> tuple[int, str]:
    """The process and the thread that parse."""
    return os.getpid(), threading.current_thread().name


def stop(body: bytes) -> None:
    """Hangs, as a parser that was stopped does."""
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.fixture
def parser():
    parser = BodyParser(patience_seconds=60)
    yield parser
    parser.close()


async def test_long_bodies_alone_are_parsed_elsewhere(parser):
    assert (await parser.parse(where, bytes(SHORT_BYTES)))[0] == os.getpid()
    assert (await parser.parse(where, bytes(SHORT_BYTES + 1)))[0] != os.getpid()


async def test_a_parser_that_hangs_is_replaced(parser):
    long = bytes(SHORT_BYTES + 1)
    first = (await parser.parse(where, long))[0]
    parser.child.patience_seconds = 0.2
    with pytest.raises(Exception, match="not parsed"):
        await parser.parse(stop, long)
    parser.child.patience_seconds = 60
    assert (await parser.parse(where, long))[0] != first


async def test_a_parser_that_was_killed_costs_nothing(parser):
    long = bytes(SHORT_BYTES + 1)
    first = (await parser.parse(where, long))[0]
    os.kill(first, signal.SIGKILL)
    assert (await parser.parse(where, long))[0] != first


async def test_a_long_body_that_is_parsed_leaves_the_loop_to_others(serve, make):
    """A parser that is stopped is as slow as a body can be: everybody else is answered meanwhile."""
    async with serve(make) as client:
        shots = {"shots": [[0] * 72] * 1000}
        assert (await client.post("/v1/models/m/decode", json=shots)).status_code == 200
        child = client._transport.app.state.parser.child.pid
        os.kill(child, signal.SIGSTOP)
        slow = asyncio.create_task(client.post("/v1/models/m/decode", json=shots))
        assert (await client.post("/v1/models/m/decode", json={"shots": [[0] * 72]})).status_code == 200
        assert (await client.get("/healthz")).status_code == 200
        assert not slow.done()
        os.kill(child, signal.SIGCONT)
        assert (await slow).json()["predictions"] == [[0] * 12] * 1000


async def test_a_million_lists_are_refused_before_they_are_made(serve, make):
    """Each takes 56 bytes and a place in the collection of garbage; the text takes three."""
    body = b'{"shots":[' + b"[]," * 20_000 + b"[]]}"
    with pytest.raises(TooManyShotsError, match="20003 lists"):
        parse_json(body, ExpectedShots(72, 12, 100))
    with pytest.raises(TooManyShotsError):
        parse_request(b'{"inputs":' + body[9:], header_length=None, most_shots=100)
    async with serve(make, max_shots_per_request=100) as client:
        for path in ("/v1/models/m/decode", "/v2/models/m/infer"):
            assert (await client.post(path, content=body * 2, headers=JSON)).status_code == 413
