"""Clients of the service in Python: `Client`, and `AsyncClient` for asyncio."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Generic, Self, TypeVar

import httpx
import numpy as np
import numpy.typing as npt

from service.client.exchange import (
    Call,
    RemoteDecoding,
    Retries,
    ServiceError,
    authorization,
    check,
    checked_url,
    decode_calls,
    decode_params,
    experiment_params,
    joined,
    model_call,
    packed_shots,
    read,
    read_decoding,
    unreachable,
)
from service.wire.schemas import ModelInfo, ModelList
from simulation.torus import Basis

__all__ = ["AsyncClient", "Client", "RemoteDecoding", "Retries", "ServiceError"]

TIMEOUT_SECONDS = 150.0
"""Longer than a service takes by default to give up on a request (`Settings.decode_timeout_seconds`)."""

Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)


class _Connection(Generic[Http]):
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
        self._retries = retries or Retries()
        self._http: Http = self._open(
            base_url=self.url, headers=authorization(api_key), timeout=httpx.Timeout(timeout_seconds)
        )
        self._models: dict[Call, ModelInfo] = {}
        """What has been asked; forgotten after an error, because the service may be another by then."""

    @staticmethod
    def _open(*, base_url: httpx.URL, headers: dict[str, str], timeout: httpx.Timeout) -> Http:
        raise NotImplementedError

    def _checked(self, response: httpx.Response) -> httpx.Response:
        try:
            return check(response)
        except ServiceError:
            self._models.clear()
            raise


class Client(_Connection[httpx.Client]):
    """A connection to a service; close it, or use it in a `with` block. Not to be shared between threads.

    All methods raise `ServiceError`, an OSError, if the service cannot be reached or refuses.
    """

    @staticmethod
    def _open(*, base_url: httpx.URL, headers: dict[str, str], timeout: httpx.Timeout) -> httpx.Client:
        return httpx.Client(base_url=base_url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def models(self) -> list[ModelInfo]:
        """All models of the service, each with its default experiment."""
        return read(ModelList, self._send(Call("GET", "v1/models"))).models

    def model(
        self, model_id: str, *, basis: Basis | None = None, rounds: int | None = None, p: float | None = None
    ) -> ModelInfo:
        """One model, and the size of the shots of an experiment, by default its own."""
        call = model_call(model_id, params=experiment_params(basis=basis, rounds=rounds, p=p))
        if call not in self._models:
            self._models[call] = read(ModelInfo, self._send(call))
        return self._models[call]

    def circuit(
        self, model_id: str, *, basis: Basis | None = None, rounds: int | None = None, p: float | None = None
    ) -> str:
        """The circuit of an experiment as stim text: what makes the shots that the model decodes."""
        params = experiment_params(basis=basis, rounds=rounds, p=p)
        return self._send(model_call(model_id, "/circuit", params=params)).text

    def decode(
        self,
        model_id: str,
        shots: npt.NDArray[np.generic],
        *,
        basis: Basis | None = None,
        rounds: int | None = None,
        p: float | None = None,
        confidence: bool = False,
        flip_probabilities: bool = False,
        deadline_ms: float | None = None,
        bit_packed_shots: bool = False,
    ) -> RemoteDecoding:
        """Decodes shots, in as many requests as the service's limits ask for.

        Args:
            model_id: which model.
            shots: detection events, 0 or 1: bool or integer (shots, detectors), or with bit_packed_shots uint8
                (shots, ceil(detectors / 8)), little-endian as in stim's b8.
            basis: of the experiment that the shots come from; None: the model's own, as for `rounds` and `p`.
            rounds: its syndrome rounds.
            p: its physical error rate.
            confidence: whether to answer the probability of each prediction.
            flip_probabilities: whether to answer the probability that each observable flipped.
            deadline_ms: of pairs: milliseconds after which a shot keeps the network's answer if its second opinion is
                not there; None: the model's own. The answer's `opinions` tell which shots did.
            bit_packed_shots: whether `shots` is bit-packed.

        Raises:
            ServiceError: no answer, or an error.
            ValueError: the shape, the dtype or a value of `shots` is not as above.
        """
        info = self.model(model_id, basis=basis, rounds=rounds, p=p)
        packed = packed_shots(shots, num_detectors=info.experiment.num_detectors, bit_packed=bit_packed_shots)
        params = decode_params(
            basis=basis,
            rounds=rounds,
            p=p,
            confidence=confidence,
            flip_probabilities=flip_probabilities,
            deadline_ms=deadline_ms,
        )
        calls = decode_calls(info, packed, params=params)
        return joined(info, packed, [read_decoding(info, call, self._send(call)) for call in calls])

    def _send(self, call: Call) -> httpx.Response:
        waits = self._retries.waits()
        while True:
            try:
                response = self._http.request(
                    call.method, call.path, params=call.params, headers=call.headers, content=call.content
                )
                return self._checked(response)
            except httpx.RequestError as error:
                delay = waits.wait(unreachable(self.url, error))
            except ServiceError as error:
                delay = waits.wait(error)
            time.sleep(delay)


class AsyncClient(_Connection[httpx.AsyncClient]):
    """`Client` for asyncio; close it with `aclose`, or use it in an `async with` block."""

    @staticmethod
    def _open(*, base_url: httpx.URL, headers: dict[str, str], timeout: httpx.Timeout) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=base_url, headers=headers, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def models(self) -> list[ModelInfo]:
        """As `Client.models`."""
        return read(ModelList, await self._send(Call("GET", "v1/models"))).models

    async def model(
        self, model_id: str, *, basis: Basis | None = None, rounds: int | None = None, p: float | None = None
    ) -> ModelInfo:
        """As `Client.model`."""
        call = model_call(model_id, params=experiment_params(basis=basis, rounds=rounds, p=p))
        if call not in self._models:
            self._models[call] = read(ModelInfo, await self._send(call))
        return self._models[call]

    async def circuit(
        self, model_id: str, *, basis: Basis | None = None, rounds: int | None = None, p: float | None = None
    ) -> str:
        """As `Client.circuit`."""
        params = experiment_params(basis=basis, rounds=rounds, p=p)
        return (await self._send(model_call(model_id, "/circuit", params=params))).text

    async def decode(
        self,
        model_id: str,
        shots: npt.NDArray[np.generic],
        *,
        basis: Basis | None = None,
        rounds: int | None = None,
        p: float | None = None,
        confidence: bool = False,
        flip_probabilities: bool = False,
        deadline_ms: float | None = None,
        bit_packed_shots: bool = False,
    ) -> RemoteDecoding:
        """As `Client.decode`; requests go one after the other, and several `decode` side by side."""
        info = await self.model(model_id, basis=basis, rounds=rounds, p=p)
        packed = packed_shots(shots, num_detectors=info.experiment.num_detectors, bit_packed=bit_packed_shots)
        params = decode_params(
            basis=basis,
            rounds=rounds,
            p=p,
            confidence=confidence,
            flip_probabilities=flip_probabilities,
            deadline_ms=deadline_ms,
        )
        calls = decode_calls(info, packed, params=params)
        return joined(info, packed, [read_decoding(info, call, await self._send(call)) for call in calls])

    async def _send(self, call: Call) -> httpx.Response:
        waits = self._retries.waits()
        while True:
            try:
                response = await self._http.request(
                    call.method, call.path, params=call.params, headers=call.headers, content=call.content
                )
                return self._checked(response)
            except httpx.RequestError as error:
                delay = waits.wait(unreachable(self.url, error))
            except ServiceError as error:
                delay = waits.wait(error)
            await asyncio.sleep(delay)
