"""A decoder that tests can hold and break, and applications to talk to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager

import anyio
import httpx
import numpy as np
import numpy.typing as npt
import pytest
import uvicorn
from fastapi import FastAPI

from decoder.base import Bits, PackedBits, pack_bits, unpack_shots
from service.app import create_app
from service.engine import DecoderFactory
from service.settings import ModelSettings, Settings

Client = httpx.AsyncClient
Serve = Callable[..., AbstractAsyncContextManager[Client]]


class EchoDecoder:
    """Predicts that observable j flipped where detector j fired, so that every shot has its own right answer.

    A shot whose last detector fired raises. While `gate` is clear, batches wait.
    """

    def __init__(self, *, num_detectors: int = 20, num_observables: int = 12) -> None:
        self.num_detectors = num_detectors
        self.num_observables = num_observables
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)
        self.batches: list[int] = []

    def decode_batch(
        self,
        shots: npt.NDArray[np.generic],
        *,
        bit_packed_shots: bool = False,
        bit_packed_predictions: bool = False,
    ) -> Bits | PackedBits:
        bits = unpack_shots(shots, num_detectors=self.num_detectors, bit_packed=bit_packed_shots)
        self.batches.append(len(bits))
        self.started.release()
        assert self.gate.wait(30)
        if bits[:, -1].any():
            raise RuntimeError("a shot that this decoder cannot bear")
        predictions = bits[:, : self.num_observables]
        return pack_bits(predictions) if bit_packed_predictions else predictions


@pytest.fixture
def echo() -> EchoDecoder:
    return EchoDecoder()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def client_to(app: FastAPI, *, wait_until_ready: bool = True) -> AsyncIterator[Client]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://tandem", timeout=30) as client,
    ):
        while wait_until_ready and (await client.get("/readyz")).status_code != 200:
            await anyio.sleep(0.01)
        yield client


@pytest.fixture(name="client_of")
def _client_of() -> Callable[..., AbstractAsyncContextManager[Client]]:
    """Runs an application and gives a client to it, when it is ready."""
    return client_to


@pytest.fixture(scope="session")
async def client(anyio_backend: str) -> AsyncIterator[Client]:
    """The service with BP-OSD in its child process, as `tandem serve` runs it, but for two rounds."""
    model = ModelSettings(id="bb72-bposd", code="bb72", decoder="bposd", rounds=2, p=0.002)
    async with client_to(create_app(Settings(models=(model,), max_rounds=4))) as client:
        yield client


@pytest.fixture
def serve() -> Serve:
    """Starts the service with one model `m` and other settings, its decoders made by `make`."""

    @asynccontextmanager
    async def serve(
        make: DecoderFactory, *, wait_until_ready: bool = True, code: str = "bb72", **settings: object
    ) -> AsyncIterator[Client]:
        model = ModelSettings(id="m", code=code, decoder="bposd", rounds=1, own_process=False)
        app = create_app(Settings(models=(model,), **settings), make_decoder=make)  # type: ignore[arg-type]
        async with client_to(app, wait_until_ready=wait_until_ready) as client:
            yield client

    return serve


@contextmanager
def listening(app: FastAPI, *, wait_until_ready: bool = True) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=10))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            while wait_until_ready and httpx.get(f"{url}/readyz").status_code != 200:
                time.sleep(0.01)
            yield url
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def listen() -> Callable[..., AbstractContextManager[str]]:
    """Runs an application in a thread behind a real socket, and gives its URL when it is ready."""
    return listening


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """A real service: the shipped network and BP-OSD for bb72, over two rounds unless a request says otherwise."""
    models = (
        ModelSettings(id="bb72", code="bb72", rounds=2, p=0.002),
        ModelSettings(id="bb72-bposd", code="bb72", decoder="bposd", rounds=2, p=0.002),
    )
    with listening(create_app(Settings(models=models, max_rounds=4, max_shots_per_request=50))) as url:
        yield url


def random_shots(count: int, *, num_detectors: int, seed: int = 0) -> npt.NDArray[np.bool_]:
    shots = np.random.default_rng(seed).random((count, num_detectors)) < 0.5
    shots[:, -1] = False
    return shots


@pytest.fixture
def shots_of() -> Callable[..., npt.NDArray[np.bool_]]:
    """Random shots whose last detector is quiet."""
    return random_shots
