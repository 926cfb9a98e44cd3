"""The torus that a bivariate bicycle code lives on.

Cell ``(x, y)`` of an l by m torus has the index ``x * m + y``.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Cells = TypeVar("Cells", int, npt.NDArray[np.intp])


def cell_coordinates(l: int, m: int) -> npt.NDArray[np.intp]:
    """The coordinates of every cell of an l by m torus, int (2, l * m): x in the first row, y in the second."""
    return np.stack(np.divmod(np.arange(l * m), m))


def shifted_cells(l: int, m: int, shift: tuple[int, int], *, sign: int = 1) -> npt.NDArray[np.intp]:
    """The index of cell ``c + sign * shift`` for every cell c of an l by m torus, int (l * m,)."""
    x, y = cell_coordinates(l, m)
    return np.asarray((x + sign * shift[0]) % l * m + (y + sign * shift[1]) % m)


def negated_cells(l: int, m: int) -> npt.NDArray[np.intp]:
    """The index of cell ``-c`` for every cell c of an l by m torus, int (l * m,)."""
    x, y = cell_coordinates(l, m)
    return np.asarray(-x % l * m + -y % m)


def relative_cells(cells: Cells, origins: Cells, *, l: int, m: int) -> Cells:
    """The index of the cell ``cells - origins`` of an l by m torus; arrays are broadcast against each other."""
    return (cells // m - origins // m) % l * m + (cells - origins) % m
