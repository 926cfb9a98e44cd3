"""Logical operators: they are logical, independent, paired, and as light as the docs say."""

import itertools
import json
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ldpc import mod2
from scipy.sparse import csr_matrix, vstack

from simulation.codes import CODES, BivariateBicycleCode, parse_code
from simulation.codes.logicals import SHIPPED_PATH, search_logicals, write_shipped

WEIGHTS = {
    "bb18": [4] * 4,
    "bb72": [6] * 12,
    "bb90": [10] * 8,
    "bb108": [10] * 4 + [12] * 4,
    "bb120": [8] * 4 + [10] * 4,
    "bb144": [12] * 12,
    "bb196": [8] * 6 + [14] * 6,
    "bb288": [18] * 12,
    "bb360": [24] * 12,
    "bb756": [36] * 8 + [40] * 8,
}
"""Of the shipped bases. The least weights of all but bb756 are the published distances."""


def assert_logical_basis(code: BivariateBicycleCode, basis: str, operators: np.ndarray) -> None:
    """Commutes with the opposite checks, and is independent modulo the checks of its own kind."""
    own, opposite = (code.hx, code.hz) if basis == "X" else (code.hz, code.hx)
    assert operators.shape == (code.k, code.n)
    assert not ((opposite @ operators.T) % 2).any()
    assert mod2.rank(vstack([own, csr_matrix(operators)])) == mod2.rank(own) + code.k


def assert_orbits_span(code: BivariateBicycleCode, orbits: np.ndarray, x_logicals: np.ndarray) -> None:
    steps = itertools.product(range(code.l), range(code.m))
    translates = np.concatenate([code.translate(orbits, dx, dy) for dx, dy in steps])
    assert not ((code.hx @ translates.T) % 2).any()
    # The pairing with a basis of the X type sees exactly the class of each translate.
    assert mod2.rank(csr_matrix(pairing(x_logicals, translates))) == code.k


def pairing(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return (x.astype(np.int64) @ z.T.astype(np.int64) % 2).astype(np.uint8)


@pytest.mark.parametrize("name", CODES)
def test_shipped_operators(name: str):
    code = CODES[name]
    assert_logical_basis(code, "Z", code.logicals("Z"))
    assert_logical_basis(code, "X", code.logicals("X"))
    assert_orbits_span(code, code.logical_orbits(), code.logicals("X"))
    assert mod2.rank(csr_matrix(pairing(code.logicals("X"), code.logicals("Z")))) == code.k
    np.testing.assert_array_equal(code.logicals("X")[:, code.dual_qubits], code.logicals("Z"))


@pytest.mark.parametrize("name", CODES)
def test_shipped_weights(name: str):
    code = CODES[name]
    weights = code.logicals("Z").sum(axis=1, dtype=int).tolist()
    assert weights == WEIGHTS[name]
    assert set(code.logical_orbits().sum(axis=1, dtype=int)) == set(weights)
    assert code.d is not None
    assert weights[0] == code.d or (name == "bb756" and weights[0] >= code.d)


def test_shipped_orbits_of_bb72_are_three():
    assert CODES["bb72"].logical_orbits().shape == (3, 72)


def test_shipped_operators_do_not_depend_on_the_order_of_monomials():
    swapped = parse_code("6,6,y+x^3+y^2,y^3+x^2+x")
    np.testing.assert_array_equal(swapped.logicals("Z"), CODES["bb72"].logicals("Z"))


def test_operators_are_shared_and_so_read_only():
    code = CODES["bb72"]
    for operators in (code.logicals("X"), code.logicals("Z"), code.logical_orbits()):
        assert operators.dtype == np.uint8
        with pytest.raises(ValueError, match="read-only"):
            operators[0, 0] = 1


@pytest.mark.parametrize("name", ["bb72", "bb90", "bb144"])
def test_a_fresh_search_finds_the_least_weights(name: str):
    found = search_logicals(CODES[name], seed=7, iterations=100)
    assert found.basis.sum(axis=1).tolist() == WEIGHTS[name]


def test_the_shipped_file_can_be_made_again(tmp_path):
    path = tmp_path / "logicals.json"
    write_shipped({"bb72": CODES["bb72"]}, path)
    entry = json.loads(path.read_text())["bb72"]
    shipped = json.loads(SHIPPED_PATH.read_text())["bb72"]
    assert entry.keys() == shipped.keys()
    # Which operators of that weight come first may depend on the machine's rounding.
    same = shipped.keys() - {"basis", "orbits"}
    assert {key: entry[key] for key in same} == {key: shipped[key] for key in same}


@st.composite
def tiny_codes_with_logicals(draw: st.DrawFn) -> BivariateBicycleCode:
    """With x a cube root of unity and y = 1, both polynomials are 1 + x + x^2 = 0, so k > 0."""
    m = draw(st.integers(1, 3))
    steps = st.tuples(*[st.integers(0, m - 1)] * 3)
    a, b = (cast(Any, tuple(zip(draw(st.permutations(range(3))), draw(steps), strict=True))) for _ in range(2))
    return BivariateBicycleCode(3, m, a, b)


@given(tiny_codes_with_logicals())
@example(BivariateBicycleCode(7, 1, ((0, 0), (1, 0), (3, 0)), ((0, 0), (1, 0), (3, 0))))
@settings(max_examples=20, deadline=None)
def test_a_search_finds_the_distance_of_tiny_codes(code: BivariateBicycleCode):
    """Against the minimum over all words of ker(hx) that are no stabilizers."""
    assert code.k > 0
    found = search_logicals(code, iterations=20)
    assert_logical_basis(code, "Z", found.basis)
    assert_orbits_span(code, found.orbits, found.basis[:, code.dual_qubits])
    assert found.basis.sum(axis=1, dtype=int).tolist()[0] == distance_by_enumeration(code)


def distance_by_enumeration(code: BivariateBicycleCode) -> int:
    kernel = mod2.kernel(code.hx).toarray().astype(np.int64)
    choices = np.arange(2 ** len(kernel))[:, None] >> np.arange(len(kernel)) & 1
    words = choices @ kernel % 2
    # A word of ker(hx) is a stabilizer exactly if it commutes with all of ker(hz).
    logical = (words @ mod2.kernel(code.hz).toarray().T.astype(np.int64) % 2).any(axis=1)
    return int(words[logical].sum(axis=1).min())


def test_codes_that_are_not_shipped_are_searched_once():
    code = parse_code("3,3,x+1+y,x+1+x*y^2")
    operators = code.logicals("Z")
    assert operators.shape == (4, 18)
    assert code.logicals("Z") is operators
    assert_logical_basis(code, "X", code.logicals("X"))


def test_codes_without_logical_qubits_have_no_operators():
    code = BivariateBicycleCode(3, 2, ((0, 0), (1, 0), (0, 1)), ((0, 0), (0, 1), (2, 0)))
    assert code.k == 0
    for ask in (lambda: code.logicals("Z"), lambda: code.logicals("X"), code.logical_orbits):
        with pytest.raises(ValueError, match="no logical operators"):
            ask()


def test_other_bases_are_refused():
    with pytest.raises(ValueError, match="'X' or 'Z', not 'Y'"):
        CODES["bb72"].logicals("Y")  # type: ignore[arg-type]


def test_iterations_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        search_logicals(CODES["bb72"], iterations=0)
