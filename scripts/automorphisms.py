"""Prints how much of a circuit's fault model each automorphism of its code keeps, as Markdown tables.

    python scripts/automorphisms.py --codes bb72 bb90 bb108 bb144

What the columns mean is written in docs/results/automorphisms.md.
"""

import argparse

from simulation.automorphisms import (
    Automorphism,
    Cell,
    automorphisms,
    images_of_mechanisms,
    kept_share,
    logicals_agree,
    observables_agree,
    starts_in_round,
)
from simulation.circuits import MemoryExperiment
from simulation.torus import BASES, Basis

KEPT = ("bulk %", "same prior %", "all %", "logic")
COLUMNS = ("x to", "y to", "X and Z", "L and R", *KEPT, *(f"reversed: {name}" for name in KEPT))

Memories = dict[Basis, MemoryExperiment]


def table(code: str, *, rounds: int, p: float) -> str:
    """A row for each automorphism of the code up to translations, from Z memory to the memory that it becomes."""
    memories: Memories = {b: MemoryExperiment.create(code=code, basis=b, rounds=rounds, p=p) for b in BASES}
    found = automorphisms(memories["Z"].code)
    rows = [[*_names(a), *_shares(a, memories), *_shares(a, memories, reverse_time=True)] for a in found]
    logicals = "all" if all(map(logicals_agree, found)) else "not all"
    lines = [
        f"## {code}: {len(found)} automorphisms up to translation",
        f"Logical operators become sums of logical operators and checks: {logicals} of them.",
        "\n".join(f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)),
    ]
    return "\n\n".join(lines)


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
