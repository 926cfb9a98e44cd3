from dataclasses import replace
from pathlib import Path

import pytest

from decoder.neural.config import ModelConfig
from decoder.training.config import TrainingConfig
from decoder.training.trainer import Trainer
from scripts.training_speed import flop_per_step, measure

TINY = TrainingConfig(
    model=ModelConfig(code="3,3,x+1+y,x+1+xy^2", width=8, heads=2, readout_blocks=1, judges=False),
    rounds=(2,),
    steps=1,
    micro_batch=8,
    p_min=0.01,
    p_max=0.01,
    p_points=1,
    curriculum_shots=0,
    validate_every=0,
    threads=1,
)


def trainer(out: Path, config: TrainingConfig) -> Trainer:
    return Trainer(config, out=out, force=True)


def test_every_round_costs_the_same(tmp_path: Path) -> None:
    two, three, five = (flop_per_step(trainer(tmp_path, replace(TINY, rounds=(r,)))) for r in (2, 3, 5))
    assert three - two == pytest.approx((five - three) / 2, rel=1e-12)
    assert flop_per_step(trainer(tmp_path, replace(TINY, rounds=(2, 3)))) == pytest.approx((two + three) / 2)


def test_a_round_costs_what_its_matrices_say(tmp_path: Path) -> None:
    two, three = (flop_per_step(trainer(tmp_path, replace(TINY, rounds=(r,)))) for r in (2, 3))
    cells, width, shots = 9, 8, 16
    fourier = 2 * cells * cells * width
    # One real frequency and four pairs: a matrix, and four products of cosines and sines a pair.
    spectral = (1 + 4 * 4) * width**2
    mlp = cells * 3 * width**2
    events = cells * 2 * 4 * width
    # Backward costs twice the forward pass, but once where only one factor has a gradient: Fourier matrix, events.
    expected = 2 * shots * (2 * fourier + 3 * (spectral + mlp) + 2 * events)
    assert three - two == pytest.approx(expected, rel=0.01)


def test_the_measurement_is_consistent(tmp_path: Path) -> None:
    config = trainer(tmp_path, TINY)
    flop = flop_per_step(config)
    speed = measure(config, flop=flop, seconds=0.3)
    assert speed.flop_per_shot == pytest.approx(flop / 16)
    assert min(speed.sampler_shots, speed.training_shots, speed.matmul_flops) > 0
    assert 0 < speed.share_of_matmul < 1
