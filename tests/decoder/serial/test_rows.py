import numpy as np
import scipy.sparse as sp

from decoder.serial.rows import LANES, random_rows, rows_to_test


def checks(*, detectors: int, faults: int, seed: int) -> sp.csr_matrix:
    dense = np.random.default_rng(seed).random((detectors, faults)) < 0.02
    dense[3] = False  # a detector that no fault flips
    return sp.csr_matrix(dense)


def test_orders_have_every_row_once_and_groups_share_no_fault() -> None:
    matrix = checks(detectors=100, faults=300, seed=1)
    rows = random_rows(matrix, np.arange(100), orders=5, seed=2)
    assert rows.slots.dtype == np.uint16
    for order in range(5):
        groups = rows.detector[order, : rows.groups[order]]
        visited = groups[groups >= 0]
        assert sorted(visited.tolist()) == [d for d in range(100) if matrix[d].nnz]
        for g, group in enumerate(groups):
            slots = rows.slots[rows.start[order, g] : rows.start[order, g + 1]].reshape(-1, LANES)
            for lane, detector in enumerate(group):
                expected = matrix[detector].indices.tolist() if detector >= 0 else []
                assert slots[:, lane].tolist() == expected + [300] * (len(slots) - len(expected))
            real = slots[slots < 300]
            assert len(np.unique(real)) == len(real)
    assert rows.most_slots == max(rows.start[:, -1] - rows.start[:, 0])
    assert any((rows.detector[0, 0] != rows.detector[order, 0]).any() for order in range(1, 5))


def test_the_same_seed_draws_the_same_orders() -> None:
    matrix = checks(detectors=60, faults=200, seed=3)
    one, same, other = (random_rows(matrix, np.arange(60), orders=2, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.detector, same.detector)
    assert one.detector.shape != other.detector.shape or (one.detector != other.detector).any()


def test_rows_of_many_faults_and_none_at_all() -> None:
    wide = sp.csr_matrix(np.ones((2, 70000), dtype=np.bool_))
    rows = rows_to_test(wide, np.arange(2))
    assert rows.slots.dtype == np.uint32
    assert rows.widest == 70000 * LANES == rows.most_slots
    none = random_rows(sp.csr_matrix((4, 0), dtype=np.bool_), np.arange(4), orders=3, seed=0)
    assert none.groups.tolist() == [0, 0, 0]
    assert (none.most_slots, none.widest) == (0, 0)
