"""Everything that decides a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from decoder.limits import check_fields
from decoder.neural.config import ModelConfig

Optimizer = Literal["muon", "adamw"]

RECIPES: Mapping[str, Path] = {path.stem: path for path in sorted((Path(__file__).parent / "recipes").glob("*.toml"))}
"""Files of settings by the id of the code whose shipped weights they train."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of `tandem train`; a TOML file may set any of them by name.

    The defaults train the network that ships, on a code without a recipe.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    """the network, and the code that it decodes"""
    init_from: str = ""
    """weights to start from: a file, or the id of a code for those shipped; empty for none"""
    rounds: tuple[int, ...] = (6,)
    """numbers of rounds to mix; each step has one of them, and p falls as its square root"""
    bases: str = "ZX"
    """memory bases to train on: Z, X or ZX"""
    minutes: float | None = None
    """end after so many minutes of training, all resumed runs together"""
    steps: int | None = None
    """end after so many optimizer steps"""
    seed: int = 0
    """seed of the initial weights and of all shots"""

    p_min: float = 0.001
    """lowest physical error rate"""
    p_max: float = 0.006
    """highest physical error rate"""
    p_points: int = 16
    """error rates between them, evenly spaced in the logarithm"""
    curriculum_shots: int = 200_000
    """shots over which p widens from about one fault a shot to the full range"""
    micro_batch: int = 256
    """shots of one basis and p"""
    micro_batches: int = 2
    """micro-batches in an optimizer step; they alternate between the bases"""

    coset_weight: float = 0.0
    """weight of the coset's cross-entropy beside that of the outputs"""
    hard_share: float = 1.0
    """share of each micro-batch that is trained on: the shots that the network is least sure of"""

    optimizer: Optimizer = "muon"
    """muon (AdamW for what is no matrix), or adamw for all"""
    muon_lr: float = 0.01
    """learning rate of the matrices (Muon)"""
    adam_lr: float = 0.002
    """learning rate of all else (AdamW)"""
    warmup_steps: int = 100
    """steps over which the learning rate rises"""
    decay_fraction: float = 0.5
    """last part of the run, in which the learning rate falls linearly"""
    final_lr: float = 0.02
    """learning rate at the end, as a share of the peak"""
    clip: float = 1.0
    """largest norm of the gradient"""
    ema_decay: float = 0.999
    """decay of the moving average of the weights, which is what is kept"""

    device: str = "auto"
    """cpu, cuda, or auto"""
    autocast: bool = False
    """compute in bfloat16 (use on GPUs)"""
    compile: bool = False
    """torch.compile the blocks: slow to start, faster after"""
    threads: int | None = None
    """CPU threads; default: torch's choice"""

    checkpoint_seconds: float = 60.0
    """seconds between checkpoints"""
    log_every: int = 50
    """steps between rows of the log"""
    validate_every: int = 2000
    """steps between validations; 0 for only one at the end"""
    validation_shots: int = 4000
    """held-out shots for each basis and error rate"""
    validation_p: tuple[float, ...] = (0.002, 0.003)
    """error rates of the validation"""

    def __post_init__(self) -> None:
        check_fields(self, p_points=1, micro_batch=1, micro_batches=1, log_every=1, validation_shots=1, steps=1)
        blue = self.model.architecture == "blue"
        conditions = {
            "rounds": (len(self.rounds) > 0 and min(self.rounds) >= 1, "numbers of at least 1"),
            "bases": (self.bases in ("Z", "X", "ZX"), "Z, X or ZX"),
            "p_min": (self.p_min > 0, "above 0"),
            "p_max": (self.p_min <= self.p_max < 0.5, f"at least p_min={self.p_min} and below 0.5"),
            "validation_p": (all(0 < p < 0.5 for p in self.validation_p), "between 0 and 0.5"),
            "minutes": (self.minutes is None or self.minutes > 0, "above 0"),
            "ema_decay": (0 <= self.ema_decay < 1, "in [0, 1)"),
            "decay_fraction": (0 <= self.decay_fraction <= 1, "in [0, 1]"),
            "hard_share": (0 < self.hard_share <= 1, "above 0 and at most 1"),
            "coset_weight": (
                self.coset_weight == 0 if blue else self.coset_weight >= 0,
                "0 for blue, whose loss is that of the coset already" if blue else "at least 0",
            ),
        }
        for name, (holds, what) in conditions.items():
            if not holds:
                raise ValueError(f"{name}={getattr(self, name)!r} must be {what}")

    @property
    def step_shots(self) -> int:
        """Shots in one optimizer step, over all processes."""
        return self.micro_batch * self.micro_batches


def dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under one name each, such as `p_min` and `model.width`.

    The network's settings may lie in a mapping `model`, as in a TOML table, or stand alone, as in `--set width=96`
    and in checkpoints made before the network had settings of its own.
    """
    of_model = {f.name for f in fields(ModelConfig)}
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if name == "model" and isinstance(value, Mapping):
            found |= {f"model.{key}": inner for key, inner in value.items()}
        else:
            found[f"model.{name}" if name in of_model else name] = value
    return found
