"""Logical operators of low weight: those shipped for the published codes, and a search for others.

A weight that was found is an upper bound on the distance. ``data/logicals.json`` holds the results for the
published codes with their weights, seed and iterations. Their lightest operators weigh what was published as the
distance (bb72 6, bb90 10, bb108 10, bb144 12, bb288 18) or as its upper bound (bb360 24); for bb756 36 was
found, where 34 is the published upper bound. All k operators of a code have its least weight, but for bb108 (four of
weight 10, four of 12) and bb756 (eight of 36, eight of 40).

This command, in the root of the repository, makes the file again::

    python -c "from simulation import codes, logicals; logicals.write_shipped(codes.CODES)"
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simulation.logical_search import DEFAULT_ITERATIONS, DEFAULT_SEED, LogicalOperators, search_logicals

if TYPE_CHECKING:
    from simulation.codes import BivariateBicycleCode

SHIPPED_ITERATIONS: Mapping[str, int] = {"bb288": 4_000, "bb756": 1_500}
"""Iterations behind the shipped file where the default is not enough."""

_SHIPPED_PATH = Path(__file__).parent / "data" / "logicals.json"

_Key = tuple[int, int, tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]


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
