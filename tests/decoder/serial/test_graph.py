import numpy as np
import pytest
import scipy.sparse as sp
import stim

from decoder.serial.graph import LEAST_PRIOR, joint_faults, observables_of
from simulation.circuits import MemoryExperiment
from simulation.faults import FaultModel


def model(text: str) -> FaultModel:
    return FaultModel.from_dem(stim.DetectorErrorModel(text))


def memory_basis(experiment: MemoryExperiment) -> np.ndarray:
    mask = np.zeros(experiment.num_detectors, dtype=np.bool_)
    mask[experiment.grid.indices_of(experiment.grid.memory_basis)] = True
    return mask


def test_a_model_of_two_sides_by_hand() -> None:
    """D0 and D1 are of the memory side, D2 of the other; the mechanisms come in the order of their detectors."""
    text = "error(0.01) D0 L0\nerror(0.02) D0 D1\nerror(0.03) D0 D2 L0\nerror(0.04) D1 L1\nerror(0.05) D2\ndetector D2"
    joint = joint_faults(model(text), np.array([True, True, False]))
    graph = joint.graph
    # Faults: D0; D0 D1; D1; and D2 on the other side. The mechanism D0 D2 links the first with the last.
    np.testing.assert_array_equal(joint.memory_fault, [0, 1, 0, 2, -1])
    np.testing.assert_array_equal(joint.other_fault, [-1, -1, 3, -1, 3])
    np.testing.assert_array_equal(graph.flips, [1, 0, 2])
    np.testing.assert_array_equal(joint.checks.toarray(), [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(graph.own, [0.01, 0.02, 0.04, 0.05], rtol=1e-6)
    both = [0.01 * 0.97 + 0.03 * 0.99, 0.02, 0.04, 0.05 * 0.97 + 0.03 * 0.95]
    np.testing.assert_allclose(graph.chance, both, rtol=1e-6)
    np.testing.assert_allclose(graph.prior[:4], np.log(1 / np.array(both) - 1), rtol=1e-6)
    np.testing.assert_array_equal(graph.first_link, [0, 1, 1, 1, 2])
    np.testing.assert_array_equal(graph.partner, [3, 0])
    np.testing.assert_array_equal(graph.back, [1, 0])
    np.testing.assert_allclose(graph.link_odds, 0.03 / 0.97, rtol=1e-6)


def test_links_are_seen_from_both_ends() -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="X", rounds=3, p=0.003)
    joint = joint_faults(experiment.fault_model, memory_basis(experiment))
    graph = joint.graph
    hearer = np.repeat(np.arange(len(graph.chance)), np.diff(graph.first_link))
    np.testing.assert_array_equal(graph.back[graph.back], np.arange(len(graph.back)))
    np.testing.assert_array_equal(hearer[graph.back], graph.partner)
    np.testing.assert_array_equal(graph.link_odds[graph.back], graph.link_odds)
    links = set(zip(hearer.tolist(), graph.partner.tolist(), strict=True))
    seen = (joint.memory_fault >= 0) & (joint.other_fault >= 0)
    pairs = set(zip(joint.memory_fault[seen].tolist(), joint.other_fault[seen].tolist(), strict=True))
    assert links == pairs | {(b, a) for a, b in pairs}
    # What the faults' detectors and observables are together is what the mechanisms' are.
    parts = [joint.memory_fault, joint.other_fault]
    chosen = [np.where(part >= 0, part, len(graph.chance)) for part in parts]
    padded = sp.hstack([joint.checks.astype(int), sp.csr_matrix((joint.checks.shape[0], 1), dtype=int)]).tocsc()
    np.testing.assert_array_equal(
        (padded[:, chosen[0]] + padded[:, chosen[1]]).toarray(), experiment.fault_model.check_matrix.toarray()
    )
    flips = observables_of(np.append(graph.flips, 0)[np.minimum(chosen[0], len(graph.flips))], num_observables=12)
    np.testing.assert_array_equal(flips.T, experiment.fault_model.observable_matrix.toarray())


def test_one_check_type_has_no_links() -> None:
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=3, rounds=2, after_clifford_depolarization=0.01
    )
    faults = FaultModel.from_dem(circuit.detector_error_model())
    joint = joint_faults(faults, np.ones(faults.num_detectors, dtype=np.bool_))
    assert len(joint.graph.partner) == 0
    assert len(joint.graph.chance) == len(joint.graph.flips) <= faults.num_mechanisms
    np.testing.assert_array_equal(joint.other_fault, -1)


def test_odd_models() -> None:
    both = np.array([True, False])
    joint = joint_faults(model("error(0.5) D0 L0\nerror(1e-30) D1\nerror(0.1) L1\nerror(1) D0 D1"), both)
    assert np.isfinite(joint.graph.prior).all()
    assert joint.graph.own.min() == np.float32(LEAST_PRIOR)
    empty = joint_faults(model("detector D1\nlogical_observable L0"), both)
    assert empty.graph.chance.shape == (0,)
    assert empty.checks.shape == (2, 0)
    last = joint_faults(model("error(0.1) D0 L63\nerror(0.1) D1"), both)
    np.testing.assert_array_equal(last.graph.flips, [-(2**63)])
    assert observables_of(last.graph.flips, num_observables=64).tolist() == [[False] * 63 + [True]]


def test_what_cannot_be_decoded_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 64 observables, not 65"):
        joint_faults(model("error(0.1) D0 L64"), np.array([True]))
    with pytest.raises(ValueError, match="no detector of the memory basis"):
        joint_faults(model("error(0.1) D0 L0\nerror(0.1) D1 L0"), np.array([True, False]))
    with pytest.raises(ValueError, match="shape"):
        joint_faults(model("error(0.1) D0 L0"), np.array([True, False]))
