"""Sampling: seeds mean what the docstring says, and the shots are those of the circuit."""

import numpy as np
import pytest
import stim

from simulation.shots.sampling import CHUNK_SHOTS, CHUNKS_PER_TASK, Samples, sample, suggested_processes

CIRCUIT = stim.Circuit.generated(
    "surface_code:rotated_memory_z", distance=3, rounds=3, after_clifford_depolarization=0.03
)


def equal(a: Samples, b: Samples) -> bool:
    return np.array_equal(a.detection_events, b.detection_events) and np.array_equal(
        a.observable_flips, b.observable_flips
    )


def test_shapes_and_unpacking():
    samples = sample(CIRCUIT, shots=100, seed=1)
    assert samples.shots == 100
    assert samples.detection_events.shape == (100, -(-CIRCUIT.num_detectors // 8))
    assert samples.observable_flips.shape == (100, 1)
    events = samples.unpacked_detection_events()
    assert events.dtype == np.bool_
    assert events.shape == (100, CIRCUIT.num_detectors)
    np.testing.assert_array_equal(np.packbits(events, axis=1, bitorder="little"), samples.detection_events)
    flips = samples.unpacked_observable_flips()
    assert flips.shape == (100, 1)
    np.testing.assert_array_equal(flips[:, 0], samples.observable_flips[:, 0] == 1)


def test_a_seed_repeats_its_shots_and_another_does_not():
    assert equal(sample(CIRCUIT, shots=500, seed=7), sample(CIRCUIT, shots=500, seed=7))
    assert not equal(sample(CIRCUIT, shots=500, seed=7), sample(CIRCUIT, shots=500, seed=8))


def test_chunks_differ_from_each_other():
    events = sample(CIRCUIT, shots=2 * CHUNK_SHOTS, seed=7).detection_events
    assert not np.array_equal(events[:CHUNK_SHOTS], events[CHUNK_SHOTS:])


@pytest.mark.parametrize("shots", [1, 63, CHUNK_SHOTS, CHUNK_SHOTS + 1])
def test_fewer_shots_are_the_first_of_more(shots):
    longer = sample(CIRCUIT, shots=2 * CHUNK_SHOTS + 5, seed=7)
    shorter = sample(CIRCUIT, shots=shots, seed=7)
    np.testing.assert_array_equal(shorter.detection_events, longer.detection_events[:shots])
    np.testing.assert_array_equal(shorter.observable_flips, longer.observable_flips[:shots])


def test_the_number_of_processes_does_not_change_the_shots():
    shots = CHUNK_SHOTS * CHUNKS_PER_TASK + 10
    assert equal(sample(CIRCUIT, shots=shots, seed=3), sample(CIRCUIT, shots=shots, seed=3, processes=2))


def test_a_fresh_seed_is_recorded():
    first, second = sample(CIRCUIT, shots=200), sample(CIRCUIT, shots=200)
    assert first.seed != second.seed
    assert equal(first, sample(CIRCUIT, shots=200, seed=first.seed))


def test_rates_are_those_of_stim():
    """Detection rates against an independent run of stim, five standard errors wide."""
    shots = 20_000
    ours = sample(CIRCUIT, shots=shots, seed=11).unpacked_detection_events().mean(axis=0)
    theirs = CIRCUIT.compile_detector_sampler(seed=12).sample(shots).mean(axis=0)
    error = np.sqrt(2 * theirs * (1 - theirs) / shots)
    assert np.all(np.abs(ours - theirs) < 5 * error)


def test_progress_counts_up_to_the_shots():
    seen: list[int] = []
    sample(CIRCUIT, shots=2 * CHUNK_SHOTS + 1, seed=1, progress=seen.append)
    assert seen == [CHUNK_SHOTS, 2 * CHUNK_SHOTS, 2 * CHUNK_SHOTS + 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shots": 0}, "shots=0 must be at least 1"),
        ({"shots": -3}, "shots=-3 must be at least 1"),
        ({"shots": 10, "processes": 0}, "processes=0 must be at least 1"),
        ({"shots": 10, "seed": -1}, "seed=-1 must be 0 or more"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample(CIRCUIT, **arguments)


def test_a_circuit_without_detectors_is_refused():
    with pytest.raises(ValueError, match="no detectors"):
        sample(stim.Circuit("X_ERROR(0.1) 0\nM 0"), shots=10)


def test_processes_are_for_long_runs():
    assert suggested_processes(CIRCUIT, shots=100) == 1
    assert suggested_processes(CIRCUIT, shots=10**9) >= 1
