import numpy as np
import scipy.sparse as sp

from decoder.serial.columns import columns_of
from decoder.serial.osd import explain_by_order


def explained(checks: np.ndarray, events: np.ndarray, posterior: np.ndarray) -> tuple[bool, np.ndarray]:
    """By the faults from the second on, in the rows from the second on."""
    faults = np.zeros(checks.shape[1], np.bool_)
    columns = columns_of(sp.csr_matrix(checks), np.arange(1, checks.shape[0]), first=1, end=checks.shape[1])
    return explain_by_order(events, columns, posterior.astype(np.float32), faults), faults


def test_the_first_independent_faults_that_explain_the_events() -> None:
    """Beside the plain algorithm: columns in order, those that raise the rank, and the only solution among them."""
    random = np.random.default_rng(3)
    for rows, faults, density in ((5, 9, 0.4), (70, 150, 0.05), (130, 300, 0.02)):
        checks = random.random((rows + 1, faults + 1)) < density
        truth = random.random(faults + 1) < 0.1
        truth[0] = False
        events = checks.astype(int) @ truth % 2 == 1
        posterior = random.normal(10, 8, faults + 1)
        found, chosen = explained(checks, events, posterior)
        assert found
        assert not chosen[0]
        np.testing.assert_array_equal(checks[1:].astype(int) @ chosen % 2, events[1:])
        # None of the chosen is a sum of likelier faults: the others of the basis before it are independent of it.
        order = 1 + np.argsort(posterior[1:])
        basis: dict[int, int] = {}  # by lowest bit
        independent = set()
        for v in order.tolist():
            column = sum(1 << r for r in np.flatnonzero(checks[1:, v]).tolist())
            while column and (low := column & -column) in basis:
                column ^= basis[low]
            if column:
                basis[column & -column] = column
                independent.add(v)
        assert set(np.flatnonzero(chosen).tolist()) <= independent


def test_events_that_nothing_explains_and_none_at_all() -> None:
    checks = np.array([[0, 0, 0], [0, 1, 1], [0, 1, 1]], dtype=np.bool_)
    assert not explained(checks, np.array([False, True, False]), np.zeros(3))[0]
    found, chosen = explained(checks, np.array([True, True, True]), np.array([0, 5.0, -3.0]))
    assert found
    np.testing.assert_array_equal(chosen, [False, False, True])
    found, chosen = explained(checks, np.zeros(3, np.bool_), np.full(3, -1.0))
    assert found
    assert not chosen.any()
