import numpy as np
import pytest

from decoder.neural.geometry import TorusGeometry
from simulation.bases import Basis
from simulation.circuits import MemoryExperiment
from simulation.codes import CODES, parse_code

SMALL = "3,3,x+1+y,x+1+xy^2"


@pytest.mark.parametrize("code", ["bb72", "bb90", "bb108", "bb144", SMALL])
def test_the_fourier_matrix_is_orthogonal_and_diagonalises_shifts(code: str) -> None:
    geometry = TorusGeometry(parse_code(code))
    cells, fourier = geometry.code.cells, geometry.fourier_matrix
    np.testing.assert_allclose(fourier @ fourier.T, np.eye(cells), atol=1e-12)
    shift = geometry.displacement_index == 1  # out[c] = h[c + (0, 1)]
    in_fourier = fourier @ shift @ fourier.T
    pairs = (cells - geometry.num_real_frequencies) // 2
    allowed = np.eye(cells, dtype=bool)
    for i in range(pairs):
        cosine = geometry.num_real_frequencies + i
        allowed[cosine, cosine + pairs] = allowed[cosine + pairs, cosine] = True
    assert np.abs(in_fourier[~allowed]).max() < 1e-12


@pytest.mark.parametrize("code", list(CODES))
def test_displacements_follow_the_tanner_graph(code: str) -> None:
    geometry = TorusGeometry(CODES[code])
    assert len(geometry.check_displacements) == 31
    assert len(geometry.qubit_displacements) == 12
    l, m = geometry.code.l, geometry.code.m
    reached = {(dx % l) * m + dy % m for dx, dy in geometry.check_displacements}
    checks = np.concatenate([geometry.code.hz.toarray(), geometry.code.hx.toarray()]).astype(int)
    sharing = (checks @ checks.T > 0)[[0, geometry.code.cells]].reshape(2, 2, -1)
    assert reached == set(np.flatnonzero(sharing.any(axis=(0, 1))))


@pytest.mark.parametrize("basis", ["Z", "X"])
def test_outputs_are_the_sums_they_claim_to_be(basis: Basis) -> None:
    """Noisy shots with perfect readout: each output's flip is the parity of the flipped data qubits on its support.

    One measurement error fakes detection events, so the circuit has errors on data qubits alone.
    """
    code = CODES["bb72"]
    geometry = TorusGeometry(code)
    experiment = MemoryExperiment.create(code="bb72", basis=basis, rounds=3, p=0.1, noise="idle=0.02")
    measurements = experiment.circuit.compile_sampler(seed=5).sample(200)
    detections, flips = experiment.circuit.compile_m2d_converter().convert(
        measurements=measurements, separate_observables=True
    )
    # All data qubits start in the +1 eigenstate of the memory basis' product state, so a readout of 1 is a flip.
    data = measurements[:, -code.n :].astype(int)
    in_frame = data if basis == "Z" else data[:, code.dual_qubits]
    truth = in_frame @ geometry.output_supports.T % 2
    index = geometry.event_index(experiment.grid)
    memory_events = detections[:, index[:, 0]]  # (shots, T, N)
    checks = memory_events.sum(axis=1) % 2
    claimed = (flips @ geometry.output_observables.T + checks @ geometry.output_checks.T) % 2
    np.testing.assert_array_equal(claimed, truth)
    assert truth.any()


def test_all_bb72_outputs_have_least_weight_and_span_the_observables() -> None:
    geometry = TorusGeometry(CODES["bb72"])
    assert geometry.output_supports.shape == (108, 72)
    assert set(geometry.output_supports.sum(axis=1)) == {6}
    assert np.linalg.matrix_rank(geometry.output_observables.astype(float)) == 12


def test_event_index_refuses_other_detectors() -> None:
    geometry = TorusGeometry(CODES["bb72"])
    one_basis = MemoryExperiment.create(code="bb72", basis="Z", rounds=3, p=0.01, detectors="XZ")
    with pytest.raises(ValueError, match="both bases"):
        geometry.event_index(one_basis.grid)
    perfect = MemoryExperiment.create(code="bb72", basis="Z", rounds=3, p=0.01, noiseless_last_cycle=True)
    with pytest.raises(ValueError, match="noisy readout"):
        geometry.event_index(perfect.grid)
    larger = MemoryExperiment.create(code="bb144", basis="Z", rounds=3, p=0.01)
    with pytest.raises(ValueError, match="torus"):
        geometry.event_index(larger.grid)
