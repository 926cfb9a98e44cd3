"""The fault models of one experiment at all strengths of its noise: the same mechanisms, other priors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from simulation.circuits import MemoryExperiment
from simulation.faults import FaultModel, distinct_columns, poisson_means
from simulation.noise import RATES, NoiseModel

_REFERENCE_RATE = 1e-3  # of the noise with which elementary faults are counted


class FaultFamily:
    """Fault models that share their matrices, so that another error rate costs milliseconds.

    The Poisson means of faults with the same symptom add (`simulation.faults.poisson_means`). So the mean of a merged
    mechanism is a sum over the rates of the noise: how many elementary faults of that rate have its symptom, which
    depends on the circuit alone, times the mean of one.
    """

    def __init__(self, experiment: MemoryExperiment) -> None:
        if experiment.noise.bias is not None or experiment.noise.qubit_factors:
            raise ValueError("fault models of one family have no bias and no factors of qubits; make each by itself")
        self.rates = _rates(experiment.noise)
        """The rates that are above 0."""
        models = [_with_one_rate(experiment, rate).fault_model for rate in self.rates]
        num_detectors, num_observables = models[0].num_detectors, models[0].num_observables
        symptoms = sp.hstack([model.symptom_matrix for model in models], format="csc")
        place = distinct_columns(symptoms, num_observables=num_observables)
        distinct = symptoms[:, np.unique(place, return_index=True)[1]]
        self._check_matrix, self._observable_matrix = distinct[:num_detectors], distinct[num_detectors:]
        self._counts = np.zeros((distinct.shape[1], len(self.rates)))
        ends = np.cumsum([model.num_mechanisms for model in models])
        for i, (model, rows) in enumerate(zip(models, np.split(place, ends[:-1]), strict=True)):
            one = _elementary_mean(self.rates[i], _REFERENCE_RATE)
            self._counts[rows, i] = np.rint(poisson_means(model.priors) / one)

    def at(self, noise: NoiseModel) -> FaultModel:
        """The fault model with this noise: what `FaultModel.from_dem` makes of its circuit, up to rounding.

        Raises:
            ValueError: other rates are above 0 than in the experiment, so other faults can happen.
        """
        if noise.bias is not None or noise.qubit_factors or _rates(noise) != self.rates:
            raise ValueError(
                f"this noise has {', '.join(_rates(noise))} above 0, but these fault models are of a circuit with "
                f"{', '.join(self.rates)}; make a FaultFamily of an experiment with this noise"
            )
        means = self._counts @ [_elementary_mean(rate, getattr(noise, rate)) for rate in self.rates]
        return FaultModel(self._check_matrix, self._observable_matrix, priors=-np.expm1(-2 * means) / 2)


def _rates(noise: NoiseModel) -> tuple[str, ...]:
    return tuple(rate for rate in RATES if getattr(noise, rate) > 0)


def _with_one_rate(experiment: MemoryExperiment, rate: str) -> MemoryExperiment:
    rates: dict[str, Any] = {**dict.fromkeys(RATES, 0.0), rate: _REFERENCE_RATE}
    return replace(experiment, noise=NoiseModel(name="custom", p=_REFERENCE_RATE, **rates))


def _elementary_mean(rate: str, p: float) -> float:
    """The Poisson mean of one Pauli of a channel, when its Paulis are made independent as stim makes them.

    The formulas are stim's (`depolarize2_probability_to_independent_per_channel_probability` and its like), with its
    order of operations, so that they round as the probabilities in its detector error models do.
    """
    if rate == "cnot":
        p = 0.5 - 0.5 * (1 - 16 * p / 15) ** 0.125
    elif rate in ("idle", "readout_idle"):
        p = 0.5 - 0.5 * math.sqrt(1 - 4 * p / 3)
    return -math.log1p(-2 * p) / 2
