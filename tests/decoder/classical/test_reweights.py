"""Shots with probabilities of their own are decoded as by the decoder of the model with these probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import stim

from decoder.base import BatchDecoder
from decoder.making import make_decoder
from simulation.circuits import MemoryExperiment
from simulation.faults import errors_of_dem
from simulation.shots.sampling import sample

BB72 = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.006)


def with_probabilities(dem: stim.DetectorErrorModel, probabilities: np.ndarray) -> stim.DetectorErrorModel:
    changed, left = stim.DetectorErrorModel(), iter(probabilities.tolist())
    for instruction in dem.flattened():
        if instruction.type == "error":
            instruction = stim.DemInstruction("error", [next(left)], instruction.targets_copy())
        changed.append(instruction)
    return changed


def decoder_of(name: str, dem: stim.DetectorErrorModel) -> BatchDecoder:
    decoder = make_decoder(name, dem)
    assert isinstance(decoder, BatchDecoder)
    return decoder


@pytest.mark.parametrize("name", ["bposd-osd0", "serial", "relay-1"])
def test_each_shot_is_decoded_as_by_the_decoder_of_its_model(name):
    decoder = decoder_of(name, BB72.dem)
    priors = errors_of_dem(BB72.dem)[1]
    shots = sample(BB72.circuit, shots=30, seed=3).unpacked_detection_events()
    random = np.random.default_rng(1)
    factors = np.ones((30, len(priors)))
    factors[10:20] = random.choice([0.01, 0.1, 20.0], size=len(priors))
    factors[20:] = random.choice([0.5, 2.0], size=len(priors))
    plain = decoder.decode_batch(shots)
    found = decoder.decode_batch(shots, reweights=factors, reweights_are="factors")
    np.testing.assert_array_equal(found, decoder.decode_batch(shots, reweights=factors * priors))
    np.testing.assert_array_equal(found[:10], plain[:10])
    assert (found != plain).any()
    for first in (10, 20):
        other = decoder_of(name, with_probabilities(BB72.dem, factors[first] * priors))
        some = shots[first : first + 10]
        np.testing.assert_array_equal(found[first : first + 10], other.decode_batch(some))
        np.testing.assert_array_equal(
            found[first : first + 10], decoder.decode_batch(some, reweights=factors[first] * priors)
        )


DEM = stim.DetectorErrorModel("error(0.1) D0 L0\nREPEAT 2 {\nerror(0.2) D0\n}")


def test_an_erasure_decides_a_shot():
    """An error that is known to have happened half of the time is likelier than any other."""
    decoder = decoder_of("mle", DEM)
    shots = np.array([[True], [True]])
    assert decoder.decode_batch(shots).tolist() == [[False], [False]]
    assert decoder.decode_batch(shots, reweights=np.array([[0.1, 0.2, 0.2], [0.5, 0.2, 0.2]])).tolist() == [[0], [1]]
    assert decoder.decode_batch(shots, reweights=np.array([0.9, 0.2, 0.2]), bit_packed_predictions=True).tolist() == [
        [1],
        [1],
    ]


@pytest.mark.parametrize(
    ("reweights", "meaning", "message"),
    [
        ([0.1, 0.2], "probabilities", r"the shape \(2,\), but the detector error model has 3 errors"),
        (np.full((1, 3), 0.1), "probabilities", r"the shape \(1, 3\)"),
        ([0.1, np.nan, 0.1], "probabilities", "make nan the probability of error 1"),
        ([0.1, 0.1, 1.1], "probabilities", "make 1.1 the probability of error 2"),
        ([1, -1, 1], "factors", "make -0.2 the probability of error 1"),
        ([11, 1, 1], "factors", "the probability of error 0; it must be from 0 to 1"),
    ],
    ids=["length", "shots", "NaN", "above 1", "negative", "too large a factor"],
)
def test_what_is_refused(reweights, meaning, message):
    with pytest.raises(ValueError, match=message):
        decoder_of("bposd", DEM).decode_batch(
            np.zeros((2, 1), np.bool_), reweights=np.array(reweights), reweights_are=meaning
        )


def test_decoders_that_take_none():
    decoder = decoder_of("bposd-window-2-1", BB72.dem)
    with pytest.raises(ValueError, match="takes no reweights"):
        decoder.decode_batch(np.zeros((1, 144), np.bool_), reweights=np.ones(3))
