"""Networks on the command line: the shipped one, and files that do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest

from decoder.neural.config import ModelConfig
from decoder.neural.weights import shipped_weights
from tests.decoder.neural.networks import random_weights

SHOTS = "sample bb72 --rounds 6 --basis Z --p 0.002 --shots 200 --seed 4 --out shots.b8 --obs-out flips.b8"
DECODE = "decode --decoder neural --code bb72 --rounds 6 --basis Z --p 0.002 --in shots.b8 --out predictions.b8"


def test_the_shipped_network_decodes(folder, succeed) -> None:
    succeed(SHOTS)
    succeed(DECODE)
    predictions, flips = (
        np.fromfile(folder / name, np.uint8).reshape(200, 2) for name in ("predictions.b8", "flips.b8")
    )
    # At most 0.5 % of shots fail; more than 11 of 200 do so with a probability below 1e-8.
    assert (predictions != flips).any(axis=1).sum() <= 11


def test_accuracy_of_both_decoders_on_the_same_shots(succeed) -> None:
    options = "--code bb72 --rounds 6 --basis X --p 0.002 --decoders neural,bposd --shots 200 --seed 2 --json"
    points = json.loads(succeed(f"benchmark accuracy {options}"))["points"]
    assert [(point["decoder"], point["detectors"], point["shots"]) for point in points] == [
        ("neural", "XYZ", 200),
        ("bposd", "XZ", 200),
    ]
    assert all(point["failures"] <= 11 for point in points)


@pytest.mark.parametrize("keep", [0, 1000, -1])
def test_truncated_weights(folder: Path, succeed, refuse, keep: int) -> None:
    succeed(SHOTS)
    (folder / "half.safetensors").write_bytes(shipped_weights("bb72").read_bytes()[:keep])
    assert "truncated or corrupted" in refuse(f"{DECODE} --weights half.safetensors")
    assert not (folder / "predictions.b8").exists()


def test_missing_weights(succeed, refuse) -> None:
    succeed(SHOTS)
    assert "no weights file" in refuse(f"{DECODE} --weights nothing.safetensors")


def test_the_shipped_weights_are_for_every_code_and_those_that_decode_alone_for_one(folder, succeed, refuse) -> None:
    alone = random_weights(folder / "bb72.safetensors", ModelConfig(width=8, heads=2, judges=False))
    succeed("sample bb90 --rounds 2 --basis Z --p 0.002 --shots 10 --seed 4 --out shots.b8")
    line = "decode --decoder neural --code bb90 --rounds 2 --basis Z --p 0.002 --in shots.b8 --out predictions.b8"
    succeed(line)
    assert "was trained for bb72, not for bb90" in refuse(f"{line} --force --weights {alone}")
