"""Decoders of the same detector error model with other probabilities, shot by shot."""

from __future__ import annotations

import math
from collections import OrderedDict
from copy import copy
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from decoder.base import BatchDecoder, Decoding, ErrorDecoder, Errors, Piece, PiecewiseDecoder, SoftDecoder
from decoder.classical.settings import DecoderSettings
from simulation.bases import Detectors
from simulation.bits import Bits, pack_bits
from simulation.experiments import Experiment
from simulation.faults import FaultModel, errors_of_dem

Meaning = Literal["probabilities", "factors"]
KEPT = 2
"""Decoders that are kept, as the same probabilities may come again."""


class Reweighting:
    """What a decoder of an experiment would say if the errors had other probabilities.

    Args:
        experiment: its detector error model, and the types of its checks, which stay.
        settings: how to decode.
        detectors: see `DecoderSettings.decoder`.
    """

    def __init__(self, experiment: Experiment, settings: DecoderSettings, detectors: Detectors) -> None:
        self._experiment = copy(experiment)  # without what has been computed of it, until it is needed
        self._settings = settings
        self._detectors = detectors
        self._kept: OrderedDict[bytes, BatchDecoder] = OrderedDict()

    def decode(self, events: Bits, reweights: npt.NDArray[np.generic], *, meaning: Meaning) -> Bits:
        """Decodes shots, a decoder being made for each row of probabilities that differs from the others.

        Args:
            events: bool (shots, detectors).
            reweights: float (errors,) for all shots, or (shots, errors): for each error of the DEM, in its order
                without loops, its probability, or a factor for that which it has in the DEM.
            meaning: which of the two.

        Returns:
            Bool (shots, observables).

        Raises:
            ValueError: wrong shape, values that are no probabilities, or for which the decoder cannot be made.
        """
        probabilities = self._probabilities(reweights, len(events), meaning)
        if not len(events):
            return np.zeros((0, self._experiment.num_observables), dtype=np.bool_)
        return self.decoded(events, probabilities).predictions

    def decoded(
        self, events: Bits, probabilities: npt.NDArray[np.float64], *, errors: bool = False
    ) -> Decoding | Errors | Piece:
        """See `decoder.base.Reweighting`; a decoder is made for each row of probabilities that differs."""
        distinct, which = np.unique(probabilities, axis=0, return_inverse=True)
        which = np.broadcast_to(which.ravel(), len(events))
        parts, order = [], []
        for row, one in enumerate(distinct):
            shots = np.flatnonzero(which == row)
            parts.append(_decoded(self._decoder(one), events[shots], errors=errors))
            order.append(shots)
        together = type(parts[0]).concatenate(parts)  # type: ignore[arg-type]  # all are of one kind
        return together[np.argsort(np.concatenate(order))]

    def _decoder(self, probabilities: npt.NDArray[np.float64]) -> BatchDecoder:
        """The decoder of the model with these probabilities (errors,)."""
        key = probabilities.tobytes()
        if key not in self._kept:
            observables = self._experiment.num_observables
            model = FaultModel.from_errors(self._symptoms, probabilities, num_observables=observables)
            types, placement = self._experiment.check_types, self._settings.placement(self._experiment)
            self._kept[key] = self._settings.of_faults(model, types, detectors=self._detectors, placement=placement)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _probabilities(
        self, reweights: npt.NDArray[np.generic], shots: int, meaning: Meaning
    ) -> npt.NDArray[np.float64]:
        errors = len(self.priors)
        values = np.asarray(reweights, dtype=np.float64)
        if values.shape not in ((errors,), (shots, errors)):
            raise ValueError(
                f"reweights have the shape {values.shape}, but the detector error model has {errors} errors: give "
                f"({errors},) for all shots, or ({shots}, {errors})"
            )
        if meaning == "factors":
            values = values * self.priors
        if not ((values >= 0) & (values <= 1)).all():  # NaN is neither
            wrong = tuple(map(int, np.argwhere(~((values >= 0) & (values <= 1)))[0]))
            raise ValueError(
                f"reweights make {values[wrong]} the probability of error {wrong[-1]}; it must be from 0 to 1"
            )
        return np.broadcast_to(values, (shots, errors))

    @cached_property
    def _errors(self) -> tuple[sp.csc_matrix, npt.NDArray[np.float64]]:
        return errors_of_dem(self._experiment.dem)

    @property
    def _symptoms(self) -> sp.csc_matrix:
        return self._errors[0]

    @property
    def priors(self) -> npt.NDArray[np.float64]:
        """See `decoder.base.Reweighting`."""
        return self._errors[1]


def _decoded(decoder: BatchDecoder, events: Bits, *, errors: bool) -> Decoding | Errors | Piece:
    """What a decoder says of shots, see `Reweighting.decoded`."""
    if errors:
        if not isinstance(decoder, ErrorDecoder):
            raise ValueError(f"{type(decoder).__name__} tells no errors; ask for predictions")
        return decoder.decode_to_errors(events)
    if isinstance(decoder, SoftDecoder):
        return decoder.decode_soft(events)
    if isinstance(decoder, PiecewiseDecoder):
        return decoder.decode_piece(pack_bits(events), seconds=math.inf)
    return Piece(decoder.predict(events), np.zeros(len(events), dtype=np.bool_))
