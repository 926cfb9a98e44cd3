from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from decoder.neural.weights import load_weights, shipped_weights, store_threshold
from decoder.tandem.pairs import make_pair
from simulation.circuits import MemoryExperiment
from simulation.sampling import sample

COMMAND = "tune --code bb72 --rounds 2 --basis Z --p 0.008 --shots 200 --seed 1 --processes 1"


@pytest.fixture
def weights(folder):
    return shutil.copy(shipped_weights("bb72"), folder / "copy.safetensors")


def test_a_threshold_is_chosen_and_stored(succeed, weights, folder):
    result = json.loads(succeed(f"{COMMAND} --share 0.05 --weights {weights} --store --out curve.md --json"))
    assert result["second"] == "serial-deep"
    chosen = load_weights(weights)[1].thresholds["serial-deep"]
    assert chosen["threshold"] == result["threshold"]
    assert chosen["measured"][0]["passed_on"] == 10
    assert f"{result['threshold']:.6g}" in (folder / "curve.md").read_text()
    before, after = (load_weights(path)[0].state_dict() for path in (shipped_weights("bb72"), weights))
    assert all((before[name] == after[name]).all() for name in before)

    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.008)
    events = sample(experiment.circuit, shots=200, seed=1).detection_events
    decoded = make_pair("serial-deep", experiment, weights=weights).decode_soft(events, bit_packed_shots=True)
    assert decoded.opinions.sum() == 10


def test_without_store_the_weights_stay(succeed, weights):
    before = weights.read_bytes()
    assert "not stored" in succeed(f"{COMMAND} --second bposd-osd0 --share 0.05 --weights {weights}")
    assert weights.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--second oracle", "unknown decoder 'oracle'"),
        ("--share 0.1 --failure-rate 0.1", "give one of them"),
        ("--share 2", "share=2.0"),
        ("--failure-rate -1", "failure_rate=-1.0"),
        ("--shots 0", "shots=0 must be at least 1"),
        ("--most 0", "above 0 and at most 1"),
        ("--processes 0", "processes=0"),
        ("--weights absent.safetensors", "absent.safetensors"),
        ("--second relay-deep", "'relay-deep' is gone: 'serial-deep' has taken its place"),
        ("--basis Y", "--basis takes"),
    ],
)
def test_bad_options_are_one_line(refuse, options, message):
    assert message in refuse(f"{COMMAND} {options}")


def test_a_pair_without_a_threshold_says_how_to_tune_one(weights):
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.008)
    with pytest.raises(ValueError, match=r"tandem tune --code bb72 --second bposd"):
        make_pair("bposd", experiment, weights=weights)


def test_files_are_decoded_by_the_pair(succeed, weights, folder):
    store_threshold(Path(weights), "serial-deep", {"threshold": 0.9})
    succeed("sample bb72 --rounds 2 --p 0.008 --basis Z --shots 50 --seed 1 --out shots.b8 --obs-out flips.b8")
    decode = "decode --code bb72 --rounds 2 --p 0.008 --basis Z --in shots.b8 --obs-in flips.b8"
    result = json.loads(succeed(f"{decode} --decoder tandem --weights {weights} --out pair.b8 --json"))
    assert result["threshold"] == 0.9
    assert 0 < result["second_opinions"] < 50
    assert result["second_opinions_failed"] == 0
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.008)
    pair = make_pair("serial-deep", experiment, weights=weights)
    events = sample(experiment.circuit, shots=50, seed=1).detection_events
    predictions = pair.decode_batch(events, bit_packed_shots=True, bit_packed_predictions=True)
    assert (folder / "pair.b8").read_bytes() == predictions.tobytes()
