"""Belief propagation, alone or with a second stage for where it does not converge, by the package `ldpc`.

BP-OSD, ordered statistics: Panteleev and Kalachev, arXiv 1904.02703; Roffe et al., arXiv 2005.07016. BP-LSD, localised
statistics: Hillmann et al., arXiv 2406.18655.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from decoder.classical.problem import Problem
from decoder.classical.syndrome import Indices, Solver, SyndromeSettings, errors_of
from decoder.limits import check_fields

OSD_SECONDS = 1e-10
"""About what OSD takes, for each mechanism times the square of the detectors. Measured: 0.5 to 1.3e-10."""
PROBE_ITERATIONS = 16
"""Iterations of belief propagation from which it is known what one costs."""
STAGE_FORGOTTEN = 0.99
"""Of what a second stage is believed to take, what is left after each shot without it."""
LEAST_ITERATIONS = 30
"""Iterations that every shot has, as many as `OSD0`."""
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
    seconds: float | None = None
    """Of a core, for each shot: fewer iterations are made then, and no second stage that takes longer; see `Limited`.
    None for no limit."""

    def __post_init__(self) -> None:
        check_fields(self, max_iter=1, ms_scaling_factor=0)
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds={self.seconds} must be above 0")

    def limited(self, seconds: float) -> Self:
        """See `DecoderSettings.limited`."""
        return replace(self, seconds=seconds)

    def solver(self, problem: Problem) -> Solver:
        """See `SyndromeSettings.solver`."""
        from ldpc import BpDecoder  # takes half a second to import, with sinter and matplotlib

        return self._within_limit(BpDecoder(**self.bp_arguments(problem), input_vector_type="syndrome"))

    def _within_limit(self, decoder: Any, *, stage_seconds: float = 0.0) -> Solver:
        if self.seconds is None:
            return errors_of(decoder)
        return Limited(decoder, seconds=self.seconds, max_iter=self.max_iter, stage_seconds=stage_seconds)

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
        stage_seconds = OSD_SECONDS * rows**2 * columns
        if self.seconds is not None and stage_seconds > self.seconds:
            return super().solver(problem)  # which saves the memory of a second stage, too
        if order > columns - rows:
            order = min(order, columns - int(mod2.rank(sp.csr_matrix(problem.faults.check_matrix))))
        method = self.osd_method if order else "OSD_0"
        decoder = BpOsdDecoder(**self.bp_arguments(problem), osd_method=method, osd_order=order)
        return self._within_limit(decoder, stage_seconds=stage_seconds)


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
        by_lsd = self._within_limit(BpLsdDecoder(**arguments, lsd_method=self.lsd_method, lsd_order=self.lsd_order))
        by_bp = super().solver(problem)
        # ldpc 2.4.1 never returns from growing clusters that no error can explain.
        relations = mod2.kernel(sp.csr_matrix(problem.faults.check_matrix.T)).astype(np.int64)

        return _Choice(by_lsd, by_bp, lambda syndrome: not ((relations @ syndrome) % 2).any())


class Limited:
    """A decoder of ldpc that keeps to a limit of time for each shot, as it knows what an iteration costs by then.

    A shot on which belief propagation converges within the iterations that fit gets the answer that it would get
    without a limit. Another one is `hurried`: it has fewer iterations before its second stage, or no second stage.

    Args:
        decoder: one of ldpc's.
        seconds: of a core, for each shot.
        max_iter: the most iterations.
        stage_seconds: what the second stage is expected to take.
    """

    def __init__(self, decoder: Any, *, seconds: float, max_iter: int, stage_seconds: float) -> None:
        self.hurried = False
        self._decoder = decoder
        self._seconds = seconds
        self._max_iter = max_iter
        self._stage_seconds = stage_seconds
        self._method = getattr(decoder, "osd_method", None)
        probe = np.ones(decoder.check_count, dtype=np.uint8)
        self._iteration_seconds = self._run(probe, iterations=PROBE_ITERATIONS, stage=False)[1] / PROBE_ITERATIONS

    def __call__(self, syndrome: npt.NDArray[np.uint8]) -> Indices:
        """The mechanisms of an error; see `Solver`."""
        stage = self._method is not None and self._stage_seconds < self._seconds
        left = self._seconds - (self._stage_seconds if stage else 0.0)
        iterations = int(min(self._max_iter, max(LEAST_ITERATIONS, left / max(self._iteration_seconds, 1e-9))))
        error, seconds = self._run(syndrome, iterations=iterations, stage=stage)
        converged = self._decoder.converge
        if stage and not converged:
            self._stage_seconds = max(0.0, seconds - self._decoder.iter * self._iteration_seconds)
        elif self._decoder.iter >= PROBE_ITERATIONS:
            self._iteration_seconds = seconds / self._decoder.iter
            self._stage_seconds *= STAGE_FORGOTTEN  # one that once took too long, as others had the core's caches
        self.hurried = not converged and (iterations < self._max_iter or stage != (self._method is not None))
        return error

    def _run(self, syndrome: npt.NDArray[np.uint8], *, iterations: int, stage: bool) -> tuple[Indices, float]:
        self._decoder.max_iter = iterations
        if self._method is not None:
            self._decoder.osd_method = self._method if stage else "OSD_OFF"
        began = time.thread_time()
        return np.flatnonzero(self._decoder.decode(syndrome)), time.thread_time() - began


class _Choice:
    """The first of two solvers for the syndromes that it can take, the second for the others."""

    def __init__(self, first: Solver, second: Solver, takes: Callable[[npt.NDArray[np.uint8]], bool]) -> None:
        self._first, self._second, self._takes = first, second, takes
        self._last = first

    def __call__(self, syndrome: npt.NDArray[np.uint8]) -> Indices:
        self._last = self._first if self._takes(syndrome) else self._second
        return self._last(syndrome)

    @property
    def hurried(self) -> bool:
        return getattr(self._last, "hurried", False)


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
