import itertools
import pickle
from dataclasses import replace
from pathlib import Path

import ldpc
import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
import scipy.stats
import stim
from ldpc import mod2

from decoder.base import Decoder, SoftDecoder
from decoder.classical.bposd import BRAVYI, OSD0, BpOsdDecoder, BpOsdSettings
from simulation.circuits import MemoryExperiment
from simulation.faults import FaultModel
from simulation.sampling import sample

EXHAUSTIVE = BpOsdSettings(max_iter=1, osd_method="OSD_E", osd_order=15)


def model_of(dem: str) -> FaultModel:
    return FaultModel.from_dem(stim.DetectorErrorModel(dem))


def all_shots(num_detectors: int) -> npt.NDArray[np.bool_]:
    return np.array(list(itertools.product([False, True], repeat=num_detectors)))


def likeliest_flips(model: FaultModel, shot: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The observables that the single likeliest set of mechanisms with the shot's symptoms flips."""
    errors = all_shots(model.num_mechanisms)
    fits = ((errors @ model.check_matrix.T.toarray()) % 2 == shot).all(axis=1)
    probabilities = np.where(errors, model.priors, 1 - model.priors).prod(axis=1)
    best = errors[fits][np.argmax(probabilities[fits])]
    return (model.observable_matrix @ best) % 2 == 1


@pytest.fixture(scope="module")
def experiment() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.003)


def test_decodes_the_shots_of_another_project(vectors: Path) -> None:
    dem = stim.DetectorErrorModel.from_file(vectors / "bb72_memory_x_r6_p0.001.dem")
    data = stim.read_shot_data_file(
        path=vectors / "bb72_memory_x_r6_p0.001.b8", format="b8", num_detectors=252, num_observables=12
    )
    shots, flips = data[:, :252], data[:, 252:]
    assert flips.any(axis=1).sum() == 12
    np.testing.assert_array_equal(BpOsdDecoder(FaultModel.from_dem(dem)).decode_batch(shots), flips)


@pytest.mark.timeout(900)  # ten seconds on a free core
def test_fails_as_often_as_measured_elsewhere() -> None:
    # bb72, Z, 6 rounds, p = 0.3 %, XZ, Bravyi's settings on another project's circuit: 137 of 10,000.
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=6, p=0.003)
    shots = 2_000
    samples = sample(experiment.circuit, shots=shots, seed=72)
    decoder = BpOsdDecoder(experiment.fault_model, detectors=experiment.grid.indices_of("Z"))
    predictions = decoder.decode_batch(samples.detection_events, bit_packed_shots=True)
    failures = int((predictions != samples.unpacked_observable_flips()).any(axis=1).sum())
    # Were both rates the same, the failures would split like the shots: exact, and a false alarm in a million.
    split = scipy.stats.binomtest(failures, failures + 137, shots / (shots + 10_000))
    assert split.pvalue > 1e-6, f"{failures}/{shots} failures"


def test_scaling_factor_0_means_the_variable_scaling_of_bravyi() -> None:
    checks = np.array([[1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 1, 1]], dtype=np.uint8)
    priors = np.array([0.1, 0.05, 0.07, 0.02, 0.12])
    syndrome = np.array([1, 0, 1], dtype=np.uint8)
    assert BRAVYI.ms_scaling_factor == 0
    for iterations in (1, 2):
        decoder = ldpc.BpOsdDecoder(
            sp.csr_matrix(checks),
            error_channel=priors.tolist(),
            max_iter=iterations,
            bp_method="minimum_sum",
            ms_scaling_factor=0.0,
            osd_method="OSD_0",
        )
        decoder.decode(syndrome)
        assert decoder.iter == iterations, "converged too early to tell"
        np.testing.assert_allclose(
            decoder.log_prob_ratios, min_sum_with_variable_scaling(checks, priors, syndrome, iterations)
        )


def min_sum_with_variable_scaling(
    checks: npt.NDArray[np.uint8],
    priors: npt.NDArray[np.float64],
    syndrome: npt.NDArray[np.uint8],
    iterations: int,
) -> npt.NDArray[np.float64]:
    """Log-odds after min-sum with messages scaled by 1 - 2^-i in iteration i (Bravyi et al., Methods)."""
    channel = np.log((1 - priors) / priors)
    edges = [tuple(edge) for edge in np.argwhere(checks)]
    to_check = {(c, b): channel[b] for c, b in edges}
    totals = channel
    for i in range(1, iterations + 1):
        to_bit = {}
        for c, b in edges:
            others = [to_check[c, other] for other in np.flatnonzero(checks[c]) if other != b]
            sign = (-1) ** (int(syndrome[c]) + sum(message <= 0 for message in others))
            to_bit[c, b] = (1 - 2.0**-i) * sign * min(map(abs, others))
        totals = channel + np.array([sum(v for (_, b), v in to_bit.items() if b == bit) for bit in range(len(priors))])
        to_check = {(c, b): totals[b] - to_bit[c, b] for c, b in edges}
    return totals


def test_is_a_decoder_but_not_a_soft_one(experiment: MemoryExperiment) -> None:
    decoder = BpOsdDecoder(experiment.fault_model)
    assert isinstance(decoder, Decoder)
    assert not isinstance(decoder, SoftDecoder)
    assert (decoder.num_detectors, decoder.num_observables) == (2 * 72, 12)


def test_all_forms_of_shots_and_predictions_agree(experiment: MemoryExperiment) -> None:
    samples = sample(experiment.circuit, shots=100, seed=3)
    decoder = BpOsdDecoder(experiment.fault_model, OSD0, detectors=experiment.grid.indices_of("Z"))
    packed, shots = samples.detection_events, samples.unpacked_detection_events()
    predictions = decoder.decode_batch(shots)
    assert predictions.dtype == np.bool_
    assert predictions.shape == (100, 12)
    assert predictions.any()
    np.testing.assert_array_equal(decoder.decode_batch(packed, bit_packed_shots=True), predictions)
    in_bytes = decoder.decode_batch(shots, bit_packed_predictions=True)
    assert in_bytes.dtype == np.uint8
    np.testing.assert_array_equal(in_bytes, np.packbits(predictions, axis=1, bitorder="little"))
    np.testing.assert_array_equal(
        np.concatenate([decoder.decode_batch(shots[i : i + 1]) for i in range(100)]), predictions
    )


def test_restricted_to_one_basis_it_is_the_decoder_of_the_xz_experiment(experiment: MemoryExperiment) -> None:
    shots = sample(experiment.circuit, shots=200, seed=4).unpacked_detection_events()
    used = experiment.grid.indices_of("Z")
    restricted = BpOsdDecoder(experiment.fault_model, detectors=used)
    assert restricted.num_detectors == experiment.num_detectors
    xz = BpOsdDecoder(replace(experiment, detectors="XZ").fault_model)
    assert xz.num_detectors == len(used) == 3 * 36
    np.testing.assert_array_equal(restricted.decode_batch(shots), xz.decode_batch(shots[:, used]))


def test_a_pickled_decoder_decodes_the_same(experiment: MemoryExperiment) -> None:
    shots = sample(experiment.circuit, shots=50, seed=5).unpacked_detection_events()
    fresh = BpOsdDecoder(experiment.fault_model, OSD0, detectors=experiment.grid.indices_of("Z"))
    unused = pickle.loads(pickle.dumps(fresh))
    predictions = fresh.decode_batch(shots)
    np.testing.assert_array_equal(unused.decode_batch(shots), predictions)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fresh)).decode_batch(shots), predictions)


@pytest.mark.parametrize("seed", range(5))
def test_osd_orders_above_the_free_mechanisms_are_clipped_and_search_everything(seed: int) -> None:
    # ldpc itself corrupts its heap with such orders. It weighs candidates by log(1 / p) instead of
    # log((1 - p) / p), which is as good for small p.
    rng = np.random.default_rng(seed)
    errors = [
        f"error({rng.uniform(0.001, 0.03):.5f}) "
        + " ".join(f"D{d}" for d in rng.choice(5, size, replace=False))
        + f" L{i % 3}"
        for i, size in enumerate([2, 2, 3, 3, 3, 4, 2, 3])
    ]
    model = model_of("\n".join(errors))
    shots = all_shots(5)
    left_to_osd = [shot for shot in shots if explicable(model, shot) and not bp_converges(model, shot)]
    expected = [likeliest_flips(model, shot) for shot in left_to_osd]
    checks = sp.csr_matrix(model.check_matrix)
    assert checks.shape[1] - mod2.rank(checks) < EXHAUSTIVE.osd_order
    assert len(left_to_osd) >= 8
    np.testing.assert_array_equal(BpOsdDecoder(model, EXHAUSTIVE).decode_batch(np.array(left_to_osd)), expected)


def explicable(model: FaultModel, shot: npt.NDArray[np.bool_]) -> bool:
    symptoms = (all_shots(model.num_mechanisms) @ model.check_matrix.T.toarray()) % 2
    return bool((symptoms == shot).all(axis=1).any())


def bp_converges(model: FaultModel, shot: npt.NDArray[np.bool_]) -> bool:
    decoder = ldpc.BpDecoder(
        sp.csr_matrix(model.check_matrix),
        error_channel=model.priors.tolist(),
        max_iter=1,
        bp_method="minimum_sum",
        ms_scaling_factor=0.0,
    )
    decoder.decode(shot.astype(np.uint8))
    return bool(decoder.converge)


@pytest.mark.parametrize("settings", [BRAVYI, OSD0, replace(BRAVYI, osd_order=60), EXHAUSTIVE])
def test_likely_sure_and_invisible_mechanisms(settings: BpOsdSettings) -> None:
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
    expected = np.array([likeliest_flips(model, shot) for shot in shots])
    np.testing.assert_array_equal(BpOsdDecoder(model, settings).decode_batch(shots), expected)


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
@pytest.mark.parametrize("settings", [BRAVYI, OSD0])
def test_models_that_leave_nothing_to_decode(dem: str, expected: list[bool], settings: BpOsdSettings) -> None:
    decoder = BpOsdDecoder(model_of(dem), settings)
    shots = np.ones((3, decoder.num_detectors), dtype=np.bool_)
    np.testing.assert_array_equal(decoder.decode_batch(shots), np.tile(np.array(expected, bool), (3, 1)))
    assert decoder.decode_batch(shots[:0]).shape == (0, len(expected))
    assert decoder.decode_batch(shots[:0], bit_packed_predictions=True).shape == (0, -(-len(expected) // 8))


def test_shots_that_no_fault_explains_are_decoded_to_something(experiment: MemoryExperiment) -> None:
    decoder = BpOsdDecoder(model_of("error(0.1) D0 L0\nerror(0.1) D0 D1\nerror(0.1) D1\ndetector D3"))
    assert decoder.decode_batch(all_shots(4)).shape == (16, 1)
    noise = np.random.default_rng(0).random((3, experiment.num_detectors)) < 0.5
    assert BpOsdDecoder(experiment.fault_model, OSD0).decode_batch(noise).shape == (3, 12)


def test_bad_shots_are_refused(experiment: MemoryExperiment) -> None:
    decoder = BpOsdDecoder(experiment.fault_model, detectors=experiment.grid.indices_of("Z"))
    with pytest.raises(ValueError, match="108 detection events, but this decoder's experiment has 144"):
        decoder.decode_batch(np.zeros((1, 108), np.bool_))
    with pytest.raises(ValueError, match="0 or 1"):
        decoder.decode_batch(np.full((1, 144), 2))
    with pytest.raises(ValueError, match="holds 17 bytes, but 144 detectors take 18"):
        decoder.decode_batch(np.zeros((1, 17), np.uint8), bit_packed_shots=True)


@pytest.mark.parametrize("detectors", [[0, 0], [144], [-1], [[0, 1]]])
def test_bad_detector_choices_are_refused(experiment: MemoryExperiment, detectors: list[int]) -> None:
    with pytest.raises(ValueError, match="detectors must"):
        BpOsdDecoder(experiment.fault_model, detectors=np.array(detectors))


@pytest.mark.parametrize(
    "change",
    [
        {"bp_method": "magic"},
        {"schedule": "later"},
        {"osd_method": "OSD_9"},
        {"max_iter": 0},
        {"ms_scaling_factor": -0.5},
        {"ms_scaling_factor": float("nan")},
        {"osd_order": -1},
        {"osd_method": "OSD_0"},
        {"osd_method": "OSD_E", "osd_order": 16},
    ],
)
def test_bad_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change)).removesuffix("_method")):
        replace(BRAVYI, **change)  # type: ignore[arg-type]
