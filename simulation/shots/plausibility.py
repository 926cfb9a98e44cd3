"""Whether shots can be those of an experiment: how often detectors fire, alone and two together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from simulation.bases import Detectors
from simulation.bits import PackedBits, packed_size, unpack_bits
from simulation.circuits import MemoryExperiment
from simulation.codes import CODES
from simulation.experiments import Experiment
from simulation.faults import FaultModel

GROUPS = 24
"""Detectors are looked at in so many groups of neighbours: too few, and the first round's hide among the others."""
MOST_SHOTS = 4096
"""The first ones are enough."""
SIGMAS = 6.0
"""What deviates less may be chance."""
RATE_FACTOR = 1.5
"""A physical error rate that is off by less is nobody's mistake."""
CORRELATION_FACTOR = 0.4
"""If pairs are correlated less than by so much of what they should be, other detectors stand in their places."""


@dataclass(frozen=True, eq=False)
class Expected:
    """How often detectors fire in one experiment."""

    rates: npt.NDArray[np.float64]
    """(detectors,): the probability of an event."""
    partners: npt.NDArray[np.int64]
    """(detectors,): for each the one that it is most correlated with."""
    covariance: npt.NDArray[np.float64]
    """(detectors,): by how much likelier both have an event than if they were independent."""

    @classmethod
    def of(cls, model: FaultModel) -> Expected:
        """From independent mechanisms.

        With s_i the product of 1 - 2 p over those that flip i, and s_ij the same over those that flip one of i and j, a
        detector fires with probability (1 - s_i) / 2, and the covariance of two is (s_ij - s_i s_j) / 4.
        """
        checks = sp.csr_matrix(model.check_matrix, dtype=np.float64)
        decay = np.log1p(-2 * np.minimum(model.priors, 0.499))
        alone = np.exp(checks @ decay)
        shared = (checks @ sp.diags(decay) @ checks.T).tocoo()
        i, j = shared.row, shared.col
        covariance = alone[i] * alone[j] * np.expm1(-2 * shared.data) / 4
        covariance[i == j] = 0
        order = np.lexsort((-covariance, i))
        first = order[np.unique(i[order], return_index=True)[1]]
        partners, largest = np.arange(len(alone)), np.zeros(len(alone))
        partners[i[first]] = j[first]
        largest[i[first]] = covariance[first]
        return cls((1 - alone) / 2, partners, largest)

    def doubt(self, shots: PackedBits) -> str | None:
        """What cannot be chance of shots b8 (shots, ceil(detectors / 8)), in words; None if nothing looks wrong."""
        events = unpack_bits(shots[:MOST_SHOTS], len(self.rates))
        number = len(events)
        if number < 2 or not self.rates.any():
            return None
        each, expected = events.sum(axis=1), float(self.rates.sum())
        error = SIGMAS * float(np.sqrt(each.var() / number + expected / number))
        ratio = float(each.mean()) / expected
        if abs(each.mean() - expected) > error and not 1 / RATE_FACTOR < ratio < RATE_FACTOR:
            return (
                f"these shots have {each.mean():.3g} events each, where {expected:.3g} are expected; "
                "is it another p, noise or experiment?"
            )
        seen = (events & events[:, self.partners]).mean(axis=0)
        independent = events.mean(axis=0) * events.mean(axis=0)[self.partners]
        parts = (np.array_split(array, GROUPS) for array in (seen - independent, self.covariance, seen))
        for found, due, counted in zip(*parts, strict=True):
            hoped = float(due.sum()) * min(1.0, ratio)
            # A pair is counted by both of its detectors at most, which doubles the variance of the count.
            chance = SIGMAS * float(np.sqrt(2 * max(counted.sum(), hoped) / number))
            if found.sum() < CORRELATION_FACTOR * hoped and hoped - found.sum() > chance:
                return (
                    f"some detectors that the same errors flip are correlated {max(0, found.sum()) / hoped:.0%} as "
                    "much as they should be; are the shots of another basis, code or number of rounds, or the "
                    "detectors in another order?"
                )
        return None


def fitting(num_bytes: int, experiment: Experiment) -> list[str]:
    """Which experiments a b8 file of so many bytes may be of, when it is not of the given one: the likeliest two.

    Likely is what differs in one thing alone, and a round number of shots.
    """
    if not isinstance(experiment, MemoryExperiment):
        return []
    found = []
    for oddity, what, bits in _others(experiment):
        shots, rest = divmod(num_bytes, packed_size(bits))
        zeros = len(str(shots)) - len(str(shots).rstrip("0"))
        if not rest and shots and (zeros or shots < 10):
            found.append((-zeros, oddity, f"{shots:,} shots {what}"))
    return [text for *_, text in sorted(found)[:2]]


def _others(experiment: MemoryExperiment) -> Iterator[tuple[int, str, int]]:
    """Experiments that differ in one thing: how odd that is, in words, and the bits of their shots."""
    yield 0, "with the observables behind the detectors", _bits(experiment) + experiment.code.k
    for detectors in get_args(Detectors):
        if detectors != experiment.detectors:
            yield 0, f"with --detectors {detectors}", _bits(replace(experiment, detectors=detectors))
    for rounds in range(1, 3 * experiment.rounds + 12):
        if rounds != experiment.rounds:
            what = f"of {rounds} round{'s' * (rounds > 1)}"
            yield abs(rounds - experiment.rounds), what, _bits(replace(experiment, rounds=rounds))
    for code in CODES.values():
        if code != experiment.code:
            yield 3, f"of {code}", _bits(replace(experiment, code=code))


def _bits(experiment: MemoryExperiment) -> int:
    """Detectors of a shot, without making the circuit."""
    cells, cycles = experiment.code.cells, experiment.rounds + experiment.noiseless_last_cycle
    memory = cells * (experiment.rounds + 1)
    return memory + (cells * (cycles - 1) if experiment.detectors == "XYZ" else 0)
