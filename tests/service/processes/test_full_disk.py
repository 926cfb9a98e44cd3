"""`tandem serve` on a disk that fills up: nothing that is served changes, and what cannot be done says why."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.helpers import PATIENCE_SECONDS, eventually
from tests.service.served import Server, serve

MODEL = {"id": "m", "code": "bb72", "decoder": "bposd-osd0", "rounds": 1, "own_process": False}
B8 = {"content-type": "application/octet-stream"}
ADMIN = {"x-api-key": "root-0123456789abcdef"}
MIB = 2**20


@pytest.fixture
def disk() -> Iterator[Path]:
    """A small disk of its own, with a short name: those of the workers' sockets in TMPDIR have at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    with suppress(FileNotFoundError):
        if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
            yield folder
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
            folder.rmdir()
            return
    folder.rmdir()
    pytest.skip("this needs the right to mount a disk of its own")


def fill(disk: Path) -> Path:
    """Leaves no byte; the file that does it."""
    with (filler := disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(MIB if os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize > MIB else 4096))
    assert os.statvfs(disk).f_bavail == 0
    return filler


def decode(server: Server) -> int:
    return server.post("/v1/models/m/decode", content=bytes(9), headers=B8 | ADMIN).status_code


def test_a_full_disk_changes_nothing_and_ends_nothing(disk, tmp_path):
    """The files of metrics and models lie in TMPDIR: once PUT changed the model and answered 500, and workers that were
    replaced died of SIGBUS without a word."""
    environment = {"TMPDIR": str(disk), "TANDEM_API_KEYS": f"root:admin:{ADMIN['x-api-key']}"}
    with serve(tmp_path / "log", "--workers", "2", model=MODEL, **environment) as server:
        server.wait_until_ready()
        filler = fill(disk)
        changed = MODEL | {"rounds": 2}
        for answer in (
            httpx.put(f"{server.url}/v1/models/m", json=changed, headers=ADMIN, timeout=PATIENCE_SECONDS),
            httpx.put(f"{server.url}/v1/models/n", json=MODEL | {"id": "n"}, headers=ADMIN, timeout=PATIENCE_SECONDS),
        ):
            assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (507, "not-stored")
            assert "No space left" in answer.json()["detail"]
        listed = server.get("/v1/models", headers=ADMIN).json()["models"]
        assert [(model["id"], model["experiment"]["rounds"]) for model in listed] == [("m", 1)]

        os.kill(server.workers()[0], signal.SIGKILL)
        eventually(lambda: "cannot start: metrics cannot be kept in" in server.log.read_text())
        assert "or let TMPDIR name another directory" in server.log.read_text()
        assert decode(server) == 200  # by the other one
        filler.unlink()
        eventually(lambda: len(re.findall(r"worker \d+ is ready", server.log.read_text())) == 3)
        assert "SIGBUS" not in server.log.read_text()
        assert "code -7" not in server.log.read_text()
        assert json.loads(next(disk.glob("tandem-*/models.json")).read_text())[0]["id"] == "m"
        answer = httpx.put(f"{server.url}/v1/models/m", json=changed, headers=ADMIN, timeout=PATIENCE_SECONDS)
        assert answer.status_code == 200
