"""`tandem codes`: the codes and their parameters."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decoder.console.options import JsonOption
from decoder.console.output import print_json, print_table

if TYPE_CHECKING:
    from simulation.codes import BivariateBicycleCode


def codes(
    code: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A code id, or l,m,A,B; all codes without it.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Shows the codes: n, k, d, their polynomials, and the weights of their logical operators.

    \b
    Examples:
      tandem codes
      tandem codes bb144 --json
      tandem codes 9,6,x^3+y+y^2,y^3+x+x^2
    """
    from simulation.codes import CODES, parse_code

    rows = [_describe(c) for c in ([parse_code(code)] if code else CODES.values())]
    if json_output:
        print_json({"codes": rows})
        return
    print_table(
        ["code", "n", "k", "d", "l", "m", "A", "B", "logicals (weight: count)"],
        [
            [
                *(row[key] for key in ("code", "n", "k")),
                ("<=" if row["d_is_upper_bound"] else "") + str(row["d"] or "?"),
                *(row[key] for key in ("l", "m", "A", "B")),
                ", ".join(f"{weight}: {count}" for weight, count in Counter(row["logical_weights"]).items()),
            ]
            for row in rows
        ],
    )


def _describe(code: BivariateBicycleCode) -> dict[str, Any]:
    a, b = str(replace(code, name="")).split(",")[2:]
    return {
        "code": str(code),
        "n": code.n,
        "k": code.k,
        "d": code.d,
        "d_is_upper_bound": code.d_is_upper_bound,
        "l": code.l,
        "m": code.m,
        "A": a,
        "B": b,
        # X and Z operators are images of each other, so one list serves both.
        "logical_weights": sorted(int(weight) for weight in code.logicals("Z").sum(axis=1, dtype=int)),
    }
