"""The command line, run in this process."""

import pytest
from typer.testing import CliRunner

from decoder.cli import app


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A test's working directory, so that commands can use relative names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def succeed(folder):
    """Runs a command that has to succeed; gives what it prints."""

    def run(line):
        result = CliRunner().invoke(app, line.split())
        assert result.exit_code == 0, result.stderr or result.exception
        return result.stdout

    return run


@pytest.fixture
def refuse(folder):
    """Runs a command that has to fail as a user's mistake does; gives its message."""

    def run(line):
        result = CliRunner().invoke(app, line.split())
        assert result.exit_code == 2, result.stderr or result.exception
        assert result.stdout == ""
        message = result.stderr.removesuffix("\n")
        assert message.startswith("tandem: ")
        assert "\n" not in message
        return message

    return run
