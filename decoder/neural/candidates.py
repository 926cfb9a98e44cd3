"""The candidates of a shot as the network reads them: cosets that belief propagation found, and the faults in each.

Serial belief propagation settles nearly all shots. In the few whose solutions lie in different cosets the network
judges these candidates. Nothing here is learned.

Shapes as in `decoder.neural.model`: B shots, T layers, N cells, K kinds of faults in each cell and layer, O outputs,
and C candidates at most of each shot.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder.neural.fault_lattice import KINDS, FaultPlaces
from decoder.neural.geometry import TorusGeometry
from decoder.serial.graph import Floats, Integers, observables_of
from decoder.serial.rules import SerialResult
from decoder.serial.solutions.choice import filled
from simulation.bits import Bits

MOST_GAP = 20.0
"""Differences of free energies count as no more than this: the odds are hopeless then."""


class FeatureColumns(NamedTuple):
    """Where in a row of `Beliefs.features` each feature of a cell begins; KINDS wide where that is said."""

    first: int = 0
    """KINDS: whether each fault is one of the likeliest candidate's."""
    second: int = KINDS
    """KINDS: whether it is one of the second-likeliest candidate's."""
    gap: int = 2 * KINDS
    """The difference of the free energies of these two, the same in all cells."""
    share: int = 2 * KINDS + 1
    """KINDS: the share of the posterior, by the free energies, of the candidates that have the fault."""
    effort: int = 3 * KINDS + 1
    """The decimal logarithm of the passes over the rows, the same in all cells."""
    found: int = 3 * KINDS + 2
    """The likeliest candidate's share of the solutions, the same in all cells."""


class EvidenceColumns(NamedTuple):
    """Where in a row of `Beliefs.evidence` each kind of evidence stands: a mean over the candidates by some weights."""

    first: int = 0
    """The likeliest candidate alone."""
    votes: int = 1
    """The number of solutions in each candidate's coset."""
    energy: int = 2
    """The posterior of the candidates by their free energies."""
    weight: int = 3
    """Their likelihood by the log-odds of the memory side's faults, as the other side's messages gave them."""


FEATURES, EVIDENCE = FeatureColumns(), EvidenceColumns()
NUM_FEATURES = 3 * KINDS + 3


class Candidates(NamedTuple):
    """The cosets that were found for B shots, the likeliest first; one solution stands for each."""

    solution: Integers
    """(B, C): which solution of the `SerialResult` it is."""
    cosets: Integers
    """(B, C): the observables that it flips, bit o for observable o."""
    energies: npt.NDArray[np.float64]
    """(B, C): the free energy of the coset, ascending; infinite where there is no candidate."""
    votes: Floats
    """(B, C): the share of the shot's solutions that lie in the coset."""
    weights: Floats
    """(B, C): the log-odds against the solution's faults of the memory side, as the other side's messages gave them."""
    faults: Bits
    """(B, C, T K N): the solution's faults of the memory side, on the lattice of `decoder.neural.fault_lattice`."""
    passes: Integers
    """(B,): passes of the shot in all."""

    @classmethod
    def of(
        cls, result: SerialResult, energies: npt.NDArray[np.float64], places: FaultPlaces, *, most: int
    ) -> Candidates:
        """Sorts out what was found.

        Args:
            result: with the faults of the solutions.
            energies: (B, S), at one solution of each coset its free energy, infinite at all others.
            places: where on the lattice the faults of the memory side lie.
            most: so many candidates are kept, the likeliest ones.
        """
        solution = np.argsort(energies, axis=1, kind="stable")[:, :most]
        cosets = np.take_along_axis(result.cosets, solution, axis=1)
        same = (cosets[:, :, None] == result.cosets[:, None]) & filled(result)[:, None]  # (B, C, S)
        found = np.take_along_axis(result.faults, solution[..., None], axis=1)
        faults = np.zeros((*solution.shape, places.size), np.bool_)
        faults[..., places.of_fault] = found[..., : len(places.of_fault)]
        return cls(
            solution=solution,
            cosets=cosets,
            energies=np.take_along_axis(energies, solution, axis=1),
            votes=(same.sum(2) / filled(result).sum(1)[:, None]).astype(np.float32),
            weights=np.take_along_axis(result.weights[..., 1], solution, axis=1),
            faults=faults,
            passes=result.passes,
        )

    @property
    def posterior(self) -> npt.NDArray[np.float64]:
        """(B, C): the probabilities of the candidates by their free energies alone."""
        return _softmax(-self.energies)

    def flipped(self, geometry: TorusGeometry, parity: Bits) -> Bits:
        """Bool (B, C, O): the outputs that each candidate flips.

        Args:
            geometry: of the code.
            parity: bool (B, N), the parity of each memory check's events.
        """
        bits = observables_of(self.cosets, num_observables=geometry.code.k)
        by_checks = parity.astype(np.int64) @ geometry.output_checks.T  # (B, O)
        by_coset = bits.astype(np.int64) @ geometry.output_observables.T  # (B, C, O)
        flips: Bits = (by_coset + by_checks[:, None]) % 2 == 1
        return flips


class Beliefs(NamedTuple):
    """What the network reads of the candidates of B shots, beside the detection events."""

    features: Floats
    """float32 (B, T, N, NUM_FEATURES), columns as `FeatureColumns` says."""
    evidence: Floats
    """float32 (B, O, 4), from -1 (not flipped) to 1, of each output, columns as `EvidenceColumns` says."""

    @classmethod
    def of(cls, candidates: Candidates, flipped: Bits, *, cells: int) -> Beliefs:
        """Arranges candidates, and the outputs (B, C, O) that each of them flips."""
        return cls(_features(candidates, cells=cells), _evidence(candidates, flipped))


def _features(candidates: Candidates, *, cells: int) -> Floats:
    shots, most, places = candidates.faults.shape
    layers = places // (KINDS * cells)
    faults = candidates.faults.reshape(shots, most, layers, KINDS, cells)  # (B, C, T, K, N)
    features = np.zeros((shots, layers, cells, NUM_FEATURES), np.float32)
    energies, posterior = candidates.energies, candidates.posterior

    def put(column: int, values: npt.NDArray[np.generic]) -> None:  # (B, T, K, N)
        features[..., column : column + KINDS] = values.transpose(0, 1, 3, 2)

    put(FEATURES.first, faults[:, 0])
    shares = (posterior[:, c, None, None, None] * faults[:, c] for c in range(most))
    put(FEATURES.share, sum(shares, np.zeros(1)))  # one after the other: the same bits however many shots there are
    gap = np.full(shots, MOST_GAP)
    if most > 1:
        there = np.isfinite(energies[:, 1])
        put(FEATURES.second, faults[:, 1] & there[:, None, None, None])
        gap[there] = np.minimum(MOST_GAP, energies[there, 1] - energies[there, 0])
    features[..., FEATURES.gap] = gap[:, None, None]
    features[..., FEATURES.effort] = np.log10(np.maximum(candidates.passes, 1))[:, None, None]
    features[..., FEATURES.found] = candidates.votes[:, :1, None]
    return features


def _evidence(candidates: Candidates, flipped: Bits) -> Floats:
    there = np.isfinite(candidates.energies)
    shares = np.zeros((*there.shape, len(EVIDENCE)))  # of each candidate in each kind of evidence
    shares[:, 0, EVIDENCE.first] = 1
    votes = np.where(there, candidates.votes, 0)
    shares[..., EVIDENCE.votes] = votes / votes.sum(1, keepdims=True)
    shares[..., EVIDENCE.energy] = candidates.posterior
    shares[..., EVIDENCE.weight] = _softmax(np.where(there, -candidates.weights, -np.inf))
    signs = 2.0 * flipped - 1.0
    means = (signs[:, c, :, None] * shares[:, c, None] for c in range(there.shape[1]))
    return np.asarray(sum(means, np.zeros(1)), np.float32)


def _softmax(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Of each row, which has a finite score."""
    powers = np.exp((scores - scores.max(1, keepdims=True)).astype(np.float64))
    return np.asarray(powers / powers.sum(1, keepdims=True))
