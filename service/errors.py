"""What may go wrong with a request. Each wire format writes them in its own form (`http.problems`: RFC 9457)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from pydantic import ValidationError


@dataclass(frozen=True)
class Flaw:
    """One thing wrong with a request."""

    detail: str
    """What is wrong, and what is wanted."""
    parameter: str | None = None
    """Name of the query parameter or header at fault."""
    pointer: str | None = None
    """JSON pointer (RFC 6901, as a URI fragment) to the value at fault in the body."""

    @classmethod
    def in_body(cls, detail: str, *path: str | int) -> Self:
        """A flaw of the value at a path of keys and indices, or of the whole body."""
        return cls(detail, pointer="#" + "".join(f"/{step}" for step in path))


class RequestError(Exception):
    """A request that cannot be answered.

    Args:
        detail: one sentence for this occurrence: what is wrong and what to do.
        flaws: what exactly is wrong, where the request is at fault.
        retry_after: seconds after which it is worth trying again.
    """

    status: ClassVar[int]
    kind: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, detail: str, *, flaws: Sequence[Flaw] = (), retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.flaws = tuple(flaws)
        self.retry_after = retry_after

    @classmethod
    def of(cls, detail: str, *, parameter: str | None = None, pointer: str | None = None) -> Self:
        """An error with one flaw, which has the same detail; see `Flaw`."""
        return cls(detail, flaws=[Flaw(detail, parameter, pointer)])

    @classmethod
    def because(cls, *flaws: Flaw) -> Self:
        """An error whose detail is the first flaw, and where that is."""
        where, detail = flaws[0].parameter or flaws[0].pointer, flaws[0].detail
        return cls(f"{where}: {detail}" if where else detail, flaws=flaws)

    @classmethod
    def of_body(cls, error: ValidationError) -> Self:
        """An error with the flaws that pydantic found in a body."""
        found = error.errors(include_url=False)
        return cls.because(*(Flaw.in_body(flaw["msg"].removeprefix("Value error, "), *flaw["loc"]) for flaw in found))

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that belong into the answer."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class UnauthorizedError(RequestError):
    status, kind, title = 401, "unauthorized", "API key missing or not known"


class ForbiddenError(RequestError):
    status, kind, title = 403, "forbidden", "Not allowed with this API key"


class UnknownModelError(RequestError):
    status, kind, title = 404, "unknown-model", "Unknown model"


class UnknownVersionError(RequestError):
    status, kind, title = 404, "unknown-version", "Unknown version"


class UnknownStreamError(RequestError):
    status, kind, title = 404, "unknown-stream", "Unknown stream"


class UnsupportedSubprotocolError(RequestError):
    status, kind, title = 400, "unsupported-subprotocol", "Unsupported subprotocol"


class NotAcceptableError(RequestError):
    status, kind, title = 406, "not-acceptable", "No acceptable answer format"


class ConflictError(RequestError):
    status, kind, title = 409, "conflict", "Not possible as things stand"


class BodyTimeoutError(RequestError):
    status, kind, title = 408, "body-timeout", "Body came too slowly"


class StreamTimeoutError(RequestError):
    status, kind, title = 408, "stream-timeout", "Stream was idle for too long"


class BodyTooLargeError(RequestError):
    status, kind, title = 413, "body-too-large", "Body too large"


class TooManyShotsError(RequestError):
    status, kind, title = 413, "too-many-shots", "Too many shots in one request"


class UnsupportedMediaTypeError(RequestError):
    status, kind, title = 415, "unsupported-media-type", "Unsupported media type"


class InvalidParametersError(RequestError):
    status, kind, title = 422, "invalid-parameters", "Invalid parameters"


class InvalidShotsError(RequestError):
    status, kind, title = 422, "invalid-shots", "Invalid shots"


class ModelNotLoadedError(RequestError):
    status, kind, title = 422, "model-not-loaded", "Model cannot be loaded"


class InvalidLayerError(RequestError):
    status, kind, title = 422, "invalid-layer", "Invalid layer of detection events"


class NoProbabilitiesError(RequestError):
    status, kind, title = 422, "no-probabilities", "Decoder gives no probabilities"


class DecoderFailedError(RequestError):
    status, kind, title = 500, "decoder-failed", "Decoder failed"


class InternalError(RequestError):
    status, kind, title = 500, "internal-error", "Internal error"


class BusyError(RequestError):
    status, kind, title = 503, "busy", "Busy"


class DecodeTimeoutError(RequestError):
    status, kind, title = 503, "decode-timeout", "Decoding took too long"


class DeadlineExceededError(RequestError):
    status, kind, title = 504, "deadline-exceeded", "Not done by the deadline asked for"


class NotReadyError(RequestError):
    status, kind, title = 503, "not-ready", "Not ready"


class ClosingError(RequestError):
    status, kind, title = 503, "closing", "Shutting down"


class ReplicaLostError(RequestError):
    status, kind, title = 503, "replica-lost", "Replica lost"


DECODE_ERRORS: tuple[type[RequestError], ...] = (
    UnknownModelError,
    BodyTimeoutError,
    BodyTooLargeError,
    TooManyShotsError,
    UnsupportedMediaTypeError,
    InvalidParametersError,
    InvalidShotsError,
    DecoderFailedError,
    BusyError,
    DecodeTimeoutError,
    DeadlineExceededError,
    NotReadyError,
    ClosingError,
)
"""What may go wrong with a request that brings shots, in whichever form."""
