from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from decoder.classical.mle import EXACT
from decoder.classical.problem import Problem
from decoder.classical.syndrome import SyndromeDecoder
from decoder.classical.tesseract import LONG_BEAM
from decoder.making import make_decoder
from simulation.circuits import MemoryExperiment
from simulation.faults import FaultModel
from simulation.shots.sampling import sample

Bits = npt.NDArray[np.bool_]


@pytest.mark.parametrize("seed", range(6))
def test_the_error_explains_the_syndrome_and_none_is_likelier(
    seed: int,
    model_of: Callable[[str], FaultModel],
    all_shots: Callable[[int], Bits],
    likeliest_error: Callable[[FaultModel, Bits], Bits | None],
) -> None:
    rng = np.random.default_rng(seed)
    lines = [
        f"error({rng.uniform(0.001, 0.5):.5f}) " + " ".join(f"D{d}" for d in sorted(rng.choice(5, size, replace=False)))
        for size in rng.integers(1, 6, 12)
    ]
    model = model_of("\n".join(lines))
    problem = Problem.of(model)
    solve = EXACT.solver(problem)
    explicable = 0
    for shot in all_shots(model.num_detectors)[1:]:
        best = likeliest_error(model, shot)
        if best is None:
            continue
        explicable += 1
        error = np.bincount(solve(shot.astype(np.uint8)), minlength=model.num_mechanisms)
        np.testing.assert_array_equal((model.check_matrix @ error) % 2, shot)
        assert problem.weights @ error == pytest.approx(problem.weights @ best, abs=1e-5)
    assert explicable >= 15


def test_no_error_that_is_found_otherwise_is_likelier() -> None:
    """On shots of a circuit, Tesseract's long beam finds errors of the same weight."""
    experiment = MemoryExperiment.create(code="bb72", basis="X", rounds=1, p=0.01)
    problem = Problem.of(experiment.fault_model)
    exact, search = EXACT.solver(problem), LONG_BEAM.solver(problem)
    for shot in sample(experiment.circuit, shots=10, seed=6).unpacked_detection_events().astype(np.uint8):
        mine, its = exact(shot), search(shot)
        indicator = np.bincount(mine, minlength=problem.faults.num_mechanisms)
        np.testing.assert_array_equal((problem.faults.check_matrix @ indicator) % 2, shot)
        assert problem.weights[mine].sum() == pytest.approx(problem.weights[its].sum(), abs=1e-4)


def test_a_shot_that_no_fault_explains_is_refused(model_of: Callable[[str], FaultModel]) -> None:
    decoder = SyndromeDecoder(model_of("error(0.1) D0 D1 L0\nerror(0.1) D0 D1 D2"), EXACT)
    with pytest.raises(ValueError, match=r"no set of mechanisms explains .* bposd"):
        decoder.decode_batch(np.array([[True, False, False]]))


def test_fault_models_that_are_too_large_are_refused() -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=8, p=0.001)
    with pytest.raises(ValueError, match=r"at most 20,000 mechanisms, and this one has 22,068; .* tesseract-long"):
        make_decoder("mle", experiment)


def test_a_shot_that_takes_too_long_is_refused() -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=3, p=0.01)
    decoder = SyndromeDecoder(experiment.fault_model, replace(EXACT, seconds=1e-3))
    shots = sample(experiment.circuit, shots=3, seed=2).detection_events
    with pytest.raises(ValueError, match=r"was not proved in 0.001 s .* tesseract-long"):
        decoder.decode_batch(shots, bit_packed_shots=True)
