"""The likeliest error by integer programming: an exact reference for small fault models.

The programme is that of Landahl, Anderson and Rice (arXiv 1108.5738), solved by HiGHS through
`scipy.optimize.milp`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from decoder.classical.problem import Problem
from decoder.classical.syndrome import Indices, Solver, SyndromeSettings
from decoder.limits import check_fields

INFEASIBLE = 2
"""The status of `scipy.optimize.milp` where no solution exists."""


@dataclass(frozen=True, kw_only=True)
class MleSettings(SyndromeSettings):
    """How far an exact search goes.

    Found is the likeliest error, proved to within 1e-6 in its sum of log((1 - p) / p), and not the likeliest coset:
    where many errors of another coset are together likelier, a decoder of maximum likelihood is right more often.

    Raises:
        ValueError: a value out of its range.
    """

    max_mechanisms: int
    """Fault models with more mechanisms are refused."""
    seconds: float
    """For each shot; one that takes longer ends the batch with a ValueError."""

    def __post_init__(self) -> None:
        check_fields(self, max_mechanisms=1)
        if not self.seconds > 0:
            raise ValueError(f"seconds={self.seconds} must be above 0")

    def check(self, problem: Problem) -> None:
        """See `SyndromeSettings.check`."""
        found = problem.faults.num_mechanisms
        if found > self.max_mechanisms:
            raise ValueError(
                f"an exact search takes fault models of at most {self.max_mechanisms:,} mechanisms, and this one has "
                f"{found:,}; decode fewer rounds or a smaller code, or use tesseract-long"
            )

    def limited(self, seconds: float) -> Self:
        """See `DecoderSettings.limited`."""
        return replace(self, seconds=min(seconds, self.seconds))

    def solver(self, problem: Problem) -> Solver:
        """See `SyndromeSettings.solver`.

        What it returns raises ValueError for a syndrome that no error explains, and where the time is up.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp  # takes a third of a second to import

        checks = sp.csr_matrix(problem.faults.check_matrix, dtype=np.float64)
        detectors, mechanisms = checks.shape
        pairs = np.diff(checks.indptr) // 2
        # H e - 2 k = s: an error e of zeros and ones, and k, how many pairs of its mechanisms meet at a detector.
        programme = sp.hstack([checks, -2 * sp.eye_array(detectors)], format="csr")
        cost = np.concatenate([problem.weights, np.zeros(detectors)])
        bounds = Bounds(0, np.concatenate([np.ones(mechanisms), pairs]))
        options = {"time_limit": self.seconds, "mip_rel_gap": 0.0}

        def solve(syndrome: npt.NDArray[np.uint8]) -> Indices:
            constraint = LinearConstraint(programme, syndrome, syndrome)
            result = milp(cost, integrality=np.ones(len(cost)), bounds=bounds, constraints=constraint, options=options)
            if result.status == INFEASIBLE:
                raise ValueError(
                    "no set of mechanisms explains the detection events of a shot, so none is the likeliest; use shots "
                    "of the same experiment, or a decoder that needs no explanation, such as bposd"
                )
            if not result.success:
                raise ValueError(
                    f"the likeliest error of a shot was not proved in {self.seconds:g} s ({result.message}); decode "
                    "less noise, fewer rounds or a smaller code, or use tesseract-long"
                )
            error = result.x[:mechanisms] > 0.5
            if ((checks @ error) % 2 != syndrome).any():
                raise RuntimeError("HiGHS returned an error that does not explain the syndrome")
            return np.flatnonzero(error)

        return solve


EXACT = MleSettings(max_mechanisms=20_000, seconds=60.0)
"""Up to bb72 with the detectors of both bases over six rounds, where a shot takes seconds."""
