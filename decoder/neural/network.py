"""What all architectures share: the phases of an experiment, the numbers of cosets, scores of them, and a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntEnum

import torch
from torch import Tensor, nn

from decoder.neural.config import ModelConfig
from decoder.neural.geometry import TorusGeometry


class Phase(IntEnum):
    """Which layer of its experiment a layer of detection events is; the networks' tables have a row for each."""

    FIRST = 0  # round 0, which has no detectors of the other basis
    MIDDLE = 1
    LAST = 2  # compares the data's readout with the last syndrome; again without the other basis

    @classmethod
    def of(cls, t: int, layers: int) -> Phase:
        """The phase of layer t of so many."""
        return cls.FIRST if t == 0 else cls.LAST if t == layers - 1 else cls.MIDDLE


def coset_bits(k: int) -> Tensor:
    """float (2^k, k): the flips of each coset. Coset j has observable i flipped if bit i of j is set, everywhere."""
    return ((torch.arange(2**k)[:, None] >> torch.arange(k)) & 1).float()


def coset_number(flips: Tensor) -> Tensor:
    """The numbers int64 (...,) of the cosets with these flips, 0 or 1 (..., k): the inverse of `coset_bits`."""
    return (flips.long() << torch.arange(flips.shape[-1], device=flips.device)).sum(-1)


class Network(nn.Module, ABC):
    """A network for one code.

    Events are float (T, 2, N, B), 0 or 1, in the memory frame: T = rounds + 1 layers, slot 0 the memory basis and 1
    the other, N cells, B shots; absent ones are 0. `basis` is an index into `decoder.neural.geometry.NETWORK_BASES`.
    Cosets are numbered as `coset_bits` says.
    """

    def __init__(self, config: ModelConfig, geometry: TorusGeometry) -> None:
        super().__init__()
        self.config = config
        self.geometry = geometry
        if not config.judges:
            self.cosets = nn.Buffer(coset_bits(geometry.code.k), persistent=False)  # (2^k, k)

    @property
    def folds_on_arrival(self) -> bool:
        """Whether layers of events can be folded into a state one by one, before the last one is known."""
        return False

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


class OutputParities(nn.Module):
    """Each output as what it is: a known sum of observables, and of checks whose values the detection events fix."""

    def __init__(self, geometry: TorusGeometry) -> None:
        super().__init__()
        observables = torch.from_numpy(geometry.output_observables).float()
        self.observables = nn.Buffer(observables, persistent=False)  # (O, k)
        self.checks = nn.Buffer(torch.from_numpy(geometry.output_checks).float(), persistent=False)  # (O, N)

    def check_part(self, events: Tensor) -> Tensor:
        """The checks' share (B, O) of each output's flip, from events (T, 2, N, B): floats 0 or 1."""
        return (self.checks @ (events[:, 0].sum(0) % 2)).t() % 2

    def labels(self, events: Tensor, observable_flips: Tensor) -> Tensor:
        """True flips (B, O) of the outputs, from events and observable flips (B, k)."""
        return (observable_flips @ self.observables.t() + self.check_part(events)) % 2


class CosetVote(OutputParities):
    """From the log-odds of all outputs to scores of the 2^k cosets.

    Each output is a signed vote on every coset: score(c) = sum over outputs of log-odds * [output flipped under c].
    """

    def __init__(self, geometry: TorusGeometry) -> None:
        super().__init__(geometry)
        ballots = (coset_bits(geometry.code.k) @ self.observables.t()) % 2
        self.ballots = nn.Buffer(ballots, persistent=False)  # (2^k, O)

    def scores(self, logits: Tensor, events: Tensor) -> Tensor:
        """The sum of all votes (B, 2^k) on each coset, from the outputs' log-odds (B, O)."""
        votes = logits * (1 - 2 * self.check_part(events))
        with torch.autocast(votes.device.type, enabled=False):  # sums of a hundred votes need more than bfloat16
            return votes @ self.ballots.t()
