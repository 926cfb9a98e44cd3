"""Small pictures of codes and of numbers, as SVG and HTML for notebooks; no package draws them."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

X_COLOUR, Z_COLOUR = "#d55e00", "#0072b2"
"""Vermillion and blue of Okabe and Ito, which people with any kind of colour vision tell apart."""

Shift = tuple[int, int]
Node = tuple[int, int]

CELL = 24
"""Units of the picture; a cell holds 2 x 2 nodes."""
HALF = CELL // 2
_NODES: Mapping[str, Node] = {"L": (0, 0), "R": (1, 1), "X": (0, 1), "Z": (1, 0)}
"""Where a cell's qubits and checks are, as in the coordinates of circuits (`simulation.circuits`)."""


def tanner_svg(*, l: int, m: int, a: Sequence[Shift], b: Sequence[Shift], label: str) -> str:
    """The Tanner graph of a bivariate bicycle code on its torus, whose opposite sides are the same line.

    All edges are faint; those of one X check and of one Z check, in the middle, are bold. The picture consists of one
    cell that is repeated, so it has the same few kilobytes for all sizes.

    Args:
        l: cells in the x direction, to the right.
        m: cells in the y direction, upwards.
        a: the exponents of the three monomials of A.
        b: the same for B.
        label: what a screen reader says; no two pictures of one page with other codes may share it.
    """
    edges = [*_edges("X", a, b, 1, (l, m)), *_edges("Z", b, a, -1, (l, m))]
    width, height = l * CELL, m * CELL
    mark = f"cell-{label.encode().hex()}"
    middle = (l // 2 * CELL, m // 2 * CELL)
    bold = "".join(
        _line(start, end, (middle[0] + i * width, middle[1] + j * height), colour, 'stroke-width="2"')
        for (start, end, colour), i, j in product(edges, (-1, 0, 1), (-1, 0, 1))
    )
    scale = min(2.0, 420 / width, 420 / height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(label)}" viewBox="-1 -1 '
        f'{width + 2} {height + 2}" width="{width * scale:.0f}" height="{height * scale:.0f}">'
        f'<defs><pattern id="{mark}" width="{CELL}" height="{CELL}" patternUnits="userSpaceOnUse">'
        f'<g opacity="0.25">{_faint(edges)}</g>{"".join(_node(kind) for kind in _NODES)}</pattern>'
        f'<clipPath id="{mark}-all"><rect width="{width}" height="{height}"/></clipPath></defs>'
        # Up is up, although SVG's y points down.
        f'<g transform="matrix(1 0 0 -1 0 {height})"><rect width="{width}" height="{height}" fill="url(#{mark})" '
        f'stroke="currentColor" stroke-dasharray="4 3"/><g clip-path="url(#{mark}-all)">{bold}</g></g></svg>'
    )


def _edges(
    check: str, left: Sequence[Shift], right: Sequence[Shift], sign: int, size: Shift
) -> Iterable[tuple[Node, Node, str]]:
    """The six edges of the check in cell (0, 0), the short way round the torus: both ends, in units of the picture."""
    start = _at(check)
    for block, shifts in (("L", left), ("R", right)):
        for shift in shifts:
            steps = [_shortest(sign * step, length) for step, length in zip(shift, size, strict=True)]
            x, y = _at(block)
            yield start, (x + steps[0] * CELL, y + steps[1] * CELL), X_COLOUR if check == "X" else Z_COLOUR


def _at(kind: str) -> Node:
    x, y = _NODES[kind]
    return x * HALF + HALF // 2, y * HALF + HALF // 2


def _shortest(step: int, length: int) -> int:
    return (step + (length - 1) // 2) % length - (length - 1) // 2


def _faint(edges: Iterable[tuple[Node, Node, str]]) -> str:
    """What is seen in one cell of the edges of all checks: those of checks so far away that they may cross it."""
    lines = []
    for start, end, colour in edges:
        ranges = (
            range(-math.ceil(max(p, q) / CELL), -math.floor(min(p, q) / CELL) + 1)
            for p, q in zip(start, end, strict=True)
        )
        lines += [_line(start, end, (i * CELL, j * CELL), colour) for i, j in product(*ranges)]
    return "".join(lines)


def _line(start: Node, end: Node, shift: Node, colour: str, more: str = "") -> str:
    (x1, y1), (x2, y2), (dx, dy) = start, end, shift
    return f'<line x1="{x1 + dx}" y1="{y1 + dy}" x2="{x2 + dx}" y2="{y2 + dy}" stroke="{colour}" {more}/>'


def _node(kind: str) -> str:
    x, y = _at(kind)
    if kind in "LR":  # filled and hollow circles, whatever the page's colours
        fill = "currentColor" if kind == "L" else "none"
        return f'<circle cx="{x}" cy="{y}" r="2.6" fill="{fill}" stroke="currentColor"/>'
    return f'<rect x="{x - 3}" y="{y - 3}" width="6" height="6" fill="{X_COLOUR if kind == "X" else Z_COLOUR}"/>'


def tanner_legend() -> str:
    """The words below `tanner_svg`."""
    colours = {"X": X_COLOUR, "Z": Z_COLOUR}
    checks = "".join(f'<span style="color:{colour}">&#9632;</span> {kind} check, ' for kind, colour in colours.items())
    return f"<div><small>{checks}&#9679; data qubit L, &#9675; data qubit R; opposite sides are one line</small></div>"


def bars_svg(values: Mapping[str, float], *, label: str) -> str:
    """A horizontal bar for each value, with its name and number; all of them 0 or more."""
    most = max([*values.values(), 1e-300])
    rows = "".join(
        f'<text x="96" y="{20 * i + 14}" text-anchor="end">{html.escape(name)}</text>'
        f'<rect x="102" y="{20 * i + 3}" width="{200 * value / most:.1f}" height="14" fill="{Z_COLOUR}"/>'
        f'<text x="{106 + 200 * value / most:.1f}" y="{20 * i + 14}">{value:,.6g}</text>'
        for i, (name, value) in enumerate(values.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(label)}" width="380" '
        f'height="{20 * len(values)}" font-size="12" fill="currentColor">{rows}</svg>'
    )


def facts_html(title: str, facts: Mapping[str, object]) -> str:
    """A table of two columns below a title; what is None is left out."""
    rows = "".join(
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for name, value in facts.items()
        if value is not None
    )
    return f"<strong>{html.escape(title)}</strong><table>{rows}</table>"
