import re

import numpy as np
import pytest
import stim

from decoder import Decoding, make_decoder
from decoder.base import unpack_shots
from simulation import MemoryExperiment
from simulation.bits import pack_bits

EVENTS = np.random.default_rng(1).random((5, 19)) < 0.3


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64])
def test_unpacked_shots_of_any_integer_type_become_bools(dtype: type[np.generic]) -> None:
    bits = unpack_shots(EVENTS.astype(dtype), num_detectors=19)
    assert bits.dtype == np.bool_
    np.testing.assert_array_equal(bits, EVENTS)


def test_packing_is_stims() -> None:
    circuit = stim.Circuit("X_ERROR(0.4) 0 1 2\nM 0 1 2\n" + "".join(f"DETECTOR rec[-{i}]\n" for i in (1, 2, 3)) * 7)
    shots = circuit.compile_detector_sampler(seed=5).sample(50)
    packed = circuit.compile_detector_sampler(seed=5).sample(50, bit_packed=True)
    np.testing.assert_array_equal(pack_bits(shots), packed)
    np.testing.assert_array_equal(unpack_shots(packed, num_detectors=21, bit_packed=True), shots)


@pytest.mark.parametrize(("shots", "detectors"), [(0, 19), (4, 0), (0, 0), (3, 16)])
def test_empty_arrays_and_whole_bytes_go_both_ways(shots: int, detectors: int) -> None:
    bits = np.ones((shots, detectors), dtype=np.bool_)
    again = unpack_shots(pack_bits(bits), num_detectors=detectors, bit_packed=True)
    assert again.shape == (shots, detectors)
    assert again.all()


@pytest.mark.parametrize(
    ("shots", "message"),
    [
        (np.zeros(19, np.uint8), "two-dimensional array (shots, detectors), not shape (19,)"),
        ([[0] * 19], "not list"),
        (np.zeros((2, 18), np.uint8), "18 detection events, but this decoder's experiment has 19 detectors"),
        (np.zeros((2, 3), np.uint8), "pass bit_packed_shots=True"),
        (np.zeros((2, 19), np.float32), "bool or integers, not float32"),
        (np.full((2, 19), "0"), "bool or integers, not <U1"),
        (np.eye(19, dtype=np.int8) * 2, "0 or 1, but shot 0 holds 2 at detector 0"),
        (-np.eye(19, dtype=np.int8), "0 or 1, but shot 0 holds -1 at detector 0"),
    ],
)
def test_bad_shots_are_refused(shots: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        unpack_shots(shots, num_detectors=19)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shots", "message"),
    [
        (np.zeros((2, 2), np.uint8), "holds 2 bytes, but 19 detectors take 3"),
        (np.zeros((2, 19), np.uint8), "holds 19 bytes, but 19 detectors take 3"),
        (np.zeros((2, 3), np.bool_), "must be uint8, not bool"),
        (np.zeros((2, 3), np.int64), "must be uint8, not int64"),
        (np.array([[0, 0, 0b1000]], np.uint8), "bits set past their 19 detectors"),
        (np.packbits(EVENTS | True, axis=1), "least significant bit first"),
    ],
)
def test_bad_packed_shots_are_refused(shots: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        unpack_shots(shots, num_detectors=19, bit_packed=True)


@pytest.fixture(scope="module")
def decoder():
    return make_decoder("bp", MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.004))


def test_one_shot_is_decoded_as_in_a_batch(decoder) -> None:
    shots = np.random.default_rng(2).random((4, decoder.num_detectors)) < 0.02
    one_by_one = [decoder.decode(shot) for shot in shots]
    assert one_by_one[0].shape == (12,)
    np.testing.assert_array_equal(one_by_one, decoder.decode_batch(shots))
    assert repr(decoder) == "<SyndromeDecoder: 144 detectors, 12 observables>"


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (np.zeros((1, 144), np.bool_), "one-dimensional array (detectors,), not shape (1, 144); decode_batch takes"),
        ([0] * 144, "one-dimensional array (detectors,), not list"),
        (np.zeros(143, np.bool_), "holds 143 detection events, but this decoder's experiment has 144 detectors"),
        (np.zeros(144), "bool or integers, not float64"),
    ],
    ids=["batch", "list", "short", "floats"],
)
def test_what_is_not_one_shot_is_refused(decoder, events: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        decoder.decode(events)


def test_a_decoding_says_how_sure_the_decoder_is() -> None:
    confidence = np.array([1 - 1e-7, 0.9999, 0.95, 0.5])
    decoding = Decoding(np.zeros((4, 12), np.bool_), confidence, np.zeros((4, 12), np.float32))
    assert decoding.summary == {"mean_confidence": confidence.mean(), "below_0.9": 1}
    assert repr(decoding) == "<Decoding: 4 shots of 12 observables, mean confidence 0.862475, 1 below 0.9>"
    counts = re.findall(r">([^<]*)</text><rect[^>]*/><text[^>]*>(\d+)<", decoding._repr_html_())
    assert counts == [
        ("at most 1e-06", "1"),
        ("at most 0.0001", "1"),
        ("at most 0.01", "0"),
        ("at most 0.1", "1"),
        ("at most 1", "1"),
    ]
    assert "mean confidence nan" in repr(decoding[:0])
