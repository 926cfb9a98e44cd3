"""The check matrix of one side as words of bits, for elimination over GF(2)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from decoder.serial.graph import Places


class Columns(NamedTuple):
    """The check matrix of one side, its rows as bits."""

    first: int
    """The side's first fault; its faults follow one another."""
    detector: Places
    """(rows,): the detector of each row."""
    bits: npt.NDArray[np.uint64]
    """(faults of the side, words): bit r of a fault for row r."""


def columns_of(checks: sp.csr_matrix, detectors: npt.NDArray[np.integer], *, first: int, end: int) -> Columns:
    """The columns of the faults from `first` up to `end`, in the rows of some detectors, of a matrix (detectors, V)."""
    entries = checks[detectors, first:end].tocoo()
    bits = np.zeros((end - first, -(-len(detectors) // 64)), dtype=np.uint64)
    np.bitwise_or.at(bits, (entries.col, entries.row // 64), np.uint64(1) << (entries.row % 64).astype(np.uint64))
    return Columns(first, detectors.astype(np.int32), bits)
