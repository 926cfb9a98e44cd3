"""The errors that decoders find, in the order of the detector error model that they decode."""

from __future__ import annotations

import numpy as np
import pytest
import stim

from decoder.base import ErrorDecoder
from decoder.making import make_decoder
from simulation.circuits import MemoryExperiment
from simulation.experiments import as_experiment
from simulation.shots.sampling import sample

DEM = stim.DetectorErrorModel("""
    error(0.01) D0 L0
    error(0) D4
    error(0.05) D0 L0
    error(0.7) D0 D1
    error(1) D1 D2 L1
    REPEAT 2 {
        error(0.1) D2 ^ D3
        error(0.02) D3
        shift_detectors 1
    }
    error(0.1) L0
    error(0.03) D2
""")
"""Errors that are the same, impossible, certain, likelier than not, repeated, or not seen by any detector."""


def matrices(dem: stim.DetectorErrorModel) -> tuple[np.ndarray, np.ndarray]:
    """What each error of a model flips, (detectors, errors) and (observables, errors), error by error."""
    errors = [instruction for instruction in dem.flattened() if instruction.type == "error"]
    flips = np.zeros((dem.num_detectors + dem.num_observables, len(errors)), dtype=np.int64)
    for j, error in enumerate(errors):
        for target in error.targets_copy():
            if not target.is_separator():
                flips[target.val + (0 if target.is_relative_detector_id() else dem.num_detectors), j] += 1
    return flips[: dem.num_detectors] % 2, flips[dem.num_detectors :] % 2


SURFACE = stim.Circuit.generated(
    "surface_code:rotated_memory_x", distance=3, rounds=2, after_clifford_depolarization=0.01
)
BB72 = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.003)
CASES = [
    *((name, "model") for name in ("bposd", "bplsd", "bp", "relay-1", "tesseract-short", "mle", "serial", "serial-1")),
    *((name, "surface") for name in ("bposd-xyz", "mle", "serial")),
    *((name, "bb72") for name in ("bposd", "serial")),
]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_errors_explain_the_events_and_flip_the_predictions(name, case):
    described = {"model": DEM, "surface": SURFACE, "bb72": BB72}[case]
    experiment = as_experiment(described)
    decoder = make_decoder(name, experiment)
    assert isinstance(decoder, ErrorDecoder)
    shots = sample(experiment.source, shots=100, seed=1).unpacked_detection_events()
    found = decoder.decode_to_errors(shots)
    checks, observables = matrices(experiment.dem)
    assert found.errors.shape == (100, checks.shape[1])
    assert found.errors.any()
    looked_at = getattr(decoder, "detectors", None)
    seen = slice(None) if looked_at is None else looked_at
    explained = found.errors @ checks[seen].T % 2 == shots[:, seen]
    np.testing.assert_array_equal(explained.all(axis=1), found.converged)
    assert found.converged.mean() > 0.9
    flips = found.errors @ observables.T % 2 == 1
    np.testing.assert_array_equal(found.predictions[found.converged], flips[found.converged])
    np.testing.assert_array_equal(found.predictions, decoder.decode_batch(shots))
    assert not found.errors[:, experiment.fault_model.num_instructions :].any()


def test_of_errors_that_are_the_same_the_likeliest_is_told():
    """Errors 3 and 4 happen unless there is a reason that they do not: D0 D1 and D1 D2 L1 together are D0 D2 L1."""
    decoder = make_decoder("bposd", DEM)
    assert isinstance(decoder, ErrorDecoder)
    shots = np.array([[1, 0, 1, 0, 0], [0, 0, 1, 0, 0]])
    errors = decoder.decode_to_errors(shots).errors
    assert [np.flatnonzero(error).tolist() for error in errors] == [[3, 4], [2, 3, 4]]
