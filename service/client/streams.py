"""Streams: an experiment sent layer by layer as it is measured. `Client.stream` and `AsyncClient.stream` open them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from decoder.base import unpack_shots
from service.client.addresses import ExperimentOptions, socket_path, unproxied
from service.client.answers import ServiceError, problem_error
from service.wire.layers import HEADER, LAST, SUBPROTOCOL
from simulation.bits import Bits, pack_bits

if TYPE_CHECKING:
    import httpx
    from websockets.asyncio.client import ClientConnection as AsyncConnection
    from websockets.sync.client import ClientConnection as Connection

T = TypeVar("T")

NUMBER = 0
"""Of the stream: there is one on each connection."""


@dataclass(frozen=True, eq=False)
class Committed:
    """What is fixed of a stream in windows."""

    layers: int
    """All errors that begin in so many of the first layers are fixed."""
    predictions: Bits
    """bool (observables,): the flips of these errors."""
    converged: bool
    """Whether the errors found explained all events so far."""


@dataclass(frozen=True, eq=False)
class StreamAnswer:
    """The answer of a stream."""

    rounds: int
    predictions: Bits
    """bool (observables,)."""
    confidence: float | None
    """None if the decoder does not say."""
    flip_probabilities: npt.NDArray[np.float32] | None
    """(observables,); None if they were not asked for, or the decoder does not say."""
    converged: bool | None
    """Of a stream in windows: whether the errors found explained all events. None of others."""
    seconds: float
    """From the last layer's arrival at the service to the answer."""


OnCommitted = Callable[[Committed], None]


class StreamOptions(ExperimentOptions, total=False):
    """Which experiment comes, and how it is decoded. Without rounds it has as many as layers come before the last."""

    window: int | None
    """Decode in windows of so many layers, while they come; see docs/api.md. None for all at once."""
    commit: int | None
    """Layers by which windows move on; None for half of a window."""
    flip_probabilities: bool
    """Whether to answer the probability that each observable flipped."""
    deadline_ms: float | None
    """Of pairs: milliseconds after which a second opinion is late; None for the model's own."""


class StreamExchange:
    """What one stream sends, and what it is told; nothing here opens a connection.

    Args:
        members: of the message that opens the stream.
        on_committed: is called with all that is told to be fixed.
    """

    def __init__(self, members: Mapping[str, object], *, on_committed: OnCommitted | None = None) -> None:
        told = {name: value for name, value in members.items() if value is not None}
        self.open_message = json.dumps({"action": "open", "stream": NUMBER, **told})
        self.detectors: list[int] = []
        """Of the first, a middle and the last layer; of an experiment that was sent, of every layer."""
        self.committed: Committed | None = None
        """What is fixed, as far as it was told."""
        self.answer: StreamAnswer | None = None
        self._every_layer = "experiment" in told
        self._on_committed = on_committed
        self._sent = 0

    def layer_message(self, events: npt.NDArray[np.generic], *, last: bool) -> bytes:
        """The message of the next layer.

        Raises:
            ValueError: it has the wrong shape or values.
        """
        if self._every_layer:
            wanted = self.detectors[min(self._sent, len(self.detectors) - 1)]
        else:
            wanted = self.detectors[2 if last else min(self._sent, 1)]
        packed = pack_bits(unpack_shots(np.asarray(events)[np.newaxis], num_detectors=wanted))
        header = HEADER.pack(NUMBER, self._sent, LAST * last, 0)
        self._sent += 1
        return header + packed.tobytes()

    def take(self, message: str | bytes) -> None:
        """Reads what the service says.

        Raises:
            ServiceError: it ends the stream with a problem, or says what no service of this version does.
        """
        try:
            self._take(json.loads(message))
        except (ValueError, KeyError, TypeError) as error:
            raise ServiceError(f"a message that no service of this version sends: {message[:100]!r}") from error

    def _take(self, said: dict[str, Any]) -> None:
        event = said["event"]
        if event == "problem":
            raise problem_error(said, status=said["status"], retry_after=said.get("retry_after"))
        if event == "opened":
            self.detectors = said["detectors"]
        elif event == "committed":
            self.committed = Committed(said["layers"], _bits(said["predictions"]), said["converged"])
            if self._on_committed is not None:
                self._on_committed(self.committed)
        elif event == "answer":
            flips = said["flip_probabilities"]
            self.answer = StreamAnswer(
                rounds=said["rounds"],
                predictions=_bits(said["predictions"]),
                confidence=said["confidence"],
                flip_probabilities=None if flips is None else np.array(flips, dtype=np.float32),
                converged=said.get("converged"),
                seconds=said["seconds"],
            )


class LayerStream:
    """An experiment that is sent layer by layer; see `service.client.Client.stream`."""

    def __init__(self, connection: Connection, exchange: StreamExchange, *, timeout_seconds: float) -> None:
        self._connection, self._exchange, self._timeout = connection, exchange, timeout_seconds

    @property
    def detectors(self) -> list[int]:
        """See `StreamExchange.detectors`."""
        return self._exchange.detectors

    @property
    def committed(self) -> Committed | None:
        """What is fixed, as far as it was told."""
        return self._exchange.committed

    def open(self) -> None:
        """Asks for the stream, and waits until it is open.

        Raises:
            ServiceError: it is refused.
        """
        self._connection.send(self._exchange.open_message)
        self._until(lambda: self._exchange.detectors or None)

    def send(self, events: npt.NDArray[np.generic], *, last: bool = False) -> None:
        """Sends the next layer; waits while the service cannot follow.

        Args:
            events: 0 or 1, bool or integer (detectors of this layer,).
            last: whether it is the last one.

        Raises:
            ServiceError: the service has ended the stream.
            ValueError: the shape or a value of the events is wrong.
        """
        with _telling():
            self._connection.send(self._exchange.layer_message(events, last=last))
            with suppress(TimeoutError):  # nothing more was said
                while self._exchange.answer is None:
                    self._exchange.take(self._connection.recv(timeout=0))

    def answer(self) -> StreamAnswer:
        """Waits for the answer, when the last layer has been sent.

        Raises:
            ServiceError: there comes none.
        """
        return self._until(lambda: self._exchange.answer)

    def _until(self, found: Callable[[], T | None]) -> T:
        with _telling():
            while (what := found()) is None:
                self._exchange.take(self._connection.recv(timeout=self._timeout))
            return what


class AsyncLayerStream:
    """`LayerStream` for asyncio; see `service.client.AsyncClient.stream`."""

    def __init__(self, connection: AsyncConnection, exchange: StreamExchange, *, timeout_seconds: float) -> None:
        self._connection, self._exchange, self._timeout = connection, exchange, timeout_seconds
        self._error: ServiceError | None = None
        self._told = asyncio.Event()

    @property
    def detectors(self) -> list[int]:
        """See `StreamExchange.detectors`."""
        return self._exchange.detectors

    @property
    def committed(self) -> Committed | None:
        """What is fixed, as far as it was told."""
        return self._exchange.committed

    async def open(self) -> None:
        """See `LayerStream.open`."""
        with _telling():
            await self._connection.send(self._exchange.open_message)
        await self._until(lambda: self._exchange.detectors or None)

    async def send(self, events: npt.NDArray[np.generic], *, last: bool = False) -> None:
        """See `LayerStream.send`."""
        if self._error is not None:
            raise self._error
        with _telling():
            await self._connection.send(self._exchange.layer_message(events, last=last))

    async def answer(self) -> StreamAnswer:
        """See `LayerStream.answer`."""
        return await self._until(lambda: self._exchange.answer)

    async def _until(self, found: Callable[[], T | None]) -> T:
        with _telling():
            async with asyncio.timeout(self._timeout):
                while (what := found()) is None:
                    if self._error is not None:
                        raise self._error
                    self._told.clear()
                    await self._told.wait()
            return what

    async def read(self) -> None:
        """Takes all that the service says, until it ends the stream or the connection."""
        try:
            with _telling():
                while self._exchange.answer is None:
                    self._exchange.take(await self._connection.recv())
                    self._told.set()
        except ServiceError as error:
            self._error = error
        finally:
            self._told.set()


@dataclass(frozen=True)
class StreamPlace:
    """Where streams are opened."""

    url: httpx.URL
    """Of the service."""
    headers: Mapping[str, str]
    """Of the requests for connections."""
    timeout_seconds: float
    """For each step."""

    @property
    def options(self) -> dict[str, Any]:
        """What websockets is told."""
        options: dict[str, Any] = {"subprotocols": [SUBPROTOCOL], "compression": None}
        options |= {"additional_headers": dict(self.headers), "open_timeout": self.timeout_seconds}
        if unproxied(self.url):
            options["proxy"] = None
        return options

    def uri(self, path: str) -> str:
        """The URI of a path below the service; of one behind a Unix domain socket that of any host."""
        if self.url.scheme == "unix":
            return f"ws://localhost/{path}"
        scheme = "wss" if self.url.scheme == "https" else "ws"
        return str(self.url.copy_with(scheme=scheme, path=f"{self.url.path.rstrip('/')}/{path}"))


@contextmanager
def open_stream(place: StreamPlace, path: str, exchange: StreamExchange) -> Iterator[LayerStream]:
    """Opens a stream, ready for its first layer.

    Args:
        place: the service.
        path: of the model's streams, below it.
        exchange: says which stream.

    Raises:
        ServiceError: the service cannot be reached, or refuses.
    """
    from websockets.sync.client import connect, unix_connect

    uri, uds = place.uri(path), socket_path(place.url)
    with ExitStack() as held:
        with _telling():
            connecting = connect(uri, **place.options) if uds is None else unix_connect(uds, uri, **place.options)
            connection = held.enter_context(connecting)
            stream = LayerStream(connection, exchange, timeout_seconds=place.timeout_seconds)
            stream.open()
        yield stream


@asynccontextmanager
async def open_async_stream(place: StreamPlace, path: str, exchange: StreamExchange) -> AsyncIterator[AsyncLayerStream]:
    """`open_stream` for asyncio."""
    from websockets.asyncio.client import connect, unix_connect

    uri, uds = place.uri(path), socket_path(place.url)
    async with AsyncExitStack() as held:
        with _telling():
            connecting = connect(uri, **place.options) if uds is None else unix_connect(uds, uri, **place.options)
            connection = await held.enter_async_context(connecting)
        stream = AsyncLayerStream(connection, exchange, timeout_seconds=place.timeout_seconds)
        reading = asyncio.create_task(stream.read())
        held.callback(reading.cancel)
        await stream.open()
        yield stream


@contextmanager
def _telling() -> Iterator[None]:
    """Raises as a ServiceError what goes wrong with a connection."""
    from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

    try:
        yield
    except InvalidStatus as refused:
        raise _refusal(refused) from refused
    except ConnectionClosed as closed:
        reason = closed.rcvd.reason if closed.rcvd else ""
        raise ServiceError(f"the connection of the stream ended before its answer: {reason or closed}") from closed
    except ServiceError:
        raise
    except TimeoutError as late:
        raise ServiceError("the service did not answer in time; is it busy?") from late
    except (OSError, WebSocketException) as error:
        raise ServiceError(f"no stream could be opened: {error}; is a service running there?") from error


def _refusal(refused: Any) -> ServiceError:
    """The problem that a service answers in the place of a connection."""
    status = int(refused.response.status_code)
    try:
        return problem_error(json.loads(refused.response.body), status=status)
    except (ValueError, KeyError, TypeError):
        return ServiceError(f"the service answered {status}, and opened no stream; check the URL", status=status)


def _bits(values: list[int]) -> Bits:
    return np.array(values, dtype=np.bool_)
