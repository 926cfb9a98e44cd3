"""`tandem circuit`."""

import json

import stim

from simulation.circuits import MemoryExperiment

EXPERIMENT = "--rounds 2 --basis Z --p 0.001"


def test_circuit_writes_what_stim_reads(succeed):
    summary = json.loads(succeed(f"circuit bb72 {EXPERIMENT} --noise si1000 -o c.stim --dem c.dem --json"))
    circuit = stim.Circuit.from_file("c.stim")
    expected = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.001, noise="si1000")
    assert circuit == expected.circuit
    assert stim.DetectorErrorModel.from_file("c.dem") == circuit.detector_error_model()
    assert summary["num_detectors"] == circuit.num_detectors
    assert summary["num_observables"] == 12
    assert (summary["noise"], summary["p"], summary["circuit"]) == ("si1000", 0.001, "c.stim")


def test_circuit_takes_free_rates_and_a_choice_of_detectors(succeed):
    succeed("circuit bb72 --rounds 2 --basis x --noise cnot=0.002,measurement=0.01 --detectors XZ -o c.stim")
    text = stim.Circuit.from_file("c.stim")
    assert text.num_detectors == 3 * 36
    assert "DEPOLARIZE2(0.002)" in str(text)
    assert "MX(0.01)" in str(text)
    assert "DEPOLARIZE1" not in str(text)


def test_circuit_leaves_nothing_where_one_of_two_files_cannot_be_written(folder, refuse):
    (folder / "c.dem").write_text("precious")
    refuse(f"circuit bb72 {EXPERIMENT} -o c.stim --dem c.dem")
    assert sorted(path.name for path in folder.iterdir()) == ["c.dem"]
