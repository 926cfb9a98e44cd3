import numpy as np
import pytest

from simulation.gf2 import RowSpace


def test_sums_of_rows() -> None:
    random = np.random.default_rng(2)
    rows = random.integers(0, 2, (9, 30), dtype=np.uint8)
    rows[5] = rows[0] ^ rows[3]
    space = RowSpace(rows)
    wanted = random.integers(0, 2, (20, 9), dtype=np.uint8) @ rows % 2
    np.testing.assert_array_equal(space.combinations(wanted) @ rows % 2, wanted)
    assert space.rank == 8
    with pytest.raises(ValueError, match="row 1 is no sum"):
        space.combinations(np.stack([rows[0], 1 - rows[0]]))
    with pytest.raises(ValueError, match="29 columns"):
        space.combinations(rows[:, 1:])
