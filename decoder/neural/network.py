"""What every architecture is to training and decoding: scores of the cosets, and a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoder.neural.config import ModelConfig
from decoder.neural.geometry import TorusGeometry


class Network(nn.Module, ABC):
    """A network for one code.

    Events are float (T, 2, N, B), 0 or 1, in the memory frame: T = rounds + 1 layers, slot 0 the memory basis and 1
    the other, N cells, B shots; absent ones are 0. `basis` is 0 for Z memory and 1 for X memory. Coset j of the 2^k
    has observable i flipped if bit i of j is set.
    """

    cosets: Tensor

    def __init__(self, config: ModelConfig, geometry: TorusGeometry) -> None:
        super().__init__()
        self.config = config
        self.geometry = geometry
        k = geometry.code.k
        self.register_buffer("cosets", ((torch.arange(2**k)[:, None] >> torch.arange(k)) & 1).float(), persistent=False)

    @abstractmethod
    def scores(self, events: Tensor, *, basis: int) -> Tensor:
        """How likely each coset is (B, 2^k), up to a `Calibration`: the likelier, the higher."""

    @abstractmethod
    def loss(self, events: Tensor, flips: Tensor, *, basis: int, coset_weight: float = 0.0) -> Tensor:
        """What training minimises, the mean over shots; `flips` are the observables' (B, k).

        With a coset_weight, that share of the joint cross-entropy of the true coset is added.
        """

    def compiled_parts(self) -> list[nn.Module]:
        """The modules to compile one by one; many share their code."""
        return [self]

    def freeze(self) -> None:
        """Computes once what depends on the weights alone; for decoding, on the device where it will run."""

    def coset_of(self, flips: Tensor) -> Tensor:
        """The number (B,) of the coset with these observable flips (B, k)."""
        return (flips.long() << torch.arange(flips.shape[1], device=flips.device)).sum(1)

    def coset_loss(self, scores: Tensor, flips: Tensor) -> Tensor:
        """Cross-entropy of the true cosets."""
        return F.cross_entropy(scores, self.coset_of(flips))
