"""The size and shape of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from decoder.limits import check_fields

Architecture = Literal["tandem", "blue"]
Mixing = Literal["conv", "attention", "both"]
Outputs = Literal["translates", "basis"]


MOST = {
    "width": 1024,
    "round_blocks": 64,
    "readout_blocks": 64,
    "heads": 64,
    "candidates": 64,
}
"""What a network may have at most: many times what helps, and no more than a machine can hold."""


@dataclass(frozen=True)
class ModelConfig:
    """The size and shape of a network; the defaults are those of the weights that are shipped."""

    code: str = "bb72"
    """code id, or l,m,A,B"""
    architecture: Architecture = "tandem"
    """tandem, or blue: the network of Blue et al. (arXiv 2504.13043), which takes judges=false"""
    width: int = 64
    """channels of each cell's state"""
    round_blocks: int = 1
    """blocks in each round, with weights shared by rounds"""
    readout_blocks: int = 2
    """blocks after the last round"""
    mlp_ratio: float = 1.0
    """hidden units of the gated MLPs, over the width"""
    qubit_ratio: float = 0.5
    """channels of a data qubit, over the width"""
    attention_ratio: float = 0.5
    """channels of an attention, over the width"""
    round_mixing: Mixing = "conv"
    """conv, attention or both in the round step"""
    readout_mixing: Mixing = "conv"
    """conv, attention or both in the readout"""
    heads: int = 4
    """attention heads"""
    judges: bool = True
    """whether it judges the cosets that belief propagation finds, where they differ; if not, it decodes alone"""
    candidates: int = 8
    """most cosets of a shot that it judges"""
    outputs: Outputs = "translates"
    """logical operators read: all translates, or k that form a basis"""

    def __post_init__(self) -> None:
        if not isinstance(self.code, str):
            raise ValueError(f"code={self.code!r} must be a code id, or l,m,A,B")
        check_fields(self, MOST, width=1, readout_blocks=1, heads=1, candidates=2, round_blocks=0)
        if not isinstance(self.judges, bool):
            raise ValueError(f"judges={self.judges!r} must be true or false")
        if self.judges and (self.architecture, self.outputs) != ("tandem", "translates"):
            raise ValueError(
                "judges=true needs architecture=tandem and outputs=translates; set judges=false with others"
            )
        for name in ("mlp_ratio", "qubit_ratio", "attention_ratio"):
            if not 0 < getattr(self, name) <= 64 or self.channels(getattr(self, name)) < 1:
                raise ValueError(f"{name}={getattr(self, name)} leaves no channel of width={self.width}")
        if self.channels(self.attention_ratio) % self.heads:
            raise ValueError(f"attention_ratio * width must be a multiple of heads={self.heads}")

    def channels(self, ratio: float) -> int:
        return round(ratio * self.width)
