"""Temporary folders go in the end, and with them those of processes that were killed; nobody else's do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.folders import MAX_SOCKET_NAME, MAX_SOCKET_PATH, OWNER, PREFIX, own_folder, socket_folder
from tests.helpers import running

WAIT = """
import sys
from pathlib import Path
from service.folders import own_folder

with own_folder(place=Path(sys.argv[1])) as folder:
    (folder / "kept.txt").write_text("a circuit")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_with_the_next_and_nobody_elses(tmp_path):
    foreign = tmp_path / f"{PREFIX}results"
    foreign.mkdir()
    with running(sys.executable, "-c", WAIT, tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        left = Path(process.stdout.readline().decode().strip())
        with own_folder(place=tmp_path) as own:
            assert own.is_dir()
            assert (left / "kept.txt").exists()  # its process is at work
        assert not own.exists()
        process.kill()
        process.wait()
        assert left.exists()
        with own_folder(place=tmp_path) as own:
            assert {path.name for path in tmp_path.iterdir()} == {own.name, foreign.name}


def test_a_link_to_a_folder_is_left_alone(tmp_path):
    (home := tmp_path / "home").mkdir()
    (home / OWNER).touch()
    (place := tmp_path / "place").mkdir()
    (place / f"{PREFIX}trap").symlink_to(home)
    with own_folder(place=place):
        assert (home / OWNER).exists()


@pytest.mark.parametrize("spare", [0, -1])
def test_sockets_have_a_folder_with_a_short_path(tmp_path, spare):
    usual = tmp_path / ("d" * (MAX_SOCKET_PATH - MAX_SOCKET_NAME - spare - len(str(tmp_path)) - 1))
    usual.mkdir()
    with socket_folder(usual) as folder:
        assert (folder == usual) == (spare == 0)
        assert len(str(folder)) + MAX_SOCKET_NAME <= MAX_SOCKET_PATH
    assert usual.exists()
    assert folder.exists() == (spare == 0)
