import json
import struct
import tracemalloc
from pathlib import Path

import pytest

from decoder.neural.calibration import Calibration
from decoder.neural.config import ModelConfig
from decoder.neural.model import RecurrentTransformer
from decoder.neural.weights import load_weights, save_weights, shipped_weights
from tests.decoder.neural.networks import JUDGE, random_weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    model = RecurrentTransformer(ModelConfig(width=8, heads=2, judges=False))
    save_weights(path, model, bases="ZX", rounds=(2,), calibration=Calibration(1.5, 0.5), provenance={"shots": 1})
    return path


def test_what_is_saved_is_loaded(weights: Path) -> None:
    model, info = load_weights(weights)
    assert (info.bases, info.rounds, info.calibration, dict(info.provenance)) == (
        "ZX",
        (2,),
        Calibration(1.5, 0.5),
        {"shots": 1},
    )
    assert model.config == info.config == ModelConfig(width=8, heads=2, judges=False)
    assert len(info.sha256) == 64


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no weights file"):
        load_weights(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 100, -10])
def test_truncated(weights: Path, keep: int) -> None:
    data = weights.read_bytes()
    weights.write_bytes(data[:keep])
    with pytest.raises(ValueError, match="truncated or corrupted"):
        load_weights(weights)


def test_not_finite(weights: Path) -> None:
    change_header(weights, tensors_sha256=None)
    data = bytearray(weights.read_bytes())
    data[-4:] = struct.pack("<f", float("nan"))
    weights.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="not finite"):
        load_weights(weights)


def test_tensors_that_are_not_those_that_were_written(weights: Path) -> None:
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="not those that were written"):
        load_weights(weights)


def test_files_of_earlier_versions_have_no_checksum(weights: Path) -> None:
    change_header(weights, tensors_sha256=None)
    assert load_weights(weights)[1].rounds == (2,)


def test_a_header_that_asks_for_a_large_network_has_none_made(weights: Path) -> None:
    """Within the bounds of each field there are networks of gigabytes; the file has to hold what it asks for."""
    change_header(weights, config={"width": 1024, "readout_blocks": 64, "mlp_ratio": 64.0, "bp_iterations": 0})
    tracemalloc.start()
    with pytest.raises(ValueError, match="do not fit"):
        load_weights(weights)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**28


def change_header(path: Path, **changes: object) -> None:
    """Edits our JSON inside the safetensors header."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tandem = json.loads(header["__metadata__"]["tandem"]) | changes
    header["__metadata__"]["tandem"] = json.dumps({k: v for k, v in tandem.items() if v is not None})
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"width": 16}}, "do not fit"),
        ({"config": {"depth": 3}}, "unknown model settings"),
        ({"config": {"code": "bb73"}}, "unknown code"),
        ({"config": None}, "lacks"),
        ({"config": {"round_blocks": 10**6}}, "at most 64"),
        ({"config": {"readout_blocks": 10**6}}, "at most 64"),
        ({"config": {"bp_iterations": 400}}, r"no longer there \(bp_iterations=400\).*leave the weights out"),
        ({"config": {"candidates": 10**8}}, "at most 64"),
        ({"config": {"judges": "yes"}}, "true or false"),
        ({"codes": 5}, "lacks or garbles"),
        ({"config": {"width": 10**9}}, "at most 1024"),
        ({"config": {"heads": 10**9}}, "at most 64"),
        ({"config": {"width": "64"}}, "whole number"),
        ({"config": {"width": 64.0}}, "whole number"),
        ({"config": {"round_blocks": True}}, "whole number"),
        ({"config": {"mlp_ratio": "1"}}, "must be a number"),
        ({"config": {"mlp_ratio": float("nan")}}, "mlp_ratio"),
        ({"config": {"code": 72}}, "code"),
        ({"config": {"code": "999,999,x+1+y,x+1+xy^2"}}, "cells"),
        ({"config": [1]}, "lacks or garbles|unknown model settings"),
        ({"rounds": [10**9]}, "numbers of rounds"),
        ({"rounds": list(range(1, 2000))}, "numbers of rounds"),
        ({"rounds": [float("inf")]}, "none"),
        ({"format": "other"}, "format"),
        ({"operators": [[1]]}, "other logical operators"),
        ({"rounds": 5}, "lacks or garbles"),
        ({"temperature": "hot"}, "number"),
        ({"power": 0}, "power"),
    ],
)
def test_headers_that_do_not_fit(weights: Path, changes: dict[str, object], message: str) -> None:
    change_header(weights, **changes)
    with pytest.raises(ValueError, match=message):
        load_weights(weights)


def test_networks_without_belief_propagation_of_earlier_versions_are_read(weights: Path) -> None:
    change_header(weights, config={"width": 8, "heads": 2, "bp_iterations": 0, "bp_solutions": 5}, codes=None)
    _, info = load_weights(weights)
    assert (info.config, info.codes) == (ModelConfig(width=8, heads=2, judges=False), ("bb72",))


def test_weights_of_a_judge_are_for_every_code(tmp_path: Path) -> None:
    path = random_weights(tmp_path / "judge.safetensors", JUDGE)
    for code in ("bb72", "bb90", "6,6,x^3+y+y^2,y^3+x^2+x"):
        model, info = load_weights(path, code=code)
        assert str(model.geometry.code) == info.config.code == code
        assert info.codes == ("bb72",)


def test_weights_of_a_network_that_decodes_alone_are_for_one_code(weights: Path) -> None:
    with pytest.raises(ValueError, match="was trained for bb72, not for bb144"):
        load_weights(weights, code="bb144")


def test_the_shipped_weights_are_for_all_codes_without_weights_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert shipped_weights("bb756").name == "bb.safetensors"
    monkeypatch.setattr("decoder.neural.weights.SHIPPED", tmp_path)
    (tmp_path / "bb72.safetensors").touch()
    assert shipped_weights("bb72").name == "bb72.safetensors"
