"""The frame in which shots of a code on a torus are decoded, so that answers do not depend on names.

Belief propagation visits the rows in an order that is drawn by their numbers. Two files of one experiment that number
detectors in different ways, or count the cells from different ones on, would so be decoded alike in the mean only. So a
model whose torus is known is decoded as our own experiment has it; and since that is the same after a translation of
the torus, each shot is decoded after the translation that its own events choose.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from simulation.bits import Bits
from simulation.circuits import MemoryExperiment
from simulation.faults import FaultModel
from simulation.gf2 import Matrix, RowSpace
from simulation.placement import Placement, translated, with_checks

Indices = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

SEED = 29
"""Of the random numbers that shots and mechanisms are compared by."""
DIGITS = 10
"""Digits behind the point of the logarithms of priors: those that follow depend on the order in which mechanisms with
the same symptom were merged."""


class Translations:
    """The translations of an experiment of ours: where they take detectors, and what they make of the observables.

    Each is named by the cell that it takes cell 0 to.
    """

    def __init__(self, like: MemoryExperiment) -> None:
        self._like, self._code = like, like.code
        self._known: dict[int, tuple[Matrix, Matrix]] = {}

    def detectors(self, cell: int) -> Indices:
        """(detectors,): where each detector goes."""
        return translated(self._like, cell)

    def observables(self, cell: int) -> tuple[Matrix, Matrix]:
        """Of an error that is moved: uint8 (k, k) and (k, cells), the old observables and the old events' parities of
        the memory basis's checks that make up each new observable."""
        if cell not in self._known:
            dx, dy = divmod(cell, self._code.m)
            logicals = self._code.logicals(self._like.basis)
            made_of = self._operators.combinations(self._code.translate(logicals, -dx, -dy))
            self._known[cell] = made_of[:, : self._code.k], made_of[:, self._code.k :]
        return self._known[cell]

    def back(self, cell: int) -> int:
        """The translation that undoes one."""
        dx, dy = divmod(cell, self._code.m)
        return -dx % self._code.l * self._code.m + -dy % self._code.m

    def after(self, cell: int, other: int) -> int:
        """One translation and then another one."""
        (dx, dy), (ex, ey) = divmod(cell, self._code.m), divmod(other, self._code.m)
        return (dx + ex) % self._code.l * self._code.m + (dy + ey) % self._code.m

    @cached_property
    def _operators(self) -> RowSpace:
        checks = self._code.hx if self._like.basis == "X" else self._code.hz
        return RowSpace(np.concatenate([self._code.logicals(self._like.basis), checks.toarray()]))


class Frame:
    """Takes shots of an experiment into a frame of its like, and answers back.

    Args:
        placement: where the experiment's detectors stand.
        model: its fault model.
    """

    def __init__(self, placement: Placement, model: FaultModel) -> None:
        self.placement, self._moves = placement, Translations(placement.like)
        like = placement.like
        given = placement.framed(model)
        given = replace(given, priors=np.exp(np.round(np.log(given.priors), DIGITS)))
        self._numbers = np.random.default_rng(SEED).integers(2**63, size=like.num_detectors, dtype=np.uint64)
        self.translations = self._choose(given)
        """The cells of all translations that lead to the same model."""
        self.model = self._moved(given, self.translations[0])
        """What is decoded."""
        self.memory_basis = like.check_types.memory
        """(detectors,): its detectors of the memory basis."""
        places = np.stack([self._moves.detectors(cell)[placement.detector] for cell in self.translations], axis=1)
        self._keys = self._numbers[places]  # (detectors, translations)
        self._sources = np.argsort(places, axis=0)
        self._cells = placement.cells.toarray()[:, placement.detector].T.astype(np.int64)
        self._answers: dict[int, tuple[Matrix, Matrix]] = {}

    def turned(self, events: Bits) -> tuple[Bits, Indices]:
        """Shots in the frame.

        Args:
            events: bool (B, detectors), as the experiment has them.

        Returns:
            The same as the model has them, and (B,), the place in `translations` of that which each was moved by.
        """
        if len(self.translations) == 1:
            return np.ascontiguousarray(events[:, self._sources[:, 0]]), np.zeros(len(events), dtype=np.int64)
        which = np.array([self._keys[np.flatnonzero(shot)].sum(axis=0).argmin() for shot in events], dtype=np.int64)
        moved = events[np.arange(len(events))[:, None], self._sources[:, which].T]
        return np.ascontiguousarray(moved), which

    def answered(self, flips: Bits, events: Bits, which: Indices) -> Bits:
        """The observables as the experiment has them.

        Args:
            flips: bool (B, ..., observables), of shots in the frame.
            events: bool (B, detectors), of these shots as the experiment has them.
            which: (B,), see `turned`.
        """
        parity = events.astype(np.int64) @ self._cells % 2
        answers = np.empty_like(flips)
        for t in np.unique(which).tolist():
            mine = which == t
            made_of, by_checks = self._answer(t)
            added = parity[mine] @ by_checks.T
            added = added.reshape(len(added), *[1] * (flips.ndim - 2), added.shape[1])
            answers[mine] = (flips[mine].astype(np.int64) @ made_of.T + added) % 2 == 1
        return answers

    def mechanisms(self, t: int, model: FaultModel) -> Indices:
        """(mechanisms,): which mechanism of a shot that was moved by the first translation each one is that was found
        for a shot moved by translation t.

        Args:
            t: a place in `translations`.
            model: `model`, or what is left of it.
        """
        back = self._moves.after(self._moves.back(self.translations[t]), self.translations[0])
        whole = self._hashes(model, 0)
        order = np.argsort(whole)
        found = order[np.searchsorted(whole[order], self._hashes(model, back))]
        return np.asarray(found, dtype=np.int64)

    def _answer(self, t: int) -> tuple[Matrix, Matrix]:
        """What the experiment's observables are made of: those of a shot moved by translation t, and its checks."""
        if t not in self._answers:
            cell, placement = self.translations[t], self.placement
            back = self._moves.observables(self._moves.back(cell))[0].astype(np.int64)
            made_of = placement.observables.astype(np.int64) @ back % 2
            by_checks = made_of @ self._moves.observables(cell)[1] + placement.checks
            self._answers[t] = made_of.astype(np.uint8), (by_checks % 2).astype(np.uint8)
        return self._answers[t]

    def _choose(self, model: FaultModel) -> list[int]:
        """The translations after which the model has the least digest: all, where the noise is the same everywhere."""
        code = self.placement.like.code
        if self.placement.like.noiseless_last_cycle:
            return [0]  # detectors do not tell what checks add to observables; see `simulation.placement`
        if len(np.unique(self._hashes(model, 0))) < model.num_mechanisms:
            return [0]  # mechanisms that no detector tells apart, as in no code with a distance
        digest = self._digest(model, 0)
        if all(self._digest(model, cell) == digest for cell in (code.m % code.cells, 1 % code.m)):
            return list(range(code.cells))
        digests = [self._digest(model, cell) for cell in range(code.cells)]
        return [cell for cell, found in enumerate(digests) if found == min(digests)]

    def _digest(self, model: FaultModel, cell: int) -> bytes:
        """The same for all models that have the same mechanisms and priors after a translation."""
        hashes = self._hashes(model, cell)
        order = np.argsort(hashes)
        return hashlib.sha256(hashes[order].tobytes() + model.priors[order].tobytes()).digest()

    def _hashes(self, model: FaultModel, cell: int) -> Hashes:
        """(mechanisms,): the sums of the numbers of each mechanism's detectors after a translation."""
        numbers = self._numbers[self._moves.detectors(cell)]
        return np.asarray(model.check_matrix.T.astype(np.uint64) @ numbers, dtype=np.uint64)

    def _moved(self, model: FaultModel, cell: int) -> FaultModel:
        """The model after a translation."""
        if cell == 0:
            return model
        made_of, by_checks = self._moves.observables(cell)
        flips = with_checks(model, self.placement.cells, by_checks, made_of.astype(np.int64) @ model.observable_matrix)
        moved = replace(model, observable_matrix=flips)
        return moved.restrict(np.argsort(self._moves.detectors(cell)))
