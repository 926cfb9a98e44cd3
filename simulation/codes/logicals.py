"""Logical operators of low weight: those shipped for the published codes, and a seeded search for others.

The Z-type logical operators of least weight are the lightest words of ker(hx) that are no stabilizers. Each
step of the search draws a random X-type logical operator and asks for a light word that commutes with all X
checks and anticommutes with that operator, which makes it logical. That is a decoding problem, and an
information-set decoder, ordered statistics decoding, answers it: belief propagation with random priors orders
the qubits, the information set is taken along that order, and all patterns of weight one and some of weight
two on it are tried. Bravyi et al. (arXiv:2308.07915) bound the distances of their codes in this way.

Translates of what is found complete a basis, taken greedily by weight: by the matroid property the lightest
basis that the found operators hold. Half of the steps aim at what would make it lighter, an operator outside
the span of those lighter than its heaviest one.

Information sets drawn uniformly (Lee and Brickell, EUROCRYPT 1988) do as well up to n = 360. At n = 756 such
a set, with patterns of weight up to two, has a chance of 4e-8 to show a given word of weight 34.

A weight that was found is an upper bound on the distance. ``data/logicals.json`` holds the results for the
published codes with their weights, seed and iterations. Their lightest operators weigh what was published as the
distance (bb18 4, bb72 6, bb90 10, bb108 10, bb120 8, bb144 12, bb196 8, bb288 18) or as its upper bound (bb360 24);
for bb756 36 was found, where 34 is the published upper bound. All k operators of a code have its least weight, but for
bb108 (four of weight 10, four of 12), bb120 (8 and 10), bb196 (8 and 14) and bb756 (eight of 36, eight of 40).

This command, in the root of the repository, makes the file again::

    python -c "from simulation.codes import CODES, logicals; logicals.write_shipped(CODES)"
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from simulation.codes.checks import BicycleChecks

DEFAULT_SEED = 1
DEFAULT_ITERATIONS = 200
SHIPPED_ITERATIONS: Mapping[str, int] = {"bb288": 4_000, "bb756": 1_500}
"""Iterations behind the shipped file where the default is not enough."""
SHIPPED_PATH = Path(__file__).parent / "data" / "logicals.json"

_MAX_ORBITS = 64
"""Orbits of the limiting weight kept to choose generators from; more of them only cost time."""

_Key = tuple[int, int, tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]


@dataclass(frozen=True)
class LogicalOperators:
    """Z-type logical operators of one code.

    Attributes:
        basis: uint8 (k, n), read-only: independent modulo stabilizers, lightest first.
        orbits: uint8 (s, n), read-only: operators no heavier than the basis whose translates span all k.
    """

    basis: NDArray[np.uint8]
    orbits: NDArray[np.uint8]

    def __post_init__(self) -> None:
        self.basis.setflags(write=False)
        self.orbits.setflags(write=False)


@functools.cache
def logical_operators(code: BicycleChecks) -> LogicalOperators:
    """The operators of a code: shipped ones where there are any, else searched for once in this process.

    Raises:
        ValueError: The code has k = 0.
    """
    shipped = _shipped().get(_key(code.l, code.m, code.a, code.b))
    if shipped is None:
        return search_logicals(code)
    return LogicalOperators(
        basis=_from_supports(shipped["basis"], code.n), orbits=_from_supports(shipped["orbits"], code.n)
    )


def write_shipped(codes: Mapping[str, BicycleChecks], path: Path = SHIPPED_PATH) -> None:
    """Searches each code afresh and writes the results, with weights, seed and iterations, as JSON."""
    entries = {}
    for name, code in codes.items():
        iterations = SHIPPED_ITERATIONS.get(name, DEFAULT_ITERATIONS)
        found = search_logicals(code, iterations=iterations)
        entries[name] = {
            "l": code.l,
            "m": code.m,
            "a": code.a,
            "b": code.b,
            "weights": [int(weight) for weight in found.basis.sum(axis=1)],
            "seed": DEFAULT_SEED,
            "iterations": iterations,
            "basis": _supports(found.basis),
            "orbits": _supports(found.orbits),
        }
    path.write_text(_json_text(entries), encoding="utf-8")


def search_logicals(
    code: BicycleChecks, *, seed: int = DEFAULT_SEED, iterations: int = DEFAULT_ITERATIONS
) -> LogicalOperators:
    """Searches for Z-type logical operators of low weight, afresh.

    Args:
        code: The code, with k of at least 1.
        seed: Seed of the random choices; the same seed gives the same operators.
        iterations: Number of decodings once the operators found span all k; at least 1. One takes a few
            milliseconds for n = 72 and about a tenth of a second for n = 756.

    Returns:
        The lightest basis among the translates of all operators found, and generators of orbits that span it.

    Raises:
        ValueError: The code has k = 0, or iterations is below 1.
    """
    if code.k == 0:
        raise ValueError(f"code {code} has no logical operators (k = 0): choose other polynomials or sizes")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, not {iterations}")
    pool = _Pool(code)
    rng = np.random.default_rng(seed)
    while not pool.complete:
        pool.offer(_light_operator(code, pool.missing_x_logical(rng), rng))
    for _ in range(iterations // 2):
        pool.offer(_light_operator(code, pool.random_x_logical(rng), rng))
        pool.offer(_light_operator(code, pool.missing_x_logical(rng), rng))
    orbits = pool.orbits()
    return LogicalOperators(
        basis=np.array(_independent(orbits, rank=code.k), dtype=np.uint8),
        orbits=np.array([orbit.representative for orbit in orbits], dtype=np.uint8),
    )


def _any_x_logicals(code: BicycleChecks) -> NDArray[np.uint8]:
    """Some basis of the X-type logical operators, uint8 (k, n), of no particular weight.

    The parities of a Z-type operator with its rows, its class, are 0 only for stabilizers.
    """
    span = _Span()
    for check in _dense(code.hx):
        span.add(_as_integer(check))
    kernel = _dense(_kernel(code.hz))
    return kernel[[span.add(_as_integer(row)) for row in kernel]]


def _kernel(matrix: csr_matrix) -> csr_matrix:
    """What a matrix over GF(2) sends to zero, one row a vector of a basis."""
    from ldpc import mod2  # takes half a second to import, with sinter and matplotlib

    return mod2.kernel(matrix)


def _light_operator(code: BicycleChecks, x_logical: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A light Z-type operator, uint8 (n,), that commutes with hx and anticommutes with x_logical."""
    constraints = vstack([code.hx, csr_matrix(x_logical)], format="csr")
    # Equal priors would leave belief propagation undecided between translates, which are equally good.
    priors = 0.01 * np.exp(0.5 * rng.standard_normal(code.n))
    from ldpc import BpOsdDecoder

    decoder = BpOsdDecoder(
        constraints,
        error_channel=priors.tolist(),
        max_iter=30,
        bp_method="minimum_sum",
        ms_scaling_factor=0.0,
        osd_method="OSD_CS",
        osd_order=min(7, (code.n + code.k) // 2 - 1),
    )
    syndrome = np.zeros(code.cells + 1, dtype=np.uint8)
    syndrome[-1] = 1
    return np.asarray(decoder.decode(syndrome), dtype=np.uint8)


@dataclass(frozen=True)
class _Orbit:
    """One operator, all its translates, uint8 (cells, n), and their classes as integers."""

    representative: NDArray[np.uint8]
    translates: NDArray[np.uint8]
    classes: tuple[int, ...]
    weight: int


class _Pool:
    """The orbits found that are no heavier than the lightest basis that their translates hold."""

    def __init__(self, code: BicycleChecks) -> None:
        self.complete = False
        """Whether the translates of the orbits span all k."""
        self._code = code
        self._x_logicals = _any_x_logicals(code)
        self._limit = code.n
        """Weight of the heaviest operator of the basis: heavier ones are of no use."""
        self._seen: set[bytes] = set()
        self._orbits: list[_Orbit] = []

    def random_x_logical(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """A random X-type logical operator, uint8 (n,)."""
        return self._random_combination(np.eye(self._code.k, dtype=np.uint8), rng)

    def missing_x_logical(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """A random one that only operators outside the span of those lighter than the limit anticommute with.

        Until the orbits are complete, outside the span of all found.
        """
        span = _Span()
        for orbit in self._orbits:
            if not self.complete or orbit.weight < self._limit:
                span.gain(orbit.classes, keep=True)
        classes = np.array([_as_bits(row, self._code.k) for row in span.rows], dtype=np.uint8)
        if not len(classes):
            return self.random_x_logical(rng)
        return self._random_combination(_dense(_kernel(csr_matrix(classes))), rng)

    def _random_combination(self, choices: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """The X-type operator of a random nonzero sum of rows of choices, uint8 (any number, k)."""
        coefficients = rng.integers(0, 2, len(choices), dtype=np.uint8)
        while not coefficients.any():
            coefficients = rng.integers(0, 2, len(choices), dtype=np.uint8)
        return _product(_product(coefficients, choices), self._x_logicals)

    def offer(self, operator: NDArray[np.uint8]) -> None:
        """Takes in a logical operator, uint8 (n,), if it is of use."""
        weight = int(operator.sum())
        full = self.complete and weight == self._limit and len(self._orbits) >= _MAX_ORBITS
        if weight > self._limit or full or operator.tobytes() in self._seen:
            return
        # One translate stands for the orbit, whichever was found, so that the basis depends on the orbits only.
        representative = max(_translates(self._code, operator), key=lambda translate: translate.tobytes())
        translates = _translates(self._code, representative)
        self._seen.update(translate.tobytes() for translate in translates)
        classes = tuple(_as_integer(bits) for bits in _product(translates, self._x_logicals.T))
        self._orbits.append(_Orbit(representative, translates, classes, weight))
        self._orbits.sort(key=lambda orbit: (orbit.weight, orbit.representative.tobytes()))
        self._lower_limit()

    def _lower_limit(self) -> None:
        basis = _independent(self._orbits, rank=self._code.k)
        self.complete = len(basis) == self._code.k
        if self.complete:
            self._limit = int(basis[-1].sum())
            self._orbits = [orbit for orbit in self._orbits if orbit.weight <= self._limit]

    def orbits(self) -> list[_Orbit]:
        """Few orbits that span everything: weight by weight, always the one that adds the most."""
        span = _Span()
        chosen: list[_Orbit] = []
        for _, level in itertools.groupby(self._orbits, key=lambda orbit: orbit.weight):
            candidates = list(level)
            while len(span.rows) < self._code.k:
                gains = [span.gain(orbit.classes) for orbit in candidates]
                best = int(np.argmax(gains))
                if gains[best] == 0:
                    break
                span.gain(candidates[best].classes, keep=True)
                chosen.append(candidates[best])
        return chosen


class _Span:
    """A growing space of bit vectors, each of them an integer."""

    def __init__(self) -> None:
        self._by_length: dict[int, int] = {}

    @property
    def rows(self) -> list[int]:
        """A basis of the space."""
        return list(self._by_length.values())

    def add(self, vector: int) -> bool:
        """Whether the vector was independent of those before; if so it is taken in."""
        while vector:
            length = vector.bit_length()
            if length not in self._by_length:
                self._by_length[length] = vector
                return True
            vector ^= self._by_length[length]
        return False

    def gain(self, vectors: Iterable[int], *, keep: bool = False) -> int:
        """By how much the rank grows with these vectors, which are taken in only if `keep` says so."""
        before = dict(self._by_length)
        gained = sum(self.add(vector) for vector in vectors)
        if not keep:
            self._by_length = before
        return gained


def _independent(orbits: Iterable[_Orbit], *, rank: int) -> list[NDArray[np.uint8]]:
    """Greedily, orbit after orbit, translates independent modulo stabilizers, up to the rank."""
    span = _Span()
    translates = (
        (row, vector) for orbit in orbits for row, vector in zip(orbit.translates, orbit.classes, strict=True)
    )
    return list(itertools.islice((row for row, vector in translates if span.add(vector)), rank))


def _translates(code: BicycleChecks, operator: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """All translates of one operator, uint8 (cells, n)."""
    steps = itertools.product(range(code.l), range(code.m))
    return np.array([code.translate(operator, dx, dy) for dx, dy in steps], dtype=np.uint8)


def _product(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The matrix product over GF(2)."""
    # Sums stay below 2^24, where float32 is exact, and BLAS makes it fast.
    return (left.astype(np.float32) @ right.astype(np.float32) % 2).astype(np.uint8)


def _dense(matrix: Any) -> NDArray[np.uint8]:
    return np.asarray(matrix.toarray(), dtype=np.uint8) % 2


def _as_integer(bits: NDArray[np.uint8]) -> int:
    return int("".join(map(str, bits.tolist())), 2)


def _as_bits(vector: int, length: int) -> list[int]:
    return [int(bit) for bit in format(vector, f"0{length}b")]


def _json_text(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """JSON with one line for each value of each code, so that a change shows up in a diff."""
    blocks = []
    for name, entry in entries.items():
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entry.items()]
        blocks.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


@functools.cache
def _shipped() -> dict[_Key, dict[str, Any]]:
    entries = json.loads(SHIPPED_PATH.read_text(encoding="utf-8")).values()
    return {_key(entry["l"], entry["m"], entry["a"], entry["b"]): entry for entry in entries}


def _key(l: int, m: int, a: Iterable[Sequence[int]], b: Iterable[Sequence[int]]) -> _Key:
    """What the operators depend on: not the order of the monomials."""
    return l, m, tuple(sorted((i, j) for i, j in a)), tuple(sorted((i, j) for i, j in b))


def _supports(operators: NDArray[np.uint8]) -> list[list[int]]:
    return [np.flatnonzero(operator).tolist() for operator in operators]


def _from_supports(supports: Sequence[Sequence[int]], n: int) -> NDArray[np.uint8]:
    operators = np.zeros((len(supports), n), dtype=np.uint8)
    for row, support in zip(operators, supports, strict=True):
        row[list(support)] = 1
    return operators
