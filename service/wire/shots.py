"""Reads the shots of requests, and writes predictions into answers."""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jiter import from_json
from pydantic import ValidationError

from decoder.tandem.rule import Opinion
from service.errors import Flaw, InvalidShotsError, TooManyShotsError
from service.wire.reweights import Values, listed_values
from service.wire.schemas import Bit, DecodeQuery, DecodeRequest
from simulation.bits import Bits, PackedBits, pack_bits, packed_size, set_past

HURRIED_HEADER = "X-Tandem-Hurried-Shots"
WARNING_HEADER = "X-Tandem-Warning"
ERRORS_HEADER = "X-Tandem-Num-Errors"
LOW_CONFIDENCE = 0.9
LEAST_SHOTS = 20
"""With fewer, a low mean of their confidence may be chance."""
LEAST_DIFFERENCE = 0.05
SIGMAS = 6.0
ANSWERED_BY = tuple(opinion.name.lower() for opinion in Opinion)
SPARE_LISTS = 1000
"""So many lists and objects a body of JSON may have beside one list a shot."""


@dataclass(frozen=True)
class Sureness:
    """How sure a decoder is of shots that are an experiment's for certain."""

    mean: float
    """Of the confidence."""
    variance: float
    shots: int

    @classmethod
    def of(cls, confidence: npt.NDArray[np.floating]) -> Sureness:
        """That of some shots, at least one."""
        return cls(float(confidence.mean()), float(confidence.var()), len(confidence))

    def is_above(self, other: Sureness) -> bool:
        """Whether another mean is lower by more than chance, and by more than `LEAST_DIFFERENCE`."""
        error = math.sqrt(self.variance / self.shots + other.variance / other.shots)
        return self.mean - other.mean > max(LEAST_DIFFERENCE, SIGMAS * error)


@dataclass(frozen=True, eq=False)
class DecodeResult:
    """The predictions for the shots of one request, in the order of the shots."""

    predictions: Bits
    """bool (shots, observables)."""
    confidence: npt.NDArray[np.floating] | None
    """(shots,): posterior probability of the predicted coset; None for decoders that do not say."""
    flip_probabilities: npt.NDArray[np.float32] | None
    """(shots, observables); None for decoders that do not say."""
    queue_seconds: float
    """How long the shots waited for their turn."""
    compute_seconds: float
    """How long the batches took that the shots were decoded in."""
    opinions: npt.NDArray[np.uint8] | None = None
    """(shots,): who answered each, of `decoder.tandem.rule.Opinion`; None for models that are no pairs."""
    second_seconds: float | None = None
    """How long second opinions were waited for, beside the above; None likewise."""
    hurried: Bits | None = None
    """(shots,): whether the limit of time had the decoder take a cheaper setting; None where there is no limit."""
    errors: Bits | None = None
    """(shots, errors of the detector error model): which happened; None if that was not asked for."""
    converged: Bits | None = None
    """(shots,): whether these explain the shot; None likewise."""
    usual: Sureness | None = None
    """How sure the decoder is of other shots of the experiment, if that is known."""

    @property
    def errors_b8(self) -> PackedBits | None:
        """uint8 (shots, ceil(errors / 8))."""
        return None if self.errors is None else pack_bits(self.errors)

    @property
    def hurried_shots(self) -> list[int]:
        """The numbers of the hurried shots."""
        return [] if self.hurried is None else np.flatnonzero(self.hurried).tolist()

    @property
    def doubtful(self) -> bool:
        """Whether the decoder is so unsure of the shots as a whole that they may be of something else."""
        return (
            self.confidence is not None
            and len(self.confidence) >= LEAST_SHOTS
            and float(self.confidence.mean()) < LOW_CONFIDENCE
        )

    @property
    def warning(self) -> str | None:
        """What looks wrong of the shots as a whole: others of the experiment are surer, as far as that is known."""
        if self.confidence is None or not self.doubtful:
            return None
        found = Sureness.of(self.confidence)
        if self.usual is not None and not self.usual.is_above(found):
            return None
        usual = "" if self.usual is None else f", where shots of this experiment have {self.usual.mean:.2f}"
        return f"the mean confidence is {found.mean:.2f}{usual}; are these of this code, basis, noise and rounds?"

    @property
    def server_timing(self) -> str:
        """What took how long, in milliseconds, as the header of that name says it."""
        parts = {"queue": self.queue_seconds, "compute": self.compute_seconds, "second": self.second_seconds}
        return ", ".join(f"{name};dur={1e3 * part:.3f}" for name, part in parts.items() if part is not None)

    @property
    def headers(self) -> dict[str, str]:
        """What headers tell of the shots in every form of answer."""
        told = {HURRIED_HEADER: str(len(hurried))} if (hurried := self.hurried_shots) else {}
        told |= {} if self.errors is None else {ERRORS_HEADER: str(self.errors.shape[1])}
        return told | ({WARNING_HEADER: warning} if (warning := self.warning) else {})


@dataclass(frozen=True)
class ExpectedShots:
    """What the shots in a request's body have to be like."""

    num_detectors: int
    num_observables: int
    max_shots: int


def parse_json(body: bytes, expected: ExpectedShots) -> tuple[PackedBits, Values | None]:
    """Reads a `DecodeRequest`.

    Returns:
        Bit-packed shots, uint8 (shots, ceil(num_detectors / 8)), and its reweights, if it has any.

    Raises:
        InvalidShotsError: no such JSON, a wrong length, or values other than 0 and 1.
        TooManyShotsError: more than `expected.max_shots`.
    """
    check_lists(body, most_shots=2 * expected.max_shots)  # a list of events, and one of reweights
    try:
        request = DecodeRequest.model_validate_json(body)
        from_json(body, catch_duplicate_keys=True)  # pydantic would take the last of two values
    except ValidationError as error:
        raise InvalidShotsError.of_body(error) from None
    except ValueError as error:
        raise InvalidShotsError.because(Flaw.in_body(str(error))) from None
    reweights = listed_values(request.reweights) if "reweights" in request.model_fields_set else None
    if "shots" in request.model_fields_set:
        return _from_lists(request.shots, expected), reweights
    try:
        data = base64.b64decode(request.shots_b8, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidShotsError.because(Flaw.in_body(f"this is not base64: {error}", "shots_b8")) from None
    shots = parse_b8(data, expected)
    if "num_shots" in request.model_fields_set and request.num_shots != len(shots):
        raise InvalidShotsError.because(
            Flaw.in_body(f"shots_b8 holds {len(shots)} shots, not {request.num_shots}", "num_shots")
        )
    return shots, reweights


def check_lists(body: bytes, *, most_shots: int) -> None:
    """Refuses JSON with more lists and objects than shots may take, before a parser makes all of them.

    Raises:
        TooManyShotsError: there are more.
    """
    lists = body.count(b"[") + body.count(b"{")
    if lists > most_shots + SPARE_LISTS:
        raise TooManyShotsError(
            f"{lists} lists and objects in one request, at most {most_shots} shots are allowed; send them in parts"
        )


def parse_b8(data: bytes, expected: ExpectedShots) -> PackedBits:
    """Reads stim's b8: ceil(num_detectors / 8) bytes a shot, the first detector the lowest bit.

    Returns:
        Bit-packed shots, uint8 (shots, ceil(num_detectors / 8)).

    Raises:
        InvalidShotsError: no shots, no whole number of them, or bits set past the last detector.
        TooManyShotsError: more than `expected.max_shots`.
    """
    num_detectors = expected.num_detectors
    length = packed_size(num_detectors)
    if not data:
        raise InvalidShotsError.of(f"there are no shots; send {length} bytes (b8) for each")
    if len(data) % length:
        with_observables = packed_size(num_detectors + expected.num_observables)
        hint = "make them with the circuit of the same basis and rounds, /v1/models/{id}/circuit"
        if len(data) % with_observables == 0:
            hint = "this looks as if observables were appended: leave them out"
        raise InvalidShotsError.of(
            f"{len(data)} bytes are no whole shots: {num_detectors} detectors take {length}; {hint}"
        )
    shots = np.frombuffer(data, dtype=np.uint8).reshape(-1, length)
    _check_count(len(shots), expected)
    if set_past(shots, num_detectors):
        detail = f"bits are set past a shot's {num_detectors} detectors; pack lowest bit first, one shot a row"
        raise InvalidShotsError.of(detail)
    return shots


def result_object(result: DecodeResult, query: DecodeQuery, *, model: str) -> dict[str, object]:
    """A `DecodeResponse` as an object, as the query wants it; of models that are no pairs without `answered_by`."""
    content: dict[str, object] = {
        "model": model,
        "num_shots": len(result.predictions),
        "predictions": result.predictions.view(np.uint8).tolist(),
        "confidence": _listed(None if query.confidence is False else result.confidence),
        "flip_probabilities": _listed(result.flip_probabilities if query.flip_probabilities else None),
        "queue_seconds": result.queue_seconds,
        "compute_seconds": result.compute_seconds,
    }
    if hurried := result.hurried_shots:
        content["hurried"] = hurried
    if warning := result.warning:
        content["warning"] = warning
    if result.errors is not None and result.converged is not None:
        content["errors"] = [np.flatnonzero(error).tolist() for error in result.errors]
        content["converged"] = result.converged.view(np.uint8).tolist()
    if result.opinions is not None:
        content["answered_by"] = [ANSWERED_BY[opinion] for opinion in result.opinions]
    if result.second_seconds is not None:
        content["second_seconds"] = result.second_seconds
    return content


def result_parts(result: DecodeResult, query: DecodeQuery) -> dict[str, bytes]:
    """The parts of a binary answer in their order: bits in b8, probabilities in little-endian float32, else bytes."""
    parts = {"predictions": pack_bits(result.predictions).tobytes()}
    if query.confidence and result.confidence is not None:
        parts["confidence"] = result.confidence.astype("<f4").tobytes()
    if query.flip_probabilities and result.flip_probabilities is not None:
        parts["flip_probabilities"] = result.flip_probabilities.astype("<f4").tobytes()
    if query.opinions and result.opinions is not None:
        parts["opinions"] = result.opinions.tobytes()
    if result.errors_b8 is not None and result.converged is not None:
        parts["errors"] = result.errors_b8.tobytes()
        parts["converged"] = result.converged.tobytes()
    if result.hurried is not None and result.hurried.any():
        parts["hurried"] = result.hurried.tobytes()
    return parts


def _from_lists(shots: list[list[Bit]], expected: ExpectedShots) -> PackedBits:
    num_detectors = expected.num_detectors
    _check_count(len(shots), expected)
    for index, shot in enumerate(shots):
        if len(shot) != num_detectors:
            detail = f"a shot of {len(shot)} values; this experiment has {num_detectors} detectors"
            raise InvalidShotsError.because(Flaw.in_body(detail, "shots", index))
    return pack_bits(np.array(shots, dtype=np.bool_))


def _check_count(count: int, expected: ExpectedShots) -> None:
    if count > expected.max_shots:
        raise TooManyShotsError(
            f"{count} shots in one request, at most {expected.max_shots} are allowed; send them in parts"
        )


def _listed(values: npt.NDArray[np.floating] | None) -> list[float] | None:
    return None if values is None else values.tolist()
