"""What a decoder is: arrays of detection events in, predicted observable flips out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from simulation.bits import Bits, PackedBits, pack_bits, packed_size, set_past, unpack_bits

UNSURE = 0.9
"""Summaries count the shots whose confidence is below this."""


@runtime_checkable
class Decoder(Protocol):
    """Predicts which observables flipped, in PyMatching's words.

    A decoder belongs to one experiment and is not safe to share between threads.
    """

    @property
    def num_detectors(self) -> int:
        """Detectors in each shot that `decode_batch` takes."""

    @property
    def num_observables(self) -> int:
        """Observables in each prediction."""

    def decode_batch(
        self, shots: npt.NDArray[np.generic], *, bit_packed_shots: bool = False, bit_packed_predictions: bool = False
    ) -> Bits | PackedBits:
        """Decodes shots, each on its own.

        Args:
            shots: detection events, 0 or 1: bool or integer (shots, num_detectors), or with bit_packed_shots
                uint8 (shots, ceil(num_detectors / 8)), little-endian as in stim's b8.
            bit_packed_shots: whether `shots` is bit-packed.
            bit_packed_predictions: whether to bit-pack the answer.

        Returns:
            The predicted observable flips: bool (shots, num_observables), or uint8
            (shots, ceil(num_observables / 8)).

        Raises:
            ValueError: the shape, the dtype or a value of `shots` is not as above.
        """


@dataclass(frozen=True, eq=False)
class _Columns:
    """Arrays with a row for each shot; `predictions` is one of them."""

    predictions: Bits
    """bool (shots, observables)."""

    def __len__(self) -> int:
        """Shots."""
        return len(self.predictions)

    def __getitem__(self, shots: slice | npt.NDArray[np.int64]) -> Self:
        """The part of some shots; of a slice as views."""
        return type(self)(**{field.name: getattr(self, field.name)[shots] for field in fields(self)})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Parts one after the other, at least one."""
        if len(parts) == 1:
            return parts[0]
        columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(cls)}
        return cls(**{name: np.concatenate(column) for name, column in columns.items()})


@dataclass(frozen=True, eq=False, repr=False)
class Decoding(_Columns):
    """Predictions, and how sure the decoder is of them."""

    confidence: npt.NDArray[np.float64]
    """(shots,): the posterior probability of the predicted coset, that all observables are right together."""
    flip_probabilities: npt.NDArray[np.float32]
    """(shots, observables): the posterior probability that each observable flipped."""

    @property
    def summary(self) -> dict[str, float]:
        """How sure the decoder is of some shots: their mean confidence, and how many are below 0.9."""
        mean = float(self.confidence.mean()) if len(self) else math.nan
        return {"mean_confidence": mean, "below_0.9": int((self.confidence < UNSURE).sum())}

    def __repr__(self) -> str:
        mean, unsure = self.summary.values()
        return (
            f"<{type(self).__name__}: {len(self):,} shots of {self.predictions.shape[1]} observables, "
            f"mean confidence {mean:.6g}, {unsure:,} below {UNSURE}>"
        )

    def _repr_html_(self) -> str:
        """The decoding in a notebook: how sure the decoder is of how many shots, and what it says most often."""
        from simulation.drawings import bars_svg, facts_html

        mean, unsure = self.summary.values()
        edges = [0.0, 1e-6, 1e-4, 1e-2, 1e-1, 1.0]
        shots, _ = np.histogram(1 - self.confidence, edges)
        doubts = {f"at most {edge:g}": int(count) for edge, count in zip(edges[1:], shots, strict=True)}
        facts = {"mean confidence": f"{mean:.6g}", "shots": f"{len(self):,}", f"below {UNSURE}": f"{unsure:,}"}
        title = "Shots by the probability of a wrong answer, 1 - confidence"
        return f"{facts_html('Decoding', facts)}{title}<br>{bars_svg(doubts, label=title)}"


@runtime_checkable
class SoftDecoder(Decoder, Protocol):
    """A decoder that also says how sure it is."""

    def decode_soft(self, shots: npt.NDArray[np.generic], *, bit_packed_shots: bool = False) -> Decoding:
        """Decodes shots as `decode_batch` does, with probabilities.

        Raises:
            ValueError: as for `decode_batch`.
        """


@dataclass(frozen=True, eq=False)
class Piece(_Columns):
    """The first shots of a batch, decoded."""

    hurried: Bits
    """bool (shots,): whether the limit of time for a shot had the decoder take a cheaper setting."""


@runtime_checkable
class PiecewiseDecoder(Decoder, Protocol):
    """A decoder that takes shots one after the other, and may stop between two."""

    def decode_piece(self, shots: PackedBits, *, seconds: float) -> Piece:
        """Decodes the shots that it begins within a time, the first one in any case.

        Args:
            shots: bit-packed uint8 (shots, ceil(num_detectors / 8)).
            seconds: after which it begins no further shot.

        Raises:
            ValueError: as for `decode_batch`.
        """


@dataclass(frozen=True, eq=False)
class Errors(_Columns):
    """The error that a decoder found for each shot. The observables that it flips are the predictions."""

    errors: Bits
    """bool (shots, mechanisms): which of the errors of the detector error model happened, in its order without loops
    (`stim.DetectorErrorModel.flattened`). Of several with the same symptom only the likeliest is ever said to have."""
    converged: Bits
    """bool (shots,): whether the error explains all detection events that the decoder looks at."""
    hurried: Bits
    """bool (shots,): whether a limit of time had the decoder take a cheaper setting; see `Piece`."""


@runtime_checkable
class ErrorDecoder(Decoder, Protocol):
    """A decoder that tells the error itself, as `tesseract_decoder` does."""

    @property
    def num_errors(self) -> int:
        """Errors of the detector error model, or mechanisms of the fault model where there is none."""

    def decode_to_errors(self, shots: npt.NDArray[np.generic], *, bit_packed_shots: bool = False) -> Errors:
        """Decodes shots as `decode_batch` does, with the error that it goes by.

        Decoders that use the detectors of one check type alone (`bposd`, not `bposd-xyz`) find an error that explains
        these; of mechanisms that they cannot tell apart, one with the fewest detectors of the other type.

        Raises:
            ValueError: as for `decode_batch`.
        """


class Reweighting(Protocol):
    """Decodes the shots of a decoder with other probabilities of the errors."""

    @property
    def priors(self) -> npt.NDArray[np.float64]:
        """(errors,): the probability of each error of the detector error model, in its order without loops."""

    def decoded(
        self, events: Bits, probabilities: npt.NDArray[np.float64], *, errors: bool = False
    ) -> Decoding | Errors | Piece:
        """Decodes shots, at least one.

        Args:
            events: bool (shots, detectors).
            probabilities: (1, errors) for all shots or (shots, errors), from 0 to 1.
            errors: whether to tell the errors.

        Returns:
            Errors if they are asked for, else a `Decoding` of a decoder that says how sure it is.

        Raises:
            ValueError: the decoder cannot be made for these.
        """

    def decode(
        self, events: Bits, reweights: npt.NDArray[np.generic], *, meaning: Literal["probabilities", "factors"]
    ) -> Bits:
        """See `BatchDecoder.decode_batch`."""


class BatchDecoder(ABC):
    """`decode_batch` with its checks and its packing; what is left to do is `predict`."""

    reweighting: Reweighting | None = None
    """What decodes with other probabilities of the errors; None for a decoder that cannot."""

    def __init__(self, *, num_detectors: int, num_observables: int) -> None:
        self.num_detectors = num_detectors
        self.num_observables = num_observables

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.num_detectors} detectors, {self.num_observables} observables>"

    @abstractmethod
    def predict(self, events: Bits) -> Bits:
        """From detection events, bool (shots, num_detectors), to flips, bool (shots, num_observables)."""

    def decode(self, events: npt.NDArray[np.generic]) -> Bits:
        """Decodes one shot; `decode_batch` takes far less time a shot for many.

        Args:
            events: detection events, 0 or 1: bool or integer (num_detectors,).

        Returns:
            The predicted observable flips, bool (num_observables,).

        Raises:
            ValueError: the shape, the dtype or a value of `events` is not as above.
        """
        if not isinstance(events, np.ndarray) or events.ndim != 1:
            found = f"shape {events.shape}" if isinstance(events, np.ndarray) else type(events).__name__
            raise ValueError(f"one shot is a one-dimensional array (detectors,), not {found}; decode_batch takes many")
        flips: Bits = self.predict(unpack_shots(events[np.newaxis], num_detectors=self.num_detectors))[0]
        return flips

    def decode_batch(
        self,
        shots: npt.NDArray[np.generic],
        *,
        bit_packed_shots: bool = False,
        bit_packed_predictions: bool = False,
        reweights: npt.NDArray[np.generic] | None = None,
        reweights_are: Literal["probabilities", "factors"] = "probabilities",
    ) -> Bits | PackedBits:
        """Predicts observable flips; see `Decoder.decode_batch`.

        Args:
            shots: see there, as for what is packed.
            bit_packed_shots: whether `shots` is bit-packed.
            bit_packed_predictions: whether to bit-pack the answer.
            reweights: of classical decoders: float (errors,) for all shots, or (shots, errors), a value for each error
                of the detector error model in its order without loops (`stim.DetectorErrorModel.flattened`). The answer
                is that of the decoder of the model with these probabilities, which is made for each row that differs.
            reweights_are: the errors' probabilities, or factors for those of the model.

        Raises:
            ValueError: see `Decoder.decode_batch`, or reweights of a wrong shape or that make no probabilities, or
                for a decoder without.
        """
        events = unpack_shots(shots, num_detectors=self.num_detectors, bit_packed=bit_packed_shots)
        if reweights is None:
            predictions = self.predict(events)
        elif self.reweighting is None:
            raise ValueError(f"{type(self).__name__} takes no reweights; use a classical decoder of a whole experiment")
        else:
            predictions = self.reweighting.decode(events, reweights, meaning=reweights_are)
        return pack_bits(predictions) if bit_packed_predictions else predictions


class SoftBatchDecoder(BatchDecoder):
    """The same of a decoder that also says how sure it is; what is left to do is `judge`."""

    @abstractmethod
    def judge(self, events: Bits) -> Decoding:
        """From detection events, bool (shots, num_detectors), to predictions with probabilities."""

    def predict(self, events: Bits) -> Bits:
        """The predictions alone; see `BatchDecoder`."""
        return self.judge(events).predictions

    def decode_soft(self, shots: npt.NDArray[np.generic], *, bit_packed_shots: bool = False) -> Decoding:
        """Predictions with probabilities; see `SoftDecoder.decode_soft`."""
        return self.judge(unpack_shots(shots, num_detectors=self.num_detectors, bit_packed=bit_packed_shots))


class Stream(Protocol):
    """One or more experiments side by side whose detection events arrive layer by layer."""

    def fold(self, layer: Bits) -> None:
        """Takes the next layer.

        Args:
            layer: bool (shots, detectors of this layer), in the order of the detectors' indices.

        Raises:
            ValueError: all layers have been taken, or the shape or the dtype of this one is not as above.
        """

    def finish(self) -> Decoding:
        """The answer, once all layers have been taken: that of `decode_soft` for these shots, to the last bit.

        Raises:
            ValueError: a layer is missing.
        """


@runtime_checkable
class StreamingDecoder(SoftDecoder, Protocol):
    """A decoder that takes detection events as they arrive.

    A layer holds the detectors of one round; the last one, after rounds 0 to r - 1, those that compare the data's
    readout with the last syndrome. An experiment of r rounds has r + 1.
    """

    @property
    def layers(self) -> tuple[npt.NDArray[np.int64], ...]:
        """The indices of each layer's detectors, ascending, so that ``shots[:, layers[t]]`` is layer t."""

    def stream(self, *, shots: int = 1) -> Stream:
        """Begins to decode so many experiments side by side.

        Raises:
            ValueError: shots below 1, or more than this decoder takes at once.
        """


def predict_packed(decoder: Decoder, shots: PackedBits) -> PackedBits:
    """`Decoder.decode_batch` from bit-packed shots (shots, bytes) to bit-packed predictions (shots, bytes), uint8."""
    return decoder.decode_batch(shots, bit_packed_shots=True, bit_packed_predictions=True).view(np.uint8)


def unpack_shots(shots: npt.NDArray[np.generic], *, num_detectors: int, bit_packed: bool = False) -> Bits:
    """Checks detection events and turns them into bools.

    Args:
        shots: bool or integer (shots, num_detectors) of 0 and 1; bit-packed uint8
            (shots, ceil(num_detectors / 8)), little-endian, with unused bits 0.
        num_detectors: detectors in each shot.
        bit_packed: whether `shots` is bit-packed.

    Returns:
        bool (shots, num_detectors); `shots` itself where it already is that.

    Raises:
        ValueError: wrong number of dimensions, detectors or bytes, dtype, or values other than 0 and 1.
    """
    if not isinstance(shots, np.ndarray) or shots.ndim != 2:
        found = f"shape {shots.shape}" if isinstance(shots, np.ndarray) else type(shots).__name__
        raise ValueError(f"shots must be a two-dimensional array (shots, detectors), not {found}")
    if bit_packed:
        return _unpack(shots, num_detectors)
    if shots.shape[1] != num_detectors:
        hint = "; pass bit_packed_shots=True" if shots.shape[1] == packed_size(num_detectors) else ""
        raise ValueError(
            f"each shot holds {shots.shape[1]} detection events, but this decoder's experiment has "
            f"{num_detectors} detectors{hint or '; make the shots with the same code, rounds and detectors'}"
        )
    if shots.dtype == np.bool_:
        return shots.astype(np.bool_, copy=False)
    if not np.issubdtype(shots.dtype, np.integer):
        raise ValueError(f"detection events must be bool or integers, not {shots.dtype}; convert with .astype(bool)")
    wrong = (shots != 0) & (shots != 1)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"detection events must be 0 or 1, but shot {row} holds {shots[row, column]} at detector {column}"
        )
    return shots.astype(np.bool_)


def _unpack(shots: npt.NDArray[np.generic], num_detectors: int) -> Bits:
    if shots.dtype != np.uint8:
        raise ValueError(f"bit-packed shots must be uint8, not {shots.dtype}; pack with numpy.packbits")
    length = packed_size(num_detectors)
    if shots.shape[1] != length:
        raise ValueError(
            f"each bit-packed shot holds {shots.shape[1]} bytes, but {num_detectors} detectors take {length}"
            "; make the shots with the same code, rounds and detectors, without observables appended"
        )
    packed = shots.astype(np.uint8, copy=False)
    if set_past(packed, num_detectors):
        raise ValueError(
            f"bit-packed shots have bits set past their {num_detectors} detectors; pack least significant "
            "bit first (stim's b8, numpy.packbits(..., bitorder='little')), one shot a row"
        )
    return unpack_bits(packed, num_detectors)
