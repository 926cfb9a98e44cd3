from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from decoder.console.groups import with_groups


@dataclass(frozen=True, kw_only=True)
class Drawing:
    shots: Annotated[int, typer.Option("--shots", help="How many.")]
    seed: Annotated[int, typer.Option(help="Repeats them.")] = 7
    chunk: int = 64


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @with_groups
    def draw(
        *, name: Annotated[str, typer.Argument()], drawing: Drawing, quiet: Annotated[bool, typer.Option()] = False
    ) -> None:
        """Draws shots."""
        print(name, drawing, quiet)

    return app


def test_fields_of_a_group_are_options(app: typer.Typer) -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).output
    places = [shown.index(text) for text in ("Draws shots.", "--shots", "How many.", "--seed", "Repeats", "--quiet")]
    assert places == sorted(places)
    assert "--drawing" not in shown
    assert "--chunk" not in shown


def test_the_command_is_called_with_its_group(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["bb72", "--shots", "5", "--quiet"])
    assert result.output.split("\n")[0] == f"bb72 {Drawing(shots=5)} True"
    assert CliRunner().invoke(app, ["bb72"]).exit_code == 2
