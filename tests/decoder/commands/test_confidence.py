"""How sure the decoder is, and whether the shots can be those of the experiment."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from decoder import SoftDecoder, make_decoder
from simulation import MemoryExperiment, sample
from simulation.shots.plausibility import Expected, fitting

EXPERIMENT = "--code bb72 --rounds 6 --basis Z --p 0.003"


def experiment(**changed):
    usual: dict[str, Any] = {"code": "bb72", "basis": "Z", "rounds": 6, "p": 0.003}
    return MemoryExperiment.create(**usual | changed)


@pytest.fixture(scope="module")
def expected():
    return Expected.of(experiment().fault_model)


def test_confidence_and_flips_are_written_to_the_last_bit(folder, succeed):
    shots = sample(experiment().circuit, shots=30, seed=3)
    (folder / "s").write_bytes(shots.detection_events.tobytes())
    decoder = make_decoder("serial", experiment())
    assert isinstance(decoder, SoftDecoder)
    decoding = decoder.decode_soft(shots.detection_events, bit_packed_shots=True)
    line = f"decode --decoder serial {EXPERIMENT} --in s --out p --json --force --confidence-out"
    summary = json.loads(succeed(f"{line} c.npz"))
    succeed(f"{line} c.csv")
    with np.load("c.npz") as file:
        np.testing.assert_array_equal(file["confidence"], decoding.confidence)
        np.testing.assert_array_equal(file["flip_probabilities"], decoding.flip_probabilities)
    text = np.genfromtxt("c.csv", delimiter=",", names=True)
    assert text.dtype.names == ("confidence", *(f"flip_{j}" for j in range(12)))
    np.testing.assert_array_equal(text["confidence"], decoding.confidence)
    np.testing.assert_array_equal(text["flip_11"].astype(np.float32), decoding.flip_probabilities[:, 11])
    assert summary["mean_confidence"] == decoding.confidence.mean()
    assert summary["below_0.9"] == (decoding.confidence < 0.9).sum()
    assert summary["warnings"] == []


def test_decoders_without_confidence_write_none(folder, refuse):
    (folder / "s").write_bytes(bytes(54))
    line = f"decode --decoder bposd {EXPERIMENT} --in s --out p --confidence-out c.npz"
    assert "needs a decoder that says how sure it is, neural, serial or tandem" in refuse(line)
    assert not (folder / "p").exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"basis": "X"}, "are correlated"), ({"p": 0.006}, "is it another p, noise or experiment?")],
    ids=["basis", "p"],
)
def test_events_tell_that_shots_are_of_another_experiment(expected, changed, words):
    assert words in expected.doubt(sample(experiment(**changed).circuit, shots=1000, seed=3).detection_events)


def test_confidence_tells_what_events_do_not(folder, succeed):
    """Shots of 5 rounds one after the other, taken for shots of 6, look much the same but at their ends."""
    shots = sample(experiment(rounds=5).circuit, shots=60, seed=3)
    (folder / "s").write_bytes(shots.detection_events.tobytes())
    [warning] = json.loads(succeed(f"decode --decoder serial-1 {EXPERIMENT} --in s --out p --json"))["warnings"]
    assert warning.startswith("the mean confidence is")


@pytest.mark.parametrize("changed", [{}, {"p": 0.0025}, {"noise": "si1000", "p": 0.0028}], ids=["same", "p", "si1000"])
def test_shots_that_may_be_the_experiments_are_not(expected, changed):
    circuit = experiment(**changed).circuit
    for seed, shots in ((1, 1), (2, 20), (3, 300), (4, 4000)):
        assert expected.doubt(sample(circuit, shots=shots, seed=seed).detection_events) is None


def test_expected_rates_are_those_of_samples(expected):
    events = sample(experiment().circuit, shots=20_000, seed=9).unpacked_detection_events()
    np.testing.assert_allclose(events.mean(axis=0), expected.rates, atol=0.012)
    both = (events & events[:, expected.partners]).mean(axis=0)
    covariance = both - events.mean(axis=0) * events.mean(axis=0)[expected.partners]
    np.testing.assert_allclose(covariance, expected.covariance, atol=0.006)


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [
        (1000 * 45, "1,000 shots of 5 rounds"),
        (1000 * 56, "1,000 shots with the observables behind the detectors"),
        (1000 * 32, "1,000 shots with --detectors XZ"),
    ],
    ids=["rounds", "observables", "detectors"],
)
def test_what_a_file_may_hold_instead(num_bytes, words):
    assert fitting(num_bytes, experiment())[0] == words


def test_a_file_of_no_whole_number_of_shots_says_what_it_may_hold(folder, refuse):
    (folder / "s").write_bytes(bytes(1000 * 45))
    message = refuse("decode --decoder bposd --code bb72 --rounds 7 --basis Z --p 0.003 --in s --out p")
    assert "no multiple of the 63 bytes of a shot" in message
    assert "it would hold 1,000 shots of 5 rounds" in message
