"""Logical operators of low weight, by information-set search.

The Z-type operators that commute with every X check form the binary code ker(hx). The search is Lee and Brickell's
(EUROCRYPT 1988) with p = 2: bring a generator matrix of that code into reduced form on a random information set and
look at every row and every sum of two rows. Each row also carries its class, its k parities with a fixed basis of
X-type logical operators, through the same row operations; a row with class 0 is a stabilizer. Translates of what is
found complete a basis, taken greedily by weight, which by the matroid property is the lightest basis that the found
operators hold.

What is found is an upper bound on the distance; only the published distances say that it is the minimum. The file
``data/logicals.json`` holds the results for the published codes with the seed and the number of iterations. This
command, in the root of the repository, makes it again::

    python -c "from simulation.codes import CODES; from simulation.logicals import write_shipped; write_shipped(CODES)"
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ldpc import mod2
from numpy.typing import NDArray
from scipy.sparse import vstack

if TYPE_CHECKING:
    from simulation.codes import BivariateBicycleCode

DEFAULT_SEED = 1
DEFAULT_ITERATIONS = 400
SHIPPED_ITERATIONS: Mapping[str, int] = {"bb360": 4_000, "bb756": 20_000}
"""Iterations behind the shipped file where the default is not enough."""

_MAX_ORBITS = 256
"""Orbits of the limiting weight kept to choose generators from; more of them only cost time."""

_SHIPPED_PATH = Path(__file__).parent / "data" / "logicals.json"

_Words = NDArray[np.uint64]
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
def logical_operators(code: BivariateBicycleCode) -> LogicalOperators:
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


def search_logicals(
    code: BivariateBicycleCode, *, seed: int = DEFAULT_SEED, iterations: int = DEFAULT_ITERATIONS
) -> LogicalOperators:
    """Searches for Z-type logical operators of low weight, afresh.

    Args:
        code: The code, with k of at least 1.
        seed: Seed of the random information sets; the same seed gives the same operators.
        iterations: Number of information sets, at least 1. For n = 72 one takes about a millisecond, for n = 756
            about thirty.

    Returns:
        The lightest basis among the translates of all operators seen, and generators of orbits that span it.

    Raises:
        ValueError: The code has k = 0, or iterations is below 1.
    """
    if code.k == 0:
        raise ValueError(f"code {code} has no logical operators (k = 0): choose other polynomials or sizes")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, not {iterations}")
    pool = _Pool(code)
    rng = np.random.default_rng(seed)
    kernel = _dense(mod2.kernel(code.hx))
    words = np.hstack([_pack(kernel), _pack(pool.classes(kernel))])
    pool.offer(words)
    for _ in range(iterations):
        _reduce_on_random_columns(words, rng.permutation(code.n))
        pool.offer(_light_rows(words, data_words=pool.data_words, limit=pool.limit))
    orbits = pool.orbits()
    return LogicalOperators(
        basis=np.array(_independent(orbits), dtype=np.uint8),
        orbits=np.array([orbit.representative for orbit in orbits], dtype=np.uint8),
    )


def logical_classes(code: BivariateBicycleCode) -> NDArray[np.uint8]:
    """Some basis of the X-type logical operators, uint8 (k, n), of no particular weight.

    The parities of a Z-type operator with its rows name the operator's class modulo stabilizers.
    """
    stacked = vstack([code.hx, mod2.kernel(code.hz)], format="csr")
    chosen = [row for row in mod2.pivot_rows(stacked) if row >= code.cells]
    return _dense(stacked[chosen])


def write_shipped(codes: Mapping[str, BivariateBicycleCode], path: Path = _SHIPPED_PATH) -> None:
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
            "published_distance": code.distance_text,
            "weights": [int(weight) for weight in found.basis.sum(axis=1)],
            "seed": DEFAULT_SEED,
            "iterations": iterations,
            "basis": _supports(found.basis),
            "orbits": _supports(found.orbits),
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_json_text(entries), encoding="utf-8")


def _json_text(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """JSON with one line for each value of each code, so that a change shows up in a diff."""
    blocks = []
    for name, entry in entries.items():
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entry.items()]
        blocks.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


@functools.cache
def _shipped() -> dict[_Key, dict[str, Any]]:
    entries = json.loads(_SHIPPED_PATH.read_text(encoding="utf-8")).values()
    return {_key(entry["l"], entry["m"], entry["a"], entry["b"]): entry for entry in entries}


def _key(l: int, m: int, a: Iterable[Sequence[int]], b: Iterable[Sequence[int]]) -> _Key:  # noqa: E741
    """What the operators depend on: not the order of the monomials."""
    return l, m, tuple(sorted((i, j) for i, j in a)), tuple(sorted((i, j) for i, j in b))


@dataclass(frozen=True)
class _Orbit:
    """One operator, all its translates, uint8 (cells, n), and their classes as integers."""

    representative: NDArray[np.uint8]
    translates: NDArray[np.uint8]
    classes: tuple[int, ...]

    @property
    def weight(self) -> int:
        return int(self.representative.sum())


class _Pool:
    """The orbits seen that are no heavier than the lightest basis that their translates hold."""

    def __init__(self, code: BivariateBicycleCode) -> None:
        self._code = code
        self._x_logicals = logical_classes(code).astype(np.float32)
        self._seen: set[bytes] = set()
        self._orbits: list[_Orbit] = []
        self.data_words = -(-code.n // 64)
        self.limit = code.n
        """Weight of the heaviest operator of the basis: heavier ones are of no use."""

    def classes(self, operators: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The class of each operator, uint8 (operators, k); 0 is a stabilizer."""
        # Sums stay below 2^24, where float32 is exact, and BLAS makes it fast.
        return (operators.astype(np.float32) @ self._x_logicals.T % 2).astype(np.uint8)

    def offer(self, rows: _Words) -> None:
        """Takes in operators given as packed rows, lightest first, as far as they are of use."""
        rows = rows[rows[:, self.data_words :].any(axis=1)]
        weights = _weights(rows, self.data_words)
        for index in np.argsort(weights, kind="stable"):
            if weights[index] > self.limit or (weights[index] == self.limit and len(self._orbits) >= _MAX_ORBITS):
                return
            operator = _unpack(rows[index, : self.data_words], self._code.n)
            if operator.tobytes() not in self._seen:
                self._add(operator)

    def _add(self, operator: NDArray[np.uint8]) -> None:
        translates = _translates(self._code, operator)
        self._seen.update(translate.tobytes() for translate in translates)
        classes = tuple(_as_integer(bits) for bits in self.classes(translates))
        representative = max(translates, key=lambda translate: translate.tobytes())
        self._orbits.append(_Orbit(representative, translates, classes))
        self._orbits.sort(key=lambda orbit: (orbit.weight, orbit.representative.tobytes()))
        basis = _independent(self._orbits)
        if len(basis) == self._code.k:
            self.limit = int(basis[-1].sum())
            self._orbits = [orbit for orbit in self._orbits if orbit.weight <= self.limit]

    def orbits(self) -> list[_Orbit]:
        """Few orbits that span everything: weight by weight, always the one that adds the most."""
        span = _Span()
        chosen: list[_Orbit] = []
        for _, level in itertools.groupby(self._orbits, key=lambda orbit: orbit.weight):
            candidates = list(level)
            while span.rank < self._code.k:
                gains = [span.gain(orbit.classes) for orbit in candidates]
                best = int(np.argmax(gains))
                if gains[best] == 0:
                    break
                span.gain(candidates[best].classes, keep=True)
                chosen.append(candidates[best])
        return chosen


class _Span:
    """A growing subspace of GF(2)^k whose vectors are integers."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}

    @property
    def rank(self) -> int:
        return len(self._rows)

    def add(self, vector: int) -> bool:
        """Whether the vector was independent of those before; if so it is taken in."""
        while vector:
            leading = vector.bit_length()
            if leading not in self._rows:
                self._rows[leading] = vector
                return True
            vector ^= self._rows[leading]
        return False

    def gain(self, vectors: Iterable[int], *, keep: bool = False) -> int:
        """By how much the rank grows with these vectors, which are taken in only if `keep` says so."""
        before = dict(self._rows)
        gained = sum(self.add(vector) for vector in vectors)
        if not keep:
            self._rows = before
        return gained


def _independent(orbits: Iterable[_Orbit]) -> list[NDArray[np.uint8]]:
    """Greedily, orbit after orbit, the translates that are independent modulo stabilizers."""
    span = _Span()
    return [
        translate
        for orbit in orbits
        for translate, vector in zip(orbit.translates, orbit.classes, strict=True)
        if span.add(vector)
    ]


def _reduce_on_random_columns(words: _Words, order: NDArray[np.intp]) -> None:
    """Brings packed rows, in place, into reduced form with pivots on the first columns of the order that allow it."""
    free = np.ones(len(words), dtype=bool)
    pivots = 0
    for column in order:
        word, bit = divmod(int(column), 64)
        ones = (words[:, word] >> np.uint64(bit)) & np.uint64(1) != 0
        candidates = ones & free
        pivot = int(candidates.argmax())
        if not candidates[pivot]:
            continue
        ones[pivot] = False
        words[ones] ^= words[pivot]
        free[pivot] = False
        pivots += 1
        if pivots == len(words):
            return


def _light_rows(words: _Words, *, data_words: int, limit: int) -> _Words:
    """The rows and sums of two rows that weigh at most the limit."""
    found = [words[_weights(words, data_words) <= limit]]
    for shift in range(1, len(words)):
        sums = words[shift:] ^ words[:-shift]
        light = _weights(sums, data_words) <= limit
        if light.any():
            found.append(sums[light])
    return np.concatenate(found)


def _weights(words: _Words, data_words: int) -> NDArray[np.int64]:
    return np.bitwise_count(words[:, :data_words]).sum(axis=1, dtype=np.int64)


def _translates(code: BivariateBicycleCode, operator: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """All translates of one operator, uint8 (cells, n)."""
    steps = itertools.product(range(code.l), range(code.m))
    return np.array([code.translate(operator, dx, dy) for dx, dy in steps], dtype=np.uint8)


def _as_integer(bits: NDArray[np.uint8]) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _dense(matrix: Any) -> NDArray[np.uint8]:
    return np.asarray(matrix.toarray(), dtype=np.uint8) % 2


def _pack(bits: NDArray[np.uint8]) -> _Words:
    """Rows of bits, little-endian, in 64-bit words: (rows, ceil(bits / 64))."""
    padded = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 64)))
    return np.packbits(padded, axis=1, bitorder="little").view("<u8")


def _unpack(words: _Words, bits: int) -> NDArray[np.uint8]:
    return np.unpackbits(words.view(np.uint8), count=bits, bitorder="little")


def _supports(operators: NDArray[np.uint8]) -> list[list[int]]:
    return [np.flatnonzero(operator).tolist() for operator in operators]


def _from_supports(supports: Sequence[Sequence[int]], n: int) -> NDArray[np.uint8]:
    operators = np.zeros((len(supports), n), dtype=np.uint8)
    for row, support in zip(operators, supports, strict=True):
        row[list(support)] = 1
    return operators
