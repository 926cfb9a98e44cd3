"""BP-OSD: belief propagation, with ordered-statistics decoding where it does not converge.

Panteleev and Kalachev, arXiv 1904.02703; Roffe et al., arXiv 2005.07016. The `ldpc` package does the
work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import scipy.sparse as sp

from decoder.classical.bp import BpSettings
from decoder.classical.problem import Problem
from decoder.classical.syndrome import Solver, check_choices, errors_of

MAX_EXHAUSTIVE_ORDER = 15
"""OSD-E and LSD-E try 2^order candidates a shot or a cluster."""


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
        check_choices(self, osd_method=("OSD_0", "OSD_E", "OSD_CS"))
        check_order("osd", self.osd_method, self.osd_order)

    def solver(self, problem: Problem) -> Solver:
        """See `SyndromeSettings.solver`."""
        from ldpc import BpOsdDecoder

        order = self._clipped_order(problem)
        return errors_of(
            BpOsdDecoder(
                **self.bp_arguments(problem), osd_method=self.osd_method if order else "OSD_0", osd_order=order
            )
        )

    def _clipped_order(self, problem: Problem) -> int:
        """The OSD order, lowered to n - rank(H): no more mechanisms are free, so the search stays the same.

        ldpc 2.4.1 writes past the end of its candidate strings when the order is above that.
        """
        from ldpc import mod2

        checks = problem.faults.check_matrix
        rows, columns = map(int, checks.shape)
        if self.osd_order <= columns - rows:
            return self.osd_order
        return min(self.osd_order, columns - int(mod2.rank(sp.csr_matrix(checks))))


def check_order(kind: str, method: str, order: int) -> None:
    """Checks the order of a method of ordered statistics.

    Args:
        kind: "osd" or "lsd", as the settings' names begin.
        method: ends in _0, _E or _CS.
        order: of the method.

    Raises:
        ValueError: an order that the method does not take.
    """
    if order < 0 or (method.endswith("_0") and order != 0):
        raise ValueError(f"{kind}_order={order} must be at least 0, and 0 for {kind.upper()}_0")
    if method.endswith("_E") and order > MAX_EXHAUSTIVE_ORDER:
        raise ValueError(
            f"{kind}_order={order} means 2^{order} candidates a shot; keep {method} to "
            f"{MAX_EXHAUSTIVE_ORDER} or use {kind.upper()}_CS"
        )


BRAVYI = BpOsdSettings()
"""Bravyi et al.: min-sum with variable scaling, 10,000 iterations, OSD-CS 7. Few failures, slow tail."""
OSD0 = BpOsdSettings(ms_scaling_factor=1.0, max_iter=30, osd_method="OSD_0", osd_order=0)
"""Short BP and a single OSD candidate: several times the failures, but no slow tail."""
