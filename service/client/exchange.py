"""What a client of the service sends and what it makes of the answers; nothing here opens a connection."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import httpx
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from decoder.base import unpack_shots
from decoder.tandem.rule import Opinion
from service.wire.schemas import DecodeResponse, ModelInfo
from simulation.bits import Bits, PackedBits, pack_bits, packed_size
from simulation.torus import Basis

API_KEY_VARIABLE = "TANDEM_API_KEY"
B8 = "application/octet-stream"
JSON = "application/json"
LOST_CONNECTION_SECONDS = 0.2
"""How long to wait before a request whose connection was lost is sent again."""

Schema = TypeVar("Schema", bound=BaseModel)
Pairs = tuple[tuple[str, str], ...]
"""Names and values, of a query or of headers."""


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
    """How long to stay with a service that is busy: one that answers 503 with the header Retry-After.

    A request whose connection is lost, with a worker that died perhaps, is sent again, too: none changes anything.
    """

    attempts: int = 3
    """Most further attempts of one request; 0 raises at once."""
    max_wait_seconds: float = 60.0
    """Most time to wait between attempts, all attempts of one request together."""

    def waits(self) -> _Waits:
        return _Waits(self.attempts, self.max_wait_seconds)


@dataclass
class _Waits:
    """What is left of the retries of one request."""

    attempts: int
    seconds: float

    def wait(self, error: ServiceError) -> float:
        """The seconds to wait before the next attempt.

        Raises:
            ServiceError: the error itself, if there is to be none.
        """
        delay = error.retry_after
        if error.status not in (None, httpx.codes.SERVICE_UNAVAILABLE) or delay is None:
            raise error
        if self.attempts < 1 or delay > self.seconds:
            raise error
        self.attempts -= 1
        self.seconds -= delay
        return delay


@dataclass(frozen=True, eq=False)
class RemoteDecoding:
    """What a service answered, as `decoder.base.Decoding`, of which it holds the bits."""

    predictions: Bits
    """bool (shots, observables)."""
    confidence: npt.NDArray[np.float64] | None
    """(shots,); None if not asked for, or if the model's decoder does not say."""
    flip_probabilities: npt.NDArray[np.float32] | None
    """(shots, observables); None likewise."""
    opinions: npt.NDArray[np.uint8] | None = None
    """(shots,): who answered each, of `decoder.tandem.rule.Opinion`; None for models that are no pairs."""


@dataclass(frozen=True)
class Call:
    """One HTTP request."""

    method: str
    path: str
    params: Pairs = ()
    headers: Pairs = ()
    content: bytes | None = None


def checked_url(url: str) -> httpx.URL:
    """Raises:
    ValueError: this is not the URL of a service.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is not the URL of a service ({error}); give http://HOST:PORT") from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise ValueError(f"{url!r} is not the URL of a service; give http://HOST:PORT")
    if parsed.userinfo:
        raise ValueError(f"the URL holds a name or a password; a service takes a key, from {API_KEY_VARIABLE}")
    return parsed


def authorization(api_key: str | None) -> dict[str, str]:
    """The header with the API key; None takes it from TANDEM_API_KEY, if that is set."""
    key = os.environ.get(API_KEY_VARIABLE, "") if api_key is None else api_key
    if not key.isascii() or not key.isprintable():
        raise ValueError(f"the API key has characters that no header can hold; check {API_KEY_VARIABLE}")
    return {"Authorization": f"Bearer {key}"} if key else {}


def model_call(model_id: str, part: str = "", *, params: Pairs) -> Call:
    return Call("GET", f"v1/models/{_segment(model_id)}{part}", params=params)


def experiment_params(*, basis: Basis | None, rounds: int | None, p: float | None) -> Pairs:
    """The query that names an experiment; what is None is left to the model."""
    named = {"basis": basis, "rounds": rounds, "p": p}
    return tuple((name, str(value)) for name, value in named.items() if value is not None)


def decode_params(
    *,
    basis: Basis | None,
    rounds: int | None,
    p: float | None,
    confidence: bool,
    flip_probabilities: bool,
    deadline_ms: float | None,
) -> Pairs:
    """The query of a decode request."""
    wanted = {"confidence": confidence, "flip_probabilities": flip_probabilities}
    return (
        *experiment_params(basis=basis, rounds=rounds, p=p),
        *(() if deadline_ms is None else (("deadline_ms", str(deadline_ms)),)),
        *((name, "true" if value else "false") for name, value in wanted.items()),
    )


def packed_shots(shots: npt.NDArray[np.generic], *, num_detectors: int, bit_packed: bool) -> PackedBits:
    """Checks shots as decoders do, and packs them.

    Raises:
        ValueError: the shape, the dtype or a value is not that of shots with so many detectors.
    """
    return pack_bits(unpack_shots(shots, num_detectors=num_detectors, bit_packed=bit_packed))


def decode_calls(info: ModelInfo, shots: PackedBits, *, params: Pairs) -> Iterator[Call]:
    """The requests for some shots, in order, none larger than the service takes.

    Args:
        info: the model, with the experiment of the shots.
        shots: uint8 (shots, ceil(detectors / 8)).
        params: from `decode_params`. Probabilities come as JSON, which keeps all bits of a confidence.
    """
    limits = info.limits
    most = max(1, min(limits.max_shots_per_request, limits.max_body_bytes // shots.shape[1]))
    soft = any(value == "true" for _, value in params)
    headers = (("Content-Type", B8), ("Accept", JSON if soft else B8))
    if info.pair is not None:
        params = (*params, ("opinions", "true"))
    for start in range(0, len(shots), most):
        content = shots[start : start + most].tobytes()
        yield Call("POST", f"v1/models/{_segment(info.id)}/decode", params=params, headers=headers, content=content)


def read_decoding(info: ModelInfo, call: Call, response: httpx.Response) -> RemoteDecoding:
    """Reads the answer to one of `decode_calls`.

    Raises:
        ServiceError: it is not such an answer.
    """
    num_observables = info.experiment.num_observables
    if ("Accept", JSON) in call.headers:
        answer = read(DecodeResponse, response)
        return RemoteDecoding(
            np.array(answer.predictions, dtype=np.bool_).reshape(-1, num_observables),
            None if answer.confidence is None else np.array(answer.confidence, dtype=np.float64),
            None if answer.flip_probabilities is None else np.array(answer.flip_probabilities, dtype=np.float32),
            None
            if answer.answered_by is None
            else np.array([Opinion[name.upper()] for name in answer.answered_by], dtype=np.uint8),
        )
    size = packed_size(num_observables)
    each = size + (info.pair is not None)  # a pair's answer ends with a byte a shot
    if response.headers.get("content-type") != B8 or len(response.content) % each:
        raise _foreign(response)
    content = np.frombuffer(response.content, dtype=np.uint8)
    shots = len(content) // each
    packed, opinions = content[: shots * size].reshape(-1, size), content[shots * size :]
    bits = np.unpackbits(packed, axis=1, count=num_observables, bitorder="little")
    return RemoteDecoding(bits.view(np.bool_), None, None, opinions if info.pair is not None else None)


def joined(info: ModelInfo, shots: PackedBits, parts: Sequence[RemoteDecoding]) -> RemoteDecoding:
    """The answers to all requests for the shots as one.

    Raises:
        ServiceError: they are not as many as the shots.
    """
    nothing = np.zeros((0, info.experiment.num_observables), dtype=np.bool_)
    confidence = [part.confidence for part in parts if part.confidence is not None]
    flips = [part.flip_probabilities for part in parts if part.flip_probabilities is not None]
    opinions = [part.opinions for part in parts if part.opinions is not None]
    whole = RemoteDecoding(
        np.concatenate([nothing, *(part.predictions for part in parts)]),
        np.concatenate(confidence) if confidence else None,
        np.concatenate(flips) if flips else None,
        np.concatenate(opinions) if opinions else None,
    )
    for values in (whole.predictions, whole.confidence, whole.flip_probabilities, whole.opinions):
        if values is not None and len(values) != len(shots):
            raise ServiceError(f"the service answered {len(values)} of {len(shots)} shots; is it of this version?")
    return whole


def read(schema: type[Schema], response: httpx.Response) -> Schema:
    """Reads a JSON answer.

    Raises:
        ServiceError: it is not what this service answers.
    """
    try:
        return schema.model_validate_json(response.content)
    except ValidationError:
        raise _foreign(response) from None


def unreachable(url: httpx.URL, error: Exception) -> ServiceError:
    """The error of a request that got no answer. Where a connection was lost, it is worth trying again."""
    reason = str(error) or type(error).__name__
    lost = isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError)) and not isinstance(
        error, httpx.ConnectError
    )
    return ServiceError(
        f"no answer from {url}: {reason}; is a service running there?",
        retry_after=LOST_CONNECTION_SECONDS if lost else None,
    )


def check(response: httpx.Response) -> httpx.Response:
    """Raises:
    ServiceError: the answer is an error.
    """
    if response.is_success:
        return response
    status = response.status_code
    try:
        problem = response.json()
        detail, kind = str(problem["detail"]), str(problem["type"])
    except (ValueError, KeyError, TypeError):
        raise _foreign(response) from None
    raise ServiceError(f"{detail} (status {status})", status=status, type=kind, retry_after=_retry_after(response))


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


def _segment(model_id: str) -> str:
    """A model's id as one segment of a path."""
    if not model_id or any(character in "/?#%\\" or not character.isprintable() for character in model_id):
        raise ValueError(f"{model_id!r} is not the id of a model")
    if model_id in (".", ".."):
        raise ValueError(f"{model_id!r} is not the id of a model")
    return model_id
