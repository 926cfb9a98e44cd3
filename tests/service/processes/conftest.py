"""The server of `tandem serve` in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx
import pytest

from service.app import create_app
from service.models.model import DecoderFactory
from service.processes.server import Server
from service.settings import ModelSettings, Settings
from tests.helpers import PATIENCE_SECONDS, eventually


@contextmanager
def running_server(
    make: DecoderFactory, *, near: socket.socket | None = None, **settings: object
) -> Iterator[tuple[int, Server]]:
    model = ModelSettings(id="m", code="bb72", decoder="bposd", rounds=1, own_process=False)
    defaults: dict[str, object] = {"drain_seconds": 0.3, "allowed_hosts": ("t",)}
    chosen = Settings(models=(model,), **defaults | settings)  # type: ignore[arg-type]
    server = Server(create_app(chosen, make_decoder=make), chosen)
    listener = socket.create_server(("127.0.0.1", 0))
    listeners = [listener] if near is None else [listener, near]
    port = listener.getsockname()[1]
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=listeners)))
    thread.start()
    try:
        # A probe needs no key.
        eventually(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE_SECONDS).is_success)
        yield port, server
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def serve_with() -> Callable[..., AbstractContextManager[tuple[int, Server]]]:
    """Runs the server with what makes its decoders, perhaps on another socket besides: its port and the server."""
    return running_server


@pytest.fixture
def serve(make) -> Callable[..., AbstractContextManager[tuple[int, Server]]]:
    """As `serve_with`, with the decoder `echo`."""
    return lambda **settings: running_server(make, **settings)
