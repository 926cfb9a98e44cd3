"""Shots as a client sends them, in requests that a service takes, and what it answers of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from decoder.tandem.rule import Opinion
from service.client.addresses import ExperimentOptions
from service.client.answers import ServiceError, foreign, read
from service.wire.schemas import B8, JSON, DecodeResponse, Limits, Meaning, ModelInfo
from simulation.bits import Bits, PackedBits, unpack_bits

if TYPE_CHECKING:
    import httpx  # takes a third of a second to import


class DecodeOptions(ExperimentOptions, total=False):
    """The same, and what else there is to say of shots."""

    errors: bool
    """Whether to answer the errors found, in the place of probabilities; of models that `gives_errors`."""
    reweights: npt.NDArray[np.generic] | None
    """Probabilities of the errors, float (errors,) for all shots or (shots, errors), in the order of the detector error
    model without loops; of models with a classical decoder. The answer is that of the decoder of such a model."""
    reweights_are: Meaning
    """Whether these are the probabilities, or factors for those of the detector error model."""


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
    hurried: Bits | None = None
    """bool (shots,): whether the model's limit of time had the decoder take a cheaper setting; None for no shots."""


def read_decoding(info: ModelInfo, response: httpx.Response) -> RemoteDecoding:
    """Reads the answer to a decode request, which is of the media type that the request asked for.

    Raises:
        ServiceError: it is not such an answer.
    """
    num_observables = info.experiment.num_observables
    if response.request.headers["accept"] == JSON:
        answer = read(DecodeResponse, response)
        opinions = None if answer.answered_by is None else [Opinion[name.upper()] for name in answer.answered_by]
        predictions = np.array(answer.predictions, dtype=np.bool_).reshape(-1, num_observables)
        return RemoteDecoding(
            predictions,
            _array(answer.confidence, np.float64),
            _array(answer.flip_probabilities, np.float32),
            _array(opinions, np.uint8),
            hurried=np.isin(np.arange(len(predictions)), answer.hurried or ()),
        )
    if response.headers.get("content-type") != B8:
        raise foreign(response)
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
            hurried=columns.get("hurried", np.zeros(shots, dtype=np.uint8)).ravel().astype(np.bool_),
        )
        if "errors" not in columns:
            return found
        errors = unpack_bits(columns["errors"], int(response.headers["x-tandem-num-errors"]))
        return replace(found, errors=errors, converged=columns["converged"].ravel().astype(np.bool_))
    except (KeyError, ValueError):
        raise foreign(response) from None


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


def _array(values: list[Any] | None, dtype: npt.DTypeLike) -> npt.NDArray[Any] | None:
    return None if values is None else np.array(values, dtype=dtype)
