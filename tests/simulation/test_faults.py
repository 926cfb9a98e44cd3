import numpy as np
import stim
from hypothesis import given
from hypothesis import strategies as st

from simulation.faults import FaultModel


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


def test_an_empty_model_keeps_its_shape() -> None:
    model = FaultModel.from_dem(stim.DetectorErrorModel("detector D2\nlogical_observable L0"))
    assert model.check_matrix.shape == (3, 0)
    assert model.observable_matrix.shape == (1, 0)


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
