"""What all decoders that go syndrome by syndrome do alike, and the parts they share."""

import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from decoder.base import Decoder, SoftDecoder
from decoder.classical.bp import BRAVYI, LSD, OSD0, PLAIN_BP
from decoder.classical.mle import EXACT
from decoder.classical.problem import Problem
from decoder.classical.relay_bp import RELAY_1, RELAY_5
from decoder.classical.syndrome import SyndromeDecoder, SyndromeSettings
from decoder.classical.tesseract import SHORT_BEAM, SHORT_BEAM_SPARSIFIED
from simulation.circuits import MemoryExperiment
from simulation.faults import FaultModel
from simulation.shots.sampling import sample

Bits = npt.NDArray[np.bool_]

FAMILIES = {
    "bposd": OSD0,
    "bp": PLAIN_BP,
    "bplsd": LSD,
    "relay-1": RELAY_1,
    "relay-5": RELAY_5,
    "tesseract": SHORT_BEAM,
    "tesseract-sparsify": SHORT_BEAM_SPARSIFIED,
    "mle": EXACT,
}
every_family = pytest.mark.parametrize("settings", FAMILIES.values(), ids=FAMILIES.keys())


@pytest.fixture(scope="module")
def experiment() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.004)


@pytest.fixture(scope="module")
def deep() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.003)


@every_family
def test_is_a_decoder_but_not_a_soft_one(experiment: MemoryExperiment, settings: SyndromeSettings) -> None:
    decoder = SyndromeDecoder(experiment.fault_model, settings)
    assert isinstance(decoder, Decoder)
    assert not isinstance(decoder, SoftDecoder)
    assert (decoder.num_detectors, decoder.num_observables) == (72, 12)


@every_family
def test_shots_are_decoded_each_on_its_own_in_all_forms(deep: MemoryExperiment, settings: SyndromeSettings) -> None:
    count = 5 if settings is EXACT else 40
    samples = sample(deep.circuit, shots=count, seed=3)
    make = lambda: SyndromeDecoder(deep.fault_model, settings, detectors=deep.grid.indices_of("Z"))  # noqa: E731
    packed, shots = samples.detection_events, samples.unpacked_detection_events()
    decoder = make()
    predictions = decoder.decode_batch(shots)
    assert predictions.dtype == np.bool_
    assert predictions.shape == (count, 12)
    assert predictions.any()
    np.testing.assert_array_equal(decoder.decode_batch(packed, bit_packed_shots=True), predictions)
    in_bytes = decoder.decode_batch(shots, bit_packed_predictions=True)
    assert in_bytes.dtype == np.uint8
    np.testing.assert_array_equal(in_bytes, np.packbits(predictions, axis=1, bitorder="little"))
    np.testing.assert_array_equal(make().decode_batch(shots[::-1])[::-1], predictions)
    used, unused = (pickle.loads(pickle.dumps(one)) for one in (decoder, make()))
    np.testing.assert_array_equal(used.decode_batch(shots), predictions)
    np.testing.assert_array_equal(unused.decode_batch(shots), predictions)


def test_the_answer_of_relay_bp_does_not_depend_on_the_shots_before() -> None:
    """Noise at which many shots need more than the first leg, so that strengths drawn on the way would show."""
    noisy = MemoryExperiment.create(code="bb72", basis="Z", rounds=6, p=0.005, detectors="XZ")
    shots = sample(noisy.circuit, shots=60, seed=1).unpacked_detection_events()
    decoder = SyndromeDecoder(noisy.fault_model, RELAY_1)
    np.testing.assert_array_equal(decoder.decode_batch(shots[::-1])[::-1], decoder.decode_batch(shots))


@every_family
def test_restricted_to_one_basis_it_is_the_decoder_of_the_xz_experiment(
    deep: MemoryExperiment, settings: SyndromeSettings
) -> None:
    shots = sample(deep.circuit, shots=5 if settings is EXACT else 30, seed=4).unpacked_detection_events()
    used = deep.grid.indices_of("Z")
    restricted = SyndromeDecoder(deep.fault_model, settings, detectors=used)
    assert restricted.num_detectors == deep.num_detectors == 144
    xz = SyndromeDecoder(replace(deep, detectors="XZ").fault_model, settings)
    assert xz.num_detectors == len(used) == 3 * 36
    np.testing.assert_array_equal(restricted.decode_batch(shots), xz.decode_batch(shots[:, used]))


def test_settings_choose_the_memory_basis_where_the_grid_has_both(deep: MemoryExperiment) -> None:
    narrow = replace(deep, detectors="XZ")
    chosen = OSD0.of_faults(deep.fault_model, deep.check_types, detectors="XZ").detectors
    np.testing.assert_array_equal(chosen, deep.grid.indices_of("Z"))
    assert OSD0.of_faults(deep.fault_model, deep.check_types, detectors="XYZ").detectors is None
    assert OSD0.of_faults(narrow.fault_model, narrow.check_types, detectors="XZ").detectors is None


@pytest.mark.parametrize("settings", [*FAMILIES.values(), BRAVYI, replace(BRAVYI, osd_order=60)])
def test_likely_sure_and_invisible_mechanisms(
    settings: SyndromeSettings,
    model_of: Callable[[str], FaultModel],
    all_shots: Callable[[int], Bits],
    likeliest_error: Callable[[FaultModel, Bits], Bits],
) -> None:
    model = model_of(
        """
        error(0.1) D0 L0
        error(0.2) D0 D1
        error(0.7) D1 L1
        error(1) D2 L0
        error(0.9) L2
        error(0.3) L3
        """
    )
    shots = all_shots(3)[1::2]  # the sure mechanism always fires D2
    expected = [(model.observable_matrix @ likeliest_error(model, shot)) % 2 == 1 for shot in shots]
    np.testing.assert_array_equal(SyndromeDecoder(model, settings).decode_batch(shots), expected)


@every_family
@pytest.mark.parametrize(
    ("dem", "expected"),
    [
        ("", []),
        ("detector D2", []),
        ("logical_observable L1", [False, False]),
        ("detector D2\nlogical_observable L1", [False, False]),
        ("error(0.2) D0", []),
        ("error(0.2) L0\nerror(0.8) L1", [False, True]),
        ("error(0) D0 L0", [False]),
    ],
)
def test_models_that_leave_nothing_to_decode(
    dem: str, expected: list[bool], settings: SyndromeSettings, model_of: Callable[[str], FaultModel]
) -> None:
    decoder = SyndromeDecoder(model_of(dem), settings)
    shots = np.ones((3, decoder.num_detectors), dtype=np.bool_)
    np.testing.assert_array_equal(decoder.decode_batch(shots), np.tile(np.array(expected, bool), (3, 1)))
    assert decoder.decode_batch(shots[:0]).shape == (0, len(expected))
    assert decoder.decode_batch(shots[:0], bit_packed_predictions=True).shape == (0, -(-len(expected) // 8))


@pytest.mark.timeout(300)  # ldpc's LSD does not return from such shots
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "mle"])
def test_shots_that_no_fault_explains_are_decoded_to_something(
    name: str, deep: MemoryExperiment, model_of: Callable[[str], FaultModel], all_shots: Callable[[int], Bits]
) -> None:
    model = model_of("error(0.1) D0 L0\nerror(0.1) D0 D1\nerror(0.1) D1\ndetector D3")
    assert SyndromeDecoder(model, FAMILIES[name]).decode_batch(all_shots(4)).shape == (16, 1)
    if not name.startswith("tesseract"):  # slow on noise
        decoder = SyndromeDecoder(deep.fault_model, FAMILIES[name], detectors=deep.grid.indices_of("Z"))
        noise = np.random.default_rng(0).random((1, deep.num_detectors)) < 0.5
        assert decoder.decode_batch(noise).shape == (1, 12)


def test_bad_shots_are_refused(deep: MemoryExperiment) -> None:
    decoder = SyndromeDecoder(deep.fault_model, OSD0, detectors=deep.grid.indices_of("Z"))
    with pytest.raises(ValueError, match="108 detection events, but this decoder's experiment has 144"):
        decoder.decode_batch(np.zeros((1, 108), np.bool_))
    with pytest.raises(ValueError, match="0 or 1"):
        decoder.decode_batch(np.full((1, 144), 2))
    with pytest.raises(ValueError, match="holds 17 bytes, but 144 detectors take 18"):
        decoder.decode_batch(np.zeros((1, 17), np.uint8), bit_packed_shots=True)


@pytest.mark.parametrize("detectors", [[0, 0], [144], [-1], [[0, 1]]])
def test_bad_detector_choices_are_refused(deep: MemoryExperiment, detectors: list[int]) -> None:
    with pytest.raises(ValueError, match="detectors must"):
        SyndromeDecoder(deep.fault_model, OSD0, detectors=np.array(detectors))


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        (PLAIN_BP, {"bp_method": "magic"}),
        (PLAIN_BP, {"schedule": "later"}),
        (PLAIN_BP, {"max_iter": 0}),
        (PLAIN_BP, {"ms_scaling_factor": -0.5}),
        (PLAIN_BP, {"ms_scaling_factor": float("nan")}),
        (LSD, {"lsd_method": "LSD_CS"}),
        (LSD, {"lsd_order": 1}),
        (LSD, {"lsd_method": "LSD_E", "lsd_order": 16}),
        (RELAY_1, {"pre_iter": 0}),
        (RELAY_1, {"num_sets": 0}),
        (RELAY_1, {"set_max_iter": 0}),
        (RELAY_1, {"stop_nconv": 0}),
        (RELAY_1, {"gamma0": 1.0}),
        (RELAY_1, {"gamma_dist_interval": (0.5, 0.2)}),
        (RELAY_1, {"gamma_dist_interval": (float("nan"), 0.2)}),
        (RELAY_1, {"seed": -1}),
        (SHORT_BEAM, {"pqlimit": 0}),
        (SHORT_BEAM, {"det_beam": 0}),
        (SHORT_BEAM, {"num_det_orders": 0}),
        (SHORT_BEAM, {"sparsify_base_degree": 0}),
        (SHORT_BEAM, {"seed": -1}),
        (EXACT, {"max_mechanisms": 0}),
        (EXACT, {"seconds": 0.0}),
    ],
)
def test_bad_settings_are_refused(settings: SyndromeSettings, change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=list(change)[-1]):
        replace(settings, **change)  # type: ignore[type-var]


def test_weights_are_log_odds(model_of: Callable[[str], FaultModel]) -> None:
    problem = Problem.of(model_of("error(0.5) D0\nerror(0.1) D1\nerror(0.9) D2\nerror(0.2) L0"))
    np.testing.assert_allclose(problem.weights, np.log([1, 9, 9]), atol=1e-12)
