"""Proofs, shot by shot, whether the most likely error predicts the observables rightly, each in bounded time.

They are those of the package qldpc-certificate-benchmark by Banfi et al., arXiv 2610.28008: an exact search whose every
bound is checked, so that time limits what is proved and never makes it wrong.
"""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from decoder.classical.problem import Problem
from decoder.classical.settings import Extra
from decoder.processes import ChildEndedError, ChildProcess, bare
from simulation.bits import Bits
from simulation.experiments import Experiment

EXTRA = Extra(name="optimum", package="qldpc-certificate-benchmark")
MOST_ENTRIES = 200_000_000
"""Of the check matrix, which the package keeps with all its zeros, several times."""
MOST_OBSERVABLES = 62
"""The package keeps those of an error in one number of 64 bits."""
MOST_NODES = 800_000
"""Of the search that is tried first."""
MOST_QUEUED = 16_000_000
"""In its queue: some hundred megabytes."""
PATIENCE_SECONDS = 1800.0
"""A process that prepares itself or proves for longer, by the clock, is taken to hang."""


class Verdict(Enum):
    """What the most likely error of a shot does."""

    RIGHT = "right"
    """It predicts all observables rightly: every error with other observables is less likely."""
    WRONG = "wrong"
    """It predicts an observable wrongly."""
    TIE = "tie"
    """Errors with the right and with wrong observables are equally likely."""
    UNDECIDED = "undecided"
    """The search ended without a proof."""
    LATE = "late"
    """The time was up."""


@dataclass(frozen=True)
class Proof:
    """A verdict and the CPU time that it took."""

    verdict: Verdict
    seconds: float


class Certifier:
    """Proves in a process of its own what the most likely error of shots does; use it as a context manager.

    The most likely error, and not the most likely coset: where many errors with other observables are together
    likelier, a decoder that counts them all is right more often.

    Args:
        experiment: whose shots they are.
        seconds: CPU time for each shot, after which the process is ended and the verdict is late.

    Raises:
        ValueError: the package is not installed, or the fault model is none that it takes: one without observables,
            with more than 62, with a prior of 1/2, or too large.
    """

    def __init__(self, experiment: Experiment, *, seconds: float) -> None:
        EXTRA.require("a certificate")
        problem = Problem.of(experiment.fault_model)
        entries = problem.faults.num_detectors * problem.faults.num_mechanisms
        if entries > MOST_ENTRIES:
            raise ValueError(
                f"a certificate takes check matrices of at most {MOST_ENTRIES:,} entries, and this one has "
                f"{entries:,}; certify fewer rounds or a smaller code"
            )
        if not 1 <= problem.faults.num_observables <= MOST_OBSERVABLES:
            raise ValueError(
                f"a certificate takes from 1 to {MOST_OBSERVABLES} observables, and there are "
                f"{problem.faults.num_observables}"
            )
        if (problem.faults.priors >= 0.5).any():
            raise ValueError("a certificate takes no mechanism with a prior of 1/2: both its states are equally likely")
        self._offsets = problem.syndrome_offset, problem.observable_offset
        self._experiment = bare(experiment)
        self._seconds = seconds
        self._child = ChildProcess(size=1, patience_seconds=PATIENCE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._child.close()

    def prove(self, events: Bits, flips: Bits) -> Proof:
        """What the most likely error of one shot does.

        Args:
            events: bool (detectors,).
            flips: bool (observables,), those that flipped.

        Raises:
            ValueError: see the class.
            RuntimeError: the process ends before any shot, perhaps for want of memory.
        """
        self._child.call(_prepare, self._experiment)
        shot = (events ^ self._offsets[0]).view(np.uint8), (flips ^ self._offsets[1]).view(np.uint8)
        with suppress(ChildEndedError, TimeoutError):
            return self._child.call(_prove, self._experiment, *shot, self._seconds)
        return Proof(Verdict.LATE, self._seconds)


# What follows runs in the child.


@lru_cache(1)
def _prepare(experiment: Experiment) -> None:
    """Makes what proves, and compiles its kernels before the time of a shot counts."""
    problem = _certifier(experiment).problem
    _certifier(experiment).certify(
        np.zeros(problem.num_detectors, np.uint8), np.zeros(problem.num_observables, np.uint8)
    )


@lru_cache(1)
def _certifier(experiment: Experiment) -> Any:
    import qldpc_certificate_benchmark as certificates  # takes seconds, as it imports numba

    faults = Problem.of(experiment.fault_model).faults
    # The quickest proof, one search over all errors, ends without one where its queue is full; the package's own bounds
    # are for many processes at once, each with little memory.
    bounds = certificates.CertConfig(unified_node_budget=MOST_NODES, pool_cap=MOST_QUEUED)
    problem = certificates.DecodingProblem(faults.check_matrix, faults.observable_matrix, faults.priors)
    return certificates.Certifier(problem, bounds)


def _prove(
    experiment: Experiment, events: npt.NDArray[np.uint8], flips: npt.NDArray[np.uint8], seconds: float
) -> Proof:
    began = time.process_time()
    # SIGPROF comes when so much CPU time is used. Nobody handles it: it ends the process, also amid a library's work.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        verdict = _certifier(experiment).certify(events, flips).verdict
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return Proof(_VERDICTS[verdict], time.process_time() - began)


_VERDICTS = {
    "success": Verdict.RIGHT,
    "fail": Verdict.WRONG,
    "tie": Verdict.TIE,
    "undecided": Verdict.UNDECIDED,
}
