"""The messages of `tandem.stream.v1`: what clients send and what they get (docs/api.md, "Streams").

Control messages and answers are JSON in text frames; layers of detection events are binary frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jiter import from_json
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from service.errors import InvalidLayerError, InvalidParametersError, RequestError
from service.http.problems import problem_of
from service.wire.layers import HEADER, LAST, MAX_STREAM, RUNNING
from service.wire.schemas import AnyExperimentQuery, Milliseconds
from service.wire.shots import ANSWERED_BY, DecodeResult
from simulation.bits import Bits, packed_size, set_past, unpack_bits

StreamNumber = int


class ProtocolError(Exception):
    """A message that breaks the protocol: the connection ends, with this reason and close code (RFC 6455, 7.4.1)."""

    def __init__(self, reason: str, *, code: int = 1002) -> None:
        super().__init__(reason)
        self.code = code


class StreamRefused(Exception):
    """A request about one stream that cannot be met; the others on the connection go on."""

    def __init__(self, stream: StreamNumber, error: RequestError) -> None:
        super().__init__(error.detail)
        self.stream = stream
        self.error = error


class OpenRequest(AnyExperimentQuery):
    """Opens a stream for one experiment. Without rounds it has as many as layers come before the last one.

    With a window it is decoded while its layers come.
    """

    action: Literal["open"]
    stream: StreamNumber = Field(strict=True, ge=0, le=MAX_STREAM)
    flip_probabilities: bool = Field(default=False, strict=True)
    deadline_ms: Milliseconds | None = None
    window: int | None = Field(default=None, strict=True, ge=1, le=9999)
    commit: int | None = Field(default=None, strict=True, ge=1, le=9999)


class CloseRequest(BaseModel):
    """Closes a stream without waiting for its answer."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["close"]
    stream: StreamNumber = Field(strict=True, ge=0, le=MAX_STREAM)


@dataclass(frozen=True)
class LayerMessage:
    """The detection events of one round."""

    stream: StreamNumber
    round: int
    last: bool
    running: bool
    events: bytes
    """Bit-packed, lowest bit first."""


_ACTIONS: dict[str, type[OpenRequest | CloseRequest]] = {"open": OpenRequest, "close": CloseRequest}


def parse_text(text: str) -> OpenRequest | CloseRequest:
    """Reads a control message.

    Raises:
        ProtocolError: no JSON object with a known action and the number of a stream.
        StreamRefused: its other members are wrong.
    """
    try:
        fields = from_json(text.encode(), catch_duplicate_keys=True)
    except ValueError:
        raise ProtocolError("a text message must be a JSON object, with no name twice") from None
    action = fields.get("action") if isinstance(fields, dict) else None
    if not isinstance(action, str) or action not in _ACTIONS:
        raise ProtocolError('a text message must be a JSON object whose "action" is "open" or "close"')
    stream = fields.get("stream")
    if type(stream) is not int or not 0 <= stream <= MAX_STREAM:
        raise ProtocolError(f'"stream" must be a whole number from 0 to {MAX_STREAM}')
    try:
        return _ACTIONS[action].model_validate(fields)
    except ValidationError as error:
        raise StreamRefused(stream, InvalidParametersError.of_body(error)) from None


def parse_binary(data: bytes) -> LayerMessage:
    """Reads a layer's header.

    Raises:
        ProtocolError: there is none, or it has bits that mean nothing.
    """
    if len(data) < HEADER.size:
        raise ProtocolError(f"a binary message starts with a header of {HEADER.size} bytes; this one has {len(data)}")
    stream, round_, flags, zero = HEADER.unpack_from(data)
    if flags & ~(LAST | RUNNING) or zero:
        raise ProtocolError("a layer's flags are 1 (last) and 2 (running), and the byte behind them is 0")
    return LayerMessage(stream, round_, bool(flags & LAST), bool(flags & RUNNING), data[HEADER.size :])


def unpack_layer(events: bytes, *, detectors: int, where: str) -> Bits:
    """A layer's events, bool (detectors,).

    Args:
        events: ceil(detectors / 8) bytes, the first detector the lowest bit.
        detectors: of this layer.
        where: names the layer in errors.

    Raises:
        InvalidLayerError: a wrong length, or bits set past the last detector.
    """
    length = packed_size(detectors)
    if len(events) != length:
        raise InvalidLayerError(
            f"{where} has {len(events)} bytes of events; its {detectors} detectors take {length}, of both check types "
            "but in the first and the last layer"
        )
    packed = np.frombuffer(events, dtype=np.uint8)[None]
    if set_past(packed, detectors):
        raise InvalidLayerError(f"{where} has bits set past its {detectors} detectors; pack lowest bit first")
    return unpack_bits(packed, detectors).ravel()


def opened_message(
    request: OpenRequest, *, model: str, basis: str | None, detectors: list[int], **members: object
) -> str:
    """A stream is open; `detectors` as `service.streams.layout.Layout.sizes` has them."""
    facts = {"model": model, "basis": basis, "rounds": request.rounds, "detectors": detectors}
    return _message("opened", request.stream, **facts, **members)


def committed_message(stream: StreamNumber, *, layers: int, flips: Bits, converged: bool) -> str:
    """What is fixed by now: all errors that begin in the first `layers` layers, and their flips (observables,)."""
    return _message("committed", stream, layers=layers, predictions=flips.view(np.uint8).tolist(), converged=converged)


def answer_message(
    request: OpenRequest, answer: DecodeResult, *, rounds: int, seconds: float, **members: object
) -> str:
    """The answer of a stream, `seconds` after its last layer came."""
    flips = answer.flip_probabilities if request.flip_probabilities else None
    hurried = {"hurried": True} if answer.hurried_shots else {}
    by = {} if answer.opinions is None else {"answered_by": ANSWERED_BY[answer.opinions[0]]}
    return _message(
        "answer",
        request.stream,
        rounds=rounds,
        predictions=answer.predictions[0].view(np.uint8).tolist(),
        confidence=None if answer.confidence is None else float(answer.confidence[0]),
        flip_probabilities=None if flips is None else flips[0].tolist(),
        **by,
        **hurried,
        **members,
        seconds=seconds,
    )


def running_message(stream: StreamNumber, answer: DecodeResult, *, round: int) -> str:
    """The flip probabilities as of a round."""
    assert answer.flip_probabilities is not None
    return _message("running", stream, round=round, flip_probabilities=answer.flip_probabilities[0].tolist())


def closed_message(stream: StreamNumber) -> str:
    """A stream is closed, as the client asked."""
    return _message("closed", stream)


def problem_message(stream: StreamNumber, error: RequestError, *, round: int | None = None) -> str:
    """RFC 9457 problem details of what ended a stream, or of why the flip probabilities as of a round do not come."""
    retry = {} if error.retry_after is None else {"retry_after": error.retry_after}
    problem = problem_of(error).model_dump(exclude_none=True) | retry
    if round is None:
        return _message("problem", stream, **problem)
    return _message("running_problem", stream, round=round, **problem)


def _message(event: str, stream: StreamNumber, **members: object) -> str:
    return to_json({"event": event, "stream": stream, **members}).decode()
