"""From the log-odds of the outputs to scores of the cosets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from decoder.neural.geometry import TorusGeometry


class CosetVote(nn.Module):
    """From the log-odds of all outputs to scores of the 2^k values of the observables.

    Each output is a known sum of observables and of checks whose values the detection events fix, so each is a
    signed vote on every coset: score(c) = sum over outputs of log-odds * [output flipped under c].
    """

    observables: Tensor
    checks: Tensor
    ballots: Tensor

    def __init__(self, geometry: TorusGeometry) -> None:
        super().__init__()
        k = geometry.code.k
        observables = torch.from_numpy(geometry.output_observables).float()
        cosets = (torch.arange(2**k)[:, None] >> torch.arange(k)) & 1
        self.register_buffer("observables", observables, persistent=False)  # (O, k)
        self.register_buffer("checks", torch.from_numpy(geometry.output_checks).float(), persistent=False)  # (O, N)
        self.register_buffer("ballots", (cosets.float() @ observables.t()) % 2, persistent=False)  # (2^k, O)

    def check_part(self, events: Tensor) -> Tensor:
        """The checks' share (B, O) of each output's flip, from events (T, 2, N, B): floats 0 or 1."""
        return (self.checks @ (events[:, 0].sum(0) % 2)).t() % 2

    def labels(self, events: Tensor, observable_flips: Tensor) -> Tensor:
        """True flips (B, O) of the outputs, from events and observable flips (B, k)."""
        return (observable_flips @ self.observables.t() + self.check_part(events)) % 2

    def scores(self, logits: Tensor, events: Tensor) -> Tensor:
        """The sum of all votes (B, 2^k) on each coset.

        Coset j has observable i flipped if bit i of j is set.
        """
        votes = logits * (1 - 2 * self.check_part(events))
        with torch.autocast(votes.device.type, enabled=False):  # sums of a hundred votes need more than bfloat16
            return votes @ self.ballots.t()
