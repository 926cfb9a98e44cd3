"""Connections that are too many, too slow or never end are cut off in time, over a real socket."""

from __future__ import annotations

import gc
import json
import socket
import sys
import time

import httpx
import pytest
import uvicorn
from websockets import Subprotocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.helpers import PATIENCE_SECONDS, eventually

URL = "/v1/models/m/decode"
HEAD = b"POST " + URL.encode() + b" HTTP/1.1\r\nHost: t\r\nContent-Type: application/octet-stream\r\n"


def talk(port: int, *sent: bytes, pause: float = 0.0) -> tuple[bytes, float]:
    """Sends pieces, then reads until the server closes, which it has to: what came, and after how many seconds."""
    started = time.monotonic()
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        try:
            for piece in sent:
                connection.sendall(piece)
                time.sleep(pause)
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionError:
            pass
    return received, time.monotonic() - started


TRICKS = (b"../m", b"..%2fm", b"%2e%2e", b".", b"m%00", b"m%20", b"m;v=1", b"M", b"%6d/..", b"m/../m", b"..\\m", b"%ff")


def test_tricks_with_paths_find_no_model(serve):
    with serve() as (port, _), socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        reader = connection.makefile("rb")
        for trick in (*TRICKS, b"/etc/passwd", b"%2fetc%2fpasswd", b"m/circuit/..", b"", b"x" * 5000):
            for route in (b"/v1/models/" + trick, b"/v2/models/" + trick + b"/ready"):
                connection.sendall(b"GET " + route + b" HTTP/1.1\r\nHost: t\r\n\r\n")
                assert reader.readline().startswith(b"HTTP/1.1 404 "), route
                length = 0
                while (line := reader.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                reader.read(length)
        reader.close()


def test_slow_headers(serve):
    with serve(header_timeout_seconds=1) as (port, _):
        for sent in ((), (b"GET /healthz HT",), (HEAD,)):
            received, seconds = talk(port, *sent)
            assert received.startswith(b"HTTP/1.1 408 "), sent
            assert seconds > 0.9
        drip = [bytes([byte]) for byte in b"GET /healthz HTTP/1.1\r\nX-Slow: 1"]
        received, _ = talk(port, *drip, pause=0.05)
        assert received.startswith(b"HTTP/1.1 408 ") or received == b""  # it went on sending to a closed connection
        received, _ = talk(port, b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", b"GET /hea", pause=0.2)
        assert received.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 408 " in received  # the second request of a connection has a limit of its own


def test_headers_that_do_not_end(serve):
    with serve(header_timeout_seconds=600) as (port, _):
        received, _ = talk(port, b"GET / HTTP/1.1\r\n", *[b"X-Long: " + bytes([97]) * 30_000] * 4)
        assert received.startswith(b"HTTP/1.1 4") or received == b""


def test_slow_and_never_ending_bodies(serve):
    with serve(body_timeout_seconds=0.5, max_body_bytes=1000) as (port, server):
        received, _ = talk(port, HEAD + b"Content-Length: 9\r\n\r\n1234")
        assert received.startswith(b"HTTP/1.1 408 ")
        assert b"body-timeout" in received
        chunk = b"400\r\n" + bytes(1024) + b"\r\n"
        for head in (HEAD, b"GET /healthz HTTP/1.1\r\nHost: t\r\n"):  # read to its limit, and not read at all
            talk(port, head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 200, pause=0.02)
        eventually(lambda: not server.server_state.connections)


def test_a_client_that_does_not_read_its_answer(serve):
    bounds = {"write_timeout_seconds": 0.5, "keep_alive_seconds": 600, "header_timeout_seconds": 600}
    with serve(**bounds) as (port, server), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        # More than the system itself keeps for a connection.
        connection.sendall(b"GET /v1/models/m/dem?rounds=10 HTTP/1.1\r\nHost: t\r\n\r\n" * 40)
        eventually(lambda: server.server_state.connections)
        eventually(lambda: not server.server_state.connections)


def test_too_many_connections(serve, monkeypatch):
    monkeypatch.setattr("service.processes.http1.PATIENCE_SECONDS", PATIENCE_SECONDS)
    with serve(max_connections=3) as (port, server):
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        eventually(lambda: len(server.server_state.connections) == 3)
        received, _ = talk(port, b"GET /v1/models HTTP/1.1\r\nHost: t\r\n\r\n")
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in head.lower()
        assert json.loads(body)["type"] == "urn:problem-type:tandem:busy"
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE_SECONDS).is_success
        for connection in held:
            connection.close()
        eventually(lambda: not server.server_state.connections)
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 200


def test_too_many_connections_for_a_websocket(serve, monkeypatch):
    monkeypatch.setattr("service.processes.http1.PATIENCE_SECONDS", PATIENCE_SECONDS)
    with serve(max_connections=3) as (port, server):
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        eventually(lambda: len(server.server_state.connections) == 3)
        url, protocol = f"ws://127.0.0.1:{port}/v1/models/m/stream", [Subprotocol("tandem.stream.v1")]
        with pytest.raises(InvalidStatus) as refused:
            connect(url, subprotocols=protocol)
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["retry-after"] == "1"
        held.pop().close()
        eventually(lambda: len(server.server_state.connections) == 2)
        with connect(url, subprotocols=protocol):
            pass
        for connection in held:
            connection.close()


def test_what_a_loaded_service_holds_is_not_collected_again_and_again(serve):
    gc.unfreeze()
    try:
        with serve():
            eventually(gc.get_freeze_count)
    finally:
        gc.unfreeze()


def test_threads_that_compute_soon_leave_the_interpreter_to_the_loop(serve):
    usual = 0.005
    sys.setswitchinterval(usual)
    try:
        with serve():
            assert sys.getswitchinterval() < 0.2 * usual
    finally:
        sys.setswitchinterval(usual)


def test_an_idle_connection_is_closed(serve):
    with serve(keep_alive_seconds=1) as (port, _):
        received, seconds = talk(port, b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 200 ")
        assert seconds > 0.9


def test_draining_takes_what_has_connected_and_asks_to_go(serve, monkeypatch):
    monkeypatch.setattr("service.processes.server.FIRST_REQUEST_SECONDS", PATIENCE_SECONDS)

    def closed() -> bool:
        with socket.socket() as late:
            return late.connect_ex(("127.0.0.1", port)) != 0

    with serve(drain_seconds=2) as (port, server):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as client:
            assert "connection" not in client.get("/v1/models").headers
            silent = socket.create_connection(("127.0.0.1", port))

            def draining() -> httpx.Response | None:
                response = client.get("/readyz")
                return None if response.is_success else response

            server.should_exit = True
            response = eventually(draining)
            assert response.headers["connection"] == "close"
            assert client.get("/v1/models").status_code == 200
        eventually(closed)  # the silent connection was there before
        silent.sendall(b"GET /v1/models HTTP/1.1\r\nHost: t\r\n\r\n")
        received = b""
        while chunk := silent.recv(65536):
            received += chunk
        silent.close()
        assert received.startswith(b"HTTP/1.1 200 ")


def test_a_request_that_comes_as_the_server_closes_connections_is_answered(serve, monkeypatch):
    request = b"GET /v1/models HTTP/1.1\r\nHost: t\r\n\r\n"
    with serve(drain_seconds=0) as (port, server):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as kept:
            kept.sendall(request)
            received = kept.recv(65536)
            shutdown = uvicorn.Server.shutdown

            async def as_it_comes(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
                kept.sendall(request)  # connections are closed next, before anything else is read
                await shutdown(server, sockets)

            monkeypatch.setattr(uvicorn.Server, "shutdown", as_it_comes)
            server.should_exit = True
            while chunk := kept.recv(65536):
                received += chunk
        assert received.count(b"HTTP/1.1 200 ") == 2


def test_a_websocket_without_a_key_hears_401(serve):
    with serve(api_keys="alice:alice-0123456789abcdef") as (port, _):
        url, protocol = f"ws://127.0.0.1:{port}/v1/models/m/stream", [Subprotocol("tandem.stream.v1")]
        with pytest.raises(InvalidStatus) as refused:
            connect(url, subprotocols=protocol)
        assert refused.value.response.status_code == 401
        assert "x-request-id" in refused.value.response.headers
        with connect(url, subprotocols=protocol, additional_headers={"X-API-Key": "alice-0123456789abcdef"}) as stream:
            assert "x-request-id" in stream.response.headers


def test_a_websocket_ends_when_its_key_is_revoked(serve, tmp_path):
    alice, bob = "alice-0123456789abcdef", "bob-0123456789abcdef"
    (file := tmp_path / "keys").write_text(f"alice:{alice}\nbob:{bob}\n")
    with serve(api_keys_file=file) as (port, _):
        url, protocol = f"ws://127.0.0.1:{port}/v1/models/m/stream", [Subprotocol("tandem.stream.v1")]
        with (
            connect(url, subprotocols=protocol, additional_headers={"X-API-Key": alice}) as kept,
            connect(url, subprotocols=protocol, additional_headers={"X-API-Key": bob}) as revoked,
        ):
            file.write_text(f"alice:{alice}\n")
            with pytest.raises(ConnectionClosed) as closed:
                revoked.recv(timeout=PATIENCE_SECONDS)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, "key" in closed.value.rcvd.reason) == (1008, True)
            kept.send('{"action": "open", "stream": 0}')
            assert '"opened"' in kept.recv(timeout=PATIENCE_SECONDS)
