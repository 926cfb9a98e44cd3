from __future__ import annotations

import json

import pytest

from decoder.catalog import decoder_spec
from decoder.tandem.pairs import THRESHOLD, make_pair
from simulation.bits import pack_bits
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample

COMMAND = "tune --code bb72 --rounds 2 --basis Z --p 0.008 --shots 200 --seed 1 --processes 1"


def test_a_share_is_chosen(succeed, folder):
    result = json.loads(succeed(f"{COMMAND} --second bposd-osd0 --most 0.05 --out curve.md --json"))
    assert (result["second"], result["shots"]) == ("bposd-osd0", 200)
    points = {point["share"]: point for point in result["points"]}
    assert (points[0.0]["passed_on"], points[0.05]["passed_on"]) == (0, 10)
    fewest = min(point["failures"] for point in points.values())
    assert points[result["share"]]["failures"] == fewest
    assert f"second opinions on {100 * result['share']:g} % of the shots" in (folder / "curve.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--second oracle", "unknown decoder 'oracle'"),
        ("--failure-rate -1", "failure_rate=-1.0"),
        ("--shots 0", "shots=0 must be at least 1"),
        ("--most 0", "above 0 and at most 1"),
        ("--processes 0", "processes=0"),
        ("--weights absent.safetensors", "absent.safetensors"),
        ("--second relay-deep", "'relay-deep' is gone: 'serial-deep' has taken its place"),
        ("--basis Y", "--basis takes"),
        ("--out absent/curve.md", "absent"),
    ],
)
def test_bad_options_are_one_line_before_anything_is_measured(refuse, options, message, monkeypatch):
    monkeypatch.setattr("decoder.tandem.tuning.sample", None)
    assert message in refuse(f"{COMMAND} {options}")


def test_files_are_decoded_by_the_pair(succeed, folder):
    succeed("sample bb72 --rounds 2 --p 0.008 --basis Z --shots 50 --seed 1 --out shots.b8 --obs-out flips.b8")
    decode = "decode --code bb72 --rounds 2 --p 0.008 --basis Z --in shots.b8 --obs-in flips.b8"
    result = json.loads(succeed(f"{decode} --decoder tandem --out pair.b8 --json"))
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.008)
    pair = make_pair(decoder_spec("tandem").second, experiment)
    assert result["threshold"] == pair.threshold == THRESHOLD
    events = sample(experiment.circuit, shots=50, seed=1).detection_events
    decoded = pair.decode_soft(events, bit_packed_shots=True)
    assert result["second_opinions"] == (decoded.confidence < THRESHOLD).sum() > 0
    assert result["second_opinions_failed"] == 0
    assert (folder / "pair.b8").read_bytes() == pack_bits(decoded.predictions).tobytes()
