import numpy as np
import pytest
import stim

from decoder.serial.solutions.mechanisms import mechanisms_of
from decoder.serial.solutions.recombination import share_parts
from simulation.faults import FaultModel


def test_each_part_as_the_lighter_of_two_errors_has_it() -> None:
    """Three places on a line, each with two errors for its events; at the last one they differ by an observable."""
    model = FaultModel.from_dem(
        stim.DetectorErrorModel(
            "error(0.2) D0\nerror(0.01) D0 D1\nerror(0.02) D1\n"
            "error(0.01) D2\nerror(0.2) D2 D3\nerror(0.1) D3\n"
            "error(0.2) D4\nerror(0.01) D4 L0"
        )
    )
    table = mechanisms_of(model)
    one, other = np.zeros(20, np.int32), np.zeros(20, np.int32)
    one[:3], other[:5] = [1, 3, 7], [0, 2, 4, 5, 6]
    before = table.weight[[1, 3, 7]].sum(), table.weight[[0, 2, 4, 5, 6]].sum()
    owner = np.full(5, -1)
    size, other_size, change, other_change = share_parts(one, 3, other, 5, table, owner)
    # 0.2 * 0.02 is less likely than 0.01, and 0.2 * 0.1 is likelier.
    assert sorted(one[:size].tolist()) == [1, 4, 5, 7]
    assert sorted(other[:other_size].tolist()) == [1, 4, 5, 6]
    assert table.weight[one[:size]].sum() == pytest.approx(before[0] + change)
    assert table.weight[other[:other_size]].sum() == pytest.approx(before[1] + other_change)
    assert change < 0
    assert other_change < 0
    assert (owner == -1).all()
    assert share_parts(one, size, other, other_size, table, owner)[2:] == (0.0, 0.0)
