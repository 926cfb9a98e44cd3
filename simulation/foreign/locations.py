"""The probabilities of errors when the noise at some named locations is another than the circuit says."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import numpy as np
import numpy.typing as npt
import stim

from simulation.faults import errors_of_dem
from simulation.foreign.experiment import ForeignExperiment, Source


def priors_of_locations(source: Source, *, factors: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """What `decode_batch(reweights=...)` takes where a drift is known by location, and not error by error.

    A location is named by the tag of its noise, as in ``DEPOLARIZE2[coupler 7](0.001) 3 4`` or ``M[readout](0.01) 5``,
    which stim hands on to the errors of the detector error model. Each error gets the probability that it has in the
    circuit whose noise is scaled; where there is no circuit, its own is multiplied.

    Args:
        source: a circuit or a model; what is scaled alike has the same tag.
        factors: for each tag, what the probabilities of its noise are multiplied by; 0 leaves it out.

    Returns:
        Float (errors,): in the order of the detector error model without loops.

    Raises:
        ValueError: nothing has such a tag, or a factor is negative or makes a probability that there is not.
    """
    for tag, factor in factors.items():
        if not (isfinite(factor) and factor >= 0):
            raise ValueError(f"the factor of {tag!r} is {factor}; give one that is at least 0")
    dem = ForeignExperiment.unchecked(source).dem
    tags = [part.tag for part in dem.flattened() if part.type == "error"]
    if missing := factors.keys() - set(tags):
        raise ValueError(f"no noise has the tag {min(missing)!r}; stim writes it as in X_ERROR[{min(missing)}](0.01) 0")
    each = np.array([factors.get(tag, 1.0) for tag in tags])
    if isinstance(source, stim.DetectorErrorModel):
        priors = each * errors_of_dem(dem)[1]
        if (priors > 1).any():
            raise ValueError(f"factors {dict(factors)} make probabilities above 1; give smaller ones")
        return priors
    try:
        scaled = ForeignExperiment.unchecked(_scaled(source, factors)).dem
    except ValueError as error:
        raise ValueError(f"the noise cannot be scaled by {dict(factors)}: {error}") from None
    priors = np.zeros(len(tags))
    priors[each > 0] = errors_of_dem(scaled)[1]
    return priors


def _scaled(circuit: stim.Circuit, factors: Mapping[str, float]) -> stim.Circuit:
    """The circuit with its noise scaled."""
    scaled = stim.Circuit()
    for part in circuit:
        if isinstance(part, stim.CircuitRepeatBlock):
            body = _scaled(part.body_copy(), factors)
            scaled.append(stim.CircuitRepeatBlock(part.repeat_count, body, tag=part.tag))
        elif part.tag in factors and stim.gate_data(part.name).is_noisy_gate:
            rates = [rate * factors[part.tag] for rate in part.gate_args_copy()]
            scaled.append(stim.CircuitInstruction(part.name, part.targets_copy(), rates, tag=part.tag))
        else:
            scaled.append(part)
    return scaled
