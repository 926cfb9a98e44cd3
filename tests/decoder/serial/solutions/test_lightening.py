from itertools import combinations

import numpy as np
import pytest
import stim
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder.serial.solutions.lightening import LEAST_GAIN, degeneracy, find, lighten
from decoder.serial.solutions.mechanisms import Mechanisms, mechanisms_of
from simulation.circuits import MemoryExperiment
from simulation.faults import FaultModel


@pytest.fixture(scope="module")
def bb72() -> FaultModel:
    return MemoryExperiment.create(code="bb72", basis="Z", rounds=4, p=0.003).fault_model


def random_model(seed: int, *, detectors: int, mechanisms: int) -> FaultModel:
    """Mechanisms of one to four detectors next to each other, of which some flip the observable."""
    random = np.random.default_rng(seed)
    lines = [f"error(0.01) D{detectors - 1}", "logical_observable L0"]
    for _ in range(mechanisms):
        first, width = random.integers(detectors), random.integers(1, 5)
        flipped = {int(d) for d in (first + random.integers(0, 5, width)) % detectors}
        observable = " L0" if random.random() < 0.2 else ""
        lines.append(f"error({random.uniform(0.001, 0.1)}) " + " ".join(f"D{d}" for d in flipped) + observable)
    return FaultModel.from_dem(stim.DetectorErrorModel("\n".join(lines)))


def lightened(error: np.ndarray, table: Mechanisms) -> tuple[np.ndarray, float]:
    room = np.zeros(len(error) + 20, np.int32)
    room[: len(error)] = error
    size, weight = lighten(room, len(error), table)
    return room[:size], weight


def symptom(model: FaultModel, error: np.ndarray) -> np.ndarray:
    flipped: np.ndarray = model.symptom_matrix[:, error].sum(axis=1).A1 % 2
    return flipped


def replacements(model: FaultModel, table: Mechanisms, pair: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All sets of at most two mechanisms with the symptom of these, but they themselves, by trying all."""
    wanted = symptom(model, np.array(pair))
    few = [(), *((c,) for c in range(model.num_mechanisms)), *combinations(range(model.num_mechanisms), 2)]
    return [some for some in few if set(some) != set(pair) and (symptom(model, np.array(some, int)) == wanted).all()]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(0, 12))
def test_it_keeps_the_symptom_and_no_weight_rises(seed: int, size: int) -> None:
    model = random_model(seed, detectors=12, mechanisms=40)
    table = mechanisms_of(model)
    error = np.random.default_rng(seed).integers(model.num_mechanisms, size=size)  # some of them twice, perhaps
    lighter, weight = lightened(error, table)
    np.testing.assert_array_equal(symptom(model, lighter), symptom(model, error))
    assert weight == pytest.approx(table.weight[lighter].sum())
    assert weight <= table.weight[error].sum() + 1e-9
    again, same = lightened(lighter, table)
    assert same == weight
    np.testing.assert_array_equal(again, lighter)


@pytest.mark.parametrize("seed", range(6))
def test_no_pair_has_a_lighter_replacement_left(seed: int) -> None:
    model = random_model(seed, detectors=14, mechanisms=20)
    table = mechanisms_of(model)
    error, _ = lightened(np.random.default_rng(seed).permutation(model.num_mechanisms)[:12], table)
    near = symptom_overlap(model)
    checked = 0
    for pair in combinations(error.tolist(), 2):
        if near[pair]:  # others share no mechanism that flips detectors of both
            old = table.weight[list(pair)].sum()
            found = replacements(model, table, pair)
            assert all(table.weight[list(some)].sum() >= old - LEAST_GAIN for some in found)
            checked += 1
    assert checked


def symptom_overlap(model: FaultModel) -> np.ndarray:
    """(M, M): whether some mechanism flips a detector of the one and a detector of the other."""
    touching = (model.check_matrix.T.astype(int) @ model.check_matrix.astype(int)).toarray() > 0
    return (touching.astype(int) @ touching.astype(int)) > 0


def test_degeneracy_by_trying_all() -> None:
    model = random_model(5, detectors=8, mechanisms=16)
    table = mechanisms_of(model)
    error, _ = lightened(np.arange(6), table)
    near = symptom_overlap(model)
    expected = 0.0
    for some in [*((i,) for i in error.tolist()), *combinations(error.tolist(), 2)]:
        if len(some) == 1 or near[some]:
            old = table.weight[list(some)].sum()
            others = [set(s) for s in replacements(model, table, some)]
            # A pair of which one stays is the replacement of the other one alone; a single one by one is none.
            changes = [table.weight[list(s)].sum() - old for s in others if not s & set(some)]
            changes = [c for c in changes if len(some) == 1 or c < 6.0]
            expected += np.log1p(np.exp(-np.array(changes)).sum())
    assert expected > 0.01
    assert degeneracy(error.astype(np.int32), len(error), table) == pytest.approx(expected, rel=1e-9)


def test_mechanisms_are_found_by_their_symptoms(bb72: FaultModel) -> None:
    table = mechanisms_of(bb72)
    assert all(find(table.symptom[j], table) == j for j in range(bb72.num_mechanisms))
    none = np.random.default_rng(1).integers(0, 2**63 - 1, 1000)
    assert all(find(x, table) == -1 for x in none)
    assert len(np.unique(table.symptom)) == bb72.num_mechanisms


def test_random_errors_of_a_code_become_as_light_as_they_happen(bb72: FaultModel) -> None:
    """The true error, mixed with pairs of mechanisms that cancel out, is found again, or a lighter one."""
    table = mechanisms_of(bb72)
    random = np.random.default_rng(3)
    lighter = 0
    for _ in range(50):
        true = np.flatnonzero(random.random(bb72.num_mechanisms) < bb72.priors)
        extra = random.integers(bb72.num_mechanisms, size=10)
        found, weight = lightened(np.concatenate([true, extra, extra[::-1]]), table)
        np.testing.assert_array_equal(symptom(bb72, found), symptom(bb72, true))
        assert weight <= table.weight[true].sum() + 1e-9
        lighter += weight < table.weight[true].sum() - 1e-9
    assert lighter < 50
