"""`tandem serve` as users run it, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

import httpx

from tests.helpers import PATIENCE_SECONDS, eventually, running, spawned_by


def start(
    *arguments: str, model: Mapping[str, object], stderr: IO[str] | int = subprocess.PIPE, **environment: str
) -> AbstractContextManager[subprocess.Popen[Any]]:
    """Runs `tandem serve` with one model, its settings and its output."""
    command = (sys.executable, "-c", "from service.cli import main; main()", "serve", *arguments)
    bounds = {"TANDEM_DECODE_TIMEOUT_SECONDS": "600", "TANDEM_SHUTDOWN_TIMEOUT_SECONDS": "600"}
    variables = os.environ | bounds | {"TANDEM_MODELS": json.dumps([model]), "OMP_NUM_THREADS": "1"} | environment
    return running(*command, env=variables, stdout=subprocess.PIPE, stderr=stderr, text=True)


class Server:
    """A service that listens on a port of this machine.

    Args:
        process: it runs there.
        log: what the process logs.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on http://"), log.read_text()
        self.url = line.split()[2]
        self.port = int(self.url.rpartition(":")[2])

    def wait_until_ready(self) -> None:
        # While workers start, connections wait for the first one.
        eventually(lambda: httpx.get(f"{self.url}/readyz", timeout=PATIENCE_SECONDS).is_success)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=PATIENCE_SECONDS, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=PATIENCE_SECONDS, **options)

    def workers(self) -> list[int]:
        """The processes that serve, or decode, for it."""
        return spawned_by(self.process.pid)


@contextmanager
def serve(log: Path, *arguments: str, model: Mapping[str, object], **environment: str) -> Iterator[Server]:
    """Runs `tandem serve` on a free port."""
    with log.open("w") as file, start("--port", "0", *arguments, model=model, stderr=file, **environment) as process:
        yield Server(process, log)
