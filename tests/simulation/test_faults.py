from typing import Any

import numpy as np
import stim
from hypothesis import example, given
from hypothesis import strategies as st

from simulation.faults import FaultModel, Symptom


def test_same_symptoms_merge_also_across_repeats() -> None:
    dem = stim.DetectorErrorModel("""
        error(0.1) D0 D1 L0
        repeat 2 {
            error(0.2) D0 D1 L0
        }
        error(0.3) D0
        error(0.4) D0 D0
    """)
    model = FaultModel.from_dem(dem)
    assert model.symptoms() == [((0,), ()), ((0, 1), (0,))]
    two = 0.2 * 0.8 * 2
    np.testing.assert_allclose(model.priors, [0.3, 0.1 * (1 - two) + two * 0.9])


def test_suggested_decompositions_are_undone() -> None:
    model = FaultModel.from_dem(stim.DetectorErrorModel("error(0.1) D0 D1 ^ D1 D2 L1\ndetector D3"))
    assert model.symptoms() == [((0, 2), (1,))]
    assert (model.num_detectors, model.num_observables) == (4, 2)


def test_restriction_renumbers_and_merges() -> None:
    dem = stim.DetectorErrorModel("error(0.1) D0 D2 L0\nerror(0.2) D2 D1 L0\nerror(0.3) D1\nerror(0.4) D0 D1 D2")
    model = FaultModel.from_dem(dem).restrict(np.array([2, 0]))
    assert model.symptoms() == [((0,), (0,)), ((0, 1), ()), ((0, 1), (0,))]
    np.testing.assert_allclose(model.priors, [0.2, 0.4, 0.1])


def test_an_empty_model_keeps_its_shape() -> None:
    model = FaultModel.from_dem(stim.DetectorErrorModel("detector D2\nlogical_observable L0"))
    assert model.check_matrix.shape == (3, 0)
    assert model.observable_matrix.shape == (1, 0)


DETECTORS, OBSERVABLES = 300, 3  # more than 256 detectors, so that their numbers take two bytes
TARGET = st.one_of(
    st.integers(0, 3).map(stim.target_relative_detector_id),
    st.sampled_from([254, 255, 256, DETECTORS - 1]).map(stim.target_relative_detector_id),
    st.integers(0, OBSERVABLES - 1).map(stim.target_logical_observable_id),
)
PARTS = st.lists(st.lists(TARGET, min_size=1, max_size=4), max_size=3)
"""The parts of a suggested decomposition."""


def read_plainly(dem: stim.DetectorErrorModel) -> dict[Symptom, float]:
    """What `from_dem` is for, target by target."""
    merged: dict[Symptom, float] = {}
    for instruction in dem.flattened():
        flipped: set[tuple[bool, int]] = set()
        if instruction.type == "error":
            for target in instruction.targets_copy():
                if not target.is_separator():
                    flipped ^= {(target.is_logical_observable_id(), target.val)}
            detectors, observables = ([i for kind, i in sorted(flipped) if kind == k] for k in (False, True))
            p, q = instruction.args_copy()[0], merged.get(symptom := (tuple(detectors), tuple(observables)), 0.0)
            merged[symptom] = p * (1 - q) + q * (1 - p)
    merged.pop(((), ()), None)
    return {symptom: p for symptom, p in sorted(merged.items()) if p > 0}


@given(st.lists(st.tuples(st.floats(0, 1), PARTS, st.sampled_from(["", "a (b] c", "x\ny) D1"])), max_size=12))
def test_any_error_model_is_read_as_target_by_target(errors: list[tuple[float, list[Any], str]]) -> None:
    body = stim.DetectorErrorModel("shift_detectors 0")
    for p, parts, tag in errors:
        targets = [t for part in parts for t in [*part, stim.target_separator()]][:-1]
        body.append(stim.DemInstruction("error", [p], targets, tag=tag))
    dem = stim.DetectorErrorModel(f"detector[error(0.1) D9] D{DETECTORS}\nlogical_observable L{OBSERVABLES - 1}")
    dem += body
    dem.append(stim.DemRepeatBlock(2, body))
    model = FaultModel.from_dem(dem)
    expected = read_plainly(dem)
    assert model.symptoms() == list(expected)
    assert model.priors.tolist() == list(expected.values())  # to the last bit
    assert (model.num_detectors, model.num_observables) == (DETECTORS + 1, OBSERVABLES)


@given(st.lists(st.tuples(st.floats(0.001, 0.4), st.sets(st.integers(0, 4))), max_size=12))
def test_restriction_to_all_detectors_changes_nothing(errors: list[tuple[float, set[int]]]) -> None:
    dem = stim.DetectorErrorModel("detector D4")
    for p, detectors in errors:
        targets = [stim.target_relative_detector_id(d) for d in sorted(detectors)]
        dem.append(stim.DemInstruction("error", [p], targets, tag="a (b] c"))
    model = FaultModel.from_dem(dem)
    same = model.restrict(np.arange(5))
    assert same.symptoms() == model.symptoms()
    np.testing.assert_allclose(same.priors, model.priors)
    # The probability that detector 0 fires depends on the merged mechanisms alone.
    touching = [p for p, detectors in errors if 0 in detectors]
    odd = (1 - np.prod([1 - 2 * p for p in touching])) / 2
    merged = [p for (detectors, _), p in zip(model.symptoms(), model.priors, strict=True) if 0 in detectors]
    np.testing.assert_allclose((1 - np.prod([1 - 2 * p for p in merged])) / 2, odd, atol=1e-12)


@given(
    st.lists(st.tuples(st.floats(1e-300, 1), st.sets(st.integers(0, 6)), st.sets(st.integers(0, 2))), max_size=12),
    st.integers(0, 3),
    st.integers(0, 2),
)
@example([(1.0, {0, 1}, set()), (1.0, {0, 1}, set())], 0, 0)  # they undo each other
def test_a_model_written_as_a_dem_is_read_back(
    errors: list[tuple[float, set[int], set[int]]], more_detectors: int, more_observables: int
) -> None:
    dem = stim.DetectorErrorModel(f"detector D{4 + more_detectors}\nlogical_observable L{1 + more_observables}")
    for p, detectors, observables in errors:
        targets = [stim.target_relative_detector_id(d) for d in sorted(detectors)]
        targets += [stim.target_logical_observable_id(o) for o in sorted(observables)]
        dem.append(stim.DemInstruction("error", [p], targets))
    model = FaultModel.from_dem(dem)
    written = model.to_dem()
    assert (written.num_detectors, written.num_observables) == (model.num_detectors, model.num_observables)
    assert written.num_errors == model.num_mechanisms
    same = FaultModel.from_dem(written)
    assert same.symptoms() == model.symptoms()
    assert same.priors.tolist() == model.priors.tolist()  # to the last bit


def test_an_empty_model_is_an_empty_dem() -> None:
    assert FaultModel.from_dem(stim.DetectorErrorModel()).to_dem() == stim.DetectorErrorModel()
