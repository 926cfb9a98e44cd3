"""Clients of the service in Python: `Client`, and `AsyncClient` for asyncio.

What they send, and how they read the answers, is written once, in `service.client.exchange`.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

from service.client.addresses import authorization, checked_url, model_path, socket_path, unproxied
from service.client.exchange import Exchange, Flow, Outcome, Retries
from service.client.streams import (
    AsyncLayerStream,
    LayerStream,
    OnCommitted,
    StreamExchange,
    StreamOptions,
    StreamPlace,
    open_async_stream,
    open_stream,
)

if TYPE_CHECKING:
    import httpx  # takes a third of a second to import, so that the functions that need it do

TIMEOUT_SECONDS = 150.0
"""Longer than a service takes by default to give up on a request (`Settings.decode_timeout_seconds`)."""

P = ParamSpec("P")
T = TypeVar("T")


class _Connection(ABC):
    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retries: Retries | None = None,
    ) -> None:
        """Connects when the first request is made.

        Args:
            url: of the service, such as http://127.0.0.1:8000, or unix:/run/tandem.sock for a Unix domain socket.
            api_key: is sent as ``Authorization: Bearer``; by default the environment's TANDEM_API_KEY, if any.
            timeout_seconds: for each step of a request: to connect, to send, to wait for the answer.
            retries: what to do while the service is busy.

        Raises:
            ValueError: this is no URL, the key fits in no header, or the environment names a proxy that cannot be used.
        """
        self.url = checked_url(url)
        # What is asked through a socket still has to name a host.
        base_url = self.url if self.url.scheme != "unix" else "http://localhost"
        headers = authorization(api_key)
        self._streams = StreamPlace(self.url, headers, timeout_seconds)
        options = {"base_url": base_url, "headers": headers, "timeout": timeout_seconds}
        try:
            build_request = self._connect(**options)
        except (ImportError, ValueError) as error:  # a SOCKS proxy without the package for it, or no URL
            hint = "unset the variable, or name the service's host in NO_PROXY"
            raise ValueError(
                f"a proxy of the environment (HTTP_PROXY, ALL_PROXY) cannot be used: {error}; {hint}"
            ) from error
        self._exchange = Exchange(self.url, build_request, retries or Retries())

    @abstractmethod
    def _connect(self, **options: Any) -> Callable[..., httpx.Request]:
        """Makes httpx's client of this kind, and gives what makes requests for it."""


def _blocking(method: Callable[Concatenate[Exchange, P], Flow[T]]) -> Callable[Concatenate[Client, P], T]:
    """The method of `Client` that sends what a method of `Exchange` yields."""

    @wraps(method)
    def run(client: Client, /, *args: P.args, **options: P.kwargs) -> T:
        from httpx import RequestError

        flow = method(client._exchange, *args, **options)
        try:
            request, delay_seconds = next(flow)
            while True:
                time.sleep(delay_seconds)
                try:
                    outcome: Outcome = client._http.send(request)
                except RequestError as error:
                    outcome = error
                request, delay_seconds = flow.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result

    return run


def _awaited(
    method: Callable[Concatenate[Exchange, P], Flow[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """The method of `AsyncClient` that sends what a method of `Exchange` yields."""

    @wraps(method)
    async def run(client: AsyncClient, /, *args: P.args, **options: P.kwargs) -> T:
        from httpx import RequestError

        flow = method(client._exchange, *args, **options)
        try:
            request, delay_seconds = next(flow)
            while True:
                await asyncio.sleep(delay_seconds)
                try:
                    outcome: Outcome = await client._http.send(request)
                except RequestError as error:
                    outcome = error
                request, delay_seconds = flow.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result

    return run


class Client(_Connection):
    """A connection to a service; close it, or use it in a `with` block. Not to be shared between threads.

    Its methods `models`, `model`, `circuit`, `add_experiment` and so on are those of
    `service.client.exchange.Exchange`. All raise `ServiceError`, an OSError, if the service cannot be reached or
    refuses.
    """

    models = _blocking(Exchange.models)
    model = _blocking(Exchange.model)
    circuit = _blocking(Exchange.circuit)
    add_experiment = _blocking(Exchange.add_experiment)
    experiments = _blocking(Exchange.experiments)
    remove_experiment = _blocking(Exchange.remove_experiment)
    decode = _blocking(Exchange.decode)

    def stream(
        self, model_id: str, *, on_committed: OnCommitted | None = None, **options: Unpack[StreamOptions]
    ) -> AbstractContextManager[LayerStream]:
        """Opens a stream, over a connection of its own, for a `with` block: an experiment sent layer by layer.

        Args:
            model_id: which model.
            on_committed: is called with all that a stream in windows tells to be fixed, during `send` and `answer`.
            **options: which experiment, and in which windows; see `StreamOptions`.

        Raises:
            ServiceError: when the block is entered: the service cannot be reached, or refuses.
        """
        exchange = StreamExchange(options, on_committed=on_committed)
        return open_stream(self._streams, f"{model_path(model_id)}/stream", exchange)

    def _connect(self, **options: Any) -> Callable[..., httpx.Request]:
        import httpx

        transport = httpx.HTTPTransport(uds=socket_path(self.url)) if unproxied(self.url) else None
        self._http = httpx.Client(**options, transport=transport)
        return self._http.build_request

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Connection):
    """`Client` for asyncio; close it with `aclose`, or use it in an `async with` block.

    The requests of one `decode` go one after the other, and several `decode` go side by side.
    """

    models = _awaited(Exchange.models)
    model = _awaited(Exchange.model)
    circuit = _awaited(Exchange.circuit)
    add_experiment = _awaited(Exchange.add_experiment)
    experiments = _awaited(Exchange.experiments)
    remove_experiment = _awaited(Exchange.remove_experiment)
    decode = _awaited(Exchange.decode)

    def stream(
        self, model_id: str, *, on_committed: OnCommitted | None = None, **options: Unpack[StreamOptions]
    ) -> AbstractAsyncContextManager[AsyncLayerStream]:
        """`Client.stream` for an `async with` block; `on_committed` is called as soon as something is told."""
        exchange = StreamExchange(options, on_committed=on_committed)
        return open_async_stream(self._streams, f"{model_path(model_id)}/stream", exchange)

    def _connect(self, **options: Any) -> Callable[..., httpx.Request]:
        import httpx

        transport = httpx.AsyncHTTPTransport(uds=socket_path(self.url)) if unproxied(self.url) else None
        self._http = httpx.AsyncClient(**options, transport=transport)
        return self._http.build_request

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
