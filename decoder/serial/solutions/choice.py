"""Which coset a shot is said to be in, and with what probability."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder.base import Decoding
from decoder.serial.graph import JointGraph, observables_of
from decoder.serial.rules import LARGE, SerialResult

MISSED = 2.3
"""How fast the odds that no solution is right fall with what is explained, where solutions disagree. Where nothing is,
they are even."""
EXPLAINED = 0.5
"""How fast the odds that all solutions are wrong fall with what is explained, where they agree."""
UNEXPLAINED = 10.0
"""How fast these grow with what is lacking, where less than nothing is explained: there agreement means little."""
MOST_ODDS = 60.0
"""Log-odds count as no larger than this."""
UNSOLVED = 0.1
"""The probability that the likelier faults are right where there is no solution, if they explain enough."""


class Doubt(NamedTuple):
    """How likely what was found is wrong: numbers fitted to shots whose truth was known.

    *Explained* is what `decoder.serial.solutions.surprise` says of each shot, (B,).
    """

    temperature: float
    """The posterior of disagreeing cosets is exp(-free energy / temperature), normalised. Above 1, since the lightest
    error of a coset is not always found, and not all errors near to it are counted."""
    odds: tuple[float, float]
    """Where all solutions agree, they are wrong with the log-odds ``odds[0] + odds[1] ln(passes / solutions)``, less
    `EXPLAINED` times what is explained, more `UNEXPLAINED` times what is lacking."""

    def where_all_agree(self, result: SerialResult, explained: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(B,): the probability that the coset of a shot's solutions is right, should they all lie in one."""
        found = np.maximum(result.found, 1)
        constant, by_passes = self.odds
        odds = constant + by_passes * np.log(np.maximum(result.passes, 1) / found)
        odds += UNEXPLAINED * np.maximum(-explained, 0) - EXPLAINED * explained
        return np.where(result.found == 0, UNSOLVED * _chance(MISSED * explained), _chance(-odds))


SMALL_DOUBT = Doubt(temperature=1.5, odds=(-9.9, 2.7))
"""Fitted by likelihood, with `MISSED` and `EXPLAINED`, to 27,824 shots of bb72 over 6 and 2 rounds at 0.3 to 30 %,
20,480 of them at 0.3 %; the temperature is that of an earlier fit. `UNEXPLAINED` was chosen for surface codes."""
LARGE_DOUBT = Doubt(temperature=2.0, odds=(-14.0, 1.8))
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


def posterior(
    result: SerialResult, energies: npt.NDArray[np.float64], explained: npt.NDArray[np.float64], doubt: Doubt
) -> npt.NDArray[np.float64]:
    """The probability of each coset that was found.

    Args:
        result: what was found for B shots, S solutions at most.
        energies: (B, S), at one solution of each coset its free energy, infinite at all others; read where solutions
            disagree alone.
        explained: (B,), see `decoder.serial.solutions.surprise`.
        doubt: what makes probabilities of it.

    Returns:
        (B, S): the probability of each coset, at one of its solutions; 0 at all others. What is missing to 1 is that
        of all cosets that were not found.
    """
    differ = disagreeing(result)
    of_shot = np.zeros(result.cosets.shape)
    of_shot[~differ, 0] = doubt.where_all_agree(result, explained)[~differ]
    gaps = energies[differ] - energies[differ].min(axis=1, initial=np.inf, keepdims=True)
    shares = np.exp(-gaps / doubt.temperature)
    found = _chance(MISSED * explained[differ, None])
    of_shot[differ] = found * shares / shares.sum(axis=1, keepdims=True)
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


def _chance(log_odds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities of log-odds, above 0, so that cosets can be told apart whatever the odds."""
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds, -MOST_ODDS, MOST_ODDS))))
