"""A detector error model as matrices: what every decoder and sampler works on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import stim

Symptom = tuple[tuple[int, ...], tuple[int, ...]]
"""The detectors and the observables that a mechanism flips, each ascending."""


@dataclass(frozen=True, eq=False)
class FaultModel:
    """Independent error mechanisms with distinct symptoms."""

    check_matrix: sp.csc_matrix
    """H, uint8 (detectors, mechanisms): which detectors each mechanism flips."""
    observable_matrix: sp.csc_matrix
    """L, uint8 (observables, mechanisms): which observables each mechanism flips."""
    priors: npt.NDArray[np.float64]
    """(mechanisms,): the probability of each mechanism."""

    @property
    def num_detectors(self) -> int:
        return int(self.check_matrix.shape[0])

    @property
    def num_observables(self) -> int:
        return int(self.observable_matrix.shape[0])

    @property
    def num_mechanisms(self) -> int:
        return len(self.priors)

    @classmethod
    def from_dem(cls, dem: stim.DetectorErrorModel) -> FaultModel:
        """Reads any DEM; mechanisms with the same symptom are merged, also across REPEAT blocks.

        Two independent mechanisms merge to p1 (1 - p2) + p2 (1 - p1). Suggested decompositions (``^``) are
        undone, and mechanisms without any symptom are dropped.
        """

        return cls._merged(map(_parse_error, _errors(dem)), dem.num_detectors, dem.num_observables)

    @classmethod
    def _merged(
        cls, mechanisms: Iterable[tuple[Symptom, float]], num_detectors: int, num_observables: int
    ) -> FaultModel:
        merged: dict[Symptom, float] = {}
        for symptom, p in mechanisms:
            if p > 0 and (symptom[0] or symptom[1]):
                q = merged.get(symptom, 0.0)
                merged[symptom] = p * (1 - q) + q * (1 - p)
        symptoms = sorted(merged)
        return cls(
            check_matrix=_columns([s[0] for s in symptoms], num_detectors),
            observable_matrix=_columns([s[1] for s in symptoms], num_observables),
            priors=np.array([merged[s] for s in symptoms], dtype=np.float64),
        )

    def symptoms(self) -> list[Symptom]:
        """The detectors and observables of each mechanism, in column order."""
        h, o = self.check_matrix, self.observable_matrix
        return [
            (
                tuple(h.indices[h.indptr[j] : h.indptr[j + 1]].tolist()),
                tuple(o.indices[o.indptr[j] : o.indptr[j + 1]].tolist()),
            )
            for j in range(self.num_mechanisms)
        ]

    def restrict(self, detectors: npt.NDArray[np.int64]) -> FaultModel:
        """Keeps only some detectors (renumbered in the given order) and merges what then looks the same.

        Restricting an XYZ model to the detectors of the memory basis gives the XZ model.
        """
        position = {int(d): i for i, d in enumerate(detectors)}
        mechanisms = (
            ((tuple(sorted(position[d] for d in dets if d in position)), obs), float(p))
            for (dets, obs), p in zip(self.symptoms(), self.priors, strict=True)
        )
        return self._merged(mechanisms, len(detectors), self.num_observables)


# An error instruction as stim prints it; tags hold no unescaped closing bracket.
_ERROR = re.compile(r"^ *error(?:\[[^\]]*\])?\(([^)]*)\)(.*)$", re.MULTILINE)


def _errors(dem: stim.DetectorErrorModel) -> list[tuple[str, str]]:
    # The text is parsed several times faster than the instructions' targets are asked one by one.
    return _ERROR.findall(str(dem.flattened()))


def _parse_error(error: tuple[str, str]) -> tuple[Symptom, float]:
    detectors: set[int] = set()
    observables: set[int] = set()
    for target in error[1].split():
        if target != "^":
            (detectors if target[0] == "D" else observables).symmetric_difference_update((int(target[1:]),))
    return (tuple(sorted(detectors)), tuple(sorted(observables))), float(error[0])


def _columns(supports: list[tuple[int, ...]], num_rows: int) -> sp.csc_matrix:
    """uint8 (num_rows, len(supports)): column j has ones at supports[j], which ascends."""
    indptr = np.cumsum([0, *map(len, supports)])
    indices = np.fromiter((i for support in supports for i in support), dtype=np.int32, count=int(indptr[-1]))
    data = np.ones(len(indices), dtype=np.uint8)
    return sp.csc_matrix((data, indices, indptr), shape=(num_rows, len(supports)))
