"""Relay-BP: legs of belief propagation with memory, by the package `relay-bp` of its authors.

Müller et al., arXiv 2506.01779.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from decoder.classical.problem import Problem
from decoder.classical.settings import Extra
from decoder.classical.syndrome import Solver, SyndromeSettings, errors_of
from decoder.limits import check_fields


@dataclass(frozen=True, kw_only=True)
class RelayBpSettings(SyndromeSettings):
    """Settings of `relay_bp.RelayDecoderF32`, by its names.

    The defaults are the package's, but for gamma0, which NVIDIA's documentation of its nv-qldpc-decoder recommends
    for bb72 and bb144.

    The package draws the memory strengths of a leg when it needs them, so that an answer would depend on the
    shots before it. Here they are drawn once, from a seed, and are the same for every shot: num_sets times
    the mechanisms, eight bytes each.

    Raises:
        ValueError: a value out of its range.
    """

    extra: ClassVar[Extra | None] = Extra(name="relay", package="relay-bp")

    gamma0: float = 0.125
    """The memory strength of all mechanisms in the first leg."""
    pre_iter: int = 80
    """Iterations of the first leg."""
    num_sets: int = 300
    """The most legs after it."""
    set_max_iter: int = 60
    """Iterations of each of these."""
    gamma_dist_interval: tuple[float, float] = (-0.24, 0.66)
    """Between which their memory strengths are uniform, one for each leg and mechanism."""
    stop_nconv: int = 1
    """A shot stops with so many solutions; the likeliest of them is the answer."""
    seed: int = 0
    """Draws the memory strengths."""

    def __post_init__(self) -> None:
        check_fields(self, pre_iter=1, set_max_iter=1, stop_nconv=1, num_sets=1, seed=0)
        if not -1 < self.gamma0 < 1:
            raise ValueError(f"gamma0={self.gamma0} must be above -1 and below 1")
        low, high = self.gamma_dist_interval
        if not -1 < low <= high < 1:
            raise ValueError(f"gamma_dist_interval={low, high} must ascend, above -1 and below 1")

    def solver(self, problem: Problem) -> Solver:
        """See `SyndromeSettings.solver`."""
        import relay_bp

        faults, options = problem.faults, asdict(self)
        shape = self.num_sets, faults.num_mechanisms
        gammas = np.random.default_rng(options.pop("seed")).uniform(*self.gamma_dist_interval, shape)
        return errors_of(
            relay_bp.RelayDecoderF32(
                sp.csr_matrix(faults.check_matrix),
                error_priors=faults.priors,
                explicit_gammas=gammas,
                stopping_criterion="nconv",
                **options,
            )
        )


RELAY_1 = RelayBpSettings()
"""The first solution.

A longer first leg fails about as often, and one with more memory more often (docs/results/relay-settings.md).
"""
RELAY_5 = RelayBpSettings(stop_nconv=5)
"""The likeliest of five solutions."""
