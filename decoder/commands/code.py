"""`tandem code`: one code, how far its distance is known, and whether the syndrome cycle keeps it."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from decoder.console.options import JsonOption
from decoder.console.output import ProgressBar, print_result


def code(
    code: Annotated[str, typer.Argument(metavar="CODE", help="l,m,A,B such as 6,6,x^3+y+y^2,y^3+x+x^2, or a code id.")],
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Syndrome rounds of the circuit.")] = 4,
    searches: Annotated[int, typer.Option("--searches", min=1, help="For light errors of the circuit.")] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Draws the searches.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Says what a bivariate bicycle code is: n, k, and bounds on its distances.

    Both are the weight of the lightest thing found, so the distances are at
    most that: of logical operators for the code, and of faults that nothing
    detects for the circuit that measures it. More searches may find lighter
    ones.

    \b
    Examples:
      tandem code 9,6,x^3+y+y^2,y^3+x+x^2
      tandem code bb144 --searches 1000 --json
    """
    from decoder.distance import bound_distances
    from simulation.codes import parse_code

    known = parse_code(code)
    with ProgressBar("searching", total=searches, unit="searches", json_output=json_output) as bar:
        bounds = bound_distances(known, rounds=rounds, searches=searches, seed=seed, progress=bar.update)
    weights = Counter(int(weight) for weight in known.logicals("Z").sum(axis=1, dtype=int))
    result: dict[str, object] = {
        "code": str(known),
        "n": known.n,
        "k": known.k,
        "published_distance": known.distance_text,
        "distance_at_most": bounds.code,
        "found_as": "the lightest logical operator of a basis, which BP-OSD with random priors searched for",
        "logical_weights": ", ".join(f"{weight}: {count}" for weight, count in sorted(weights.items())),
        "circuit_distance_at_most": bounds.circuit,
        "circuit_found_as": f"the fewest faults that flip observables and no detector in {rounds} rounds of "
        f"uniform noise, of {searches} searches by BP-OSD, seed {seed}",
        "schedule_keeps_it": "no lighter error was found" if bounds.kept else "no: the circuit has a lighter error",
    }
    print_result(result, title=str(known), json_output=json_output)
