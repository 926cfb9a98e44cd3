"""Sums of binary rows: which rows of a matrix over GF(2) add up to a given one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.uint8]


class RowSpace:
    """All sums of the rows of a matrix.

    Args:
        rows: uint8 or bool (rows, columns) of 0 and 1.
    """

    def __init__(self, rows: npt.NDArray[np.generic]) -> None:
        self._rows = len(rows)
        self._columns = int(rows.shape[1])
        # Each row of a basis by its highest bit, behind it the rows of the matrix that it is the sum of, as integers
        # too: Python adds rows of any length at once.
        self._by_length: dict[int, tuple[int, int]] = {}
        for i, row in enumerate(_integers(rows)):
            left, used = self._reduced(row, 1 << i)
            if left:
                self._by_length[left.bit_length()] = left, used

    @property
    def rank(self) -> int:
        """Of the matrix."""
        return len(self._by_length)

    def combinations(self, wanted: npt.NDArray[np.generic]) -> Matrix:
        """Which rows of the matrix add up to each wanted row.

        Args:
            wanted: uint8 or bool (wanted, columns) of 0 and 1.

        Returns:
            uint8 (wanted, rows).

        Raises:
            ValueError: one of them is no sum of rows.
        """
        if wanted.shape[1] != self._columns:
            raise ValueError(f"rows of {wanted.shape[1]} columns are no sums of rows of {self._columns}")
        found = np.zeros((len(wanted), self._rows), dtype=np.uint8)
        for o, row in enumerate(_integers(wanted)):
            left, used = self._reduced(row, 0)
            if left:
                raise ValueError(f"row {o} is no sum of the rows of the matrix")
            found[o, [i for i in range(self._rows) if used >> i & 1]] = 1
        return found

    def _reduced(self, row: int, used: int) -> tuple[int, int]:
        """What is left of a row when rows of the basis are added as long as that shortens it."""
        while row and (known := self._by_length.get(row.bit_length())):
            row, used = row ^ known[0], used ^ known[1]
        return row, used


def _integers(rows: npt.NDArray[np.generic]) -> list[int]:
    """Each row as an integer."""
    return [int.from_bytes(row.tobytes(), "big") for row in np.packbits(rows.astype(np.bool_), axis=1)]
