"""Cells of the torus: their coordinates, shifts, negatives and differences."""

import itertools

import numpy as np
import pytest

from simulation.codes.torus import cell_coordinates, negated_cells, relative_cells, shifted_cells


@pytest.mark.parametrize(("l", "m"), [(1, 1), (2, 3), (5, 2)])
def test_cells_by_their_coordinates(l: int, m: int) -> None:
    cells = list(itertools.product(range(l), range(m)))
    index = {cell: c for c, cell in enumerate(cells)}
    np.testing.assert_array_equal(cell_coordinates(l, m).T, cells)
    assert negated_cells(l, m).tolist() == [index[-x % l, -y % m] for x, y in cells]
    assert shifted_cells(l, m, (2, -1)).tolist() == [index[(x + 2) % l, (y - 1) % m] for x, y in cells]
    assert shifted_cells(l, m, (2, -1), sign=-1).tolist() == [index[(x - 2) % l, (y + 1) % m] for x, y in cells]
    every = np.arange(l * m)
    between = relative_cells(every[None, :], every[:, None], l=l, m=m)
    assert between.tolist() == [[index[(x - u) % l, (y - v) % m] for x, y in cells] for u, v in cells]
    assert relative_cells(l * m - 1, 0, l=l, m=m) == l * m - 1
