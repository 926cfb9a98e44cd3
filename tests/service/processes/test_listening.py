"""The Unix domain socket: who may connect, what becomes of its file, and that all works through it."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import stat

import httpx
import numpy as np
import pytest
from websockets import Subprotocol
from websockets.sync.client import unix_connect

from service.client import Client
from service.client.answers import ServiceError
from service.processes.listening import Acceptor, accept_waiting, listen_on_path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a socket"


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_its_file_has_the_permissions_and_goes_in_the_end(path, mode):
    with listen_on_path(path, mode=mode):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert not path.exists()


def test_what_a_killed_service_left_behind_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with listen_on_path(path, mode=0o600), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_another_service_stays_as_it_is(path):
    with listen_on_path(path, mode=0o600):
        with (
            pytest.raises(ValueError, match=r"a socket: Address already in use; choose another --uds"),
            listen_on_path(path, mode=0o600),
        ):
            pass
        assert path.is_socket()


def test_the_file_of_another_is_left_alone(path):
    with listen_on_path(path, mode=0o600):
        path.unlink()
        path.write_text("mine")
        with (
            pytest.raises(ValueError, match="no socket is there"),
            listen_on_path(path, mode=0o600),
        ):
            pass
    assert path.read_text() == "mine"


def test_requests_probes_streams_and_the_end(serve_with, make, path):
    with listen_on_path(path, mode=0o600) as near, serve_with(make, near=near, drain_seconds=0) as (_, server):
        with Client(f"unix:{path}") as client:
            assert [model.id for model in client.models()] == ["m"]
            shots = np.eye(72, dtype=bool)[:5]
            assert np.array_equal(client.decode("m", shots).predictions, shots[:, :12])
        with httpx.Client(transport=httpx.HTTPTransport(uds=os.fspath(path)), base_url="http://any") as probe:
            assert probe.get("/healthz").is_success
            assert probe.get("/readyz").is_success
        url, protocols = "ws://any/v1/models/m/stream", [Subprotocol("tandem.stream.v1")]
        with unix_connect(os.fspath(path), uri=url, subprotocols=protocols) as stream:
            stream.send('{"action": "close", "stream": 3}')
            assert json.loads(stream.recv())["event"] == "closed"
            server.stop()
            assert list(stream) == []
    assert not path.exists()


def test_what_was_accepted_before_the_end_is_connected():
    async def accept(listener: socket.socket) -> int:
        made: list[asyncio.Protocol] = []

        def make() -> asyncio.Protocol:
            made.append(asyncio.Protocol())
            return made[-1]

        acceptor = Acceptor(listener, make)
        while not acceptor.connecting and not made:
            await asyncio.sleep(0)
        acceptor.close()
        await acceptor.wait_closed()
        return len(made) + len(list(accept_waiting(listener)))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(10)]
        assert asyncio.run(accept(listener)) == len(clients)
        for client in clients:
            client.close()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # by httpcore
def test_nobody_listens(path):
    with Client(f"unix:{path}") as client, pytest.raises(ServiceError, match=f"unix:{path.parent}"):
        client.models()
    gc.collect()
