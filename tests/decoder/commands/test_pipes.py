"""Standard input and output, pipes and devices in place of files, as in Unix."""

from __future__ import annotations

import subprocess
import sys

import pytest
import stim

from simulation import MemoryExperiment, sample

EXPERIMENT = "--rounds 2 --basis Z --p 0.001"
CIRCUIT = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.001).circuit


def tandem(line: str, *, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "decoder.cli", *line.split()]
    return subprocess.run(command, input=stdin, capture_output=True, check=True)


@pytest.mark.parametrize("out", ["-", "/dev/stdout"])
def test_a_circuit_on_standard_output_and_nothing_else(out):
    done = tandem(f"circuit bb72 {EXPERIMENT} -o {out} --json")
    assert stim.Circuit(done.stdout.decode()) == CIRCUIT
    assert b'"num_detectors": 144' in done.stderr


def test_shots_through_pipes_are_decoded():
    shots = sample(CIRCUIT, shots=20, seed=5)
    line = f"decode --decoder bposd-osd0 --code bb72 {EXPERIMENT} --in - --out - --format b8"
    done = tandem(line, stdin=shots.detection_events.tobytes())
    assert done.stdout == shots.observable_flips.tobytes()  # no failure among so few
    assert b"bposd-osd0" in done.stderr


def test_the_circuit_may_come_from_a_pipe_and_the_shots_go_to_a_device(folder):
    (folder / "mine.stim").write_text(str(CIRCUIT))
    script = 'cat mine.stim | "$0" -m decoder.cli sample --circuit - --shots 5 --seed 1 --out /dev/null --obs-out flips'
    subprocess.run(["bash", "-c", script, sys.executable], check=True, capture_output=True, cwd=folder)
    assert (folder / "flips").read_bytes() == sample(CIRCUIT, shots=5, seed=1).observable_flips.tobytes()


def test_a_full_device_is_one_line(refuse):
    message = refuse(f"sample bb72 {EXPERIMENT} --shots 5 --seed 1 --out /dev/full")
    assert message == "tandem: No space left on device"
