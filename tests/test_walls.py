"""Which module may import which: packages, and the rooms in each, as docs/architecture.md lists them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("service", "decoder", "simulation")
"""From top to bottom: each may import those that follow it."""

Import = tuple[str, str]


@cache
def modules() -> dict[str, Path]:
    """The file of every module and package of ours by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules of ours that a file imports, at its top or later; `from x import y` is x.y where that is a module."""
    known = modules()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in known else node.module


@cache
def imports() -> frozenset[Import]:
    """Every import of one module of ours by another, as (who, what)."""
    return frozenset(
        (name, other)
        for name, path in modules().items()
        for other in imported(ast.parse(path.read_text(encoding="utf-8")))
        if other != name
    )


def room(module: str) -> str:
    """The package and the first folder or file in it, such as `decoder.neural`."""
    return ".".join(module.split(".")[:2])


def levels() -> dict[str, int]:
    """How far from the top each room stands on the page: rooms in one row share a level."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.split("\n## Rooms\n")[1].split("\n## ")[0]
    rows = re.findall(r"^    (\w+): +(.*)$", section, re.MULTILINE)
    return {f"{package}.{name}": level for level, (package, names) in enumerate(rows) for name in names.split()}


def test_relative_imports_are_not_used() -> None:
    """They would escape these tests."""
    for path in modules().values():
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        assert not [node.lineno for node in nodes if isinstance(node, ast.ImportFrom) and node.level], path


def test_packages_import_downwards() -> None:
    order = {package: i for i, package in enumerate(PACKAGES)}
    assert not sorted((a, b) for a, b in imports() if order[a.split(".")[0]] > order[b.split(".")[0]])


def test_no_modules_import_each_other_in_a_circle() -> None:
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for name, other in imports():
        sorter.add(name, other)
    try:
        sorter.prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_the_page_has_every_room_once() -> None:
    rooms = {room(name) for name in modules() if "." in name}
    assert set(levels()) == rooms


def test_rooms_import_downwards() -> None:
    level = levels()
    climbing = sorted(
        (name, other)
        for name, other in imports()
        if "." in name and "." in other and room(name) != room(other) and level[room(name)] >= level[room(other)]
    )
    assert not climbing
