"""What one imports or asks for help loads no more than it needs, and changes nothing elsewhere."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

HEAVY = {"ldpc", "matplotlib", "numba", "scipy", "sinter", "stim", "torch"}


def loaded_by(code: str) -> set[str]:
    """The packages and modules that a new interpreter holds when it has run some code."""
    return set(_output(f"{code}\nimport sys; print(*sys.modules)").splitlines()[-1].split())


def _output(script: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.check_output([sys.executable, "-c", script], text=True, env=environment)


@pytest.mark.parametrize("module", ["service.client", "service.cli", "decoder.cli", "decoder.base", "service.auth"])
def test_what_is_imported_loads_nothing_heavy(module):
    assert loaded_by(f"import {module}") & HEAVY == set()


def test_the_client_loads_no_server_and_no_decoder_and_httpx_only_to_connect():
    loaded = loaded_by("from service.client import AsyncClient, Client")
    assert (
        loaded & {"httpx", "fastapi", "uvicorn", "typer", "service.errors", "service.models", "decoder.catalog"}
        == set()
    )


def test_help_loads_nothing_heavy_and_no_client():
    loaded = loaded_by("from service.cli import app; app(['--help'], standalone_mode=False)")
    assert "service.cli" in loaded
    assert loaded & {*HEAVY, "httpx", "pydantic", "fastapi", "uvicorn", "service.client"} == set()


def test_the_services_commands_leave_those_of_the_decoders_as_they_are():
    before = _commands("from decoder.cli import app")
    assert _commands("from decoder.cli import app; import service.cli") == before
    assert ("decode", "decoder.commands.decode") in before
    with_service = _commands("from service.cli import app")
    assert [name for name, _ in with_service] == [*(name for name, _ in before), "serve"]
    assert ("decode", "service.commands.decode") in with_service


def _commands(code: str) -> list[tuple[str, str]]:
    """The names of an app's commands, and the modules that they come from."""
    script = f"{code}\nprint([(one.callback.__name__, one.callback.__module__) for one in app.registered_commands])"
    return ast.literal_eval(_output(script))
