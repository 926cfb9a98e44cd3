"""Codes: their checks are those that others published, and their symmetries hold for any sizes and polynomials."""

import json
import pickle
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulation.codes import CODES, MAX_PARSED_CELLS, BivariateBicycleCode, parse_code
from simulation.codes.torus import shifted_cells

PUBLISHED = {
    "bb18": (18, 4, "4"),
    "bb72": (72, 12, "6"),
    "bb90": (90, 8, "10"),
    "bb108": (108, 8, "10"),
    "bb120": (120, 8, "8"),
    "bb144": (144, 12, "12"),
    "bb196": (196, 12, "8"),
    "bb288": (288, 12, "18"),
    "bb360": (360, 12, "<=24"),
    "bb756": (756, 16, "<=34"),
}
FOREIGN_CHECKS = {
    "bb72": "72-12-6",
    "bb90": "90-8-10",
    "bb108": "108-8-10",
    "bb144": "144-12-12",
    "bb288": "288-12-18",
}
TOY = "3,3,x+1+y,x+1+x*y^2"


@st.composite
def small_codes(draw: st.DrawFn) -> BivariateBicycleCode:
    l, m = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)).filter(lambda size: size[0] * size[1] >= 3))
    monomials = st.tuples(st.integers(0, l - 1), st.integers(0, m - 1))
    a, b = (cast(Any, tuple(draw(st.lists(monomials, min_size=3, max_size=3, unique=True)))) for _ in range(2))
    return BivariateBicycleCode(l, m, a, b)


def test_the_published_codes():
    assert {name: (code.n, code.k, code.distance_text) for name, code in CODES.items()} == PUBLISHED
    assert all(code.name == name for name, code in CODES.items())


@pytest.mark.parametrize("name", FOREIGN_CHECKS)
def test_checks_equal_those_of_another_project(name: str, vectors: Path):
    # The files use our order of rows and qubits, so nothing has to be relabelled.
    foreign = json.loads((vectors / "checks" / f"{FOREIGN_CHECKS[name]}.json").read_text())
    code = CODES[name]
    assert (code.n, code.k) == (foreign["n"], foreign["k"])
    for basis, matrix in (("X", code.hx), ("Z", code.hz)):
        assert [np.flatnonzero(row).tolist() for row in matrix.toarray()] == foreign["checks"][basis]


def test_checks_by_hand():
    """bb72, from the polynomials: X check (5, 5) has L at +x^3, +y, +y^2 and R at +y^3, +x, +x^2."""
    code = CODES["bb72"]
    left = [2 * 6 + 5, 5 * 6 + 0, 5 * 6 + 1]
    right = [36 + 5 * 6 + 2, 36 + 0 * 6 + 5, 36 + 1 * 6 + 5]
    np.testing.assert_array_equal(np.flatnonzero(code.hx.toarray()[35]), sorted(left + right))
    left = [0 * 6 + 3, 5 * 6 + 0, 4 * 6 + 0]
    right = [36 + 3 * 6 + 0, 36 + 0 * 6 + 5, 36 + 0 * 6 + 4]
    np.testing.assert_array_equal(np.flatnonzero(code.hz.toarray()[0]), sorted(left + right))


@settings(max_examples=50, deadline=None)
@given(small_codes())
def test_checks_commute(code: BivariateBicycleCode):
    for matrix in (code.hx, code.hz):
        assert matrix.shape == (code.cells, code.n)
        assert matrix.dtype == np.uint8
        assert set(matrix.sum(axis=1).flat) == {6}
    assert not ((code.hx @ code.hz.T).toarray() % 2).any()


@settings(max_examples=50, deadline=None)
@given(small_codes(), st.integers(-20, 20), st.integers(-20, 20))
def test_translations_permute_the_checks(code: BivariateBicycleCode, dx: int, dy: int):
    """What was check c is, moved by (dx, dy), check c + (dx, dy)."""
    moved = shifted_cells(code.l, code.m, (dx, dy))
    for matrix in (code.hx.toarray(), code.hz.toarray()):
        np.testing.assert_array_equal(code.translate(matrix, dx, dy), matrix[moved])


@settings(max_examples=50, deadline=None)
@given(small_codes())
def test_the_duality_swaps_the_kinds_of_check(code: BivariateBicycleCode):
    negated = [-i % code.l * code.m + -j % code.m for i in range(code.l) for j in range(code.m)]
    np.testing.assert_array_equal(code.hx.toarray()[:, code.dual_qubits], code.hz.toarray()[negated])
    np.testing.assert_array_equal(code.dual_qubits[code.dual_qubits], np.arange(code.n))


@settings(max_examples=50, deadline=None)
@given(small_codes())
def test_text_round_trip(code: BivariateBicycleCode):
    if code.k:
        assert parse_code(str(code)) == code
    else:
        with pytest.raises(ValueError, match="k = 0"):
            parse_code(str(code))


@pytest.mark.parametrize("name", PUBLISHED)
def test_ids_and_polynomials_give_the_published_code(name: str):
    code = CODES[name]
    assert str(code) == name
    assert parse_code(name) is code
    nameless = BivariateBicycleCode(code.l, code.m, code.a, code.b)
    assert nameless == code
    assert hash(nameless) == hash(code)
    assert parse_code(str(nameless)) is code


def test_the_order_of_monomials_counts():
    """The schedule of the syndrome cycle follows it."""
    swapped = parse_code("6,6,y+x^3+y^2,y^3+x+x^2")
    assert swapped != CODES["bb72"]
    assert (swapped.hx != CODES["bb72"].hx).nnz == 0
    assert swapped.distance_text == "?"


@pytest.mark.parametrize(
    ("text", "a"),
    [
        ("3,3,1+x+y,x+1+xy^2", ((0, 0), (1, 0), (0, 1))),
        (" 3, 3, x + 1 + y, x+1+x*y^2 ", ((1, 0), (0, 0), (0, 1))),
        ("3,3,x^-2+1+y^4,x+1+x^4y^2", ((1, 0), (0, 0), (0, 1))),
    ],
)
def test_ways_to_write_monomials(text: str, a: tuple[tuple[int, int], ...]):
    code = parse_code(text)
    assert code.a == a
    assert code.b == ((1, 0), (0, 0), (1, 2))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("bb73", "use one of bb72, bb90"),
        ("", "unknown code"),
        ("6,6,x^3+y+y^2", "unknown code"),
        ("0,6,x^3+y+y^2,y^3+x+x^2", "'0' is not a size"),
        ("-6,6,x^3+y+y^2,y^3+x+x^2", "'-6' is not a size"),
        ("6,1.5,x^3+y+y^2,y^3+x+x^2", "'1.5' is not a size"),
        ("6,6,x+y,y^3+x+x^2", "'x\\+y' has 2 monomials"),
        ("6,6,x+y+1+x^2,y^3+x+x^2", "has 4 monomials"),
        ("6,6,x^3+y+z,y^3+x+x^2", "'z' is not a monomial"),
        ("6,6,x^3+y+,y^3+x+x^2", "'' is not a monomial"),
        ("6,6,x^3+y+x*,y^3+x+x^2", "'x\\*' is not a monomial"),
        ("6,6,x^3+y+x^,y^3+x+x^2", "is not a monomial"),
        ("6,6,x+x^7+y,y^3+x+x^2", "three distinct"),
        ("1,1,1+x+y,1+x+y", "three distinct"),
        ("3,2,1+x+y,1+y+x^2", "k = 0"),
        (f"{MAX_PARSED_CELLS + 1},1,1+x+x^2,1+x+x^2", f"at most {MAX_PARSED_CELLS}"),
        ("999999999,999999999,1+x+y,1+x+y", f"at most {MAX_PARSED_CELLS}"),
    ],
)
def test_bad_texts(text: str, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        parse_code(text)


@pytest.mark.parametrize(
    ("l", "m", "a", "complaint"),
    [
        (0, 6, ((0, 0), (1, 0), (0, 1)), "l must be"),
        (6, 2.0, ((0, 0), (1, 0), (0, 1)), "m must be"),
        (6, 6, ((0, 0), (1, 0)), "three monomials"),
        (6, 6, ((0, 0), (1, 0), (6, 6)), "three monomials"),
        (6, 6, ((0, 0), (1, 0), (0, 0.5)), "pairs of integers"),
        (6, 6, ((0, 0), (1, 0), (0, 1, 2)), "pairs of integers"),
    ],
)
def test_bad_parameters(l, m, a, complaint):
    with pytest.raises(ValueError, match=complaint):
        BivariateBicycleCode(l, m, a, ((0, 0), (1, 0), (0, 1)))


def test_translate_moves_both_kinds_of_qubit():
    code = parse_code(TOY)
    operator = np.zeros(code.n, dtype=np.uint8)
    operator[[0 * 3 + 2, 9 + 2 * 3 + 1]] = 1
    moved = code.translate(operator, 1, 1)
    assert moved.dtype == np.uint8
    np.testing.assert_array_equal(np.flatnonzero(moved), [1 * 3 + 0, 9 + 0 * 3 + 2])
    np.testing.assert_array_equal(code.translate(moved, -1, -1), operator)
    np.testing.assert_array_equal(code.translate(np.array([[operator] * 2]), 1, 1), [[moved] * 2])


@pytest.mark.parametrize("shape", [(), (17,), (18, 2)])
def test_translate_refuses_other_shapes(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"\(\.\.\., 18\)"):
        parse_code(TOY).translate(np.zeros(shape, dtype=np.uint8), 0, 0)


def test_codes_can_be_pickled():
    code = CODES["bb72"]
    assert code.k == 12
    copy = pickle.loads(pickle.dumps(code))
    assert copy == code
    assert copy.name == "bb72"
