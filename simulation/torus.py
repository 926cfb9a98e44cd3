"""The torus that a bivariate bicycle code lives on, and the two types of its checks.

Cell ``(x, y)`` of an l by m torus has the index ``x * m + y``.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Basis = Literal["X", "Z"]
BASES: tuple[Basis, Basis] = ("X", "Z")
"""The check types in the order of the detectors' fourth coordinate: 0 is an X check, 1 a Z check."""


def shifted_cells(l: int, m: int, shift: tuple[int, int], *, sign: int = 1) -> npt.NDArray[np.intp]:
    """The index of cell ``c + sign * shift`` for every cell c of an l by m torus, int (l * m,)."""
    x, y = np.divmod(np.arange(l * m), m)
    return np.asarray((x + sign * shift[0]) % l * m + (y + sign * shift[1]) % m, dtype=np.intp)
