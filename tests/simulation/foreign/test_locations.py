"""Noise that is scaled by the names of its locations."""

from __future__ import annotations

import numpy as np
import pytest
import stim

from decoder.making import make_decoder
from simulation.circuits import MemoryExperiment
from simulation.faults import errors_of_dem
from simulation.foreign.locations import priors_of_locations

CIRCUIT = stim.Circuit(
    """
    R 0 1 2
    X_ERROR[first](0.1) 0
    X_ERROR(0.05) 0
    REPEAT 2 {
        DEPOLARIZE2[pair](0.01) 1 2
        X_ERROR[first](0.02) 1
    }
    M[readout](0.03) 0 1 2
    DETECTOR rec[-3]
    DETECTOR rec[-2]
    DETECTOR rec[-1]
    OBSERVABLE_INCLUDE(0) rec[-1]
    """
)


def test_each_error_has_its_probability_in_the_scaled_circuit() -> None:
    text = str(CIRCUIT).replace("(0.1)", "(0.2)").replace("(0.02)", "(0.04)").replace("(0.03)", "(0.006)")
    expected = errors_of_dem(stim.Circuit(text).detector_error_model())[1]
    found = priors_of_locations(CIRCUIT, factors={"first": 2, "readout": 0.2})
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert len(found) > 3


def test_what_is_left_out_has_probability_0() -> None:
    found = priors_of_locations(CIRCUIT, factors={"pair": 0, "readout": 0})
    np.testing.assert_array_equal(np.sort(found[found > 0]), [0.02, 0.02, 0.05, 0.1])
    assert np.count_nonzero(found == 0) == 9


def test_errors_of_a_model_are_multiplied() -> None:
    model = stim.DetectorErrorModel("error[a](0.1) D0\nrepeat 2 {\nerror(0.2) D0\nerror[b](0.3) D0 L0\n}")
    found = priors_of_locations(model, factors={"a": 4, "b": 0.5})
    np.testing.assert_allclose(found, [0.4, 0.2, 0.15, 0.2, 0.15])
    with pytest.raises(ValueError, match="above 1"):
        priors_of_locations(model, factors={"b": 4})


def test_a_decoder_of_these_priors_is_that_of_the_scaled_circuit() -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.004)
    text = str(experiment.circuit).replace("DEPOLARIZE2(", "DEPOLARIZE2[two](")
    circuit, noisy = (
        stim.Circuit(text),
        stim.Circuit(text.replace("DEPOLARIZE2[two](0.004)", "DEPOLARIZE2[two](0.012)")),
    )
    shots = noisy.compile_detector_sampler(seed=3).sample(100)
    priors = priors_of_locations(circuit, factors={"two": 3})
    found = make_decoder("bposd", circuit).decode_batch(shots, reweights=priors)
    np.testing.assert_array_equal(found, make_decoder("bposd", noisy).decode_batch(shots))
    assert (found != make_decoder("bposd", circuit).decode_batch(shots)).any()


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"second": 2.0}, "no noise has the tag 'second'"),
        ({"first": -1.0}, "factor of 'first' is -1.0"),
        ({"first": float("nan")}, "factor of 'first' is nan"),
        ({"first": 20.0}, "the noise cannot be scaled"),
    ],
)
def test_what_is_refused(factors: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        priors_of_locations(CIRCUIT, factors=factors)
