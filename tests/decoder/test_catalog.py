import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decoder.benchmark.reporting.styles import COLORS
from decoder.catalog import DECODERS, decoder_spec, detectors_used
from decoder.classical.bp import BRAVYI, LSD, OSD0, PLAIN_BP
from decoder.classical.mle import EXACT
from decoder.classical.relay_bp import RELAY_1, RELAY_5
from decoder.classical.syndrome import SyndromeDecoder
from decoder.classical.tesseract import LONG_BEAM, LONG_BEAM_SPARSIFIED, SHORT_BEAM, SHORT_BEAM_SPARSIFIED
from decoder.making import make_decoder
from simulation.circuits import MemoryExperiment


@pytest.fixture(scope="module")
def experiment() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="X", rounds=2, p=0.002)


@pytest.mark.parametrize(
    ("name", "settings", "used"),
    [
        ("bposd", BRAVYI, "XZ"),
        ("bposd-xyz", BRAVYI, "XYZ"),
        ("bposd-osd0", OSD0, "XZ"),
        ("bp", PLAIN_BP, "XZ"),
        ("bplsd", LSD, "XZ"),
        ("relay-1", RELAY_1, "XZ"),
        ("relay-5", RELAY_5, "XZ"),
        ("relay-1-xyz", RELAY_1, "XYZ"),
        ("relay-5-xyz", RELAY_5, "XYZ"),
        ("tesseract-short", SHORT_BEAM, "XYZ"),
        ("tesseract-long", LONG_BEAM, "XYZ"),
        ("tesseract-short-sparsify", SHORT_BEAM_SPARSIFIED, "XYZ"),
        ("tesseract-long-sparsify", LONG_BEAM_SPARSIFIED, "XYZ"),
        ("mle", EXACT, "XYZ"),
    ],
)
def test_decoders_of_syndromes_by_name(experiment: MemoryExperiment, name: str, settings: object, used: str) -> None:
    decoder = make_decoder(name, experiment)
    assert isinstance(decoder, SyndromeDecoder)
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
    assert next(iter(DECODERS)) == "neural"
    assert all(spec.summary and spec.name == name for name, spec in DECODERS.items())
    assert detectors_used("neural") == "XYZ"


def test_every_decoder_has_a_colour_of_its_own_in_plots() -> None:
    assert list(COLORS) == [*DECODERS, "optimum"]
    assert len(set(COLORS.values())) == len(COLORS)


def test_the_network_is_not_made_from_a_fault_model_alone(experiment: MemoryExperiment) -> None:
    with pytest.raises(ValueError, match="'neural' is not classical; use make_decoder"):
        decoder_spec("neural").classical(experiment)


def test_unknown_decoders_are_refused(experiment: MemoryExperiment) -> None:
    message = f"unknown decoder 'mwpm': use one of {', '.join(DECODERS)}"
    with pytest.raises(ValueError, match=message):
        make_decoder("mwpm", experiment)
    with pytest.raises(ValueError, match=message):
        detectors_used("mwpm")


def test_weights_for_a_decoder_without_weights_are_refused(experiment: MemoryExperiment) -> None:
    with pytest.raises(ValueError, match="'bposd' has no weights"):
        make_decoder("bposd", experiment, weights=Path("any.safetensors"))


def test_bposd_does_without_torch_and_optional_packages() -> None:
    program = (
        "import sys; from decoder.making import make_decoder; import decoder.sinter;"
        "from simulation.circuits import MemoryExperiment;"
        "make_decoder('bposd', MemoryExperiment.create(code='bb72', basis='Z', rounds=1, p=0.001));"
        "sys.exit(any(name in sys.modules for name in ('torch', 'relay_bp', 'tesseract_decoder')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
