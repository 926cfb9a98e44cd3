"""Clients of the service in Python: `Client`, and `AsyncClient` for asyncio.

What they send and how they read the answers is in `service.client.exchange`; here are the connections alone.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Generic, Self, TypeVar, Unpack

import httpx
import numpy as np
import numpy.typing as npt

from service.client.exchange import (
    DecodeOptions,
    Exchange,
    ExperimentOptions,
    Flow,
    Outcome,
    RemoteDecoding,
    Retries,
    authorization,
    checked_url,
)
from service.wire.schemas import ModelInfo

TIMEOUT_SECONDS = 150.0
"""Longer than a service takes by default to give up on a request (`Settings.decode_timeout_seconds`)."""

Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)
T = TypeVar("T")


class _Connection(Generic[Http]):
    _http_client: type[Http]

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
            url: of the service, such as http://127.0.0.1:8000.
            api_key: is sent as ``Authorization: Bearer``; by default the environment's TANDEM_API_KEY, if any.
            timeout_seconds: for each step of a request: to connect, to send, to wait for the answer.
            retries: what to do while the service is busy.

        Raises:
            ValueError: this is no URL, or the key fits in no header.
        """
        self.url = checked_url(url)
        self._http: Http = self._http_client(
            base_url=self.url, headers=authorization(api_key), timeout=httpx.Timeout(timeout_seconds)
        )
        self._exchange = Exchange(self.url, self._http.build_request, retries=retries or Retries())


class Client(_Connection[httpx.Client]):
    """A connection to a service; close it, or use it in a `with` block. Not to be shared between threads.

    All methods raise `ServiceError`, an OSError, if the service cannot be reached or refuses.
    """

    _http_client = httpx.Client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def models(self) -> list[ModelInfo]:
        """All models of the service, each with its default experiment."""
        return self._run(self._exchange.models())

    def model(self, model_id: str, **experiment: Unpack[ExperimentOptions]) -> ModelInfo:
        """One model, and the size of the shots of an experiment, by default its own.

        Args:
            model_id: which model.
            **experiment: `basis`, `rounds` and `p`; see `ExperimentOptions`.
        """
        return self._run(self._exchange.model(model_id, **experiment))

    def circuit(self, model_id: str, **experiment: Unpack[ExperimentOptions]) -> str:
        """The circuit of an experiment as stim text: what makes the shots that the model decodes."""
        return self._run(self._exchange.circuit(model_id, **experiment))

    def decode(self, model_id: str, shots: npt.NDArray[np.generic], **options: Unpack[DecodeOptions]) -> RemoteDecoding:
        """Decodes shots, in as many requests as the service's limits ask for.

        Args:
            model_id: which model.
            shots: detection events, 0 or 1: bool or integer (shots, detectors), or with `bit_packed_shots` uint8
                (shots, ceil(detectors / 8)), little-endian as in stim's b8.
            **options: `basis`, `rounds`, `p`, `confidence`, `flip_probabilities`, `deadline_ms` and
                `bit_packed_shots`; see `DecodeOptions`.

        Raises:
            ServiceError: no answer, or an error.
            ValueError: the shape, the dtype or a value of `shots` is not as above.
        """
        return self._run(self._exchange.decode(model_id, shots, **options))

    def _run(self, flow: Flow[T]) -> T:
        try:
            request, delay_seconds = next(flow)
            while True:
                time.sleep(delay_seconds)
                try:
                    outcome: Outcome = self._http.send(request)
                except httpx.RequestError as error:
                    outcome = error
                request, delay_seconds = flow.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result


class AsyncClient(_Connection[httpx.AsyncClient]):
    """`Client` for asyncio; close it with `aclose`, or use it in an `async with` block."""

    _http_client = httpx.AsyncClient

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._http.aclose()

    async def models(self) -> list[ModelInfo]:
        """As `Client.models`."""
        return await self._run(self._exchange.models())

    async def model(self, model_id: str, **experiment: Unpack[ExperimentOptions]) -> ModelInfo:
        """As `Client.model`."""
        return await self._run(self._exchange.model(model_id, **experiment))

    async def circuit(self, model_id: str, **experiment: Unpack[ExperimentOptions]) -> str:
        """As `Client.circuit`."""
        return await self._run(self._exchange.circuit(model_id, **experiment))

    async def decode(
        self, model_id: str, shots: npt.NDArray[np.generic], **options: Unpack[DecodeOptions]
    ) -> RemoteDecoding:
        """As `Client.decode`; requests go one after the other, and several `decode` side by side."""
        return await self._run(self._exchange.decode(model_id, shots, **options))

    async def _run(self, flow: Flow[T]) -> T:
        try:
            request, delay_seconds = next(flow)
            while True:
                await asyncio.sleep(delay_seconds)
                try:
                    outcome: Outcome = await self._http.send(request)
                except httpx.RequestError as error:
                    outcome = error
                request, delay_seconds = flow.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result
