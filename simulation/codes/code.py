"""Bivariate bicycle codes with their logical operators, the published ones by id, and codes from text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from simulation.bases import Basis
from simulation.codes.checks import BicycleChecks, Monomial, Polynomial
from simulation.codes.logicals import logical_operators

MAX_PARSED_CELLS = 4096
"""Largest torus that `parse_code` accepts, far above what can be decoded; it keeps typing errors cheap."""

_MONOMIAL = re.compile(r"(?P<one>1)|(?:x(?:\^(?P<x>-?[0-9]{1,9}))?)?(?P<star>\*)?(?:y(?:\^(?P<y>-?[0-9]{1,9}))?)?")
_FORM = "'l,m,A,B' such as '6,6,x^3+y+y^2,y^3+x+x^2'"


@dataclass(frozen=True, repr=False)
class BivariateBicycleCode(BicycleChecks):
    """A bivariate bicycle code: its checks (`simulation.codes.checks`), what was published of it, and its logicals.

    Attributes:
        name: The id of a published code, such as "bb72"; empty for others. Not compared.
        d: The published distance, or None where none was published. Not compared.
        d_is_upper_bound: Whether `d` is only an upper bound. Not compared.

    Raises:
        ValueError: l or m is below 1, or a polynomial has not three distinct monomials.
    """

    name: str = field(default="", compare=False)
    d: int | None = field(default=None, compare=False)
    d_is_upper_bound: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        """The id of a published code, else 'l,m,A,B'; `parse_code` reads both back."""
        if self.name and CODES.get(self.name) == self:
            return self.name
        return super().__str__()

    def __repr__(self) -> str:
        return f"<BivariateBicycleCode {self}: {self.parameters_text}>"

    def _repr_html_(self) -> str:
        """The code in a notebook: its parameters, and its Tanner graph on the torus."""
        from simulation.drawings import facts_html, tanner_legend, tanner_svg

        _, _, a, b = super().__str__().split(",")
        facts = {"torus": f"{self.l} x {self.m} cells", "A": a, "B": b}
        picture = tanner_svg(l=self.l, m=self.m, a=self.a, b=self.b, label=f"Tanner graph of {self}")
        return f"{facts_html(f'{self}: {self.parameters_text}', facts)}{picture}{tanner_legend()}"

    @property
    def parameters_text(self) -> str:
        """n, k and the published distance as they are written: '[[144, 12, 12]]'."""
        return f"[[{self.n}, {self.k}, {self.distance_text}]]"

    @property
    def distance_text(self) -> str:
        """The published distance for people: '12', '<=24', or '?' where none was published."""
        if self.d is None:
            return "?"
        return f"<={self.d}" if self.d_is_upper_bound else str(self.d)

    def logicals(self, basis: Basis) -> NDArray[np.uint8]:
        """A basis of logical operators of low weight, uint8 (k, n), read-only, lightest first.

        It is the lightest basis that is known: see `simulation.codes.logicals`. The X basis is the exact dual image
        of the Z basis in the same order: ``logicals("X")[:, dual_qubits] == logicals("Z")``. A published code
        has it at once; for others a search takes seconds on the first call, and more with n.

        Args:
            basis: "X" for X-type operators (they commute with hz), "Z" for Z-type operators (with hx).

        Raises:
            ValueError: Another basis, or a code with k = 0.
        """
        if basis not in ("X", "Z"):
            raise ValueError(f"basis must be 'X' or 'Z', not {basis!r}")
        z_basis = logical_operators(self).basis
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
        return logical_operators(self).orbits


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


def _published() -> Iterable[BivariateBicycleCode]:
    """The codes of Bravyi et al., Table 3, with the monomials in the order that their schedule uses; and others.

    bb18 is the small code of trmue/relay (arXiv 2506.01779), bb120 and bb196 are those of Berthusen et al.,
    PRX Quantum 6, 010306 (2025), Table 1.
    """
    a_72: Polynomial = ((3, 0), (0, 1), (0, 2))
    b_72: Polynomial = ((0, 3), (1, 0), (2, 0))
    yield BivariateBicycleCode(6, 6, a_72, b_72, "bb72", 6)
    yield BivariateBicycleCode(15, 3, ((9, 0), (0, 1), (0, 2)), ((0, 0), (2, 0), (7, 0)), "bb90", 10)
    yield BivariateBicycleCode(9, 6, a_72, b_72, "bb108", 10)
    yield BivariateBicycleCode(12, 6, a_72, b_72, "bb144", 12)
    yield BivariateBicycleCode(12, 12, ((3, 0), (0, 2), (0, 7)), b_72, "bb288", 18)
    yield BivariateBicycleCode(30, 6, ((9, 0), (0, 1), (0, 2)), ((0, 3), (25, 0), (26, 0)), "bb360", 24, True)
    yield BivariateBicycleCode(21, 18, ((3, 0), (0, 10), (0, 17)), ((0, 5), (3, 0), (19, 0)), "bb756", 34, True)
    yield BivariateBicycleCode(3, 3, ((1, 0), (0, 0), (0, 1)), ((1, 0), (0, 0), (1, 2)), "bb18", 4)
    yield BivariateBicycleCode(12, 5, ((10, 0), (0, 4), (0, 1)), ((0, 0), (1, 0), (2, 0)), "bb120", 8)
    yield BivariateBicycleCode(14, 7, ((6, 0), (0, 5), (0, 6)), ((0, 0), (4, 0), (13, 0)), "bb196", 8)


CODES: Mapping[str, BivariateBicycleCode] = MappingProxyType({code.name: code for code in _published()})
"""The published codes by id."""
