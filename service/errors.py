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

    def __init_subclass__(cls, *, status: int, kind: str, title: str) -> None:
        cls.status, cls.kind, cls.title = status, kind, title

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


class UnauthorizedError(RequestError, status=401, kind="unauthorized", title="API key missing or not known"): ...


class ForbiddenError(RequestError, status=403, kind="forbidden", title="Not allowed with this API key"): ...


class UnknownModelError(RequestError, status=404, kind="unknown-model", title="Unknown model"): ...


class UnknownVersionError(RequestError, status=404, kind="unknown-version", title="Unknown version"): ...


class UnknownExperimentError(RequestError, status=404, kind="unknown-experiment", title="Unknown experiment"): ...


class UnknownStreamError(RequestError, status=404, kind="unknown-stream", title="Unknown stream"): ...


class UnsupportedSubprotocolError(
    RequestError, status=400, kind="unsupported-subprotocol", title="Unsupported subprotocol"
): ...


class NotAcceptableError(RequestError, status=406, kind="not-acceptable", title="No acceptable answer format"): ...


class ConflictError(RequestError, status=409, kind="conflict", title="Not possible as things stand"): ...


class BodyTimeoutError(RequestError, status=408, kind="body-timeout", title="Body came too slowly"): ...


class StreamTimeoutError(RequestError, status=408, kind="stream-timeout", title="Stream was idle for too long"): ...


class BodyTooLargeError(RequestError, status=413, kind="body-too-large", title="Body too large"): ...


class TooManyShotsError(RequestError, status=413, kind="too-many-shots", title="Too many shots in one request"): ...


class UnsupportedMediaTypeError(
    RequestError, status=415, kind="unsupported-media-type", title="Unsupported media type"
): ...


class UnsupportedEncodingError(
    RequestError, status=415, kind="unsupported-encoding", title="Unsupported content encoding"
):
    @property
    def headers(self) -> dict[str, str]:
        return {"Accept-Encoding": "gzip"}  # what would be taken (RFC 9110, 15.5.16)


class InvalidParametersError(RequestError, status=422, kind="invalid-parameters", title="Invalid parameters"): ...


class InvalidShotsError(RequestError, status=422, kind="invalid-shots", title="Invalid shots"): ...


class InvalidExperimentError(
    RequestError, status=422, kind="invalid-experiment", title="Experiment that cannot be decoded"
): ...


class ModelNotLoadedError(RequestError, status=422, kind="model-not-loaded", title="Model cannot be loaded"): ...


class InvalidLayerError(RequestError, status=422, kind="invalid-layer", title="Invalid layer of detection events"): ...


class NoProbabilitiesError(
    RequestError, status=422, kind="no-probabilities", title="Decoder gives no probabilities"
): ...


class DecoderFailedError(RequestError, status=500, kind="decoder-failed", title="Decoder failed"): ...


class InternalError(RequestError, status=500, kind="internal-error", title="Internal error"): ...


class BusyError(RequestError, status=503, kind="busy", title="Busy"): ...


class NotStoredError(RequestError, status=507, kind="not-stored", title="Change cannot be stored"): ...


class DecodeTimeoutError(RequestError, status=503, kind="decode-timeout", title="Decoding took too long"): ...


class DeadlineExceededError(
    RequestError, status=504, kind="deadline-exceeded", title="Not done by the deadline asked for"
): ...


class NotReadyError(RequestError, status=503, kind="not-ready", title="Not ready"): ...


class ClosingError(RequestError, status=503, kind="closing", title="Shutting down"): ...


class ReplicaLostError(RequestError, status=503, kind="replica-lost", title="Replica lost"): ...


DECODE_ERRORS: tuple[type[RequestError], ...] = (
    UnknownModelError,
    UnknownExperimentError,
    BodyTimeoutError,
    BodyTooLargeError,
    TooManyShotsError,
    UnsupportedMediaTypeError,
    UnsupportedEncodingError,
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
