"""Prints how much of a circuit's fault model each automorphism of its code keeps, as Markdown tables.

    python scripts/automorphisms.py --codes bb72 bb90 bb108 bb144

Every translation of the torus maps a code's Tanner graph to itself and keeps the fault model of its circuit. The
question here is what else does: the automorphisms of the group Z_l x Z_m, together with an exchange of the blocks L
and R, of the check types X and Z, or both. For the published codes up to bb144 these are all the automorphisms that
the Tanner graph has, up to translation. The order of the CNOTs is not symmetric under them, so the fault models of
circuits are a question of their own. What the columns mean is written in docs/results/automorphisms.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from ldpc import mod2

from benchmarks.harness import markdown_table
from simulation.bases import BASES, Basis
from simulation.circuits import MemoryExperiment
from simulation.codes import BivariateBicycleCode
from simulation.faults import FaultModel
from simulation.torus import cell_coordinates

KEPT = ("bulk %", "same prior %", "all %", "logic")
COLUMNS = ("x to", "y to", "X and Z", "L and R", *KEPT, *(f"reversed: {name}" for name in KEPT))

Cell = tuple[int, int]
Memories = dict[Basis, MemoryExperiment]


@dataclass(frozen=True)
class Automorphism:
    """Cell g goes to the image of g under `linear`, plus an offset that depends on what of the cell is moved.

    Translations are divided out: the X check of cell (0, 0) becomes the check of cell (0, 0), of either type.
    """

    code: BivariateBicycleCode
    linear: tuple[Cell, Cell]
    """The images of the generators x = (1, 0) and y = (0, 1)."""
    exchanges_types: bool
    exchanges_blocks: bool
    data_offsets: tuple[Cell, Cell]
    """Added to the images of L and of R qubits."""
    z_offset: Cell
    """Added to the images of Z checks."""

    def basis(self, basis: Basis) -> Basis:
        """The type that checks and logical operators of this type get."""
        return BASES[BASES.index(basis) ^ self.exchanges_types]

    def qubits(self) -> npt.NDArray[np.int64]:
        """The image of each data qubit, int64 (n,)."""
        left, right = (self.cells(offset) for offset in self.data_offsets)
        cells = self.code.cells
        return np.concatenate([left + cells, right] if self.exchanges_blocks else [left, right + cells])

    def checks(self, basis: Basis) -> npt.NDArray[np.int64]:
        """The image of each check of a type among those of type ``self.basis(basis)``, int64 (cells,)."""
        return self.cells((0, 0) if basis == "X" else self.z_offset)

    def cells(self, offset: Cell) -> npt.NDArray[np.int64]:
        """The image of each cell, int64 (cells,)."""
        l, m = self.code.l, self.code.m
        i, j = cell_coordinates(l, m)
        (xx, xy), (yx, yy) = self.linear
        return np.asarray((i * xx + j * yx + offset[0]) % l * m + (i * xy + j * yy + offset[1]) % m)


def automorphisms(code: BivariateBicycleCode) -> list[Automorphism]:
    """All of this form that map the Tanner graph to itself, one of each class modulo translations."""
    size = code.l, code.m
    minus_a, minus_b = (tuple(_plus((0, 0), g, size, sign=-1) for g in part) for part in (code.a, code.b))
    x_checks, z_checks = (code.a, code.b), (minus_b, minus_a)  # the neighbours of cell (0, 0) in L and in R
    found = []
    for linear, types, blocks in product(_linear_maps(code), (False, True), (False, True)):
        images = (z_checks, x_checks) if types else (x_checks, z_checks)
        (x_left, x_right), (z_left, z_right) = (image[::-1] if blocks else image for image in images)
        a, b, minus_a_moved, minus_b_moved = (_moved(p, linear, size) for p in (code.a, code.b, minus_a, minus_b))
        for left, right in product(_offsets(a, x_left, size), _offsets(b, x_right, size)):
            # A Z check must move to where both its neighbours in L and those in R are its neighbours again.
            by_left = {_plus(left, g, size, sign=-1) for g in _offsets(minus_b_moved, z_left, size)}
            by_right = {_plus(right, g, size, sign=-1) for g in _offsets(minus_a_moved, z_right, size)}
            found += [Automorphism(code, linear, types, blocks, (left, right), z) for z in sorted(by_left & by_right)]
    return found


def images_of_mechanisms(
    automorphism: Automorphism, source: MemoryExperiment, target: MemoryExperiment, *, reverse_time: bool = False
) -> npt.NDArray[np.int64]:
    """The mechanism of `target` that flips the images of the detectors of each mechanism of `source`.

    Observables are not compared. With `reverse_time` a detector of round t goes to round r - t.

    Returns:
        int64 (mechanisms of the source,), -1 where no mechanism of the target flips just these detectors.
    """
    detector = _images_of_detectors(automorphism, source, target, reverse_time=reverse_time)
    place = {detectors: j for j, (detectors, _) in enumerate(target.fault_model.symptoms())}
    images = (tuple(sorted(detector[list(detectors)].tolist())) for detectors, _ in source.fault_model.symptoms())
    return np.array([place.get(image, -1) for image in images], dtype=np.int64)


def starts_in_round(experiment: MemoryExperiment, round_: int) -> npt.NDArray[np.bool_]:
    """(mechanisms,): whether the first detectors that a mechanism flips are of this round."""
    rounds = experiment.grid.coordinates[:, 2]
    first = [
        rounds[list(detectors)].min(initial=experiment.rounds) for detectors, _ in experiment.fault_model.symptoms()
    ]
    return np.asarray(np.array(first) == round_)


def kept_share(
    source: FaultModel, target: FaultModel, images: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_] | None = None
) -> tuple[float, float]:
    """How much of the prior weight of the source's (chosen) mechanisms an automorphism keeps.

    Args:
        source: the fault model that was moved.
        target: the fault model that it was moved to.
        images: from `images_of_mechanisms`.
        chosen: (mechanisms of the source,); all by default.

    Returns:
        The share of the weight that falls on mechanisms of the target; and what is left of it when of the priors of a
        mechanism and of its image only the smaller counts. Both are 1 for a symmetry.
    """
    kept = images >= 0
    overlap = np.zeros(source.num_mechanisms)
    overlap[kept] = np.minimum(source.priors[kept], target.priors[images[kept]])
    weights = source.priors * (1.0 if chosen is None else chosen)
    total = weights.sum()
    return float(weights[kept].sum() / total), float(overlap[weights > 0].sum() / total)


def observables_agree(source: FaultModel, target: FaultModel, images: npt.NDArray[np.int64]) -> bool:
    """Whether the observables of the source are sums of observables and detectors of the target.

    That is asked of the mechanisms with an image: one and the same sum must hold for all of them.
    """
    kept = images >= 0
    rows = target.symptom_matrix[:, images[kept]].toarray()
    both = np.concatenate([rows, source.observable_matrix[:, kept].toarray()])
    return int(mod2.rank(both)) == int(mod2.rank(rows))


def logicals_agree(automorphism: Automorphism) -> bool:
    """Whether logical operators go to logical operators: to sums of the known ones and of checks."""
    code = automorphism.code
    for basis in BASES:
        image = automorphism.basis(basis)
        checks = (code.hx if image == "X" else code.hz).toarray()
        moved = np.zeros_like(code.logicals(basis))
        moved[:, automorphism.qubits()] = code.logicals(basis)
        rows = np.concatenate([checks, code.logicals(image)])
        if mod2.rank(np.concatenate([rows, moved])) != mod2.rank(rows):
            return False
    return True


def _images_of_detectors(
    automorphism: Automorphism, source: MemoryExperiment, target: MemoryExperiment, *, reverse_time: bool
) -> npt.NDArray[np.int64]:
    """(detectors of the source,): the detector of the target, -1 where there is none."""
    m, cells = automorphism.code.m, automorphism.code.cells
    place = np.full((target.rounds + 1, len(BASES), cells), -1)
    x, y, round_, kind = target.grid.coordinates.T
    place[round_, kind, x * m + y] = np.arange(target.num_detectors)
    x, y, round_, kind = source.grid.coordinates.T
    cell = np.stack([automorphism.checks(basis) for basis in BASES])[kind, x * m + y]
    return np.asarray(
        place[source.rounds - round_ if reverse_time else round_, kind ^ automorphism.exchanges_types, cell]
    )


def _linear_maps(code: BivariateBicycleCode) -> list[tuple[Cell, Cell]]:
    """All automorphisms of the group Z_l x Z_m, by the images of its two generators."""
    l, m = code.l, code.m
    cells = list(product(range(l), range(m)))
    x_images = [(i, j) for i, j in cells if l * j % m == 0]  # l times the image of x must vanish
    y_images = [(i, j) for i, j in cells if m * i % l == 0]
    return [linear for linear in product(x_images, y_images) if len(set(_moved(cells, linear, (l, m)))) == len(cells)]


def _moved(cells: Iterable[Cell], linear: tuple[Cell, Cell], size: Cell) -> list[Cell]:
    (xx, xy), (yx, yy) = linear
    return [((i * xx + j * yx) % size[0], (i * xy + j * yy) % size[1]) for i, j in cells]


def _offsets(cells: Iterable[Cell], wanted: Iterable[Cell], size: Cell) -> list[Cell]:
    """All translations that carry one set of cells onto the other."""
    cells, wanted = list(cells), set(wanted)
    candidates = [_plus(w, cells[0], size, sign=-1) for w in sorted(wanted)]
    return [offset for offset in candidates if {_plus(cell, offset, size) for cell in cells} == wanted]


def _plus(u: Cell, v: Cell, size: Cell, *, sign: int = 1) -> Cell:
    return ((u[0] + sign * v[0]) % size[0], (u[1] + sign * v[1]) % size[1])


def table(code: str, *, rounds: int, p: float) -> str:
    """A row for each automorphism of the code up to translations, from Z memory to the memory that it becomes."""
    memories: Memories = {b: MemoryExperiment.create(code=code, basis=b, rounds=rounds, p=p) for b in BASES}
    found = automorphisms(memories["Z"].code)
    rows = [[*_names(a), *_shares(a, memories), *_shares(a, memories, reverse_time=True)] for a in found]
    logicals = "all" if all(map(logicals_agree, found)) else "not all"
    return (
        f"## {code}: {len(found)} automorphisms up to translation\n\n"
        f"Logical operators become sums of logical operators and checks: {logicals} of them.\n\n"
        f"{markdown_table([COLUMNS, *rows])}"
    )


def _names(automorphism: Automorphism) -> list[str]:
    exchanged = (automorphism.exchanges_types, automorphism.exchanges_blocks)
    return [*map(_monomial, automorphism.linear), *("exchanged" if e else "kept" for e in exchanged)]


def _monomial(cell: Cell) -> str:
    factors = [letter if power == 1 else f"{letter}^{power}" for letter, power in zip("xy", cell, strict=True) if power]
    return " ".join(factors)


def _shares(automorphism: Automorphism, memories: Memories, *, reverse_time: bool = False) -> list[str]:
    source, target = memories["Z"], memories[automorphism.basis("Z")]
    images = images_of_mechanisms(automorphism, source, target, reverse_time=reverse_time)
    faults = source.fault_model, target.fault_model
    bulk, bulk_prior = kept_share(*faults, images, starts_in_round(source, source.rounds // 2))
    whole, _ = kept_share(*faults, images)
    return [
        *(f"{100 * share:.1f}" for share in (bulk, bulk_prior, whole)),
        "yes" if observables_agree(*faults, images) else "no",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", nargs="+", default=["bb72", "bb90", "bb108", "bb144"])
    parser.add_argument("--rounds", type=int, default=6, help="at least 5, so that the middle is far from both ends")
    parser.add_argument("--p", type=float, default=0.001, help="of uniform circuit noise")
    options = parser.parse_args()
    if options.rounds < 5:
        parser.error(f"--rounds {options.rounds} leaves no bulk: give at least 5")
    try:
        print("\n\n".join(table(code, rounds=options.rounds, p=options.p) for code in options.codes))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
