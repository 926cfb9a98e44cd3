from collections.abc import Callable
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

from decoder.classical.bp import BRAVYI, BpOsdSettings
from decoder.classical.syndrome import SyndromeDecoder
from simulation.circuits import MemoryExperiment
from simulation.faults import FaultModel
from simulation.shots.sampling import sample

Bits = npt.NDArray[np.bool_]

EXHAUSTIVE = BpOsdSettings(max_iter=1, osd_method="OSD_E", osd_order=15)


def test_decodes_the_shots_of_another_project(vectors: Path) -> None:
    dem = stim.DetectorErrorModel.from_file(vectors / "bb72_memory_x_r6_p0.001.dem")
    data = stim.read_shot_data_file(
        path=vectors / "bb72_memory_x_r6_p0.001.b8", format="b8", num_detectors=252, num_observables=12
    )
    shots, flips = data[:, :252], data[:, 252:]
    assert flips.any(axis=1).sum() == 12
    np.testing.assert_array_equal(SyndromeDecoder(FaultModel.from_dem(dem), BRAVYI).decode_batch(shots), flips)


def test_fails_as_often_as_measured_elsewhere() -> None:
    # bb72, Z, 6 rounds, p = 0.3 %, XZ, Bravyi's settings on another project's circuit: 137 of 10,000.
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=6, p=0.003)
    shots = 1_000
    samples = sample(experiment.circuit, shots=shots, seed=72)
    decoder = SyndromeDecoder(experiment.fault_model, BRAVYI, detectors=experiment.grid.indices_of("Z"))
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


@pytest.mark.parametrize("seed", range(5))
def test_osd_orders_above_the_free_mechanisms_are_clipped_and_search_everything(
    seed: int,
    model_of: Callable[[str], FaultModel],
    all_shots: Callable[[int], Bits],
    likeliest_error: Callable[[FaultModel, Bits], Bits | None],
) -> None:
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
    best = [(shot, likeliest_error(model, shot)) for shot in all_shots(5) if not bp_converges(model, shot)]
    left_to_osd = [shot for shot, error in best if error is not None]
    expected = [(model.observable_matrix @ error) % 2 == 1 for _, error in best if error is not None]
    checks = sp.csr_matrix(model.check_matrix)
    assert checks.shape[1] - mod2.rank(checks) < EXHAUSTIVE.osd_order
    assert len(left_to_osd) >= 8
    np.testing.assert_array_equal(SyndromeDecoder(model, EXHAUSTIVE).decode_batch(np.array(left_to_osd)), expected)


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


@pytest.mark.parametrize(
    "change",
    [
        {"osd_method": "OSD_9"},
        {"osd_order": -1},
        {"osd_method": "OSD_0"},
        {"osd_method": "OSD_E", "osd_order": 16},
    ],
)
def test_bad_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change)).removesuffix("_method")):
        replace(BRAVYI, **change)  # type: ignore[arg-type]
