"""`tandem sample` and `tandem decode`, against stim and each other."""

import json

import numpy as np
import pytest
import stim

from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample

EXPERIMENT = "--rounds 2 --basis Z --p 0.001"


@pytest.mark.parametrize("format", ["b8", "01", "dets"])
def test_sampled_shots_are_those_of_the_library(format, succeed):
    line = f"sample bb72 {EXPERIMENT} --shots 70 --seed 5 --out s --obs-out o --format {format} --json"
    summary = json.loads(succeed(line))
    assert (summary["seed"], summary["shots"], summary["format"]) == (5, 70, format)
    circuit = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.001).circuit
    samples = sample(circuit, shots=70, seed=5)
    events = stim.read_shot_data_file(path="s", format=format, num_detectors=circuit.num_detectors)
    flips = stim.read_shot_data_file(path="o", format=format, num_observables=12)
    np.testing.assert_array_equal(events, samples.unpacked_detection_events())
    np.testing.assert_array_equal(flips, samples.unpacked_observable_flips())


def test_a_fresh_seed_is_shown_and_repeats_the_shots(folder, succeed):
    seed = json.loads(succeed(f"sample bb72 {EXPERIMENT} --shots 50 --out a --json"))["seed"]
    succeed(f"sample bb72 {EXPERIMENT} --shots 50 --out b --seed {seed}")
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


@pytest.mark.parametrize("format", ["b8", "01", "dets"])
def test_shots_that_were_sampled_are_decoded_to_what_flipped(format, succeed):
    """BP-OSD fails on fewer than 1 in 1,000 of these shots, of which more than half flip some observable."""
    files = f"--format {format} --json"
    succeed(f"sample bb72 --rounds 6 --basis Z --p 0.001 --shots 200 --seed 5 --out s --obs-out o {files}")
    summary = json.loads(
        succeed(
            "decode --decoder bposd --code bb72 --rounds 6 --basis Z --p 0.001 "
            f"--in s --out predictions --obs-in o {files}"
        )
    )
    predictions = stim.read_shot_data_file(path="predictions", format=format, num_observables=12)
    truth = stim.read_shot_data_file(path="o", format=format, num_observables=12)
    assert truth.any(axis=1).sum() > 100
    failures = (predictions != truth).any(axis=1).sum()
    assert failures <= 2
    assert summary["failures"] == failures
    assert summary["shots"] == 200
    assert summary["ler_low"] <= summary["ler"] == failures / 200 <= summary["ler_high"]


def test_decode_counts_failures_only_with_the_truth_at_hand(succeed):
    succeed(f"sample bb72 {EXPERIMENT} --shots 20 --seed 5 --out s")
    summary = json.loads(
        succeed(f"decode --decoder bposd-osd0 --code bb72 {EXPERIMENT} --in s --out predictions --json")
    )
    assert "failures" not in summary
    assert "bposd-osd0" in succeed(
        f"decode --decoder bposd-osd0 --code bb72 {EXPERIMENT} --in s --out predictions --force"
    )


@pytest.mark.parametrize("format", ["b8", "01", "dets"])
def test_the_errors_found_are_written_in_the_order_of_the_model(format, folder, succeed):
    line = "decode --decoder bposd --dem my.dem --in s --out predictions --errors-out errors"
    (folder / "my.dem").write_text("error(0.1) D1\nerror(0.1) D0 D1 L0\nerror(0.2) D1\n")
    succeed(f"sample --dem my.dem --shots 50 --seed 5 --out s --format {format}")
    assert json.loads(succeed(f"{line} --format {format} --json"))["converged"] == 50
    errors = stim.read_shot_data_file(path="errors", format=format, num_measurements=3)
    shots = stim.read_shot_data_file(path="s", format=format, num_detectors=2)
    np.testing.assert_array_equal(errors, np.column_stack([0 * shots[:, 0], shots[:, 0], shots[:, 0] ^ shots[:, 1]]))


def test_errors_of_a_decoder_that_tells_none(refuse, succeed):
    succeed(f"sample bb72 {EXPERIMENT} --shots 2 --seed 5 --out s")
    message = refuse(f"decode --code bb72 {EXPERIMENT} --in s --out predictions --errors-out errors")
    assert "neural tells no errors" in message


def test_a_long_circuit_is_decoded_in_windows(folder, refuse, succeed):
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_x", distance=3, rounds=400, after_clifford_depolarization=0.0005
    )
    (folder / "long.stim").write_text(str(circuit))
    succeed("sample --circuit long.stim --shots 20 --seed 5 --out s --obs-out o")
    line = "decode --circuit long.stim --in s --obs-in o --out predictions --decoder"
    summary = json.loads(succeed(f"{line} bposd --window 8 --json"))
    assert (summary["decoder"], summary["failures"]) == ("bposd-window-8-4", 0)
    summary = json.loads(succeed(f"{line} bposd --window 8 --commit 5 --json --force"))
    assert (summary["decoder"], summary["failures"]) == ("bposd-window-8-5", 0)
    assert "add --window" in refuse(f"{line} bposd --commit 3 --force")
    assert "'neural' tells no errors" in refuse(f"{line} neural --window 6 --force")
