from collections.abc import Callable

import ldpc
import numpy as np
import numpy.typing as npt

from decoder.classical.bp import PLAIN_BP
from decoder.classical.problem import Problem
from simulation.circuits import MemoryExperiment
from simulation.faults import FaultModel
from simulation.shots.sampling import sample


def test_where_it_does_not_converge_its_last_beliefs_are_the_answer() -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=3, p=0.006, detectors="XZ")
    problem = Problem.of(experiment.fault_model)
    solve = PLAIN_BP.solver(problem)
    reference = ldpc.BpDecoder(**PLAIN_BP.bp_arguments(problem))
    converged = []
    for syndrome in sample(experiment.circuit, shots=60, seed=2).unpacked_detection_events().astype(np.uint8):
        error = np.bincount(solve(syndrome), minlength=problem.faults.num_mechanisms)
        reference.decode(syndrome)
        np.testing.assert_array_equal(error, reference.log_prob_ratios <= 0)
        explained = (problem.faults.check_matrix @ error) % 2 == syndrome
        assert explained.all() == reference.converge
        converged.append(reference.converge)
    assert 1 <= converged.count(False) <= 40


def test_as_many_detectors_as_mechanisms(model_of: Callable[[str], FaultModel]) -> None:
    """ldpc asks of square matrices what is decoded: a syndrome."""
    model = model_of("error(0.1) D0 L0\nerror(0.1) D0 D1 L1")
    found: npt.NDArray[np.int64] = PLAIN_BP.solver(Problem.of(model))(np.array([1, 1], dtype=np.uint8))
    assert found.tolist() == [1]
