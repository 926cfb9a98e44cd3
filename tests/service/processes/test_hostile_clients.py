"""What no decent client sends: it is bounded in bytes and seconds, and costs nobody else an answer."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets import Subprotocol
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from service.processes.connections import Turns
from service.processes.server import Server
from service.processes.websocket import MAX_IDLE_FRAMES
from tests.helpers import PATIENCE_SECONDS, eventually
from tests.service.conftest import EchoDecoder

POST = b"POST /v1/models/m/decode HTTP/1.1\r\nHost: t\r\nContent-Type: application/octet-stream\r\n"
GET = b"GET /v1/models HTTP/1.1\r\nHost: t\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SHOT = bytes(9)  # bb72, one round: 72 detectors
WHOLE = POST + b"Content-Length: 9\r\n\r\n" + SHOT
UPGRADE = (
    b"GET /v1/models/m/stream HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: tandem.stream.v1\r\n"
)
LATE = 600
"""Seconds: what ends within a test was not ended by a deadline."""
PATIENT = {"header_timeout_seconds": LATE, "keep_alive_seconds": LATE, "body_timeout_seconds": LATE}
MOST = 2**25


@pytest.fixture(scope="module")
def echo() -> EchoDecoder:
    return EchoDecoder()


@pytest.fixture(scope="module")
def server(serve_with, echo) -> Iterator[Server]:
    """One service for all that ends without a deadline."""
    with serve_with(echo.make, **PATIENT) as (_, server):
        yield server


@pytest.fixture
def port(server) -> Iterator[int]:
    """Its port; after the test no connection is left."""
    yield server.servers[0].sockets[0].getsockname()[1]
    eventually(lambda: not server.server_state.connections)


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


def rest_of(connection: socket.socket) -> bytes:
    """All that comes until the server closes, which it has to."""
    received = b""
    with suppress(ConnectionError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def talk(port: int, *sent: bytes) -> bytes:
    """Sends pieces, and returns all that comes until the server closes."""
    with dial(port) as connection:
        with suppress(ConnectionError):
            for piece in sent:
                connection.sendall(piece)
        return rest_of(connection)


def taken(port: int, head: bytes, piece: bytes, *, most: int) -> int:
    """Sends a head, and then a piece again and again until the server closes: how many bytes of pieces it took."""
    sent = 0
    with dial(port) as connection, suppress(ConnectionError):
        connection.sendall(head)
        while sent < most:
            sent += connection.send(piece)
    return sent


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(GET, b"X-Long: " + b"a" * 4000 + b"\r\n", id="headers"),
        pytest.param(GET + b"X-Long: ", b"a" * 4000, id="one header"),
        pytest.param(CHUNKED + b"0\r\n", b"a: " + b"b" * 4000 + b"\r\n", id="trailers"),
        pytest.param(CHUNKED + b"0\r\n", b"a:b\r\n" * 1000, id="short trailers"),
        pytest.param(CHUNKED, b"1\r\n0\r\n" * 1000, id="chunks of one byte"),
        pytest.param(CHUNKED + b"1;a=", b"b" * 4000, id="chunk extension"),
    ],
)
def test_what_is_no_body_has_an_end(port, head, piece):
    assert taken(port, head, piece, most=MOST) < MOST  # buffers of the system, some megabytes, take the most


def test_a_long_header_at_once(port):
    with dial(port) as connection:
        connection.sendall(GET + b"X-Long: " + b"a" * 60_000 + b"\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert talk(port, GET + b"X-Long: " + b"a" * 70_000 + b"\r\n\r\n")[:13] in (b"HTTP/1.1 431 ", b"")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /v1/models?" + b"a=&" * 3000 + b" HTTP/1.1\r\nHost: t\r\n\r\n", b"414"),
        (GET + b"a:b\r\n" * 200 + b"\r\n", b"431"),
        (GET + b"a:b\r\n" * 200, b"431"),
        (GET + b"X: a\r\n b\r\n\r\n", b"400"),
    ],
    ids=["target", "lines", "lines that go on", "folded"],
)
def test_headers_that_take_long_to_look_through(port, request_, status):
    assert talk(port, request_).startswith(b"HTTP/1.1 " + status)


def test_a_probe_goes_first_once_a_connection(port, monkeypatch):
    waited, add = [], Turns.add

    def counted(turns: Turns, start: Callable[[], None], *, loop: asyncio.AbstractEventLoop) -> None:
        waited.append(start)
        add(turns, start, loop=loop)

    monkeypatch.setattr(Turns, "add", counted)
    probe = b"GET /healthz HTTP/1.1\r\nHost: t\r\n%b\r\n"
    received = talk(port, probe % b"" * 2 + probe % b"Connection: close\r\n")
    assert received.count(b"HTTP/1.1 200 ") == 3
    assert len(waited) == 2


def test_small_chunks_are_taken(port):
    shots = SHOT * 9_990
    chunks = b"".join(b"1b\r\n" + shots[start : start + 27] + b"\r\n" for start in range(0, len(shots), 27))
    received = talk(port, CHUNKED.replace(b"Host", b"Connection: close\r\nHost") + chunks + b"0\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: 19980\r\n" in received


def test_an_empty_line_does_not_keep_a_connection(serve):
    with serve(keep_alive_seconds=1, header_timeout_seconds=1) as (port, _):
        assert talk(port, GET + b"\r\n", b"\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b"Content-Length: 10\r\n", id="a body"),
        pytest.param(b"".join(b"X-%d: 1\r\n" % number for number in range(140)), id="140 headers"),
        pytest.param(b"X-Long: " + b"a" * 10_000 + b"\r\n", id="a long header"),
    ],
)
def test_upgrades_that_the_library_refuses(port, rest):
    assert talk(port, UPGRADE + rest + b"\r\n").startswith(b"HTTP/1.1 4")


def test_those_who_wait_longest_make_room(serve, monkeypatch):
    monkeypatch.setattr("service.processes.http1.PATIENCE_SECONDS", 0)
    with serve(**PATIENT, max_connections=3) as (port, server):
        held = [dial(port) for _ in range(3)]
        eventually(lambda: len(server.server_state.connections) == 3)
        with dial(port) as other:
            other.sendall(GET + b"\r\n")
            assert other.recv(65536).startswith(b"HTTP/1.1 200 ")
            assert rest_of(held[0]) == b""
            held[2].sendall(GET + b"\r\n")
            assert held[2].recv(65536).startswith(b"HTTP/1.1 200 ")
        for connection in held:
            connection.close()


def test_connections_over_the_limit_have_one_too(serve, monkeypatch):
    monkeypatch.setattr("service.processes.http1.PATIENCE_SECONDS", LATE)
    with serve(**PATIENT, max_connections=1) as (port, server):
        held = [dial(port) for _ in range(200)]
        eventually(lambda: len(server.server_state.connections) <= 66)
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE_SECONDS).is_success
        for connection in held:
            connection.close()


@pytest.mark.parametrize("tokens", [b"Upgrade", b"Upgrade\r\nConnection: keep-alive", b"Upgrade, HTTP2-Settings"])
@pytest.mark.parametrize(
    "length",
    [
        pytest.param(b"Content-Length: %d\r\n\r\n%b", id="length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n", id="chunks"),
    ],
)
def test_other_upgrades_are_ignored(port, echo, tokens, length):
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n"
    for body, status in ((SHOT, b"200"), (smuggled, b"422")):
        head = POST + b"Upgrade: h2c\r\nConnection: " + tokens + b"\r\n"
        received = talk(port, head + length % (len(body), body) + b"GET / HTTP/1.0\r\n\r\n")
        first, _, second = received[1:].partition(b"HTTP/1.1 ")
        assert first.startswith(b"TTP/1.1 " + status)
        assert (second[:3], second.count(b"HTTP/1.1")) == (b"200", 0)
    assert echo.batches[-1] == 1


def held_at(echo: EchoDecoder, port: int, *sent: bytes) -> socket.socket:
    """A connection whose first request is at work until `echo.gate` is set."""
    echo.hold()
    connection = dial(port)
    connection.sendall(WHOLE + b"".join(sent))
    eventually(lambda: echo.batches)
    return connection


def test_a_late_half_of_a_request_costs_the_first_nothing(serve_with, echo):
    late = {"header_timeout_seconds": 0.2, "keep_alive_seconds": LATE}
    with serve_with(echo.make, **late) as (port, _), held_at(echo, port, GET[:20]) as connection:
        time.sleep(0.5)  # the half is late by now
        echo.gate.set()
        received = rest_of(connection)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received[1:].count(b"HTTP/1.1 ") == 1
    assert b"HTTP/1.1 408 " in received


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(b"no HTTP\r\n\r\n", id="no HTTP"),
        pytest.param(CHUNKED + b"no size\r\n", id="no size of a chunk"),
        pytest.param(GET + b"X: " + b"a" * 99_000, id="a long header"),
    ],
)
def test_what_is_broken_costs_the_request_before_it_nothing(port, echo, second):
    with held_at(echo, port) as connection:
        connection.sendall(second)
        time.sleep(0.2)  # until the server has read it; if it takes longer, the answer is the same
        echo.gate.set()
        received = rest_of(connection)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 2" not in received[1:]


def test_a_hang_up_with_a_request_behind_it(port, server, echo, caplog):
    held_at(echo, port, WHOLE * 2).close()
    eventually(lambda: not server.server_state.connections)
    echo.gate.set()
    eventually(lambda: not server.server_state.tasks)
    metrics = talk(port, b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    assert b'reason="disconnected"' in metrics
    assert b'reason="internal' not in metrics
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def frame(opcode: int, *, final: bool = True, payload: bytes = b"") -> bytes:
    return bytes([opcode | 0x80 * final, 0x80 | len(payload), 0, 0, 0, 0]) + payload


TEXT, CONTINUATION, PING, PONG = 1, 0, 9, 10
CLOSE_STREAM = b'{"action": "close", "stream": 0}'
BEGUN, WHOLE_MESSAGE = frame(TEXT, final=False, payload=CLOSE_STREAM), frame(TEXT, payload=CLOSE_STREAM)


@pytest.mark.parametrize(
    ("start", "piece", "end"),
    [
        pytest.param(BEGUN, frame(CONTINUATION, final=False), frame(CONTINUATION), id="empty continuations"),
        pytest.param(BEGUN, frame(CONTINUATION, final=False, payload=b" "), frame(CONTINUATION), id="continuations"),
        pytest.param(b"", frame(PING), WHOLE_MESSAGE, id="empty pings"),
        pytest.param(b"", frame(PING, payload=b"x" * 125), WHOLE_MESSAGE, id="pings"),
        pytest.param(b"", frame(PONG), WHOLE_MESSAGE, id="pongs"),
    ],
)
def test_frames_that_bring_nothing(port, start, piece, end):
    with dial(port) as connection:
        connection.sendall(UPGRADE + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 101 ")
        connection.sendall(start + piece * (MAX_IDLE_FRAMES - 10) + end)
        received = b""
        while b'"closed"' not in received:
            received += connection.recv(65536)
        with suppress(ConnectionError):
            connection.sendall(start + piece * (MAX_IDLE_FRAMES + 10))
            while b"frames without a message" not in received:
                received += (chunk := connection.recv(65536))
                assert chunk


def test_empty_messages_end_their_connection(port):
    assert talk(port, UPGRADE + b"\r\n", frame(TEXT) * 1000).startswith(b"HTTP/1.1 101 ")


def test_a_refused_websocket_is_no_error(serve, caplog):
    with serve(api_keys="alice:alice-0123456789abcdef") as (port, _):
        refused: list[tuple[str, dict[str, Any]]] = [("m", {}), ("none", {"X-API-Key": "alice-0123456789abcdef"})]
        for model, headers in refused:
            with pytest.raises(InvalidStatus):
                connect(
                    f"ws://127.0.0.1:{port}/v1/models/{model}/stream",
                    subprotocols=[Subprotocol("tandem.stream.v1")],
                    additional_headers=headers,
                )
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
