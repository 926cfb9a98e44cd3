"""What a client of the service sends and what it makes of the answers; nothing here opens a connection."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, TypeVar, Unpack, cast
from urllib.request import proxy_bypass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from decoder.base import unpack_shots
from decoder.tandem.rule import Opinion
from service.auth import is_loopback
from service.wire.schemas import (
    B8,
    JSON,
    DecodeResponse,
    ExperimentList,
    ExperimentRecord,
    Limits,
    Meaning,
    ModelInfo,
    ModelList,
)
from simulation.bases import Basis
from simulation.bits import Bits, PackedBits, pack_bits, unpack_bits
from simulation.files import Kind

if TYPE_CHECKING:
    import httpx  # takes a third of a second to import, so that the functions that need it do

API_KEY_VARIABLE = "TANDEM_API_KEY"
LOST_CONNECTION_SECONDS = 0.2
"""How long to wait before a request whose connection was lost is sent again."""

T = TypeVar("T")
Schema = TypeVar("Schema", bound=BaseModel)
Outcome: TypeAlias = "httpx.Response | httpx.RequestError"
"""What became of a request that was sent."""
Flow: TypeAlias = "Generator[tuple[httpx.Request, float], Outcome, T]"
"""Yields requests, each with the seconds to wait before it is sent, takes their outcomes, and returns a result."""


class ExperimentOptions(TypedDict, total=False):
    """Which experiment is meant. What is left out or None is that of the model's default experiment."""

    basis: Basis | None
    """Basis of the logical memory."""
    rounds: int | None
    """Syndrome rounds."""
    p: float | None
    """Physical error rate."""
    experiment: str | None
    """The id of an experiment that was sent, see `Exchange.add_experiment`, in the place of all these."""


class DecodeOptions(ExperimentOptions, total=False):
    """The same, and what else there is to say of shots."""

    errors: bool
    """Whether to answer the errors found, in the place of probabilities; of models that `gives_errors`."""
    reweights: npt.NDArray[np.generic] | None
    """Probabilities of the errors, float (errors,) for all shots or (shots, errors), in the order of the detector error
    model without loops; of models with a classical decoder. The answer is that of the decoder of such a model."""
    reweights_are: Meaning
    """Whether these are the probabilities, or factors for those of the detector error model."""


class ServiceError(OSError):
    """A service that cannot be reached, or an answer that is an error.

    Args:
        detail: what is wrong and what to do.
        status: the HTTP status; None if there was no answer.
        type: the kind of problem (RFC 9457), such as urn:problem-type:tandem:unknown-model; None if none was named.
        retry_after: seconds after which the service says that it is worth trying again.
    """

    def __init__(
        self, detail: str, *, status: int | None = None, type: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.type = type
        self.retry_after = retry_after


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
class RemoteDecoding:
    """What a service decoded: a `decoder.base.Decoding`, without what the service did not answer."""

    predictions: Bits
    """bool (shots, observables)."""
    confidence: npt.NDArray[np.float64] | None = None
    """(shots,); None if not asked for, or if the model's decoder does not say."""
    flip_probabilities: npt.NDArray[np.float32] | None = None
    """(shots, observables); None in the same cases."""
    opinions: npt.NDArray[np.uint8] | None = None
    """(shots,): who answered each, of `decoder.tandem.rule.Opinion`; None for models that are no pairs."""
    errors: Bits | None = None
    """bool (shots, errors): which of the errors of the detector error model happened, in its order without loops; None
    if not asked for."""
    converged: Bits | None = None
    """bool (shots,): whether these explain the shot; None likewise."""


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
                    raise _unreachable(self.url, outcome) from outcome
                return check(outcome)
            except ServiceError as error:
                self._models.clear()
                busy = error.status in (None, HTTPStatus.SERVICE_UNAVAILABLE)
                if not busy or error.retry_after is None or attempts < 1 or error.retry_after > patience:
                    raise
                delay = error.retry_after
            attempts -= 1
            patience -= delay


def checked_url(url: str) -> httpx.URL:
    """The URL of a service.

    Raises:
        ValueError: this is none, or holds what belongs into no URL.
    """
    import httpx

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is not the URL of a service ({error}); give http://HOST:PORT") from None
    if parsed.scheme == "unix" and parsed.path.startswith("/") and not (parsed.host or parsed.query or parsed.fragment):
        return parsed
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise ValueError(f"{url!r} is not the URL of a service; give http://HOST:PORT, or unix:/PATH of its socket")
    if parsed.userinfo:
        raise ValueError(f"the URL holds a name or a password; a service takes a key, from {API_KEY_VARIABLE}")
    return parsed


def unproxied(url: httpx.URL) -> bool:
    """Whether a service is asked directly, whatever proxies the environment names: on this machine, or in NO_PROXY."""
    if url.scheme == "unix":
        return True
    return is_loopback(url.host) or bool(proxy_bypass(f"{url.host}:{url.port}" if url.port else url.host))


def socket_path(url: httpx.URL) -> str | None:
    """The Unix domain socket that a URL names, if it names one."""
    return url.path if url.scheme == "unix" else None


def authorization(api_key: str | None) -> dict[str, str]:
    """The header with the API key; None takes it from TANDEM_API_KEY, if that is set."""
    key = os.environ.get(API_KEY_VARIABLE, "") if api_key is None else api_key
    if not key.isascii() or not key.isprintable():
        raise ValueError(f"the API key has characters that no header can hold; check {API_KEY_VARIABLE}")
    return {"Authorization": f"Bearer {key}"} if key else {}


def model_path(model_id: str) -> str:
    """The path of a model.

    Raises:
        ValueError: this is not the id of a model, and would lead elsewhere.
    """
    return f"v1/models/{harmless(model_id)}"


def harmless(id: str) -> str:
    """The id of a model or of an experiment itself.

    Raises:
        ValueError: it is none, and as a part of a path would lead elsewhere.
    """
    if id in ("", ".", "..") or not all(character.isprintable() and character not in "/?#%\\" for character in id):
        raise ValueError(f"{id!r} is not the id of a model or an experiment")
    return id


def experiment_params(
    *, basis: Basis | None = None, rounds: int | None = None, p: float | None = None, experiment: str | None = None
) -> dict[str, object]:
    """The query that names an experiment; what is None is left to the model."""
    named = {"basis": basis, "rounds": rounds, "p": p, "experiment": experiment}
    return {name: value for name, value in named.items() if value is not None}


def read_decoding(info: ModelInfo, response: httpx.Response) -> RemoteDecoding:
    """Reads the answer to a decode request, which is of the media type that the request asked for.

    Raises:
        ServiceError: it is not such an answer.
    """
    num_observables = info.experiment.num_observables
    if response.request.headers["accept"] == JSON:
        answer = read(DecodeResponse, response)
        opinions = None if answer.answered_by is None else [Opinion[name.upper()] for name in answer.answered_by]
        return RemoteDecoding(
            np.array(answer.predictions, dtype=np.bool_).reshape(-1, num_observables),
            _array(answer.confidence, np.float64),
            _array(answer.flip_probabilities, np.float32),
            _array(opinions, np.uint8),
        )
    if response.headers.get("content-type") != B8:
        raise _foreign(response)
    try:
        shots = int(response.headers["x-tandem-num-shots"])
        parts = dict(part.split("=") for part in response.headers["x-tandem-parts"].split(", "))
        ends = np.cumsum([int(length) for length in parts.values()])
        content = np.split(np.frombuffer(response.content, dtype=np.uint8), ends)
        if len(content.pop()):
            raise ValueError("more than the parts")
        columns = {name: part.reshape(shots, -1) for name, part in zip(parts, content, strict=True)}
        found = RemoteDecoding(
            unpack_bits(columns["predictions"], num_observables),
            opinions=columns["opinions"].ravel() if "opinions" in columns else None,
        )
        if "errors" not in columns:
            return found
        errors = unpack_bits(columns["errors"], int(response.headers["x-tandem-num-errors"]))
        return replace(found, errors=errors, converged=columns["converged"].ravel().astype(np.bool_))
    except (KeyError, ValueError):
        raise _foreign(response) from None


@dataclass(frozen=True, eq=False)
class Bodies:
    """The bodies of the requests for some shots."""

    shots: PackedBits
    """(shots, bytes)."""
    reweights: npt.NDArray[np.float64] | None
    """(errors,) or (shots, errors)."""
    most: int
    """Shots in each."""

    @classmethod
    def of(cls, shots: PackedBits, reweights: npt.NDArray[np.generic] | None, *, limits: Limits) -> Bodies:
        """As large as the service's limits allow.

        Raises:
            ValueError: the shape of the reweights.
        """
        values = None if reweights is None else np.asarray(reweights, dtype=np.float64)
        most, room, each = limits.max_shots_per_request, limits.max_body_bytes, shots.shape[1]
        if values is not None and values.ndim == 1:
            room -= values.nbytes
        elif values is not None:
            if values.ndim != 2 or len(values) != len(shots):
                raise ValueError(
                    f"reweights of the shape {values.shape} for {len(shots)} shots: give (errors,) for all of them, or "
                    f"({len(shots)}, errors)"
                )
            each += values[:1].nbytes
            most = min(most, limits.max_reweighted_shots)
        return cls(shots, values, max(1, min(most, room // each)))

    def params(self, meaning: Meaning) -> dict[str, object]:
        """What the query says of them."""
        if self.reweights is None:
            return {}
        return {"reweights": "all" if self.reweights.ndim == 1 else "each", "reweights_are": meaning}

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self.shots), self.most):
            some = slice(start, start + self.most)
            values = b""
            if self.reweights is not None:
                values = (self.reweights if self.reweights.ndim == 1 else self.reweights[some]).astype("<f8").tobytes()
            yield self.shots[some].tobytes() + values


def joined(info: ModelInfo, parts: Sequence[RemoteDecoding], *, num_shots: int) -> RemoteDecoding:
    """The answers to all requests for some shots as one.

    Raises:
        ServiceError: they are not as many as the shots.
    """
    if not parts:
        return RemoteDecoding(np.zeros((0, info.experiment.num_observables), dtype=np.bool_))
    columns: dict[str, Any] = {}
    for column_of in fields(RemoteDecoding):
        values = [value for part in parts if (value := getattr(part, column_of.name)) is not None]
        column = columns[column_of.name] = np.concatenate(values) if values else None
        if column is not None and len(column) != num_shots:
            raise ServiceError(f"the service answered {len(column)} of {num_shots} shots; is it of this version?")
    return RemoteDecoding(**columns)


def read(schema: type[Schema], response: httpx.Response) -> Schema:
    """Reads a JSON answer.

    Raises:
        ServiceError: it is not what this service answers.
    """
    try:
        return schema.model_validate_json(response.content)
    except ValidationError:
        raise _foreign(response) from None


def check(response: httpx.Response) -> httpx.Response:
    """The answer itself, if it is no error.

    Raises:
        ServiceError: it is one.
    """
    if response.is_success:
        return response
    try:
        error = problem_error(response.json(), status=response.status_code, retry_after=_retry_after(response))
    except (ValueError, KeyError, TypeError):
        raise _foreign(response) from None
    raise error


def problem_error(problem: Any, *, status: int, retry_after: float | None = None) -> ServiceError:
    """A problem of RFC 9457 as an error.

    Raises:
        KeyError, TypeError: it is none.
    """
    detail, kind = str(problem["detail"]), str(problem["type"])
    return ServiceError(f"{detail} (status {status})", status=status, type=kind, retry_after=retry_after)


def _retry_after(response: httpx.Response) -> float | None:
    # Only seconds: the service never answers a date.
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdecimal() else None


def _foreign(response: httpx.Response) -> ServiceError:
    url = response.request.url.copy_with(query=None)
    return ServiceError(
        f"{url} answered {response.status_code} {response.reason_phrase}, not as a service of this version does; "
        "check the URL",
        status=response.status_code,
        retry_after=_retry_after(response),
    )


def _unreachable(url: httpx.URL, error: httpx.RequestError) -> ServiceError:
    import httpx

    # Where a connection was lost, it is worth trying again; not where there was none.
    lost = isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError))
    again = lost and not isinstance(error, httpx.ConnectError)
    return ServiceError(
        f"no answer from {url}: {str(error) or type(error).__name__}; is a service running there?",
        retry_after=LOST_CONNECTION_SECONDS if again else None,
    )


def _array(values: list[Any] | None, dtype: npt.DTypeLike) -> npt.NDArray[Any] | None:
    return None if values is None else np.array(values, dtype=dtype)
