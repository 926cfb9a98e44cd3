import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sinter
import stim

import decoder
from decoder.sinter import bposd_decoders, decoders
from simulation.circuits import MemoryExperiment
from simulation.sampling import sample

ROOT = Path(decoder.__file__).parents[1]


def run(program: str, *arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a console script of this environment."""
    return subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(900)  # half a minute on a free core
def test_sinters_own_tests_pass(tmp_path: Path) -> None:
    # bposd-xyz does the same as bposd in models without both bases, as all of these are.
    done = run(
        "pytest",
        *("--pyargs", "sinter._decoding._decoding_test", "-q", "-p", "no:cacheprovider"),
        *("-k", "bposd and not xyz"),
        folder=tmp_path,
        SINTER_PYTEST_CUSTOM_DECODERS="decoder.sinter:bposd_decoders",
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "82 passed" in done.stdout


def test_sinter_collects_with_our_circuit(tmp_path: Path) -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.001)
    experiment.circuit.to_file(tmp_path / "code=bb72,r=2.stim")
    done = run(
        "sinter",
        *("collect", "--circuits", "code=bb72,r=2.stim", "--decoders", "bposd", "bposd-osd0"),
        *("--custom_decoders_module_function", "decoder.sinter:decoders"),
        *("--max_shots", "500", "--processes", "1", "--save_resume_filepath", "stats.csv"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    stats = sinter.stats_from_csv_files(tmp_path / "stats.csv")
    assert {s.decoder: s.shots for s in stats} == {"bposd": 500, "bposd-osd0": 500}
    assert all(s.errors <= 10 for s in stats)


def test_every_decoder_can_be_sent_to_another_process() -> None:
    assert list(decoders()) == ["neural", "bposd", "bposd-xyz", "bposd-osd0"]
    assert pickle.loads(pickle.dumps(decoders())) == decoders()


def test_xz_uses_the_memory_basis_where_the_model_has_both() -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="X", rounds=2, p=0.004)
    shots = sample(experiment.circuit, shots=60, seed=8).detection_events
    # Without their coordinates nothing tells the bases apart, and all detectors are used.
    bare = stim.DetectorErrorModel(
        "\n".join(line for line in str(experiment.dem.flattened()).splitlines() if line.startswith("error"))
    )
    assert bare.num_detectors == experiment.num_detectors

    def decode(name: str, dem: stim.DetectorErrorModel) -> np.ndarray:
        compiled = bposd_decoders()[name].compile_decoder_for_dem(dem=dem)
        return compiled.decode_shots_bit_packed(bit_packed_detection_event_data=shots)

    marked, unmarked = decode("bposd-osd0", experiment.dem), decode("bposd-osd0", bare)
    assert marked.shape == (60, 2)
    assert (marked != unmarked).any()

    other = np.setdiff1d(np.arange(experiment.num_detectors), experiment.grid.indices_of("X"))
    bits = np.unpackbits(shots, axis=1, bitorder="little", count=experiment.num_detectors)
    bits[:, other] ^= 1
    shots = np.packbits(bits, axis=1, bitorder="little")
    np.testing.assert_array_equal(decode("bposd-osd0", experiment.dem), marked)


def test_the_network_refuses_a_model_that_is_not_its_experiment() -> None:
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_x", distance=3, rounds=3, after_clifford_depolarization=0.001
    )
    with pytest.raises(ValueError, match=r"coordinates|experiment"):
        decoders()["neural"].compile_decoder_for_dem(dem=circuit.detector_error_model())


def test_the_network_decodes_its_experiment_for_sinter() -> None:
    """Through sinter's own workers; at p = 0.2 % the shipped weights fail in at most 0.5 % of the shots.

    Of 1,000 shots more than 20 fail with a probability below 1e-6 then; guessing would fail in 800.
    """
    circuit = MemoryExperiment.create(code="bb72", basis="X", rounds=6, p=0.002).circuit
    [stats] = sinter.collect(
        num_workers=1,
        tasks=[sinter.Task(circuit=circuit)],
        decoders=["neural"],
        custom_decoders=decoders(),
        max_shots=1000,
    )
    assert stats.shots == 1000
    assert stats.errors <= 20
