"""A limit of time for each shot: who keeps to it, what it changes, and that it is told."""

from __future__ import annotations

import time

import numpy as np
import pytest

from decoder.classical.bp import BRAVYI, LSD, OSD_SECONDS, PLAIN_BP, Limited
from decoder.classical.mle import EXACT
from decoder.classical.syndrome import SyndromeDecoder
from simulation.bits import pack_bits
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample


@pytest.fixture(scope="module")
def experiment() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.005, detectors="XZ")


@pytest.fixture(scope="module")
def shots(experiment):
    return sample(experiment.circuit, shots=30, seed=1).detection_events


@pytest.fixture(scope="module")
def dense(experiment):
    """Noise that no error explains well: belief propagation does not converge on it."""
    return pack_bits(np.random.default_rng(0).random((3, experiment.num_detectors)) < 0.5)


def decoder(experiment, settings) -> SyndromeDecoder:
    return SyndromeDecoder(experiment.fault_model, settings)


@pytest.mark.parametrize("settings", [BRAVYI, LSD, PLAIN_BP], ids=["bposd", "bplsd", "bp"])
def test_a_limit_that_is_kept_changes_nothing(experiment, settings, shots):
    piece = decoder(experiment, settings.limited(600)).decode_piece(shots, seconds=600)
    expected = decoder(experiment, settings).decode_batch(shots, bit_packed_shots=True)
    assert np.array_equal(piece.predictions, expected)
    assert not piece.hurried.any()


@pytest.mark.parametrize("settings", [BRAVYI, LSD, PLAIN_BP], ids=["bposd", "bplsd", "bp"])
def test_a_dense_shot_ends_in_time_and_is_told(experiment, settings, dense):
    limited = decoder(experiment, settings.limited(0.01))
    limited.decode_piece(dense[:1], seconds=0)  # makes what solves
    began = time.thread_time()
    piece = limited.decode_piece(dense, seconds=600)
    took = time.thread_time() - began
    assert piece.hurried.all()
    assert took < 1  # 10,000 iterations alone take some 0.3 s a shot


def test_a_shot_that_converges_in_time_gets_the_answer_it_would_get_anyway(experiment, shots):
    piece = decoder(experiment, BRAVYI.limited(0.005)).decode_piece(shots, seconds=600)
    expected = decoder(experiment, BRAVYI).decode_batch(shots, bit_packed_shots=True)
    assert not piece.hurried.all()
    assert np.array_equal(piece.predictions[~piece.hurried], expected[~piece.hurried])


def test_a_second_stage_that_would_take_too_long_is_not_even_made(experiment, dense):
    """Its candidates take the square of the mechanisms in bytes: 0.6 GB for bb144 over 40 rounds."""
    rows, columns = experiment.fault_model.check_matrix.shape
    seconds = OSD_SECONDS * rows**2 * columns
    with_stage, without = (decoder(experiment, BRAVYI.limited(seconds * factor)) for factor in (1.01, 0.99))
    solvers = [one._solver for one in (with_stage, without)]
    assert [hasattr(solver._decoder, "osd_order") for solver in solvers if isinstance(solver, Limited)] == [True, False]
    assert without.decode_piece(dense, seconds=600).hurried.all()


def test_an_exact_search_has_the_shorter_of_its_own_limit_and_the_one_that_is_set():
    assert EXACT.limited(1).seconds == 1
    assert EXACT.limited(1e6).seconds == EXACT.seconds
