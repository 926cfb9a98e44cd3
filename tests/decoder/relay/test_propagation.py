from typing import Any

import numpy as np
import pytest
from ldpc import BpDecoder

from decoder.neural.fault_lattice import NOMINAL_P, fault_graphs
from decoder.neural.geometry import TorusGeometry
from decoder.relay.graph import FaultGraph, FaultGraphs
from decoder.relay.kernels import relay
from decoder.relay.rules import RelayResult, Rules, strengths
from simulation.bases import Basis
from simulation.circuits import MemoryExperiment
from simulation.codes import parse_code

ROUNDS = 4
LAYERS = ROUNDS + 1


def problem(code: str, basis: Basis) -> tuple[FaultGraphs, tuple[np.ndarray, np.ndarray]]:
    graphs = fault_graphs(TorusGeometry(parse_code(code)), basis, LAYERS)
    return graphs, (strengths(graphs.memory, seed=0), strengths(graphs.other, seed=1))


def experiment(code: str, basis: Basis, p: float = NOMINAL_P) -> MemoryExperiment:
    return MemoryExperiment.create(code=code, basis=basis, rounds=ROUNDS, p=p)


def by_check(code: str, basis: Basis, detections: np.ndarray) -> np.ndarray:
    """(B, 2, C) from detection events (B, detectors)."""
    index = TorusGeometry(parse_code(code)).event_index(experiment(code, basis).grid)
    padded = np.pad(detections.astype(bool), ((0, 0), (0, 1)))
    return np.ascontiguousarray(padded[:, index].transpose(0, 2, 1, 3).reshape(len(detections), 2, -1))


def output_flips(code: str, basis: Basis, detections: np.ndarray, observables: np.ndarray) -> np.ndarray:
    """True flips of the outputs (B, O)."""
    geometry = TorusGeometry(parse_code(code))
    checks = by_check(code, basis, detections)[:, 0].reshape(len(detections), LAYERS, -1).sum(1)
    return (observables @ geometry.output_observables.T + checks @ geometry.output_checks.T) % 2


def sampled(code: str, basis: Basis, shots: int, *, seed: int, p: float = NOMINAL_P) -> tuple[np.ndarray, np.ndarray]:
    """Events (B, 2, C) and the true flips of the outputs."""
    sampler = experiment(code, basis, p).circuit.compile_detector_sampler(seed=seed)
    detections, flips = sampler.sample(shots, separate_observables=True)
    return by_check(code, basis, detections), output_flips(code, basis, detections, flips.astype(int))


def alone(graph: FaultGraph) -> FaultGraph:
    """The same graph, of which the other side knows nothing."""
    chance = 1 / (1 + np.exp(graph.prior.astype(np.float64)))
    nobody = np.zeros(0, np.int64), np.zeros(0, np.float32)
    return graph._replace(
        alone=chance.astype(np.float32), first_partner=0 * graph.first_partner, partner=nobody[0], share=nobody[1]
    )


@pytest.mark.parametrize("basis", ["Z", "X"])
def test_without_the_other_side_iterations_are_those_of_ldpc(basis: Basis) -> None:
    graphs, _ = problem("bb72", basis)
    memory = graphs.memory
    graphs = graphs._replace(memory=alone(memory), other=alone(graphs.other))
    events, _ = sampled("bb72", basis, 60, seed=4)
    iterations = 6
    matrix = np.zeros((len(memory.order), len(memory.prior)), np.uint8)
    for faults, width in zip(memory.slots, memory.width, strict=True):
        matrix[memory.order[:width], faults[:width]] = 1
    reference = BpDecoder(
        matrix,
        error_channel=(1 / (1 + np.exp(memory.prior.astype(np.float64)))).tolist(),
        max_iter=iterations,
        bp_method="minimum_sum",
        ms_scaling_factor=0.9,
    )
    plain: Any = tuple(np.zeros((33, len(graph.prior)), np.float32) for graph in graphs[:2])
    rules = Rules(blocks=iterations // 3, solutions=1, iterations=3, scale=0.9)
    answers = relay(events, graphs, plain, rules)
    compared = 0
    for shot, row in enumerate(events[:, 0]):
        reference.decode(row.astype(np.uint8))
        if not reference.converge and not answers.found[shot]:  # else either may have stopped earlier
            compared += 1
            np.testing.assert_allclose(answers.last[shot], reference.log_prob_ratios, rtol=2e-3, atol=2e-3)
            assert answers.unexplained[shot].any()
    assert compared >= 5
    assert (answers.found > 0).mean() > 0.2


@pytest.mark.parametrize(("code", "basis"), [("bb72", "Z"), ("bb72", "X"), ("bb144", "Z")])
def test_every_single_fault_is_found(code: str, basis: Basis) -> None:
    model = experiment(code, basis).fault_model
    keep = np.random.default_rng(1).choice(model.num_mechanisms, 3000, replace=False)
    detections = model.check_matrix.toarray().T.astype(bool)[keep]
    flips = output_flips(code, basis, detections, model.observable_matrix.toarray().T.astype(int)[keep])
    graphs, drawn = problem(code, basis)
    answers = relay(by_check(code, basis, detections), graphs, drawn, Rules(blocks=20, solutions=1))
    assert answers.found.all()
    np.testing.assert_array_equal(answers.flips[:, 0], flips)


def test_no_shot_sees_another_nor_its_lane() -> None:
    graphs, drawn = problem("bb72", "Z")
    events, _ = sampled("bb72", "Z", 200, seed=9, p=0.004)
    rules = Rules(blocks=40, solutions=3)
    together = relay(events, graphs, drawn, rules)
    threaded = relay(events, graphs, drawn, rules, threads=3)
    for field in RelayResult._fields:
        np.testing.assert_array_equal(getattr(together, field), getattr(threaded, field))
    for shots in (slice(140, 141), slice(20, 23), slice(190, 200)):
        apart = relay(events[shots], graphs, drawn, rules)
        for field in RelayResult._fields:
            np.testing.assert_array_equal(getattr(together.of(shots), field), getattr(apart, field))
    none = relay(events[:0], graphs, drawn, rules)
    assert none.flips.shape == (0, 3, 108)


def test_more_blocks_explain_nearly_all_and_fail_rarely() -> None:
    graphs, drawn = problem("bb72", "Z")
    events, flips = sampled("bb72", "Z", 2000, seed=6)
    short, long = (relay(events, graphs, drawn, Rules(blocks=blocks, solutions=5)) for blocks in (4, 150))
    assert (short.found == 0).sum() > 100 > 10 >= (long.found == 0).sum()
    right = (long.flips == flips[:, None]).all(2)
    assert (~right[:, 0]).sum() <= 25
    assert (~right.any(1)).sum() <= 15
    hard = long.found > 1
    assert 0.05 < hard.mean() < 0.6
    assert np.all(long.found[hard] <= 5)
    solved = long.found > 0
    assert not long.unexplained[solved].any()
    assert long.share.max() <= 1
