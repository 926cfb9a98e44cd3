"""`tandem inspect`: what a file is."""

import json

import stim

from decoder.catalog import DECODERS
from simulation.circuits import MemoryExperiment
from tests.simulation.renaming import renamed

NOISE = {"after_clifford_depolarization": 0.005, "before_measure_flip_probability": 0.01}


def test_our_own_circuit(folder, succeed):
    MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.002).circuit.to_file(folder / "ours.stim")
    found = json.loads(succeed("inspect ours.stim --json"))
    assert (found["code"], found["n"], found["k"], found["basis"], found["rounds"]) == ("bb72", 72, 12, "Z", 2)
    assert found["noise"] == {name: [0.002] for name in ("DEPOLARIZE1", "DEPOLARIZE2", "M", "MX", "X_ERROR", "Z_ERROR")}
    assert found["check_types"] == "two check types, by the circuit's detecting regions"
    assert (found["detectors"], found["detectors_by_type"]) == (144, [108, 36])
    assert (found["observables"], found["observables_by_type"]) == (12, [12, 0])
    by_name = {one["decoder"]: one for one in found["decoders"]}
    assert list(by_name) == list(DECODERS)
    assert all(one["applies"] for one in by_name.values())
    assert by_name["neural"]["why"] == "the network for bb72"
    assert by_name["bposd"]["why"] == "the 108 detectors of one type, which are enough"
    assert by_name["serial"]["why"] == "both check types"
    text = succeed("inspect ours.stim")
    assert "the network for bb72" in text
    assert "DEPOLARIZE2: 0.002" in text


def test_circuits_and_models_of_others(folder, succeed):
    circuit = stim.Circuit.generated("surface_code:rotated_memory_z", distance=3, rounds=3, **NOISE)
    circuit.to_file(folder / "surface.stim")
    circuit.detector_error_model().to_file(folder / "surface.dem")
    found = json.loads(succeed("inspect surface.stim --json"))
    assert (found["code"], found["n"], found["k"], found["check_weights"]) == (None, 9, 1, {"2": 4, "4": 4})
    network = found["decoders"][0]
    assert not network["applies"]
    assert "the network does not apply to surface: the errors that flip two detectors do not join" in network["why"]
    found = json.loads(succeed("inspect surface.dem --json"))
    assert found["kind"] == "dem"
    assert found["code"] is found["rounds"] is found["detectors_by_type"] is None
    assert found["check_types"].startswith("all detectors as one type (by coordinates: no fourth coordinate")


def test_our_experiment_under_other_names_as_a_model_alone(folder, succeed):
    circuit = MemoryExperiment.create(code="bb72", basis="X", rounds=3, p=0.002).circuit
    renamed(circuit, seed=1).circuit.detector_error_model().to_file(folder / "other.dem")
    found = json.loads(succeed("inspect other.dem --json"))
    assert (found["code"], found["n"], found["k"], found["basis"], found["rounds"]) == ("bb72", 72, 12, "X", 3)
    assert found["memory"] is None
    assert found["decoders"][0] == {"decoder": "neural", "applies": True, "why": "the network for bb72"}


def test_a_model_with_certain_and_likely_errors(folder, succeed):
    (folder / "likely.dem").write_text("error(1) D0 L0\nerror(0.75) D1\nerror(0.1) D2\n")
    assert json.loads(succeed("inspect likely.dem --json"))["likelier_than_not"] == 2


def test_bad_files(folder, refuse):
    (folder / "text.stim").write_text("hello\n")
    assert "text.stim is not a stim circuit: Gate not found: 'hello'" in refuse("inspect text.stim")
    assert "there is no file absent.stim" in refuse("inspect absent.stim")
    assert ". is a directory; give a file" in refuse("inspect .")
    with (folder / "long.stim").open("wb") as file:
        file.truncate(200 * 2**20)
    assert "long.stim is longer than 64 MiB" in refuse("inspect long.stim")
