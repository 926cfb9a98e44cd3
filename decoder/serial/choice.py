"""Which coset a shot is said to be in, and with what probability."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder.base import Decoding
from decoder.serial.graph import JointGraph, observables_of
from decoder.serial.rules import LARGE, SerialResult


class Doubt(NamedTuple):
    """How likely what was found is wrong: numbers fitted to shots whose truth was known."""

    temperature: float
    """The posterior of disagreeing cosets is exp(-free energy / temperature), normalised. Above 1, since the lightest
    error of a coset is not always found, and not all errors near to it are counted."""
    missed: float
    """The probability that no solution of a shot whose solutions disagree is right."""
    unsolved: float
    """The probability that the likelier faults are right where there is no solution."""
    odds: tuple[float, float, float]
    """Where all solutions agree, they are wrong with the log-odds ``odds[0] + odds[1] ln(passes / solutions) + odds[2]
    ln(solutions)``."""

    def where_all_agree(self, result: SerialResult) -> npt.NDArray[np.float64]:
        """(B,): the probability that the coset of a shot's solutions is right, should they all lie in one."""
        found = np.maximum(result.found, 1)
        constant, by_passes, by_votes = self.odds
        odds = constant + by_passes * np.log(np.maximum(result.passes, 1) / found) + by_votes * np.log(found)
        return np.where(result.found == 0, self.unsolved, 1 / (1 + np.exp(odds)))


SMALL_DOUBT = Doubt(temperature=1.5, missed=0.03, unsolved=0.1, odds=(-13.3, 2.6, 1.7))
"""Fitted to 146,000 shots of bb72 (X, 6 rounds) at 0.1 to 0.5 %, in 125 of which all solutions agreed and
were wrong: the odds by likelihood, temperature and missed share so that 0.3 % is calibrated (likelihood over all p says
2.15 and 0.054). See docs/how-it-works.md for the calibration error of other shots."""
LARGE_DOUBT = Doubt(temperature=2.0, missed=0.1, unsolved=0.1, odds=(-15.0, 1.8, 0.0))
"""Chosen by hand, since of 7,000 shots of bb144 (X, 12 rounds, 0.3 to 0.5 %) 3 were wrong."""


def doubt_for(graph: JointGraph) -> Doubt:
    """What was fitted for graphs of this size; see `decoder.serial.rules.rules_for`."""
    return LARGE_DOUBT if len(graph.chance) > LARGE else SMALL_DOUBT


def filled(result: SerialResult) -> npt.NDArray[np.bool_]:
    """(B, S): which places of a result hold something, of a shot without a solution the first alone."""
    places: npt.NDArray[np.bool_] = result.found[:, None] > np.arange(result.cosets.shape[1])
    places[:, :1] = True
    return places


def disagreeing(result: SerialResult) -> npt.NDArray[np.bool_]:
    """(B,): whether a shot has solutions in different cosets."""
    others: npt.NDArray[np.bool_] = filled(result) & (result.cosets != result.cosets[:, :1])
    return np.asarray(others.any(axis=1), dtype=np.bool_)


def posterior(result: SerialResult, energies: npt.NDArray[np.float64], doubt: Doubt) -> npt.NDArray[np.float64]:
    """The probability of each coset that was found.

    Args:
        result: what was found for B shots, S solutions at most.
        energies: (B, S), at one solution of each coset its free energy, infinite at all others; read where solutions
            disagree alone.
        doubt: what makes probabilities of it.

    Returns:
        (B, S): the probability of each coset, at one of its solutions; 0 at all others. What is missing to 1 is that
        of all cosets that were not found.
    """
    differ = disagreeing(result)
    of_shot = np.zeros(result.cosets.shape)
    of_shot[~differ, 0] = doubt.where_all_agree(result)[~differ]
    gaps = energies[differ] - energies[differ].min(axis=1, initial=np.inf, keepdims=True)
    shares = np.exp(-gaps / doubt.temperature)
    of_shot[differ] = (1 - doubt.missed) * shares / shares.sum(axis=1, keepdims=True)
    return of_shot


def decoding_of(result: SerialResult, probabilities: npt.NDArray[np.float64], *, num_observables: int) -> Decoding:
    """The likeliest coset of each shot as its prediction.

    Cosets that were not found share the rest of the probability alike, so that in half of it each observable flips.
    """
    chosen = probabilities.argmax(axis=1)[:, None]
    flips = observables_of(result.cosets, num_observables=num_observables)
    rest = 1 - probabilities.sum(axis=1)
    return Decoding(
        predictions=np.take_along_axis(flips, chosen[..., None], axis=1)[:, 0],
        confidence=np.take_along_axis(probabilities, chosen, axis=1)[:, 0],
        flip_probabilities=(np.einsum("bs,bso->bo", probabilities, flips) + rest[:, None] / 2).astype(np.float32),
    )
