"""A report for people: one HTML page without any other file, and the same in Markdown, of a tree of results."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from decoder.benchmark.reporting.result_tree import Plot, ResultDirectory, Table, read_tree
from decoder.benchmark.reporting.summary import commit_text, error_rates, machine_text, seeds, summarize, tree_text
from decoder.benchmark.reporting.words import WORDS
from simulation.files import atomic_write, check_output_path

HTML = "report.html"
MARKDOWN = "report.md"


def write_page(top: Path, *, title: str, force: bool = False) -> tuple[Path, Path]:
    """Writes report.html and report.md on all results of a tree: both or none, and the same for the same results.

    Args:
        top: a benchmark's directory, or one above several.
        title: the headline.
        force: they may replace those of an earlier report.

    Returns:
        The paths of the two files, in `top`. The HTML holds its plots; the Markdown refers to those in the tree.

    Raises:
        ValueError: the title is empty, there are no results, or one of them is not as a benchmark wrote it.
        FileExistsError: a file exists, and `force` is not set.
        OSError: something cannot be read or written.
    """
    if not title.strip():
        raise ValueError("the title is empty; leave --title out or give one")
    results = read_tree(top)
    pages = {top / HTML: render_html, top / MARKDOWN: render_markdown}
    for path in pages:
        check_output_path(path, force=force)
    texts = [render(results, title=title) for render in pages.values()]
    first, second = pages
    # Both are complete before either gets its name.
    with atomic_write(first, force=force) as one, atomic_write(second, force=force) as other:
        one.write_text(texts[0], encoding="utf-8")
        other.write_text(texts[1], encoding="utf-8")
    return first, second


def render_html(results: Sequence[ResultDirectory], *, title: str) -> str:
    """A page that refers to no other file."""
    environment = _environment(autoescape=True)
    return environment.get_template(HTML).render(_context(results, title))


def render_markdown(results: Sequence[ResultDirectory], *, title: str) -> str:
    """The same page in GitHub's Markdown, with plots by their paths below the top of the tree."""
    environment = _environment(autoescape=False, finalize=_escape_markdown)
    environment.filters["indented"] = lambda text: Markup("\n".join(f"    {line}" for line in text.splitlines()))
    return environment.get_template(MARKDOWN).render(_context(results, title))


def _environment(*, autoescape: bool, finalize: Callable[[Any], Any] | None = None) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("decoder.benchmark.reporting"),
        autoescape=autoescape,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _context(results: Sequence[ResultDirectory], title: str) -> dict[str, Any]:
    by_kind = {kind: same for kind in WORDS["kinds"] if (same := [r for r in results if r.kind == kind])}
    ordered = [result for same in by_kind.values() for result in same]
    anchors = {result.path: f"result-{number}" for number, result in enumerate(ordered, 1)}
    words = dict(WORDS["words"])
    for kind in by_kind:
        words |= WORDS["kinds"][kind]["words"]
    return {
        "title": " ".join(title.split()),
        "introduction": WORDS["introduction"],
        "words": words,
        "summary": summarize(results),
        "sections": [_section(same, anchors) for same in by_kind.values()],
    }


def _section(results: Sequence[ResultDirectory], anchors: Mapping[Path, str]) -> dict[str, Any]:
    """The results of one kind; what all their notes say is said once."""
    words = WORDS["kinds"][results[0].kind]
    shared = [note for note in results[0].notes if all(note in result.notes for result in results)]
    return {
        "anchor": results[0].kind,
        "title": words["title"],
        "question": words["question"],
        "notes": shared,
        "results": [_view(result, anchors[result.path], shared) for result in results],
    }


def _view(result: ResultDirectory, anchor: str, shared: Sequence[str]) -> dict[str, Any]:
    """One result as the templates show it."""
    title = _title(result)
    return {
        "anchor": anchor,
        "title": title,
        # A path as text, whatever bytes it has.
        "path": os.fsencode(result.path).decode("utf-8", "replace"),
        "tables": [_titled(table) for table in result.tables],
        "notes": [note for note in result.notes if note not in shared],
        "plots": [_plot(plot, result.path, title) for plot in result.plots],
        "command": result.provenance["command"],
        "origin": list(_origin(result)),
        "circuits": _circuits(result.provenance["circuits"]),
    }


def _plot(plot: Plot, folder: Path, title: str) -> dict[str, Any]:
    """A plot, its words, and where it is: as a data URI, and relative to the top of the tree."""
    caption = WORDS["plots"].get(plot.name, Path(plot.name).stem.replace("-", " ").replace("_", " "))
    return {
        "alt": f"Plot. {caption}. {title}.",
        "caption": caption,
        "data": Markup(f"data:image/png;base64,{base64.b64encode(plot.png).decode()}"),
        "url": Markup(quote(os.fsencode(folder / plot.name))),
        "width": plot.width,
        "height": plot.height,
    }


def _title(result: ResultDirectory) -> str:
    points = result.points

    def every(column: str) -> str:
        *others, last = (str(value) for value in dict.fromkeys(point[column] for point in points))
        return f"{', '.join(others)} and {last}" if others else last

    basis, rounds, rates = every("basis"), every("rounds"), error_rates(points)
    # Of circuits of others not all is known.
    about = [
        every("code"),
        "" if "-" in basis else f"{basis} memory",
        "" if "None" in rounds else f"{rounds} round{'' if rounds == '1' else 's'}",
        f"p = {rates}" if rates else "",
    ]
    return f"{WORDS['kinds'][result.kind]['title']}: {', '.join(part for part in about if part)}"


def _titled(table: Table) -> Table:
    if table.title:
        return table
    shows = (shown for heading, shown in WORDS["tables"].items() if heading in table.headings)
    return replace(table, title=next(shows, "Results"))


def _origin(result: ResultDirectory) -> Iterable[tuple[str, str]]:
    provenance = result.provenance
    yield "time", provenance["time"]
    yield "commit", commit_text(provenance)
    yield "source tree", tree_text(provenance)
    yield "machine", machine_text(provenance)
    yield "threads", str(provenance["machine"]["threads"])
    for name, value in provenance["machine"].items():
        if name not in ("cpu", "cores", "gpu", "threads"):
            yield name.replace("_", " "), _text(value)
    yield "seeds of the shots", seeds(result.points)
    versions = provenance["versions"].items()
    yield "versions", ", ".join(f"{name} {'not installed' if v is None else v}" for name, v in versions)
    for weights in provenance["weights"]:
        flat = (f"{name} {_text(value)}" for name, value in weights.items() if not isinstance(value, dict))
        yield "weights", ", ".join(flat)
    known = {"time", "command", "circuits", "weights", "git", "versions", "machine"}
    yield from ((name, _text(value)) for name, value in provenance.items() if name not in known)


def _circuits(circuits: Sequence[Mapping[str, Any]]) -> Table:
    names = tuple(dict.fromkeys(name for circuit in circuits for name in circuit))
    return Table(
        title="Circuits; the sha256 is that of the file that 'tandem circuit' writes",
        headings=tuple(name.replace("_", " ") for name in names),
        rows=tuple(tuple(_text(circuit.get(name)) for name in names) for circuit in circuits),
    )


def _text(value: Any) -> str:
    """A value of JSON for people."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_SPECIAL = re.compile(r"([\\`*\[\]|~$]|(?<!\w)_|_(?!\w)|^#)")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=#?\w+;)")


def _escape_markdown(value: Any) -> Any:
    """Text that Markdown shows as it is; markup is left alone."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = _TAG.sub("&lt;", _ENTITY.sub("&amp;", " ".join(value.split())))
    return _SPECIAL.sub(r"\\\1", text)
