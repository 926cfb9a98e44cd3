"""Everything that decides a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from decoder.neural.config import Architecture, Mixing, ModelConfig, Outputs

Optimizer = Literal["muon", "adamw"]


def _help(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of `tandem train`; a TOML file may set any of them by name."""

    code: str = _help("bb72", "code id, or l,m,A,B")
    rounds: tuple[int, ...] = _help(
        (6,), "numbers of rounds to mix; each step has one of them, and p falls as its square root"
    )
    bases: str = _help("ZX", "memory bases to train on: Z, X or ZX")
    minutes: float | None = _help(None, "end after so many minutes of training, all resumed runs together")
    steps: int | None = _help(None, "end after so many optimizer steps")
    seed: int = _help(0, "seed of the initial weights and of all shots")

    architecture: Architecture = _help(
        ModelConfig.architecture, "tandem, or blue: the network of Blue et al. (arXiv 2504.13043)"
    )
    width: int = _help(ModelConfig.width, "channels of each cell's state")
    round_blocks: int = _help(ModelConfig.round_blocks, "blocks in each round")
    readout_blocks: int = _help(ModelConfig.readout_blocks, "blocks after the last round")
    mlp_ratio: float = _help(ModelConfig.mlp_ratio, "hidden units of the gated MLPs, over the width")
    qubit_ratio: float = _help(ModelConfig.qubit_ratio, "channels of a data qubit, over the width")
    attention_ratio: float = _help(ModelConfig.attention_ratio, "channels of an attention, over the width")
    round_mixing: Mixing = _help(ModelConfig.round_mixing, "conv, attention or both in the round step")
    readout_mixing: Mixing = _help(ModelConfig.readout_mixing, "conv, attention or both in the readout")
    heads: int = _help(ModelConfig.heads, "attention heads")
    bp_iterations: int = _help(
        ModelConfig.bp_iterations, "most iterations of belief propagation that the network reads; 0 for none"
    )
    bp_solutions: int = _help(
        ModelConfig.bp_solutions, "solutions that belief propagation looks for when the first is not found at once"
    )
    outputs: Outputs = _help(ModelConfig.outputs, "logical operators read: all translates, or a basis")

    p_min: float = _help(0.001, "lowest physical error rate")
    p_max: float = _help(0.006, "highest physical error rate")
    p_points: int = _help(16, "error rates between them, evenly spaced in the logarithm")
    curriculum_shots: int = _help(200_000, "shots over which p widens from about one fault a shot to the full range")
    micro_batch: int = _help(256, "shots of one basis and p")
    micro_batches: int = _help(2, "micro-batches in an optimizer step; they alternate between the bases")

    coset_weight: float = _help(0.0, "weight of the coset's cross-entropy beside that of the outputs")
    hard_share: float = _help(
        1.0, "share of each micro-batch that is trained on: the shots that the network is least sure of"
    )

    optimizer: Optimizer = _help("muon", "muon (AdamW for what is no matrix), or adamw for all")
    muon_lr: float = _help(0.01, "learning rate of the matrices (Muon)")
    adam_lr: float = _help(0.002, "learning rate of all else (AdamW)")
    warmup_steps: int = _help(100, "steps over which the learning rate rises")
    decay_fraction: float = _help(0.5, "last part of the run, in which the learning rate falls linearly")
    final_lr: float = _help(0.02, "learning rate at the end, as a share of the peak")
    clip: float = _help(1.0, "largest norm of the gradient")
    ema_decay: float = _help(0.999, "decay of the moving average of the weights, which is what is kept")

    device: str = _help("auto", "cpu, cuda, or auto")
    autocast: bool = _help(False, "compute in bfloat16 (use on GPUs)")
    compile: bool = _help(False, "torch.compile the blocks: slow to start, faster after")
    threads: int | None = _help(None, "CPU threads; default: torch's choice")

    checkpoint_seconds: float = _help(60.0, "seconds between checkpoints")
    log_every: int = _help(50, "steps between rows of the log")
    validate_every: int = _help(2000, "steps between validations; 0 for only one at the end")
    validation_shots: int = _help(4000, "held-out shots for each basis and error rate")
    validation_p: tuple[float, ...] = _help((0.002, 0.003), "error rates of the validation")

    def __post_init__(self) -> None:
        if not self.rounds or min(self.rounds) < 1:
            raise ValueError(f"rounds={self.rounds} must be numbers of at least 1")
        if self.bases not in ("Z", "X", "ZX"):
            raise ValueError(f"bases={self.bases!r} must be Z, X or ZX")
        if not 0 < self.p_min <= self.p_max < 0.5:
            raise ValueError(f"p_min={self.p_min} and p_max={self.p_max} must be 0 < p_min <= p_max < 0.5")
        if any(not 0 < p < 0.5 for p in self.validation_p):
            raise ValueError(f"validation_p={self.validation_p} must lie between 0 and 0.5")
        at_least_one = ("p_points", "micro_batch", "micro_batches", "log_every", "validation_shots")
        for name in at_least_one:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes={self.minutes} must be above 0")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1")
        if not 0 <= self.ema_decay < 1 or not 0 <= self.decay_fraction <= 1:
            raise ValueError("ema_decay must lie in [0, 1) and decay_fraction in [0, 1]")
        if self.coset_weight < 0 or not 0 < self.hard_share <= 1:
            raise ValueError("coset_weight must be at least 0, and hard_share above 0 and at most 1")
        if self.architecture == "blue" and self.coset_weight:
            raise ValueError(
                f"coset_weight={self.coset_weight}: the loss of blue is that of the coset already; set it to 0"
            )
        if self.optimizer not in get_args(Optimizer):
            raise ValueError(f"optimizer={self.optimizer!r} is none of {', '.join(get_args(Optimizer))}")
        self.model_config()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def model_config(self) -> ModelConfig:
        return ModelConfig(**{f.name: getattr(self, f.name) for f in fields(ModelConfig)})

    @property
    def step_shots(self) -> int:
        """Shots in one optimizer step, over all processes."""
        return self.micro_batch * self.micro_batches
