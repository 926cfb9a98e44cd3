"""Belief propagation, alone or with a second stage for where it does not converge, by the package `ldpc`.

BP-OSD, ordered statistics: Panteleev and Kalachev, arXiv 1904.02703; Roffe et al., arXiv 2005.07016. BP-LSD, localised
statistics: Hillmann et al., arXiv 2406.18655.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from decoder.classical.problem import Problem
from decoder.classical.syndrome import Indices, Solver, SyndromeSettings, errors_of
from decoder.limits import check_fields

MAX_EXHAUSTIVE_ORDER = 15
"""OSD-E and LSD-E try 2^order candidates a shot or a cluster."""


@dataclass(frozen=True, kw_only=True)
class BpSettings(SyndromeSettings):
    """Settings of `ldpc.BpDecoder`. Where it does not converge, what it believes last is the answer.

    Such an error, each mechanism likelier than not, does not explain the syndrome.

    Raises:
        ValueError: a value out of its range.
    """

    bp_method: Literal["minimum_sum", "product_sum"] = "minimum_sum"
    """The check-node update."""
    ms_scaling_factor: float = 0.0
    """What min-sum messages are multiplied with; 0 means 1 - 2^-i in iteration i. Unused by product_sum."""
    max_iter: int = 10_000
    """The most iterations of belief propagation."""
    schedule: Literal["parallel", "serial"] = "parallel"
    """Whether all messages of an iteration are updated at once or one mechanism after the other."""

    def __post_init__(self) -> None:
        check_fields(self, max_iter=1, ms_scaling_factor=0)

    def solver(self, problem: Problem) -> Solver:
        """See `SyndromeSettings.solver`."""
        from ldpc import BpDecoder  # takes half a second to import, with sinter and matplotlib

        return errors_of(BpDecoder(**self.bp_arguments(problem), input_vector_type="syndrome"))

    def bp_arguments(self, problem: Problem) -> dict[str, Any]:
        """What all decoders of ldpc that begin with belief propagation are given."""
        return {
            "pcm": sp.csr_matrix(problem.faults.check_matrix),
            "error_channel": problem.faults.priors.tolist(),
            "max_iter": self.max_iter,
            "bp_method": self.bp_method,
            "ms_scaling_factor": self.ms_scaling_factor,
            "schedule": self.schedule,
            "omp_thread_count": 1,
        }


@dataclass(frozen=True, kw_only=True)
class BpOsdSettings(BpSettings):
    """Settings of `ldpc.BpOsdDecoder`. The defaults are those of Bravyi et al. (Nature 627, 778).

    Raises:
        ValueError: a value out of its range.
    """

    osd_method: Literal["OSD_0", "OSD_E", "OSD_CS"] = "OSD_CS"
    """OSD_0: one candidate. OSD_E: all 2^order. OSD_CS: the combination sweep, all of weight 1 and 2."""
    osd_order: int = 7
    """How many of the likeliest free mechanisms the candidates range over; 0 for OSD_0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_order("osd_order", self.osd_order, method=self.osd_method)

    def solver(self, problem: Problem) -> Solver:
        """See `SyndromeSettings.solver`.

        The order is lowered to n - rank(H): no more mechanisms are free, so the search stays the same, and ldpc 2.4.1
        writes past the end of its candidate strings when the order is above that.
        """
        from ldpc import BpOsdDecoder, mod2

        order, (rows, columns) = self.osd_order, map(int, problem.faults.check_matrix.shape)
        if order > columns - rows:
            order = min(order, columns - int(mod2.rank(sp.csr_matrix(problem.faults.check_matrix))))
        method = self.osd_method if order else "OSD_0"
        return errors_of(BpOsdDecoder(**self.bp_arguments(problem), osd_method=method, osd_order=order))


@dataclass(frozen=True, kw_only=True)
class BpLsdSettings(BpSettings):
    """Settings of `ldpc.BpLsdDecoder`. A syndrome that no error explains is left to belief propagation alone.

    There is no LSD_CS: from order 2 on, ldpc 2.4.1 writes past the end of its memory there, unnoticed
    (github.com/quantumgizmos/ldpc/issues/105).

    Raises:
        ValueError: a value out of its range.
    """

    lsd_method: Literal["LSD_0", "LSD_E"] = "LSD_0"
    """LSD_0: one candidate a cluster. LSD_E: all 2^order."""
    lsd_order: int = 0
    """How many of a cluster's likeliest free mechanisms the candidates range over; 0 for LSD_0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_order("lsd_order", self.lsd_order, method=self.lsd_method)

    def solver(self, problem: Problem) -> Solver:
        """See `SyndromeSettings.solver`."""
        from ldpc import BpLsdDecoder, mod2

        arguments = self.bp_arguments(problem)
        by_lsd = errors_of(BpLsdDecoder(**arguments, lsd_method=self.lsd_method, lsd_order=self.lsd_order))
        by_bp = super().solver(problem)
        # ldpc 2.4.1 never returns from growing clusters that no error can explain.
        relations = mod2.kernel(sp.csr_matrix(problem.faults.check_matrix.T)).astype(np.int64)

        def solve(syndrome: npt.NDArray[np.uint8]) -> Indices:
            explicable = not ((relations @ syndrome) % 2).any()
            return by_lsd(syndrome) if explicable else by_bp(syndrome)

        return solve


def _check_order(name: str, order: int, *, method: str) -> None:
    """Refuses an order that a method, which ends in _0, _E or _CS, does not take."""
    if order < 0 or (method.endswith("_0") and order != 0):
        raise ValueError(f"{name}={order} must be at least 0, and 0 for {method[:3]}_0")
    if method.endswith("_E") and order > MAX_EXHAUSTIVE_ORDER:
        raise ValueError(f"{name}={order} means 2^{order} candidates; keep {method} to {MAX_EXHAUSTIVE_ORDER}")


PLAIN_BP = BpSettings()
"""The belief propagation of Bravyi et al.: min-sum with variable scaling, 10,000 iterations.

On bb72 (Z, 6 rounds, p = 0.3 %, XZ) it fails in 224 of 10,000 shots; without scaling, 1,000 iterations fail in 268 of
these, and 10,000 in 216. Of 3,000, product-sum (1,000 iterations) fails in 249 and a scaling of 0.625 in 871, where
variable scaling with as many iterations fails in 102.
"""
BRAVYI = BpOsdSettings()
"""Bravyi et al.: min-sum with variable scaling, 10,000 iterations, OSD-CS 7. Few failures, slow tail."""
OSD0 = BpOsdSettings(ms_scaling_factor=1.0, max_iter=30, osd_method="OSD_0", osd_order=0)
"""Short BP and a single OSD candidate: several times the failures, but no slow tail."""
LSD = BpLsdSettings()
"""The belief propagation of Bravyi et al., then LSD-0.

On bb72 (Z, 6 rounds, p = 0.3 %, XZ) it fails in 189 of 10,000 shots. Without scaling, 10,000 iterations fail in 181 of
these and 1,000 in 201, and 1,000 with LSD-E of order 7 in 202.
"""
