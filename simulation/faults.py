"""A detector error model as matrices: what every decoder and sampler works on."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import stim

Symptom = tuple[tuple[int, ...], tuple[int, ...]]
"""The detectors and the observables that a mechanism flips, each ascending."""


@dataclass(frozen=True, eq=False, repr=False)
class FaultModel:
    """Independent error mechanisms with distinct symptoms."""

    check_matrix: sp.csc_matrix
    """H, uint8 (detectors, mechanisms): which detectors each mechanism flips."""
    observable_matrix: sp.csc_matrix
    """L, uint8 (observables, mechanisms): which observables each mechanism flips."""
    priors: npt.NDArray[np.float64]
    """(mechanisms,): the probability of each mechanism."""
    instructions: npt.NDArray[np.int64] | None = None
    """(mechanisms,): of each mechanism, the likeliest of the DEM's errors that are this mechanism, counted from 0 in
    the DEM without loops. Of those that were merged since they differ by ignored detectors alone, one with the fewest
    detectors. None where there is no DEM."""
    num_instructions: int = 0
    """Errors of the DEM, also those that cannot happen."""

    @property
    def num_detectors(self) -> int:
        """Rows of `check_matrix`."""
        return int(self.check_matrix.shape[0])

    @property
    def num_observables(self) -> int:
        """Rows of `observable_matrix`."""
        return int(self.observable_matrix.shape[0])

    @property
    def num_mechanisms(self) -> int:
        """Columns of both."""
        return len(self.priors)

    def __repr__(self) -> str:
        return (
            f"<FaultModel: {self.num_mechanisms:,} mechanisms of {self.num_detectors} detectors and "
            f"{self.num_observables} observables>"
        )

    @classmethod
    def from_dem(cls, dem: stim.DetectorErrorModel) -> FaultModel:
        """Reads any DEM; mechanisms with the same symptom are merged, also across REPEAT blocks.

        Two independent mechanisms merge to p1 (1 - p2) + p2 (1 - p1). Suggested decompositions (``^``) are
        undone, and mechanisms without any symptom are dropped.
        """
        symptoms, priors = errors_of_dem(dem)
        return cls.from_errors(symptoms, priors, num_observables=dem.num_observables)

    @classmethod
    def from_errors(
        cls, symptoms: sp.csc_matrix, priors: npt.NDArray[np.float64], *, num_observables: int
    ) -> FaultModel:
        """As `from_dem`, from what `errors_of_dem` gives, or other probabilities."""
        possible = np.flatnonzero(priors > 0)
        merged = cls._merged(symptoms[:, possible], priors[possible], num_observables=num_observables)
        return merged._named(possible, len(priors))

    @classmethod
    def _merged(
        cls,
        symptoms: sp.csc_matrix,
        priors: npt.NDArray[np.float64],
        *,
        num_observables: int,
        sizes: npt.NDArray[np.int64] | None = None,
    ) -> FaultModel:
        """The distinct columns with an entry; as their instructions the places of one column each.

        Args:
            symptoms: (detectors + observables, columns), the observables last.
            priors: (columns,).
            num_observables: how many of the rows are observables.
            sizes: (columns,), of several columns that become one, one with the least is its instruction, and of these
                the likeliest; None for all the same.
        """
        column = distinct_columns(symptoms, num_observables=num_observables)
        best_first = np.lexsort((-priors, np.zeros(len(priors)) if sizes is None else sizes))
        kept, first = np.unique(column[best_first], return_index=True)
        instructions = best_first[first[kept >= 0]]
        distinct = symptoms[:, instructions]
        merged = [0.0] * distinct.shape[1]
        for j, p in zip(column.tolist(), priors.tolist(), strict=True):
            if j >= 0:
                merged[j] = p * (1 - merged[j]) + merged[j] * (1 - p)
        num_detectors = symptoms.shape[0] - num_observables
        possible = np.array(merged, dtype=np.float64)
        left = possible > 0  # two certain ones undo each other
        return cls(
            distinct[:num_detectors, left],
            distinct[num_detectors:, left],
            possible[left],
            instructions[left],
            len(priors),
        )

    def _named(self, instructions: npt.NDArray[np.int64] | None, num_instructions: int) -> FaultModel:
        """The same, its instructions being places in a list of others."""
        named = None if instructions is None or self.instructions is None else instructions[self.instructions]
        return replace(self, instructions=named, num_instructions=num_instructions)

    def columns(self, kept: npt.NDArray[np.int64]) -> FaultModel:
        """Some of the mechanisms."""
        return FaultModel(
            self.check_matrix[:, kept],
            self.observable_matrix[:, kept],
            self.priors[kept],
            None if self.instructions is None else self.instructions[kept],
            self.num_instructions,
        )

    def to_dem(self) -> stim.DetectorErrorModel:
        """Writes the model as a DEM, an error for each mechanism, from which `from_dem` reads the same model."""
        lines = [
            f"error({p!r}) {' '.join([*(f'D{d}' for d in detectors), *(f'L{o}' for o in observables)])}"
            for (detectors, observables), p in zip(self.symptoms(), self.priors.tolist(), strict=True)
        ]
        # The last ones are named so that those that nothing flips count too.
        lines += [f"detector D{self.num_detectors - 1}"] if self.num_detectors else []
        lines += [f"logical_observable L{self.num_observables - 1}"] if self.num_observables else []
        return stim.DetectorErrorModel("\n".join(lines))

    @property
    def symptom_matrix(self) -> sp.csc_matrix:
        """H above L, uint8 (detectors + observables, mechanisms), indices ascending."""
        return sp.vstack([self.check_matrix, self.observable_matrix], format="csc")

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
        symptoms = sp.vstack([self.check_matrix.tocsr()[detectors], self.observable_matrix], format="csc")
        sizes = np.diff(self.check_matrix.indptr).astype(np.int64)
        merged = self._merged(symptoms, self.priors, num_observables=self.num_observables, sizes=sizes)
        return merged._named(self.instructions, self.num_instructions)


def distinct_columns(symptoms: sp.csc_matrix, *, num_observables: int) -> npt.NDArray[np.int64]:
    """The place of each column among the distinct ones, in the order of a fault model's mechanisms.

    Distinct symptoms ascend as tuples do: by their detectors, and if these are the same by their observables.

    Args:
        symptoms: (detectors + observables, columns), the observables last, indices ascending.
        num_observables: how many of the rows are observables.

    Returns:
        int64 (columns,), -1 for a column without entries.
    """
    # A column becomes a string of bytes that compares as the two tuples do: rows in big-endian order, renumbered so
    # that observables, though written last, are less than any detector that a longer list of detectors has there.
    renumbered = (symptoms.indices.astype(np.int64) + num_observables) % max(1, symptoms.shape[0])
    data = renumbered.astype(">u4").tobytes()
    columns = [data[4 * start : 4 * end] for start, end in pairwise(symptoms.indptr.tolist())]
    place = {column: j for j, column in enumerate(sorted(set(columns) - {b""}))}
    return np.array([place.get(column, -1) for column in columns], dtype=np.int64)


def poisson_means(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean of a Poisson number of events whose parity is odd with the given probability below 1/2.

    It is -ln(1 - 2q) / 2, and where independent faults with the same symptom are merged, their means add.
    """
    return np.asarray(-np.log1p(-2 * probabilities) / 2)


def errors_of_dem(dem: stim.DetectorErrorModel) -> tuple[sp.csc_matrix, npt.NDArray[np.float64]]:
    """The symptom, uint8 (detectors + observables, errors), and the probability of each error, in a DEM's order."""
    # The text is parsed many times faster than the instructions' targets are asked one by one.
    text = str(dem.flattened()).replace(" ^", "")
    if "[" in text:
        text = re.sub(r"^error\[[^\]]*\]", "error", text, flags=re.MULTILINE)  # tags escape closing brackets
    # Lists of text alone: many small lists would have Python look for garbage among all that there is, half a second
    # in which no other thread runs.
    errors = [line for line in text.split("\n") if line.startswith("error(")]
    priors = np.array([float(line[len("error(") : line.index(")")]) for line in errors], dtype=np.float64)
    owner = np.repeat(np.arange(len(errors)), [line.count(" ") for line in errors])
    targets = "".join([line[line.index(")") + 1 :] for line in errors])
    letters = np.frombuffer(targets.encode(), dtype=np.uint8)
    is_observable = letters[letters >= ord("D")] == ord("L")
    row = np.fromstring(targets.replace("D", "").replace("L", ""), dtype=np.int64, sep=" ")
    row[is_observable] += dem.num_detectors
    shape = (dem.num_detectors + dem.num_observables, len(errors))
    symptoms = sp.csc_matrix((np.ones(len(row), dtype=np.uint8), (row, owner)), shape=shape)
    symptoms.data %= 2  # a target that is named twice, as in D0 ^ D0 D1, is not flipped
    symptoms.eliminate_zeros()
    return symptoms, priors
