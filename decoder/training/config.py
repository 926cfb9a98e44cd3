"""Everything that decides a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from decoder.limits import check_fields
from decoder.neural.config import ModelConfig
from simulation.bases import BASES, Basis

HELD_OUT_SEED = 0x7A2DE301
"""Of validation shots: far from any seed that a user is likely to give, so that none of them is trained on."""

Optimizer = Literal["muon", "adamw"]

RECIPES: Mapping[str, Path] = {path.stem: path for path in sorted((Path(__file__).parent / "recipes").glob("*.toml"))}
"""Files of settings by name: "bb72" trains the shipped judge, "bb72-alone" a network that decodes alone."""


@dataclass(frozen=True)
class Experiments:
    """Memory experiments that differ in basis and error rate alone."""

    code: str
    rounds: int
    p_min: float
    p_max: float

    @classmethod
    def of(cls, text: str) -> Experiments:
        """Reads 'CODE ROUNDS P_MIN P_MAX'.

        Raises:
            ValueError: it is something else.
        """
        try:
            code, rounds, p_min, p_max = text.split()
            found = cls(code, int(rounds), float(p_min), float(p_max))
            fits = found.rounds >= 1 and 0 < found.p_min <= found.p_max < 0.5
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"others={text!r} must be 'CODE ROUNDS P_MIN P_MAX', such as 'bb144 12 0.004 0.006'")
        return found


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

    others: tuple[str, ...] = ()
    """further codes whose shots a judge is trained on, each as 'CODE ROUNDS P_MIN P_MAX'"""
    store: str = ""
    """folder of the shots that a judge is trained on, which many runs may share; empty for one in the run's own"""
    stored_shots: int = 4000
    """shots whose solutions disagree that a judge is trained on, of each code and basis"""

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
    """CPU threads; default: as many as are fastest, which is tried at the start"""

    checkpoint_seconds: float = 60.0
    """seconds between checkpoints"""
    log_every: int = 50
    """steps between rows of the log"""
    validate_every: int = 2000
    """steps between validations; 0 for only one at the end"""
    validation_shots: int = 4000
    """held-out shots for each basis and error rate; of a judge, those whose solutions disagree"""
    validation_p: tuple[float, ...] = (0.002, 0.003)
    """error rates of the validation"""

    def __post_init__(self) -> None:
        check_fields(
            self, p_points=1, micro_batch=1, micro_batches=1, log_every=1, validation_shots=1, steps=1, stored_shots=1
        )
        model = self.model
        own_loss = "blue" if model.architecture == "blue" else "a judge" if model.judges else ""
        conditions = {
            "rounds": (len(self.rounds) > 0 and min(self.rounds) >= 1, "numbers of at least 1"),
            "bases": (self.bases in ("Z", "X", "ZX"), "Z, X or ZX"),
            "p_min": (self.p_min > 0, "above 0"),
            "p_max": (self.p_min <= self.p_max < 0.5, f"at least p_min={self.p_min} and below 0.5"),
            "validation_p": (all(0 < p < 0.5 for p in self.validation_p), "between 0 and 0.5"),
            "minutes": (self.minutes is None or self.minutes > 0, "above 0"),
            "ema_decay": (0 <= self.ema_decay < 1, "in [0, 1)"),
            "decay_fraction": (0 <= self.decay_fraction <= 1, "in [0, 1]"),
            "hard_share": (
                self.hard_share == 1 if model.judges else 0 < self.hard_share <= 1,
                "1 for a judge, whose shots are all hard ones" if model.judges else "above 0 and at most 1",
            ),
            "others": (model.judges or not self.others, "empty: judges alone have one set of weights for all codes"),
            "coset_weight": (
                self.coset_weight == 0 if own_loss else self.coset_weight >= 0,
                f"0 for {own_loss}, whose loss is that of the coset already" if own_loss else "at least 0",
            ),
        }
        for name, (holds, what) in conditions.items():
            if not holds:
                raise ValueError(f"{name}={getattr(self, name)!r} must be {what}")
        _ = self.experiments  # whether the others can be read

    @property
    def experiments(self) -> list[Experiments]:
        """What a judge is trained on."""
        own = [Experiments(self.model.code, rounds, self.p_min, self.p_max) for rounds in sorted(set(self.rounds))]
        return own + [Experiments.of(other) for other in self.others]

    @property
    def memory_bases(self) -> list[Basis]:
        """The memory bases to train on."""
        return [basis for basis in BASES if basis in self.bases]

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
