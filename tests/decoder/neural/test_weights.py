import json
import struct
from pathlib import Path

import pytest

from decoder.neural.calibration import Calibration
from decoder.neural.config import ModelConfig
from decoder.neural.model import RecurrentTransformer
from decoder.neural.weights import load_weights, save_weights, shipped_weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    model = RecurrentTransformer(ModelConfig(width=8, heads=2, bp_iterations=0))
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
    assert model.config == info.config == ModelConfig(width=8, heads=2, bp_iterations=0)
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
    data = bytearray(weights.read_bytes())
    data[-4:] = struct.pack("<f", float("nan"))
    weights.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="not finite"):
        load_weights(weights)


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


def test_codes_without_shipped_weights() -> None:
    with pytest.raises(ValueError, match="no weights are shipped for bb756"):
        shipped_weights("bb756")
