"""Benchmark directories read back, one or a whole tree of them: points, provenance, tables and plots.

Tables and plots are taken as `report.write_report` left them, whatever their columns.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, get_type_hints

from decoder.benchmark.reporting.results import FailurePoint

Kind = Literal["accuracy", "latency", "calibration"]

RESULTS = "results.json"
TABLES = "results.md"

Fields = Mapping[str, type | UnionType | tuple[type, ...]]

_POINT: Fields = {
    name: kind | int if kind in (float, float | None) else kind for name, kind in get_type_hints(FailurePoint).items()
}
_PROVENANCE: Fields = {
    "time": str,
    "command": str,
    "circuits": list,
    "weights": list,
    "git": (dict, type(None)),
    "versions": dict,
    "machine": dict,
}
_GIT: Fields = {"commit": str, "clean": bool}
_MACHINE: Fields = {"cpu": str, "cores": int, "threads": int, "gpu": (str, type(None))}
_CIRCUIT: Fields = {
    "code": str,
    "basis": str,
    "rounds": int | None,
    "p": int | float | None,
    "noise": str,
    "sha256": str,
}

_PNG = re.compile(rb"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR(.{4})(.{4})", re.DOTALL)
_RULE = re.compile(r"\|(?: *:?-+:? *\|)+")
_BAR = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a results.md."""

    title: str
    """The paragraph before it where that ends with a colon; otherwise empty."""
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot as it lies in a directory."""

    name: str
    png: bytes
    width: int
    """In pixels."""
    height: int


@dataclass(frozen=True, kw_only=True)
class ResultDirectory:
    """What one benchmark wrote."""

    path: Path
    """Relative to the top of the tree."""
    kind: Kind
    points: tuple[Mapping[str, Any], ...]
    """As in results.json; there is at least one."""
    provenance: Mapping[str, Any]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    """The paragraphs of results.md, which say how to read its tables."""
    plots: tuple[Plot, ...]
    """By name."""


def read_tree(top: Path) -> list[ResultDirectory]:
    """Reads every benchmark's directory in a tree.

    Args:
        top: where the tree starts, possibly such a directory itself. Symbolic links to directories are not followed.

    Returns:
        In the order of their paths, 2 before 10.

    Raises:
        ValueError: there is none, or one of them is not as a benchmark wrote it.
        OSError: a file or directory cannot be read.
    """
    if not top.exists():
        raise FileNotFoundError(f"there is no directory {top}")
    if not top.is_dir():
        raise NotADirectoryError(f"{top} is a file; give the directory of a benchmark's results, or one above it")
    folders = (Path(folder) for folder, _, names in os.walk(top, onerror=_stop) if RESULTS in names)
    found = sorted(folders, key=_natural_order)
    if not found:
        raise ValueError(
            f"there is no {RESULTS} in {top} or below; write one with 'tandem benchmark accuracy ... --out DIR'"
        )
    return [_read_directory(folder, top) for folder in found]


def _natural_order(path: Path) -> tuple[list[int | str], str]:
    parts = enumerate(re.split(r"(\d+)", str(path)))
    return [int(part) if number % 2 else part for number, part in parts], str(path)


def _stop(error: OSError) -> NoReturn:
    raise error


def _read_directory(folder: Path, top: Path) -> ResultDirectory:
    points, provenance = _read_results(folder / RESULTS)
    tables, notes = _read_tables(folder / TABLES)
    return ResultDirectory(
        path=folder.relative_to(top),
        kind=_kind(points, folder / RESULTS),
        points=points,
        provenance=provenance,
        tables=tables,
        notes=notes,
        plots=tuple(_read_plot(path) for path in sorted(folder.glob("*.png"))),
    )


def _read_results(path: Path) -> tuple[tuple[Mapping[str, Any], ...], Mapping[str, Any]]:
    try:
        content = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
        json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair has no place in any output
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no valid JSON ({error}); run the benchmark again") from None
    _check(content, {"points": list, "provenance": dict}, path, "it")
    points, provenance = content["points"], content["provenance"]
    if not points:
        raise ValueError(f"{path} holds no points; run the benchmark again")
    for number, point in enumerate(points):
        _check(point, _POINT, path, f"points[{number}]")
    _check(provenance, _PROVENANCE, path, "provenance")
    _check(provenance["machine"], _MACHINE, path, "provenance.machine")
    if provenance["git"] is not None:
        _check(provenance["git"], _GIT, path, "provenance.git")
    for number, circuit in enumerate(provenance["circuits"]):
        _check(circuit, _CIRCUIT, path, f"provenance.circuits[{number}]")
    for number, weights in enumerate(provenance["weights"]):
        _check(weights, {}, path, f"provenance.weights[{number}]")
    return tuple(points), provenance


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")


def _check(value: Any, fields: Fields, path: Path, where: str) -> None:
    """Refuses what is no object, or one without fields of these types; it may have more."""
    problem = None
    if not isinstance(value, dict):
        problem = f"{where} is no object"
    elif missing := [name for name in fields if name not in value]:
        problem = f"{where} lacks {', '.join(missing)}"
    elif wrong := [name for name, kinds in fields.items() if not _is_a(value[name], kinds)]:
        problem = f"{where} has values of the wrong type: {', '.join(wrong)}"
    if problem:
        raise ValueError(f"{path} was not written by 'tandem benchmark': {problem}; take it out of the directory")


def _is_a(value: Any, kinds: type | UnionType | tuple[type, ...]) -> bool:
    # To Python, True is an integer too.
    return isinstance(value, kinds) and (kinds is bool or not isinstance(value, bool))


def _kind(points: Sequence[Mapping[str, Any]], path: Path) -> Kind:
    kinds = {_kind_of_point(point) for point in points}
    if len(kinds) > 1:
        raise ValueError(f"{path} mixes points of {' and '.join(sorted(kinds))}; run the benchmark again")
    return kinds.pop()


def _kind_of_point(point: Mapping[str, Any]) -> Kind:
    if "ece" in point:
        return "calibration"
    return "latency" if "batch" in point and "p50_us" in point else "accuracy"


def _read_tables(path: Path) -> tuple[tuple[Table, ...], tuple[str, ...]]:
    """The tables and the paragraphs of a results.md; not its list, which is in the provenance."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {path}, which holds the tables; run the benchmark again") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}); run the benchmark again") from None
    tables: list[Table] = []
    notes: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.splitlines()
        if len(lines) > 1 and lines[0].startswith("|") and _RULE.fullmatch(lines[1].strip()):
            title = notes.pop().removesuffix(":") if notes and notes[-1].endswith(":") else ""
            tables.append(_table(lines, title, path))
        elif not block.startswith("- "):
            notes.append(" ".join(lines))
    if not tables:
        raise ValueError(f"{path} holds no table; run the benchmark again")
    return tuple(tables), tuple(notes)


def _table(lines: Sequence[str], title: str, path: Path) -> Table:
    headings, _, *rows = (_cells(line) for line in lines if line.startswith("|"))
    if any(len(row) != len(headings) for row in rows):
        raise ValueError(f"{path} holds a table whose rows differ in length; run the benchmark again")
    return Table(title=title, headings=headings, rows=tuple(rows))


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip().replace("\\|", "|") for cell in _BAR.split(line.strip())[1:-1])


def _read_plot(path: Path) -> Plot:
    png = path.read_bytes()
    start = _PNG.match(png)
    if start is None:
        raise ValueError(f"{path} is no PNG image; run the benchmark again or take it out of the directory")
    width, height = (int.from_bytes(size, "big") for size in start.groups())
    return Plot(name=path.name, png=png, width=width, height=height)
