import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decoder.classical.bposd import BRAVYI, OSD0, BpOsdDecoder
from decoder.registry import DECODERS, detectors_used, make_decoder
from simulation.circuits import MemoryExperiment


@pytest.fixture(scope="module")
def experiment() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="X", rounds=2, p=0.002)


@pytest.mark.parametrize(
    ("name", "settings", "used"),
    [("bposd", BRAVYI, "XZ"), ("bposd-xyz", BRAVYI, "XYZ"), ("bposd-osd0", OSD0, "XZ")],
)
def test_bposd_by_name(experiment: MemoryExperiment, name: str, settings: object, used: str) -> None:
    decoder = make_decoder(name, experiment)
    assert isinstance(decoder, BpOsdDecoder)
    assert decoder.settings == settings
    assert decoder.num_detectors == experiment.num_detectors
    assert detectors_used(name) == used
    if used == "XZ":
        np.testing.assert_array_equal(decoder.detectors, experiment.grid.indices_of("X"))
    else:
        assert decoder.detectors is None


def test_xz_decoders_take_the_shots_of_an_xz_experiment(experiment: MemoryExperiment) -> None:
    narrow = replace(experiment, detectors="XZ")
    assert make_decoder("bposd", narrow).num_detectors == narrow.num_detectors == 36 * 3


def test_every_decoder_says_what_it_is() -> None:
    assert list(DECODERS) == ["neural", "bposd", "bposd-xyz", "bposd-osd0", "relay-split"]
    assert all(spec.summary for spec in DECODERS.values())
    assert detectors_used("neural") == "XYZ"


def test_unknown_decoders_are_refused(experiment: MemoryExperiment) -> None:
    message = "unknown decoder 'mwpm': use one of neural, bposd, bposd-xyz, bposd-osd0, relay-split"
    with pytest.raises(ValueError, match=message):
        make_decoder("mwpm", experiment)
    with pytest.raises(ValueError, match=message):
        detectors_used("mwpm")


def test_weights_for_a_decoder_without_weights_are_refused(experiment: MemoryExperiment) -> None:
    with pytest.raises(ValueError, match="'bposd' has no weights"):
        make_decoder("bposd", experiment, weights=Path("any.safetensors"))


def test_bposd_does_without_torch() -> None:
    program = (
        "import sys; from decoder.registry import make_decoder; import decoder.sinter;"
        "from simulation.circuits import MemoryExperiment;"
        "make_decoder('bposd', MemoryExperiment.create(code='bb72', basis='Z', rounds=1, p=0.001));"
        "sys.exit('torch' in sys.modules)"
    )
    folder = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=folder, check=False).returncode == 0
