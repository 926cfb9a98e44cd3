"""What can be asked of a service, step by step; nothing here opens a connection."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias, TypeVar, Unpack, cast

import numpy as np
import numpy.typing as npt

from decoder.base import unpack_shots
from service.client.addresses import ExperimentOptions, experiment_params, harmless, model_path
from service.client.answers import ServiceError, check, read, unreachable
from service.client.decoding import Bodies, DecodeOptions, RemoteDecoding, joined, read_decoding
from service.wire.schemas import (
    B8,
    JSON,
    ExperimentList,
    ExperimentRecord,
    ModelInfo,
    ModelList,
)
from simulation.bits import pack_bits
from simulation.files import Kind

if TYPE_CHECKING:
    import httpx  # takes a third of a second to import, so that the functions that need it do


T = TypeVar("T")
Outcome: TypeAlias = "httpx.Response | httpx.RequestError"
"""What became of a request that was sent."""
Flow: TypeAlias = "Generator[tuple[httpx.Request, float], Outcome, T]"
"""Yields requests, each with the seconds to wait before it is sent, takes their outcomes, and returns a result."""


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often to ask a service again that is busy: one that answers 503 with the header Retry-After.

    A request whose connection is lost, perhaps with a worker that died, is sent again, too: none changes anything.
    """

    attempts: int = 3
    """Most further attempts of one request; 0 raises at once."""
    max_wait_seconds: float = 60.0
    """Most time to wait between attempts, all attempts of one request together."""


@dataclass(frozen=True, eq=False)
class Exchange:
    """What can be asked of a service: each method yields requests and returns what the answers say (`Flow`).

    `Client` and `AsyncClient` have these methods, too; theirs send the requests and return the result.

    Args:
        url: of the service.
        build_request: makes requests to it from a method, a path and httpx's keywords.
        retries: what to do while the service is busy.
    """

    url: httpx.URL
    build_request: Callable[..., httpx.Request]
    retries: Retries
    # Models by the URLs of the requests for them; forgotten after an error: another service may run there then.
    _models: dict[httpx.URL, ModelInfo] = field(default_factory=dict, init=False)

    def models(self) -> Flow[list[ModelInfo]]:
        """All models of the service, each with its default experiment."""
        response = yield from self._answered(self.build_request("GET", "v1/models"))
        return read(ModelList, response).models

    def model(self, model_id: str, **experiment: Unpack[ExperimentOptions]) -> Flow[ModelInfo]:
        """One model, and the size of the shots of an experiment.

        Args:
            model_id: which model.
            **experiment: which experiment; see `ExperimentOptions`.
        """
        params = experiment_params(**experiment)
        request = self.build_request("GET", model_path(model_id), params=params)
        info = self._models.get(request.url)
        if info is None:
            info = read(ModelInfo, (yield from self._answered(request)))
            self._models[request.url] = info
        return info

    def circuit(self, model_id: str, **experiment: Unpack[ExperimentOptions]) -> Flow[str]:
        """The circuit of an experiment as stim text: what makes the shots that the model decodes."""
        params = experiment_params(**experiment)
        request = self.build_request("GET", f"{model_path(model_id)}/circuit", params=params)
        return (yield from self._answered(request)).text

    def add_experiment(self, text: str, *, kind: Kind = "circuit") -> Flow[ExperimentRecord]:
        """Sends a circuit or a detector error model, which the service keeps for this API key.

        Args:
            text: as stim writes it.
            kind: "circuit", or "dem" for a detector error model.

        Returns:
            What it is; its id stands for it in `decode` and in `model`, as `experiment`.
        """
        request = self.build_request(
            "POST", "v1/experiments", params={"kind": kind}, headers={"Content-Type": B8}, content=text.encode()
        )
        return read(ExperimentRecord, (yield from self._answered(request)))

    def experiments(self) -> Flow[list[ExperimentRecord]]:
        """All experiments that the service keeps for this API key, the oldest first."""
        response = yield from self._answered(self.build_request("GET", "v1/experiments"))
        return read(ExperimentList, response).experiments

    def remove_experiment(self, experiment_id: str) -> Flow[None]:
        """Has the service keep an experiment no longer."""
        yield from self._answered(self.build_request("DELETE", f"v1/experiments/{harmless(experiment_id)}"))
        return None

    def decode(
        self,
        model_id: str,
        shots: npt.NDArray[np.generic],
        *,
        confidence: bool = False,
        flip_probabilities: bool = False,
        deadline_ms: float | None = None,
        bit_packed_shots: bool = False,
        **options: Unpack[DecodeOptions],
    ) -> Flow[RemoteDecoding]:
        """Decodes shots, in as many requests as the service's limits ask for.

        Args:
            model_id: which model.
            shots: detection events, 0 or 1: bool or integer (shots, detectors), or with bit_packed_shots uint8
                (shots, ceil(detectors / 8)), little-endian as in stim's b8.
            confidence: whether to answer the probability of each prediction.
            flip_probabilities: whether to answer the probability that each observable flipped.
            deadline_ms: of pairs: milliseconds after which a shot keeps the network's answer if its second opinion is
                not there; None: the model's own. The answer's `opinions` tell which shots did.
            bit_packed_shots: whether `shots` is bit-packed.
            **options: which experiment the shots come from, and more; see `DecodeOptions`.

        Raises:
            ServiceError: no answer, or an error.
            ValueError: the shape, the dtype or a value of `shots` is not as above, or the shape of reweights.

        Returns:
            The predictions, and what else was asked for.
        """
        errors, meaning = options.get("errors", False), options.get("reweights_are", "probabilities")
        own = {"errors", "reweights", "reweights_are"}
        experiment = cast(ExperimentOptions, {name: value for name, value in options.items() if name not in own})
        info = yield from self.model(model_id, **experiment)
        num_detectors = info.experiment.num_detectors
        packed = pack_bits(unpack_shots(shots, num_detectors=num_detectors, bit_packed=bit_packed_shots))
        bodies = Bodies.of(packed, options.get("reweights"), limits=info.limits)
        params = experiment_params(**experiment) | bodies.params(meaning)
        params |= {"confidence": confidence, "flip_probabilities": flip_probabilities}
        if errors:
            params["errors"] = True
        if deadline_ms is not None:
            params["deadline_ms"] = deadline_ms
        if info.pair is not None:
            params["opinions"] = True
        # Probabilities come as JSON, which keeps all bits of a confidence.
        headers = {"Content-Type": B8, "Accept": JSON if (confidence or flip_probabilities) and not errors else B8}
        parts = []
        for content in bodies:
            request = self.build_request(
                "POST", f"{model_path(info.id)}/decode", params=params, headers=headers, content=content
            )
            parts.append(read_decoding(info, (yield from self._answered(request))))
        return joined(info, parts, num_shots=len(packed))

    def _answered(self, request: httpx.Request) -> Flow[httpx.Response]:
        """Sends a request, if need be several times, until there is an answer that is no error.

        Raises:
            ServiceError: the last attempt's.
        """
        attempts, patience = self.retries.attempts, self.retries.max_wait_seconds
        delay = 0.0
        while True:
            outcome = yield request, delay
            try:
                if isinstance(outcome, Exception):
                    raise unreachable(self.url, outcome) from outcome
                return check(outcome)
            except ServiceError as error:
                self._models.clear()
                busy = error.status in (None, HTTPStatus.SERVICE_UNAVAILABLE)
                if not busy or error.retry_after is None or attempts < 1 or error.retry_after > patience:
                    raise
                delay = error.retry_after
            attempts -= 1
            patience -= delay
