"""A decoder that tests can hold and break, and applications to talk to."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import uvicorn
from fastapi import FastAPI
from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection, connect

from decoder.base import Decoder, Decoding, SoftDecoder, unpack_shots
from decoder.making import make_decoder
from service.app import create_app
from service.models.model import DecoderFactory
from service.processes.server import Server
from service.settings import ModelSettings, Settings
from simulation.bits import Bits, PackedBits, pack_bits
from simulation.circuits import MemoryExperiment
from simulation.experiments import Experiment
from simulation.shots.sampling import Samples, sample
from tests.helpers import PATIENCE_SECONDS, eventually, eventually_async

Client = httpx.AsyncClient
Serve = Callable[..., AbstractAsyncContextManager[Client]]


class EchoDecoder:
    """Predicts that observable j flipped where detector j fired, so that every shot has its own right answer.

    A shot whose last detector fired raises. While `gate` is clear, batches wait: from `hold` to `gate.set`.
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
        assert self.gate.wait(PATIENCE_SECONDS)
        if bits[:, -1].any():
            raise RuntimeError("a shot that this decoder cannot bear")
        predictions = bits[:, : self.num_observables]
        return pack_bits(predictions) if bit_packed_predictions else predictions

    def hold(self) -> None:
        """Lets no batch end from now on; `batches` begins anew."""
        self.batches.clear()
        self.gate.clear()

    def make(self, model: ModelSettings, experiment: Experiment) -> Decoder:
        """Stands for the decoder of every experiment: it looks at the first detectors alone."""
        self.num_detectors = experiment.num_detectors
        return self


@pytest.fixture
def echo() -> EchoDecoder:
    return EchoDecoder()


@pytest.fixture
def make(echo: EchoDecoder) -> DecoderFactory:
    """Gives `echo` as the decoder of every model."""
    return echo.make


@pytest.fixture(scope="session", autouse=True)
def logs() -> Iterator[None]:
    """Servers in this process leave the logs to pytest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.Config, "configure_logging", lambda config: None)
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def client_to(app: FastAPI, *, wait_until_ready: bool = True) -> AsyncIterator[Client]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://tandem", timeout=PATIENCE_SECONDS) as client,
    ):
        if wait_until_ready:
            await eventually_async(lambda: ready(client))
        yield client


async def ready(client: Client) -> bool:
    return (await client.get("/readyz")).is_success


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
            if wait_until_ready:
                eventually(lambda: httpx.get(f"{url}/readyz", timeout=PATIENCE_SECONDS).is_success)
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


@pytest.fixture(scope="module")
def experiment(request: pytest.FixtureRequest) -> MemoryExperiment:
    """That of bb72 which a module's EXPERIMENT says."""
    return MemoryExperiment.create(code="bb72", **request.module.EXPERIMENT)


@pytest.fixture(scope="module")
def samples(request: pytest.FixtureRequest, experiment: MemoryExperiment) -> Samples:
    """SHOTS of it, again the module's."""
    return sample(experiment.circuit, shots=request.module.SHOTS, seed=7)


@pytest.fixture(scope="module")
def expected(
    request: pytest.FixtureRequest, experiment: MemoryExperiment, samples: Samples
) -> Decoding | Bits | PackedBits:
    """What the module's DECODER says of the samples when it is asked directly: predictions alone if it is not soft."""
    decoder = make_decoder(request.module.DECODER, experiment)
    if isinstance(decoder, SoftDecoder):
        return decoder.decode_soft(samples.detection_events, bit_packed_shots=True)
    predictions = decoder.decode_batch(samples.detection_events, bit_packed_shots=True)
    assert predictions.any()
    return predictions


def random_shots(count: int, *, num_detectors: int, seed: int = 0) -> npt.NDArray[np.bool_]:
    shots = np.random.default_rng(seed).random((count, num_detectors)) < 0.5
    shots[:, -1] = False
    return shots


@pytest.fixture
def shots_of() -> Callable[..., npt.NDArray[np.bool_]]:
    """Random shots whose last detector is quiet."""
    return random_shots


class Lab:
    """Speaks `tandem.stream.v1` as a lab would."""

    def __init__(self, socket: ClientConnection, *, cells: int = 36) -> None:
        self.socket = socket
        self.cells = cells

    async def open(self, stream: int, **members: object) -> None:
        await self.socket.send(json.dumps({"action": "open", "stream": stream, **members}))

    async def close(self, stream: int) -> None:
        await self.socket.send(json.dumps({"action": "close", "stream": stream}))

    async def layer(self, stream: int, round: int, events: npt.NDArray[np.bool_], *, flags: int = 0) -> None:
        packed = np.packbits(events, bitorder="little").tobytes()
        await self.socket.send(struct.pack("<IHBB", stream, round, flags, 0) + packed)

    async def shot(self, stream: int, events: npt.NDArray[np.bool_]) -> None:
        """Sends all layers of a shot, bool (detectors,)."""
        for t, layer in enumerate(layers := self.layers(events)):
            await self.layer(stream, t, layer, flags=int(t == len(layers) - 1))

    def layers(self, events: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
        rounds = len(events) // (2 * self.cells)
        return np.split(events, [self.cells * (2 * t + 1) for t in range(rounds)])

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            message = await self.socket.recv()
        assert isinstance(message, str)
        return json.loads(message)

    async def until(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """So many messages of one kind; "opened" may come in between and nothing else."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            message = await self.receive()
            if message["event"] == event:
                found.append(message)
            else:
                assert message["event"] == "opened", message
        return found

    async def end(self) -> tuple[int | None, str]:
        """Waits until the server ends the connection: its code and reason."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.socket.wait_closed()
        return self.socket.close_code, self.socket.close_reason or ""


class LabServer:
    """An application on a port of this machine."""

    def __init__(self, app: FastAPI, server: Server, port: int) -> None:
        self.app = app
        self.server = server
        self.port = port
        self.http = f"http://127.0.0.1:{port}"
        self.websocket = f"ws://127.0.0.1:{port}"

    @asynccontextmanager
    async def lab(
        self, model: str = "m", *, buffer_bytes: int | None = None, headers: dict[str, str] | None = None
    ) -> AsyncIterator[Lab]:
        url = f"{self.websocket}/v1/models/{model}/stream"
        connection = socket.socket()
        if buffer_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        connection.connect(("127.0.0.1", self.port))
        protocol = Subprotocol("tandem.stream.v1")
        async with connect(
            url, sock=connection, subprotocols=[protocol], compression=None, additional_headers=headers
        ) as websocket:
            yield Lab(websocket)

    async def metric(self, line: str) -> float:
        """The value of a metric, named with its labels."""
        async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
            text = (await client.get(f"{self.http}/metrics")).text
        values = [found.rpartition(" ")[2] for found in text.splitlines() if found.startswith(f"{line} ")]
        return float(values[0]) if values else 0.0

    async def until_metric(self, line: str, value: float) -> None:
        async def reached() -> bool:
            return await self.metric(line) == value

        await eventually_async(reached)


@pytest.fixture
def lab_server() -> Callable[..., AbstractAsyncContextManager[LabServer]]:
    """Runs an application as `tandem serve` does, but in this process."""

    @asynccontextmanager
    async def run(
        *models: ModelSettings,
        make: DecoderFactory | None = None,
        buffer_bytes: int | None = None,
        **settings: object,
    ) -> AsyncIterator[LabServer]:
        quick = {"drain_seconds": 0, "shutdown_timeout_seconds": 10}
        bounds = Settings(models=models, **quick | settings)  # type: ignore[arg-type]
        app = create_app(bounds, make_decoder=make)
        server = Server(app, bounds)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            if buffer_bytes is not None:  # connections inherit it
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
            served = asyncio.create_task(server.serve(sockets=[listener]))
            running = LabServer(app, server, listener.getsockname()[1])
            await eventually_async(lambda: server.started)
            async with httpx.AsyncClient(base_url=running.http, timeout=PATIENCE_SECONDS) as client:
                await eventually_async(lambda: ready(client))
            try:
                yield running
            finally:
                server.should_exit = True
                await served

    return run
