"""`tandem benchmark report`: a page for people out of what other benchmarks wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decoder.console.options import ForceOption


def report(
    *,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="What a benchmark wrote with --out, or a directory above several.")
    ],
    title: Annotated[str, typer.Option("--title", help="The headline.")] = "Tandem: benchmark results",
    force: ForceOption = False,
) -> None:
    """Writes DIR/report.html, one page with all tables, plots and provenance, and the same as DIR/report.md.

    The page needs no other file. Whatever results.json lies in DIR or below is reported on.

    \b
    Example:
      tandem benchmark report docs/results --force
    """
    from decoder.benchmark.reporting.page import write_page

    for path in write_page(directory, title=title, force=force):
        typer.echo(path)
