"""Networks with random weights, none of which are zero."""

from pathlib import Path

import torch

from decoder.neural.calibration import Calibration
from decoder.neural.config import ModelConfig
from decoder.neural.weights import build_network, save_weights

JUDGE = ModelConfig(width=8, heads=2)
"""A small network that judges candidates."""


def random_weights(path: Path, config: ModelConfig, *, seed: int = 1) -> Path:
    """A weights file; what is zero at first would hide what it is multiplied with."""
    torch.manual_seed(seed)
    model = build_network(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    calibration = Calibration() if config.judges else Calibration(2.0, 0.5)
    save_weights(path, model, bases="ZX", rounds=(2,), calibration=calibration, provenance={})
    return path
