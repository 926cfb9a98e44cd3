import numpy as np
import pytest
import torch
from ldpc import BpDecoder

from decoder.neural.belief import NOMINAL_P, SCALE, BeliefPropagation
from decoder.neural.config import ModelConfig
from decoder.neural.geometry import TorusGeometry
from decoder.neural.model import RecurrentTransformer
from simulation.circuits import MemoryExperiment
from simulation.codes import parse_code
from simulation.detectors import Basis
from simulation.noise import NoiseModel

ROUNDS = 4


class Problem:
    """The basis's detectors and mechanisms as `ldpc` wants them, and where they are on the lattice."""

    def __init__(self, code: str, basis: Basis) -> None:
        self.geometry = TorusGeometry(parse_code(code))
        noise = NoiseModel.uniform(NOMINAL_P)
        self.experiment = MemoryExperiment(self.geometry.code, basis, ROUNDS, noise, detectors="XZ")
        self.model = self.experiment.fault_model
        x, y, self.layer, _ = self.experiment.grid.coordinates.T
        self.cell = self.geometry.framed_cells(basis)[x * self.geometry.code.m + y]

    def syndrome(self, events: np.ndarray) -> torch.Tensor:
        """(T, N, B) from detection events (B, detectors)."""
        dense = torch.zeros(ROUNDS + 1, self.geometry.code.cells, len(events))
        dense[self.layer, self.cell] = torch.from_numpy(events.T.astype(np.float32))
        return dense

    def output_flips(self, faults: np.ndarray) -> np.ndarray:
        """(B, O) from the mechanisms that happened, (B, mechanisms)."""
        observables = faults @ self.model.observable_matrix.toarray().T.astype(int)
        checks = np.zeros((len(faults), self.geometry.code.cells), dtype=int)
        for d, column in enumerate((faults @ self.model.check_matrix.toarray().T.astype(int)).T):
            checks[:, self.cell[d]] += column
        return (observables @ self.geometry.output_observables.T + checks @ self.geometry.output_checks.T) % 2


@pytest.mark.parametrize("basis", ["Z", "X"])
def test_iterations_are_those_of_ldpc(basis: Basis) -> None:
    problem = Problem("bb72", basis)
    iterations = 7
    rng = np.random.default_rng(4)
    faults = (rng.random((60, problem.model.num_mechanisms)) < problem.model.priors).astype(int)
    events = faults @ problem.model.check_matrix.toarray().T.astype(int) % 2
    reference = BpDecoder(
        problem.model.check_matrix,
        error_channel=problem.model.priors.tolist(),
        max_iter=iterations,
        bp_method="minimum_sum",
        ms_scaling_factor=SCALE,
    )
    beliefs = BeliefPropagation(problem.geometry, iterations)(problem.syndrome(events), basis="ZX".index(basis))
    satisfied = beliefs.features[..., -1].sum((0, 1)) == 0
    compared = 0
    for shot, row in enumerate(events):
        found = reference.decode(row.astype(np.uint8))
        if not reference.converge:  # else ldpc may have stopped earlier
            compared += 1
            expected = np.sort(1 / (1 + np.exp(np.array(reference.log_prob_ratios))))
            chances = beliefs.features[:, :, shot, : beliefs.features.shape[-1] // 2].flatten().sort().values
            np.testing.assert_allclose(chances[-len(expected) :], expected, atol=2e-4)
            np.testing.assert_array_equal(beliefs.flips[shot], problem.output_flips(found[None].astype(int))[0])
            assert not satisfied[shot]
    assert compared >= 5
    assert satisfied.float().mean() > 0.3


@pytest.mark.parametrize(("code", "basis"), [("bb72", "Z"), ("bb72", "X"), ("bb144", "Z")])
def test_every_single_fault_is_found(code: str, basis: Basis) -> None:
    problem = Problem(code, basis)
    faults = np.eye(problem.model.num_mechanisms, dtype=int)
    events = problem.model.check_matrix.toarray().T
    beliefs = BeliefPropagation(problem.geometry, 10)(problem.syndrome(events), basis="ZX".index(basis))
    assert not beliefs.features[..., -1].any()
    np.testing.assert_array_equal(beliefs.flips, problem.output_flips(faults))


def test_no_iteration_sees_another_shot() -> None:
    problem = Problem("bb72", "Z")
    propagation = BeliefPropagation(problem.geometry, 5)
    syndrome = (torch.rand(ROUNDS + 1, 36, 150, generator=torch.Generator().manual_seed(1)) < 0.05).float()
    together, alone = propagation(syndrome, basis=0), propagation(syndrome[..., 140:141], basis=0)
    torch.testing.assert_close(together.features[:, :, 140:141], alone.features)
    torch.testing.assert_close(together.flips[140:141], alone.flips)


def test_relay_legs_explain_most_of_what_the_first_leg_leaves() -> None:
    problem = Problem("bb72", "Z")
    faults = (np.random.default_rng(6).random((400, problem.model.num_mechanisms)) < problem.model.priors).astype(int)
    syndrome = problem.syndrome(faults @ problem.model.check_matrix.toarray().T.astype(int) % 2)
    left = []
    for iterations in (40, 100):
        beliefs = BeliefPropagation(problem.geometry, iterations)(syndrome, basis=0)
        left.append(int(beliefs.features[..., -1].any(0).any(0).sum()))
    assert left[1] < left[0] / 3
    wrong = (beliefs.flips.numpy() != problem.output_flips(faults)).any(1)
    assert wrong.sum() <= 20


def test_shots_that_are_kept_to_the_end_keep_what_they_had() -> None:
    """As on a GPU, which does not know how many shots are left."""
    problem = Problem("bb72", "X")
    propagation = BeliefPropagation(problem.geometry, 60)
    faults = np.random.default_rng(5).random((40, problem.model.num_mechanisms)) < problem.model.priors
    events = problem.syndrome(faults.astype(int) @ problem.model.check_matrix.toarray().T.astype(int) % 2)
    propagation(events, basis=1)  # makes the graph
    (graph,) = propagation._graphs.values()
    dropped, kept = (propagation._propagate(events.flatten(0, 1), graph, compact=c) for c in (True, False))
    for one, other in zip(dropped, kept, strict=True):
        torch.testing.assert_close(one, other)
    assert (dropped[1].sum(0) == 0).sum() > 5


def test_beliefs_change_nothing_until_they_are_trained() -> None:
    torch.manual_seed(3)
    plain = RecurrentTransformer(ModelConfig(width=16))
    informed = RecurrentTransformer(ModelConfig(width=16, bp_iterations=3))
    informed.load_state_dict(plain.state_dict(), strict=False)
    events = (torch.rand(4, 2, 36, 8) < 0.1).float()
    torch.testing.assert_close(informed(events, basis=0), plain(events, basis=0))
    informed.loss(events, torch.zeros(8, 12), basis=0).backward()
    assert informed.read_beliefs.grad is not None
    assert informed.read_beliefs.grad[0].abs().max() > 0
    assert informed.readout.trust_head.weight.grad.abs().max() > 0
