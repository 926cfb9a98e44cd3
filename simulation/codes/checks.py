"""The construction of bivariate bicycle codes: two polynomials, the checks that they give, and their symmetries.

Source: Bravyi et al., Nature 627, 778 (2024), arXiv:2308.07915.

A code lives on a torus of ``l`` by ``m`` cells. Cell ``g = (i, j)`` has index ``i * m + j`` and holds one X
check, one Z check, one left (L) data qubit and one right (R) data qubit. With ``a`` and ``b`` running over
the exponents of the polynomials A and B:

* X check ``c`` acts on L at ``c + a`` and on R at ``c + b``, ``Hx = [A | B]``;
* Z check ``c`` acts on L at ``c - b`` and on R at ``c - a``, ``Hz = [B^T | A^T]``;
* data qubit L of cell ``c`` is column ``c``, data qubit R is column ``cells + c``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from simulation.codes.torus import negated_cells, shifted_cells

Monomial = tuple[int, int]
"""The exponents (i, j) of x^i y^j."""
Polynomial = tuple[Monomial, Monomial, Monomial]
Block = Literal["L", "R"]
"""The left or the right data qubits."""


@dataclass(frozen=True)
class BicycleChecks:
    """The checks of a bivariate bicycle code with three monomials in each polynomial.

    Two are equal when l, m, a and b are; the order of the monomials counts, because the syndrome cycle
    follows it. Matrices and arrays are shared by all who ask: do not write into them.

    Attributes:
        l: Number of cells in the x direction, at least 1.
        m: Number of cells in the y direction, at least 1.
        a: Exponents (i, j) of the three monomials x^i y^j of A, in schedule order, reduced modulo (l, m).
        b: The same for B.

    Raises:
        ValueError: l or m is below 1, or a polynomial has not three distinct monomials.
    """

    l: int
    m: int
    a: Polynomial
    b: Polynomial

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
        """'l,m,A,B', which `simulation.codes.parse_code` reads back."""
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

    def data_qubits(self, block: Block, monomial: Monomial, *, sign: int = 1) -> NDArray[np.intp]:
        """The data qubit of a block in cell c + sign * monomial for every cell c, int (cells,)."""
        return shifted_cells(self.l, self.m, monomial, sign=sign) + (self.cells if block == "R" else 0)

    @cached_property
    def hx(self) -> csr_matrix:
        """X checks, uint8 (cells, n): row c is the support of X check c."""
        return self._checks(left=self.a, right=self.b, sign=1)

    @cached_property
    def hz(self) -> csr_matrix:
        """Z checks, uint8 (cells, n): row c is the support of Z check c."""
        return self._checks(left=self.b, right=self.a, sign=-1)

    def _checks(self, *, left: Polynomial, right: Polynomial, sign: int) -> csr_matrix:
        columns = [self.data_qubits("L", monomial, sign=sign) for monomial in left]
        columns += [self.data_qubits("R", monomial, sign=sign) for monomial in right]
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
        negated = negated_cells(self.l, self.m)
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


def _monomial_text(monomial: Monomial) -> str:
    factors = []
    for variable, exponent in zip("xy", monomial, strict=True):
        if exponent:
            factors.append(variable if exponent == 1 else f"{variable}^{exponent}")
    return "*".join(factors) or "1"


def _polynomial_text(polynomial: Iterable[Monomial]) -> str:
    return "+".join(_monomial_text(monomial) for monomial in polynomial)
