"""The command line as a whole: help, exit codes, interrupts."""

import json
import os
import pty
import signal
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from decoder.cli import OneLineErrors, app, describe

COMMANDS = ["codes", "circuit", "sample", "train", "decode", "benchmark accuracy", "benchmark latency"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, succeed):
    text = succeed(f"{command} --help")
    assert "Example" in text
    assert f"tandem {command} " in text


@pytest.mark.parametrize("command", COMMANDS)
def test_what_prints_results_prints_json_and_what_writes_files_can_be_forced(command, succeed):
    text = succeed(f"{command} --help")
    assert "--json" in text
    assert ("--force" in text) == (command != "codes")


def test_without_a_command_it_shows_help():
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert "Commands" in result.stdout


def test_help_needs_no_heavy_library():
    code = (
        "import sys; from typer.testing import CliRunner; from decoder.cli import app;"
        "CliRunner().invoke(app, ['--help']);"
        "print([name for name in ('torch', 'stim', 'scipy', 'matplotlib', 'sinter') if name in sys.modules])"
    )
    shown = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert shown == "[]\n"


def process(line):
    return subprocess.run(
        [sys.executable, "-m", "decoder.cli", *line.split()],
        capture_output=True,
        text=True,
    )


def test_exit_codes_of_a_process(folder):
    good = process("codes bb72 --json")
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["codes"][0]["k"] == 12
    bad = process("sample bb72 --rounds 0 --basis Z --p 0.1 --shots 1 --out s")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "tandem: rounds=0 must be a whole number, at least 1\n"


def test_an_interrupt_ends_a_run_with_one_line_and_no_files(folder):
    """On a terminal, where a progress bar shows that the run is under way."""
    screen, terminal = pty.openpty()
    line = "sample bb72 --rounds 6 --basis Z --p 0.001 --shots 50000000 --processes 2 --out s"
    with subprocess.Popen(
        [sys.executable, "-m", "decoder.cli", *line.split()],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
    ) as run:
        os.close(terminal)
        shown = b""
        while b"sampling" not in shown:
            shown += os.read(screen, 1000)
        os.killpg(run.pid, signal.SIGINT)
        rest = b""
        try:
            while data := os.read(screen, 1000):
                rest += data
        except OSError:  # how Linux reports that the other end of a terminal is closed
            pass
        assert run.wait() == 130
        assert run.stdout.read() == b""
    os.close(screen)
    assert b"tandem: interrupted" in rest
    assert b"Traceback" not in rest
    assert not list(folder.iterdir())


def test_mistakes_of_ours_keep_their_traceback():
    broken = typer.Typer(cls=OneLineErrors)

    @broken.command()
    def fail():
        raise KeyError("ours")

    @broken.command()
    def other():
        """Makes this a group."""

    assert isinstance(CliRunner().invoke(broken, ["fail"]).exception, KeyError)


def test_errors_are_described_without_their_number():
    assert describe(OSError(28, "No space left on device", "file")) == "file: No space left on device"
    assert describe(OSError(28, "No space left on device")) == "No space left on device"
    assert describe(FileExistsError("file exists")) == "file exists"
    assert describe(ValueError()) == "ValueError"
