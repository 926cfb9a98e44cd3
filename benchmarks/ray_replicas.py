"""Kills a Ray Serve replica under load, and says what clients saw of it.

    python benchmarks/ray_replicas.py --out docs/results/service/ray.md

Starts `serve run deploy/ray/serve.yaml` on a free port of this machine with BP-OSD for bb72 over two rounds. Half of
the clients send each request once; the others, as `service.client` does by default, send it again where that is safe.
Every answer is compared with the decoder's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml

from benchmarks.harness import (
    REPOSITORY,
    NothingMeasured,
    Shots,
    arguments,
    command,
    markdown_table,
    run_script,
    sample_shots,
    write_text,
)
from benchmarks.traffic import RIGHT, Callers, Request

MODEL: Mapping[str, Any] = {"id": "m", "code": "bb72", "decoder": "bposd", "rounds": 2, "p": 0.002, "basis": "Z"}
MARK = "TANDEM_RAY_RUN"
"""In the environment of all processes of one cluster."""
START_SECONDS = 120
# `serve run` in a cluster of this machine that has cores for two replicas, and no dashboard, which takes seconds.
SERVE = """import ray
from ray.serve.scripts import cli
ray.init(num_cpus=4, include_dashboard=False, namespace="serve")
cli()"""


@dataclass(frozen=True)
class Cluster:
    """A running one."""

    url: str
    mark: str
    process: subprocess.Popen[bytes]
    log: Path

    def replicas(self) -> list[int]:
        """Process ids of the replicas."""
        return [pid for pid in sorted(marked(self.mark)) if _read(pid, "cmdline").startswith(b"ray::ServeReplica")]

    def ready(self) -> int:
        """Replicas that have loaded their model, those that have died since included."""
        return self.log.read_text(errors="replace").count("model m is ready")

    def answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        return False

    def wait_until_ready(self, replicas: int) -> None:
        """Waits until so many replicas have been ready.

        Raises:
            RuntimeError: they never were.
        """
        deadline = time.monotonic() + START_SECONDS
        while self.ready() < replicas or not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the service did not start:\n{self.log.read_text()}")
            time.sleep(0.1)


def marked(mark: str) -> set[int]:
    """Processes that inherited a mark, and their descendants: some overwrite what they inherited."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    found = {pid for pid in pids if f"{MARK}={mark}".encode() in _read(pid, "environ").split(b"\0")}
    parents = {pid: _parent(pid) for pid in pids}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


@contextmanager
def cluster(*, replicas: int = 2) -> Iterator[Cluster]:
    """Runs deploy/ray/serve.yaml on this machine, on loopback and a free port; nothing of it is left afterwards."""
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        config = yaml.safe_load((REPOSITORY / "deploy/ray/serve.yaml").read_text())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        config["http_options"] |= {"host": "127.0.0.1", "port": port}
        config["applications"][0]["deployments"][0]["num_replicas"] = replicas
        file = Path(folder) / "serve.yaml"
        file.write_text(yaml.safe_dump(config))
        environment = os.environ | {
            MARK: mark,
            "PYTHONPATH": str(REPOSITORY),
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "service.ray_proxy:middlewares",
            "RAY_DEDUP_LOGS": "0",
            "RAY_worker_niceness": "0",  # else a busy machine leaves replicas hardly any time
            "RAY_USAGE_STATS_ENABLED": "0",
            "TANDEM_INSECURE": "1",  # it listens on loopback
            "TANDEM_MODELS": json.dumps([MODEL]),
        }
        command = [sys.executable, "-c", SERVE, "run", str(file)]
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            running = Cluster(f"http://127.0.0.1:{port}", mark, process, Path(folder) / "log")
            running.wait_until_ready(replicas)
            yield running
        finally:
            _end(process, mark)


def kill_one(cluster: Cluster, shots: Shots, *, clients: int, before: float, after: float) -> list[Request]:
    """Kills a replica with SIGKILL while clients send shots.

    Args:
        cluster: a running one.
        shots: to ask for.
        clients: how many; half of them send each request once.
        before: seconds of load before the kill.
        after: and after it.

    Returns:
        All requests, the first one first, with their times in seconds from the kill, negative before.
    """

    async def work() -> tuple[list[Request], float]:
        callers = Callers(cluster.url, shots, model="m", once=clients - clients // 2, retrying=clients // 2)
        asking = asyncio.create_task(callers.ask())
        await asyncio.sleep(before)
        killed = time.monotonic()
        os.kill(cluster.replicas()[0], signal.SIGKILL)
        await asyncio.sleep(after)
        callers.stop()
        await asking
        return callers.requests, killed

    requests, killed = asyncio.run(work())
    found = [replace(one, started=one.started - killed, ended=one.ended - killed) for one in requests]
    return sorted(found, key=lambda one: one.started)


def summary(requests: list[Request], *, command: str) -> str:
    """What docs/results/service/ray.md says.

    Raises:
        NothingMeasured: no request ended before the kill, or one kind of clients sent none.
    """
    kinds = {"send once": False, "`service.client`": True}
    mine = {name: [one for one in requests if one.retrying == retrying] for name, retrying in kinds.items()}
    calm = [one.ended - one.started for one in requests if one.ended < 0]
    if not calm or not all(mine.values()):
        raise NothingMeasured("too few requests were answered; give more seconds --before and --after, and 2 --clients")
    rows = [("clients", "requests", "answered right", "otherwise", "last start of one that failed", "longest")]
    for name, some in mine.items():
        bad = [one for one in some if one.outcome != RIGHT]
        errors = ", ".join(f"{count} x {kind}" for kind, count in Counter(one.outcome for one in bad).items())
        last = f"{max(one.started for one in bad):+.3f} s from the kill" if bad else "-"
        longest = max(one.ended - one.started for one in some)
        rows.append((name, f"{len(some):,}", f"{len(some) - len(bad):,}", errors or "none", last, f"{longest:.3f} s"))
    late = [one for one in requests if one.started > 2]
    failed = sum(one.outcome != RIGHT for one in late)
    return (
        f"# A Ray Serve replica killed under load\n\n    {command}\n\n"
        f"{platform.machine()}, {os.cpu_count()} cores for cluster and clients together, two replicas.\n\n"
        f"{markdown_table(rows)}\n\n"
        f"Of {len(late):,} requests that began later than 2 s after the kill, {failed} failed. "
        f"The median request took {np.median(calm) * 1e3:.1f} ms before it.\n"
    )


def main() -> int:
    seconds = {"before": (10.0, "seconds of load before the kill"), "after": (40.0, "and after it")}
    options = arguments(__doc__, out=None, clients=(8, ""), **seconds)
    shots = sample_shots(200, p=MODEL["p"], seed=options.seed, model=MODEL)
    with cluster() as running:
        requests = kill_one(running, shots, clients=options.clients, before=options.before, after=options.after)
        replaced = running.ready() > 2
    text = summary(requests, command=command())
    text += f"A new replica was {'' if replaced else 'not yet '}ready {options.after:g} s after the kill.\n"
    if options.out is None:
        print(text, end="")
    else:
        write_text(options.out, text)
    return 0


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    # All at once: Ray would take five seconds to end in good order.
    pids = marked(mark)
    process.kill()
    process.wait()
    while pids := {pid for pid in pids if _read(pid, "cmdline")} | marked(mark):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _parent(pid: int) -> int:
    words = _read(pid, "stat").rpartition(b")")[2].split()
    return int(words[1]) if words else 0


def _read(pid: int, name: str) -> bytes:
    try:
        return (Path("/proc") / str(pid) / name).read_bytes()
    except OSError:  # it has ended
        return b""


if __name__ == "__main__":
    run_script(main)
