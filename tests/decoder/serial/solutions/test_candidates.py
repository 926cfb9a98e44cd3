from itertools import product

import numpy as np
import pytest
import stim

from decoder.serial.graph import JointFaults, joint_faults
from decoder.serial.kernels import Beliefs, propagate
from decoder.serial.rules import SMALL_RULES, SerialResult, schedule_for
from decoder.serial.solutions.candidates import JointProblem, _faults_of, free_energies, joint_error
from decoder.serial.solutions.choice import SMALL_DOUBT, UNSOLVED, decoding_of, disagreeing, posterior
from decoder.serial.solutions.completion import complete
from simulation.circuits import MemoryExperiment
from simulation.faults import FaultModel


def prepared(p: float, *, shots: int, seed: int) -> tuple[FaultModel, JointFaults, np.ndarray, SerialResult]:
    """Shots of bb72, and what belief propagation finds for them."""
    experiment = MemoryExperiment.create(code="bb72", basis="X", rounds=3, p=p)
    mask = np.zeros(experiment.num_detectors, dtype=np.bool_)
    mask[experiment.grid.indices_of("X")] = True
    joint = joint_faults(experiment.fault_model, mask)
    events = experiment.circuit.compile_detector_sampler(seed=seed).sample(shots)
    schedule = schedule_for(joint, SMALL_RULES, seed=0)
    return (
        experiment.fault_model,
        joint,
        events,
        propagate(events, joint.graph, schedule, SMALL_RULES, keep_faults=True),
    )


def test_a_completed_solution_explains_both_sides_and_stays_in_its_coset() -> None:
    model, joint, events, result = prepared(0.006, shots=150, seed=2)
    problem = JointProblem.of(model, joint)
    beliefs = Beliefs.room(problem.graph, problem.other.orders, problem.other.test)
    error, memory, whole = np.zeros(1100, np.int32), len(joint.graph.flips), 0
    for b in np.flatnonzero(result.found):
        faults = result.faults[b, 0].copy()
        if not complete(events[b], faults, problem, beliefs, -1, 80)[0]:
            continue
        whole += 1
        np.testing.assert_array_equal(faults[:memory], result.faults[b, 0, :memory])
        np.testing.assert_array_equal(joint.checks @ faults.astype(int) % 2, events[b])
        size, weight = joint_error(faults, faults, error, problem)
        assert weight == pytest.approx(problem.table.weight[error[:size]].sum())
        np.testing.assert_array_equal(model.check_matrix[:, error[:size]].sum(axis=1).A1 % 2, events[b])
        assert np.bitwise_xor.reduce(joint.cosets[error[:size]]) == result.cosets[b, 0]
        _faults_of(error, size, faults, problem)
        np.testing.assert_array_equal(joint.checks @ faults.astype(int) % 2, events[b])
    assert whole == result.found.astype(bool).sum() > 120  # what belief propagation cannot complete, OSD-0 does


def test_free_energies_are_those_of_one_solution_of_each_coset() -> None:
    model, joint, events, result = prepared(0.008, shots=300, seed=3)
    problem = JointProblem.of(model, joint)
    differ = np.flatnonzero(disagreeing(result))
    assert len(differ) > 20
    some = result.of(differ)
    energies = free_energies(events[differ], some, problem)
    for b, row in enumerate(energies):
        compared = np.flatnonzero(np.isfinite(row))
        cosets = some.cosets[b, compared].tolist()
        assert len(set(cosets)) == len(cosets) >= 2
        assert set(cosets) <= set(some.cosets[b, : some.found[b]].tolist())
        assert (row[compared] > 0).all()
    # The same bits in any company, and in threads.
    np.testing.assert_array_equal(free_energies(events[differ], some, problem, threads=3), energies)
    apart = free_energies(events[differ[5:6]], some.of(slice(5, 6)), problem)
    np.testing.assert_array_equal(apart, energies[5:6])

    probabilities = posterior(some, energies, np.zeros(len(energies)), SMALL_DOUBT)
    np.testing.assert_allclose(probabilities.sum(1), 0.5)  # what explains nothing is missed as likely as not
    probabilities = posterior(some, energies, np.full(len(energies), 1.5), SMALL_DOUBT)
    assert (probabilities.sum(1) > 0.95).all()
    decoding = decoding_of(some, probabilities, num_observables=12)
    chosen = np.take_along_axis(some.cosets, energies.argmin(1)[:, None], axis=1)[:, 0]
    np.testing.assert_array_equal((decoding.predictions.astype(np.int64) << np.arange(12)).sum(1), chosen)
    sure = decoding.confidence > 0.9
    assert sure.any()
    np.testing.assert_array_equal(decoding.flip_probabilities[sure] > 0.5, decoding.predictions[sure])


def test_posteriors_against_all_errors_of_a_small_model() -> None:
    """Two sides, eight mechanisms, and two cosets for all events: P(coset) by adding up all errors."""
    text = (
        "error(0.05) D0 L0\nerror(0.04) D0 D1\nerror(0.03) D1\nerror(0.06) D2\nerror(0.03) D0 D2 L0\n"
        "error(0.02) D0 D1 D2\nerror(0.02) D1 D3\nerror(0.03) D2 D3"
    )
    model = FaultModel.from_dem(stim.DetectorErrorModel(text))
    joint = joint_faults(model, np.array([True, True, False, False]))
    problem = JointProblem.of(model, joint)
    errors = np.array(list(product([False, True], repeat=model.num_mechanisms)))
    likelihood = np.where(errors, model.priors, 1 - model.priors).prod(1)
    symptoms = errors.astype(int) @ model.symptom_matrix.toarray().T % 2
    memory = len(joint.graph.flips)
    for events in product([False, True], repeat=4):
        cosets, faults = [0, 1], np.zeros((1, 2, len(problem.alone)), np.bool_)
        for n, coset in enumerate(cosets):  # any faults of the memory side with these events and this coset
            for some in product([True, False], repeat=memory):  # the last one with few
                flips = np.bitwise_xor.reduce(joint.graph.flips[np.array(some)], initial=0)
                padded = np.append(np.array(some), np.zeros(len(problem.alone) - memory, np.bool_))
                if flips == coset and ((joint.checks[:2] @ padded.astype(int)) % 2 == np.array(events[:2])).all():
                    faults[0, n] = padded
        result = SerialResult.zeros(shots=1, solutions=2, faults=0)._replace(
            found=np.array([2]), cosets=np.array([cosets]), faults=faults
        )
        energies = free_energies(np.array([events]), result, problem)
        ours = posterior(result, energies, np.full(1, 30.0), SMALL_DOUBT._replace(temperature=1.0))[0]
        agree = (symptoms[:, :4] == events).all(1)
        exact = np.array([likelihood[agree & (symptoms[:, 4] == coset)].sum() for coset in cosets])
        # Not equal: of the errors far from the lightest one none is counted.
        np.testing.assert_allclose(ours, exact / exact.sum(), atol=0.06)


def test_shots_without_a_solution_or_with_one_coset() -> None:
    result = SerialResult.zeros(shots=3, solutions=4, faults=0)._replace(
        found=np.array([0, 4, 4]), passes=np.array([600, 10, 200]), cosets=np.array([[5, 0, 0, 0], [3] * 4, [0] * 4])
    )
    probabilities = posterior(result, np.full((3, 4), np.inf), np.full(3, 30.0), SMALL_DOUBT)
    decoding = decoding_of(result, probabilities, num_observables=3)
    np.testing.assert_array_equal(decoding.predictions, [[True, False, True], [True, True, False], [False] * 3])
    assert decoding.confidence[0] == pytest.approx(UNSOLVED)
    assert decoding.confidence[0] < decoding.confidence[2] < decoding.confidence[1] < 1
    lost = (1 - decoding.confidence[:, None]) / 2
    expected = np.where(decoding.predictions, 1 - lost, lost)
    np.testing.assert_allclose(decoding.flip_probabilities, expected, rtol=1e-6)
    empty = SerialResult.zeros(shots=0, solutions=4, faults=0)
    assert len(decoding_of(empty, posterior(empty, np.zeros((0, 4)), np.zeros(0), SMALL_DOUBT), num_observables=3)) == 0


def test_a_fault_without_a_mechanism_of_its_own_and_one_check_type() -> None:
    """D0 is flipped together with D1 alone, of the other side: an error begins with an impossible mechanism."""
    model = FaultModel.from_dem(stim.DetectorErrorModel("error(0.1) D0 D1 L0\nerror(0.1) D1"))
    problem = JointProblem.of(model, joint_faults(model, np.array([True, False])))
    assert len(problem.table.weight) == 3
    result = SerialResult.zeros(shots=1, solutions=1, faults=2)._replace(found=np.array([1]), cosets=np.array([[1]]))
    result.faults[0, 0, 0] = True
    energies = free_energies(np.array([[True, True]]), result, problem)
    assert energies[0, 0] == pytest.approx(np.log(9))
    alone = joint_faults(model, np.ones(2, np.bool_))
    whole = SerialResult.zeros(shots=1, solutions=1, faults=2)._replace(found=np.array([1]))
    whole.faults[0, 0] = True
    energies = free_energies(np.array([[True, False]]), whole, JointProblem.of(model, alone))
    assert energies[0, 0] == pytest.approx(2 * np.log(9))
