from itertools import product

import numpy as np
import pytest
import stim

from decoder.serial import kernels, links
from decoder.serial.graph import FAR, LEAST_PRIOR, MOST_PRIOR, JointFaults, joint_faults
from decoder.serial.kernels import Beliefs, propagate
from decoder.serial.rows import rows_in_order
from decoder.serial.rules import SMALL_RULES, Schedule, SerialResult, SerialRules, schedule_for
from simulation.circuits import MemoryExperiment
from simulation.faults import FaultModel


def joint_of(text: str, memory_basis: list[bool]) -> tuple[FaultModel, JointFaults]:
    model = FaultModel.from_dem(stim.DetectorErrorModel(text))
    return model, joint_faults(model, np.array(memory_basis))


def bb72(p: float, *, rounds: int, shots: int, seed: int) -> tuple[JointFaults, np.ndarray, np.ndarray]:
    """The graph, events (shots, detectors) and the true cosets (shots,)."""
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=rounds, p=p)
    mask = np.zeros(experiment.num_detectors, dtype=np.bool_)
    mask[experiment.grid.indices_of("Z")] = True
    sampler = experiment.circuit.compile_detector_sampler(seed=seed)
    events, flips = sampler.sample(shots, separate_observables=True)
    return joint_faults(experiment.fault_model, mask), events, (flips.astype(np.int64) << np.arange(12)).sum(1)


class Reference:
    """The same algorithm row by row in numpy, for one shot; rows of `order` one after the other."""

    def __init__(self, joint: JointFaults, schedule: Schedule, rules: SerialRules) -> None:
        self.joint, self.graph, self.schedule, self.rules = joint, joint.graph, schedule, rules
        self.hearer = np.repeat(np.arange(len(self.graph.chance)), np.diff(self.graph.first_link))
        self.members = [joint.checks[d].indices for d in range(joint.checks.shape[0])]

    def decode(self, events: np.ndarray) -> tuple[int, list[tuple[int, np.ndarray]]]:
        """Passes, and of each solution its coset and its faults."""
        graph, rules = self.graph, self.rules
        found: list[tuple[int, np.ndarray]] = []
        passes, solved = 0, True
        for leg in range(rules.legs):
            gamma = self.schedule.strengths[0 if leg == 0 else 1 + (leg - 1) % 32][:-1]
            if solved:
                self.prior = graph.prior[:-1].copy()
                self.bias, self.posterior = self.prior.copy(), self.prior.copy()
                self.told, self.first = np.zeros(len(graph.partner), np.float32), True
                self.heard = graph.chance.copy()
            else:
                self.bias = self.prior + gamma * (self.posterior - self.prior)
                self.posterior = self.bias.copy()
            self.messages = [np.zeros(len(row), np.float32) for row in self.members]
            solved = False
            for turn in range(rules.first_leg if leg == 0 else rules.leg):
                if turn:
                    self.exchange()
                    new = self.prior + gamma * (self.posterior - self.prior)
                    self.posterior += new - self.bias
                    self.bias = new
                order = leg % len(self.schedule.orders.groups)
                for row in self.schedule.orders.detector[order].ravel():
                    if row >= 0:
                        self.visit(row, events[row])
                passes += 1
                likelier = self.posterior < 0
                left = (self.joint.checks @ likelier.astype(int)) % 2 != events
                if turn and not left[self.joint.memory_basis].any():
                    solved = True
                    break
                if passes == rules.passes:
                    return passes, found
            if solved:
                coset = np.bitwise_xor.reduce(graph.flips[likelier[: len(graph.flips)]], initial=0)
                found.append((int(coset), likelier))
                agree = len({coset for coset, _ in found}) == 1
                if len(found) == rules.solutions or (agree and len(found) >= rules.quorum):
                    break
        return passes, found

    def visit(self, row: int, event: bool) -> None:
        members = self.members[row]
        sent = self.posterior[members] - self.messages[row]
        size = np.minimum(np.abs(sent), np.float32(1e30))
        least = np.array([np.delete(size, j).min(initial=1e30) for j in range(len(size))], np.float32)
        sign = np.where(sent < 0, -1, 1)
        back = np.minimum(least, np.float32(self.rules.message_cap)) * np.float32(self.rules.scale)
        back = back * sign * sign.prod() * (-1 if event else 1)
        self.messages[row] = back.astype(np.float32)
        self.posterior[members] = sent + self.messages[row]

    def exchange(self) -> None:
        graph, memory = self.graph, len(self.graph.flips)
        first, self.first = self.first, False
        likelihood = np.exp(-np.maximum(self.posterior - self.bias, np.float32(-60)))
        for to_memory in (True, False):
            hears = (self.hearer < memory) == to_memory
            teller, back = graph.partner, graph.back  # of each link into a fault, and where it is into the teller
            known = graph.link_odds[back] if first and to_memory else self.told[back]
            rest = np.clip(self.heard[teller] - known, LEAST_PRIOR, 0.5)
            odds = graph.link_odds * ((1 - rest) * likelihood[teller] + rest)
            odds /= (1 - rest) + rest * likelihood[teller]
            chance = np.where(likelihood[teller] > 1, odds / (1 + odds), 0)
            self.told[hears] = chance[hears]
            side = np.zeros(len(graph.chance), bool)
            side[:memory] = True
            side = side if to_memory else ~side
            sums = np.bincount(self.hearer, self.told, minlength=len(side))
            self.heard[side] = (graph.own + sums)[side]
            known_now = np.clip(self.heard[side], LEAST_PRIOR, MOST_PRIOR)
            self.prior[side] = np.log((1 - known_now) / known_now)


def test_it_does_what_a_plain_reference_does() -> None:
    joint, events, _ = bb72(0.005, rounds=2, shots=20, seed=3)
    rules = SerialRules(
        quorum=2, solutions=3, legs=6, passes=40, first_leg=6, leg=4, scale=0.9, first_strengths=(0.05, 0.05)
    )
    schedule = schedule_for(joint, rules, seed=5)
    reference = Reference(joint, schedule, rules)
    result = propagate(events, joint.graph, schedule, rules, keep_faults=True)
    same = 0
    for b in range(len(events)):
        passes, found = reference.decode(events[b])
        n = result.found[b]
        same += (
            (passes, len(found)) == (result.passes[b], n)
            and [coset for coset, _ in found] == result.cosets[b, :n].tolist()
            and all((faults == result.faults[b, i]).all() for i, (_, faults) in enumerate(found))
        )
    assert same >= 19  # roundings differ, and passes amplify them
    assert (result.found == 2).sum() > 10
    assert (result.passes > rules.first_leg + 2).any()  # legs that carry on from others


def test_a_pass_over_two_rows_by_hand() -> None:
    """Rows (0, 1, 2) and (2, 3), which share fault 2 and so are two groups; there is an event in the first."""
    _, joint = joint_of("error(0.1) D0 L0\nerror(0.2) D0 D2\nerror(0.3) D0 D1\nerror(0.4) D1\ndetector D2", [True] * 3)
    rows = rows_in_order([[[0], [1]]], joint.checks)
    rules = SMALL_RULES._replace(scale=0.5, message_cap=3.5)
    beliefs = Beliefs.room(joint.graph, rows, rows)
    kernels.restart(joint.graph, beliefs)
    place = {tuple(joint.checks[:, f].toarray().ravel().tolist()): f for f in range(4)}  # fault by its detectors
    a, b, c, d = (
        place[key] for key in ((True, False, False), (True, False, True), (True, True, False), (False, True, False))
    )
    beliefs.posterior[[a, b, c, d]] = [1.0, 2.0, 4.0, 5.0]
    kernels.read_events(np.array([True, False, False]), rows, 0, beliefs.signs)
    kernels.visit_all(rows, 0, rules, beliefs)
    # Row 0, with an event: a hears -min(2, 4)/2, b and c hear -min(1, ..)/2. Then c stands at 3.5.
    # Row 1: c hears min(5, cap)/2 = 1.75 and d hears 3.5/2 = 1.75.
    np.testing.assert_allclose(beliefs.posterior[[a, b, c, d]], [0.0, 1.5, 5.25, 6.75], rtol=1e-6)
    assert beliefs.posterior[4] == np.float32(FAR)
    # A second pass first takes back what each row has said: a is at 1, b at 2, c at 5.25 + 0.5 = 5.75.
    # Row 0 says the same again. Row 1: c comes with 5.25 - 1.75 = 3.5, and d with 5.
    kernels.visit_all(rows, 0, rules, beliefs)
    np.testing.assert_allclose(beliefs.posterior[[a, b, c, d]], [0.0, 1.5, 5.25, 6.75], rtol=1e-6)


def enumerated(model: FaultModel, events: np.ndarray, mechanisms: np.ndarray) -> float:
    """ln P(even) / P(odd) of a fault that is the parity of some mechanisms, given the events: exact."""
    matrix, weight = model.check_matrix.toarray(), [0.0, 0.0]
    for error in product((0, 1), repeat=model.num_mechanisms):
        chosen = np.array(error)
        if ((matrix @ chosen) % 2 == events).all():
            probability = np.where(chosen, model.priors, 1 - model.priors).prod()
            weight[chosen[mechanisms].sum() % 2] += probability
    return float(np.log(weight[0] + 1e-20) - np.log(weight[1] + 1e-20))


@pytest.mark.parametrize("events", [(1, 0, 1, 0, 0), (1, 0, 0, 0, 0), (1, 0, 1, 0, 1), (0, 0, 1, 1, 1)])
def test_links_tell_what_enumeration_does(events: tuple[int, ...]) -> None:
    """On a tree with rows of two faults min-sum is exact, and so is the sum that links say, up to products of priors.

    Memory side: D0 sees D0 and D0 D1, D1 sees D0 D1 and D1, and D4 is apart. Other side: D2 and D3 as D0 and D1. The
    mechanisms D0 D2 and D2 D4 link faults with that of D2.
    """
    text = """
        error(0.003) D0
        error(0.002) D0 D1
        error(0.004) D1
        error(0.0003) D0 D2
        error(0.001) D2
        error(0.0005) D2 D3
        error(0.002) D3
        error(0.0002) D2 D4
        error(0.006) D4
    """
    model, joint = joint_of(text, [True, True, False, False, True])
    rows = rows_in_order([[[2], [3], [0], [1], [4]]], joint.checks)
    rules = SMALL_RULES._replace(scale=1.0)
    beliefs = Beliefs.room(joint.graph, rows, rows)
    kernels.restart(joint.graph, beliefs)
    kernels.read_events(np.array(events, dtype=np.bool_), rows, 0, beliefs.signs)
    kernels.visit_all(rows, 0, rules, beliefs)
    for _ in range(6):
        links.exchange(joint.graph, beliefs)
        beliefs.posterior[:] += beliefs.prior - beliefs.bias
        beliefs.bias[:] = beliefs.prior
        kernels.visit_all(rows, 0, rules, beliefs)
    for fault in range(len(joint.graph.chance)):
        mechanisms = (joint.memory_fault == fault) | (joint.other_fault == fault)
        exact = enumerated(model, np.array(events), mechanisms)
        # What is certain, as the fault that D4 alone sees, is bounded by the cap of messages.
        assert np.clip(beliefs.posterior[fault], -20, 20) == pytest.approx(np.clip(exact, -20, 20), abs=0.1)


def test_no_shot_sees_another_and_threads_change_nothing() -> None:
    joint, events, _ = bb72(0.004, rounds=3, shots=150, seed=9)
    schedule = schedule_for(joint, SMALL_RULES, seed=0)
    together = propagate(events, joint.graph, schedule, SMALL_RULES, keep_faults=True)
    again = propagate(
        events, joint.graph, schedule_for(joint, SMALL_RULES, seed=0), SMALL_RULES, keep_faults=True, threads=3
    )
    for field in SerialResult._fields:
        np.testing.assert_array_equal(getattr(together, field), getattr(again, field))
    for shots in (slice(140, 141), slice(20, 23), slice(149, 150)):
        apart = propagate(events[shots], joint.graph, schedule, SMALL_RULES, keep_faults=True)
        for field in SerialResult._fields:
            np.testing.assert_array_equal(getattr(together.of(shots), field), getattr(apart, field))
    assert propagate(events[:0], joint.graph, schedule, SMALL_RULES).cosets.shape == (0, 9)
    light = propagate(events, joint.graph, schedule, SMALL_RULES)
    assert light.faults.shape == (150, 9, 0)
    np.testing.assert_array_equal(light.cosets, together.cosets)


def test_solutions_explain_the_memory_basis_and_weigh_what_their_faults_do() -> None:
    joint, events, true = bb72(0.003, rounds=6, shots=300, seed=4)
    schedule = schedule_for(joint, SMALL_RULES, seed=0)
    result = propagate(events, joint.graph, schedule, SMALL_RULES, keep_faults=True)
    memory = len(joint.graph.flips)
    assert (result.found > 0).mean() > 0.99
    assert (np.isin(result.found, [4, 9]) | (result.passes == SMALL_RULES.passes)).mean() > 0.99
    for b, n in zip(*np.nonzero(np.arange(9) < result.found[:, None]), strict=True):
        faults = result.faults[b, n]
        explained = (joint.checks @ faults.astype(int)) % 2
        np.testing.assert_array_equal(explained[joint.memory_basis], events[b, joint.memory_basis])
        assert result.cosets[b, n] == np.bitwise_xor.reduce(joint.graph.flips[faults[:memory]], initial=0)
        assert result.weights[b, n, 0] == pytest.approx(
            joint.graph.prior[:-1][faults][: faults[:memory].sum()].sum(), rel=1e-5
        )
    assert np.all(np.diff(result.solved_at[:, :4][result.found >= 4], axis=1) >= 2)
    assert (result.cosets[:, 0] != true).sum() <= 9  # 1.1 are expected


def test_time_is_bounded_where_nothing_explains_the_events() -> None:
    _, joint = joint_of("error(0.1) D0 D1 L0\nerror(0.1) D1 D2", [True] * 3)
    rules = SMALL_RULES._replace(passes=70)
    result = propagate(np.eye(3, dtype=np.bool_), joint.graph, schedule_for(joint, rules, seed=0), rules)
    assert result.found.tolist() == [0, 0, 0]
    assert result.passes.tolist() == [70, 70, 70]


def test_models_without_rows_or_faults() -> None:
    for text, mask in (("detector D1\nlogical_observable L0", [True, False]), ("error(0.1) D1", [True, False])):
        _, joint = joint_of(text, mask)
        schedule = schedule_for(joint, SMALL_RULES, seed=0)
        result = propagate(np.ones((2, 2), dtype=np.bool_), joint.graph, schedule, SMALL_RULES)
        assert result.found.tolist() == [4, 4]
        assert not result.cosets.any()


@pytest.mark.parametrize("kind", ["surface_code:rotated_memory_x", "repetition_code:memory"])
def test_one_check_type(kind: str) -> None:
    circuit = stim.Circuit.generated(kind, distance=5, rounds=3, after_clifford_depolarization=0.002)
    model = FaultModel.from_dem(circuit.detector_error_model())
    joint = joint_faults(model, np.ones(model.num_detectors, dtype=np.bool_))
    events, flips = circuit.compile_detector_sampler(seed=6).sample(2000, separate_observables=True)
    result = propagate(events, joint.graph, schedule_for(joint, SMALL_RULES, seed=0), SMALL_RULES)
    assert (result.found == 0).sum() <= 8  # 4 of 10,000 were measured, all of the surface code
    wrong = (result.cosets[:, 0] != flips[:, 0]).sum()
    assert wrong <= 10  # 2 of 8,000 were measured
