"""`tandem export`."""

import json
import sys

import numpy as np
import pytest

from decoder.neural import onnx_export
from decoder.neural.config import ModelConfig
from tests.decoder.neural.networks import random_weights

EXPORT = "export --format onnx --code bb72 --out there --check-shots 300"


def test_export_writes_what_onnx_runtime_computes_as_torch_does(folder, succeed, refuse, monkeypatch):
    weights = random_weights(folder / "judge.safetensors", ModelConfig(width=16))
    export = f"{EXPORT} --weights {weights}"
    summary = json.loads(succeed(f"{export} --json"))
    assert 5 < summary["shots"] < 150  # those that are judged
    assert summary["differing_predictions"] == 0
    assert 0 < summary["largest_difference"] < 1e-3 < summary["largest_log_odds"]
    assert sorted(path.name for path in (folder / "there").iterdir()) == ["network.json", "readout.onnx", "step.onnx"]

    described = json.loads((folder / "there" / "network.json").read_text())
    import onnxruntime

    for part, shots in (("step", 1), ("step", 5), ("readout", 3)):
        runtime = onnxruntime.InferenceSession(str(folder / "there" / described[part]["file"]))
        inputs = described[part]["inputs"]
        assert {given.name for given in runtime.get_inputs()} == set(inputs)
        sizes = {name: [shots if n == "shots" else n for n in one["shape"]] for name, one in inputs.items()}
        zeros = {name: np.zeros(size, inputs[name]["dtype"]) for name, size in sizes.items()}
        (output,) = described[part]["outputs"].values()
        (found,) = runtime.run(None, zeros)
        assert list(found.shape) == [shots if n == "shots" else n for n in output["shape"]]
        assert found.dtype == output["dtype"]
    assert described["code"] == "bb72"
    assert described["temperature"] > 0

    assert "there/step.onnx exists; give --force" in refuse(export)
    # Files of another network are found out.
    monkeypatch.setattr(onnx_export, "export", lambda *_, **__: None)
    right, other = (
        folder / "there" / "readout.onnx",
        random_weights(folder / "other.safetensors", ModelConfig(width=16), seed=2),
    )
    message = refuse(f"{EXPORT} --force --weights {other}")
    assert "log-odds of there differ from torch's by up to" in message
    assert right.exists()


def test_export_names_the_extra_that_is_missing(refuse, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    message = refuse(EXPORT)
    assert "needs the package onnxruntime" in message
    assert "tandem-decoder[onnx]" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [("--code bb91", "unknown code 'bb91'"), ("--weights no", "there is no weights file no")],
)
def test_export_refuses_what_it_cannot_export(refuse, change, words):
    assert words in refuse(f"export --format onnx --code bb72 --out there {change}")
