import sys

import pytest

from decoder.catalog import DECODERS
from decoder.classical.relay_bp import RELAY_5
from decoder.classical.syndrome import SyndromeDecoder
from decoder.making import make_decoder
from decoder.sinter import decoders
from simulation.circuits import MemoryExperiment

NAMES = {
    "relay": ("relay-bp", "relay_bp", ["relay-1", "relay-5", "relay-1-xyz", "relay-5-xyz"]),
    "tesseract": (
        "tesseract-decoder",
        "tesseract_decoder",
        [
            "tesseract-short",
            "tesseract-long",
            "tesseract-short-sparsify",
            "tesseract-long-sparsify",
            "tesseract-narrow-sparsify",
        ],
    ),
}


@pytest.mark.parametrize("extra", NAMES)
def test_a_decoder_whose_package_is_absent_says_how_to_install_it(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package, module, names = NAMES[extra]
    monkeypatch.setitem(sys.modules, module, None)
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.001)
    assert [name for name, spec in DECODERS.items() if spec.settings and spec.settings.extra] == [
        name for _, _, names in NAMES.values() for name in names
    ]
    for name in names:
        message = rf"the decoder '{name}' needs the package {package}: pip install 'tandem-decoder\[{extra}\]'"
        with pytest.raises(ValueError, match=message):
            make_decoder(name, experiment)
        with pytest.raises(ValueError, match=message):
            decoders()[name].compile_decoder_for_dem(dem=experiment.dem)


def test_settings_used_directly_say_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "relay_bp", None)
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.001)
    with pytest.raises(ValueError, match="RelayBpSettings needs the package relay-bp: pip install"):
        SyndromeDecoder(experiment.fault_model, RELAY_5)
