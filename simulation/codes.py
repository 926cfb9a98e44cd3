"""Bivariate bicycle codes: checks, translations, the ZX duality and logical operators.

Source of the construction and of the named codes: Bravyi et al., Nature 627, 778 (2024), arXiv:2308.07915.

A code lives on a torus of ``l`` by ``m`` cells. Cell ``g = (i, j)`` has index ``i * m + j`` and holds one X
check, one Z check, one left (L) data qubit and one right (R) data qubit. With ``a`` and ``b`` running over
the exponents of the polynomials A and B:

* X check ``c`` acts on L at ``c + a`` and on R at ``c + b``, ``Hx = [A | B]``;
* Z check ``c`` acts on L at ``c - b`` and on R at ``c - a``, ``Hz = [B^T | A^T]``;
* data qubit L of cell ``c`` is column ``c``, data qubit R is column ``cells + c``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from simulation import logicals as _logicals
from simulation.torus import Basis, shifted_cells

Monomial = tuple[int, int]
Polynomial = tuple[Monomial, Monomial, Monomial]

MAX_PARSED_CELLS = 4096
"""Largest torus that `parse_code` accepts, far above what can be decoded; it keeps typing errors cheap."""

_MONOMIAL = re.compile(r"(?P<one>1)|(?:x(?:\^(?P<x>-?[0-9]{1,9}))?)?(?P<star>\*)?(?:y(?:\^(?P<y>-?[0-9]{1,9}))?)?")
_FORM = "'l,m,A,B' such as '6,6,x^3+y+y^2,y^3+x+x^2'"


@dataclass(frozen=True)
class BivariateBicycleCode:
    """A bivariate bicycle code with three monomials in each polynomial.

    Two codes are equal when l, m, a and b are; the order of the monomials counts, because the syndrome cycle
    follows it. Matrices and arrays that the code hands out are shared: do not write into them.

    Attributes:
        l: Number of cells in the x direction, at least 1.
        m: Number of cells in the y direction, at least 1.
        a: Exponents (i, j) of the three monomials x^i y^j of A, in schedule order, reduced modulo (l, m).
        b: The same for B.
        name: The id of a published code, such as "bb72"; empty for others. Not compared.
        d: The published distance, or None where none was published. Not compared.
        d_is_upper_bound: Whether `d` is only an upper bound. Not compared.

    Raises:
        ValueError: l or m is below 1, or a polynomial has not three distinct monomials.
    """

    l: int
    m: int
    a: Polynomial
    b: Polynomial
    name: str = field(default="", compare=False)
    d: int | None = field(default=None, compare=False)
    d_is_upper_bound: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        for label, size in (("l", self.l), ("m", self.m)):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{label} must be an integer of at least 1, not {size!r}")
        object.__setattr__(self, "a", self._reduced("A", self.a))
        object.__setattr__(self, "b", self._reduced("B", self.b))

    def _reduced(self, label: str, polynomial: Iterable[Monomial]) -> Polynomial:
        """Exponents modulo (l, m), after checking that three distinct monomials remain."""
        monomials = tuple(tuple(monomial) for monomial in polynomial)
        if any(len(pair) != 2 or not all(isinstance(part, int) for part in pair) for pair in monomials):
            raise ValueError(f"{label} must be made of pairs of integers (i, j) for x^i y^j, not {polynomial!r}")
        reduced = tuple((i % self.l, j % self.m) for i, j in monomials)
        if len(reduced) != 3 or len(set(reduced)) != 3:
            raise ValueError(
                f"{label} must have three monomials that differ modulo x^{self.l} = y^{self.m} = 1; "
                f"{_polynomial_text(reduced)} has not: give three distinct ones"
            )
        return reduced[0], reduced[1], reduced[2]

    def __str__(self) -> str:
        """The id of a published code, else 'l,m,A,B'; `parse_code` reads both back."""
        if self.name and CODES.get(self.name) == self:
            return self.name
        return f"{self.l},{self.m},{_polynomial_text(self.a)},{_polynomial_text(self.b)}"

    @property
    def cells(self) -> int:
        """Number of cells, l * m; also the number of X checks and of Z checks."""
        return self.l * self.m

    @property
    def n(self) -> int:
        """Number of data qubits, 2 * l * m."""
        return 2 * self.cells

    @cached_property
    def k(self) -> int:
        """Number of logical qubits, n - rank(hx) - rank(hz); the ranks are equal by the ZX duality."""
        from ldpc import mod2  # takes half a second to import, with sinter and matplotlib

        return self.n - 2 * int(mod2.rank(self.hx))

    @property
    def distance_text(self) -> str:
        """The published distance for people: '12', '<=24', or '?' where none was published."""
        if self.d is None:
            return "?"
        return f"<={self.d}" if self.d_is_upper_bound else str(self.d)

    def shifted_cells(self, monomial: Monomial, *, sign: int = 1) -> NDArray[np.intp]:
        """The index of cell c + sign * monomial for every cell c, int (cells,)."""
        return shifted_cells(self.l, self.m, monomial, sign=sign)

    @cached_property
    def hx(self) -> csr_matrix:
        """X checks, uint8 (cells, n): row c is the support of X check c."""
        return self._checks(left=self.a, right=self.b, sign=1)

    @cached_property
    def hz(self) -> csr_matrix:
        """Z checks, uint8 (cells, n): row c is the support of Z check c."""
        return self._checks(left=self.b, right=self.a, sign=-1)

    def _checks(self, *, left: Polynomial, right: Polynomial, sign: int) -> csr_matrix:
        columns = [self.shifted_cells(monomial, sign=sign) for monomial in left]
        columns += [self.cells + self.shifted_cells(monomial, sign=sign) for monomial in right]
        rows = np.tile(np.arange(self.cells), len(columns))
        ones = np.ones(rows.size, dtype=np.uint8)
        matrix = csr_matrix((ones, (rows, np.concatenate(columns))), shape=(self.cells, self.n))
        matrix.sort_indices()
        return matrix

    @cached_property
    def dual_qubits(self) -> NDArray[np.intp]:
        """The ZX duality as a permutation of the data qubits, int (n,).

        Qubit L of cell g and qubit R of cell -g change places. It is its own inverse and carries X check c to
        Z check -c: ``hx[:, dual_qubits][c] == hz[-c]``.
        """
        i, j = np.divmod(np.arange(self.cells), self.m)
        negated = (-i) % self.l * self.m + (-j) % self.m
        permutation = np.concatenate([self.cells + negated, negated])
        permutation.setflags(write=False)
        return permutation

    def translate(self, operators: NDArray[np.uint8], dx: int, dy: int) -> NDArray[np.uint8]:
        """Moves operators by (dx, dy) cells on the torus.

        Args:
            operators: uint8 (..., n), supports of operators on the data qubits.
            dx: Steps in the x direction, any integer.
            dy: Steps in the y direction, any integer.

        Returns:
            A new array of the same shape: what acted on cell (i, j) acts on (i + dx, j + dy).

        Raises:
            ValueError: The last axis is not n long.
        """
        operators = np.asarray(operators)
        if operators.ndim == 0 or operators.shape[-1] != self.n:
            raise ValueError(f"operators must have shape (..., {self.n}) for {self}, not {operators.shape}")
        torus = operators.reshape(*operators.shape[:-1], 2, self.l, self.m)
        return np.roll(torus, (dx, dy), axis=(-2, -1)).reshape(operators.shape)

    def logicals(self, basis: Basis) -> NDArray[np.uint8]:
        """A basis of logical operators of low weight, uint8 (k, n), read-only, lightest first.

        It is the lightest basis that is known: see `simulation.logicals`. The X basis is the exact dual image
        of the Z basis in the same order: ``logicals("X")[:, dual_qubits] == logicals("Z")``. A published code
        has it at once; for others a search takes seconds on the first call, and more with n.

        Args:
            basis: "X" for X-type operators (they commute with hz), "Z" for Z-type operators (with hx).

        Raises:
            ValueError: Another basis, or a code with k = 0.
        """
        if basis not in ("X", "Z"):
            raise ValueError(f"basis must be 'X' or 'Z', not {basis!r}")
        z_basis = _logicals.logical_operators(self).basis
        if basis == "Z":
            return z_basis
        x_basis = z_basis[:, self.dual_qubits]
        x_basis.setflags(write=False)
        return x_basis

    def logical_orbits(self) -> NDArray[np.uint8]:
        """A few Z-type logical operators whose translates together span all k, uint8 (s, n), read-only.

        They are no heavier than the basis: for bb72 three of weight 6. Their dual images, with the columns
        taken in the order `dual_qubits`, do the same for the X type.

        Raises:
            ValueError: A code with k = 0.
        """
        return _logicals.logical_operators(self).orbits


def parse_code(text: str) -> BivariateBicycleCode:
    """Reads a code id or the four parts of a code.

    Args:
        text: An id such as "bb72", or "l,m,A,B" such as "6,6,x^3+y+y^2,y^3+x+x^2". Monomials are written like
            1, x, y^2, xy, x^2*y or x^-1; spaces do not count.

    Returns:
        The code; a published one carries its name and distance, however it was written.

    Raises:
        ValueError: Neither an id nor that form, more than `MAX_PARSED_CELLS` cells, or a code with k = 0.
    """
    compact = "".join(text.split())
    known = CODES.get(compact.lower())
    if known is not None:
        return known
    parts = compact.split(",")
    if len(parts) != 4:
        raise ValueError(f"unknown code {text!r}: use one of {', '.join(CODES)}, or {_FORM}")
    l, m = (_parse_size(part, text=text) for part in parts[:2])
    if l * m > MAX_PARSED_CELLS:
        raise ValueError(f"code {text!r} has {l * m} cells: choose l * m of at most {MAX_PARSED_CELLS}")
    a, b = (_parse_polynomial(part, text=text) for part in parts[2:])
    code = BivariateBicycleCode(l, m, a, b)
    for published in CODES.values():
        if published == code:
            return published
    if code.k == 0:
        raise ValueError(f"code {text!r} encodes no logical qubit (k = 0): choose other polynomials or sizes")
    return code


def _parse_size(part: str, *, text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", part):
        raise ValueError(f"in code {text!r}, {part!r} is not a size: l and m are integers of at least 1, as in {_FORM}")
    return int(part)


def _parse_polynomial(part: str, *, text: str) -> Polynomial:
    monomials = [_parse_monomial(term, text=text) for term in part.split("+")]
    if len(monomials) != 3:
        raise ValueError(f"in code {text!r}, {part!r} has {len(monomials)} monomials: give three, as in {_FORM}")
    return monomials[0], monomials[1], monomials[2]


def _parse_monomial(term: str, *, text: str) -> Monomial:
    match = _MONOMIAL.fullmatch(term)
    if not term or match is None or (match["star"] and not re.fullmatch(r"x.*\*y.*", term)):
        raise ValueError(f"in code {text!r}, {term!r} is not a monomial: use 1, x, y^2, xy or x^2*y, as in {_FORM}")
    if match["one"]:
        return 0, 0
    return _exponent(term, "x", match["x"]), _exponent(term, "y", match["y"])


def _exponent(term: str, variable: str, exponent: str | None) -> int:
    if exponent is not None:
        return int(exponent)
    return int(variable in term)


def _monomial_text(monomial: Monomial) -> str:
    factors = []
    for variable, exponent in zip("xy", monomial, strict=True):
        if exponent:
            factors.append(variable if exponent == 1 else f"{variable}^{exponent}")
    return "*".join(factors) or "1"


def _polynomial_text(polynomial: Iterable[Monomial]) -> str:
    return "+".join(_monomial_text(monomial) for monomial in polynomial)


def _published() -> Iterable[BivariateBicycleCode]:
    """The codes of Bravyi et al., Table 3, with the monomials in the order that their schedule uses."""
    a_72: Polynomial = ((3, 0), (0, 1), (0, 2))
    b_72: Polynomial = ((0, 3), (1, 0), (2, 0))
    yield BivariateBicycleCode(6, 6, a_72, b_72, "bb72", 6)
    yield BivariateBicycleCode(15, 3, ((9, 0), (0, 1), (0, 2)), ((0, 0), (2, 0), (7, 0)), "bb90", 10)
    yield BivariateBicycleCode(9, 6, a_72, b_72, "bb108", 10)
    yield BivariateBicycleCode(12, 6, a_72, b_72, "bb144", 12)
    yield BivariateBicycleCode(12, 12, ((3, 0), (0, 2), (0, 7)), b_72, "bb288", 18)
    yield BivariateBicycleCode(30, 6, ((9, 0), (0, 1), (0, 2)), ((0, 3), (25, 0), (26, 0)), "bb360", 24, True)
    yield BivariateBicycleCode(21, 18, ((3, 0), (0, 10), (0, 17)), ((0, 5), (3, 0), (19, 0)), "bb756", 34, True)


CODES: Mapping[str, BivariateBicycleCode] = MappingProxyType({code.name: code for code in _published()})
"""The published codes by id."""
