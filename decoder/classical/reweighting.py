"""Decoders of the same detector error model with other probabilities, shot by shot."""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from decoder.classical.settings import DecoderSettings
from simulation.bases import Detectors
from simulation.bits import Bits
from simulation.experiments import Experiment
from simulation.faults import FaultModel, errors_of_dem

Meaning = Literal["probabilities", "factors"]


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
        priors = self._probabilities(reweights, len(events), meaning)
        distinct, which = np.unique(priors, axis=0, return_inverse=True)
        flips = np.zeros((len(events), self._experiment.num_observables), dtype=np.bool_)
        placement = self._settings.placement(self._experiment)
        for row, probabilities in enumerate(distinct):
            shots = np.flatnonzero(which.ravel() == row)
            model = FaultModel.from_errors(
                self._symptoms, probabilities, num_observables=self._experiment.num_observables
            )
            types = self._experiment.check_types
            decoder = self._settings.of_faults(model, types, detectors=self._detectors, placement=placement)
            flips[shots] = decoder.predict(events[shots])
        return flips

    def _probabilities(
        self, reweights: npt.NDArray[np.generic], shots: int, meaning: Meaning
    ) -> npt.NDArray[np.float64]:
        errors = len(self._priors)
        values = np.asarray(reweights, dtype=np.float64)
        if values.shape not in ((errors,), (shots, errors)):
            raise ValueError(
                f"reweights have the shape {values.shape}, but the detector error model has {errors} errors: give "
                f"({errors},) for all shots, or ({shots}, {errors})"
            )
        if meaning == "factors":
            values = values * self._priors
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
    def _priors(self) -> npt.NDArray[np.float64]:
        return self._errors[1]
