"""Kills a Ray Serve replica under load, and says what clients saw of it.

    python benchmarks/ray_replicas.py --out docs/results/service/ray.md

Starts `serve run deploy/ray/serve.yaml` on a free port of this machine with BP-OSD for bb72 over two rounds. Half of
the clients send each request once; the others are `service.client.client`, which sends it again where that is safe.
Every answer is compared with the decoder's own.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import yaml

from decoder.making import make_decoder
from service.client import Client, ServiceError
from simulation.bits import Bits, PackedBits, pack_bits
from simulation.circuits import MemoryExperiment
from simulation.sampling import sample

REPOSITORY = Path(__file__).parents[1]
MODELS = '[{"id": "m", "code": "bb72", "decoder": "bposd", "rounds": 2, "p": 0.002}]'
MARK = "TANDEM_RAY_RUN"
"""In the environment of all processes of one cluster."""
START_SECONDS = 120
# `serve run` in a cluster of this machine that has cores for two replicas, and no dashboard, which takes seconds.
SERVE = """import ray
from ray.serve.scripts import cli
ray.init(num_cpus=4, include_dashboard=False, namespace="serve")
cli()"""
B8 = {"content-type": "application/octet-stream", "accept": "application/octet-stream"}


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
        """Raises:
        RuntimeError: so many replicas never were.
        """
        deadline = time.monotonic() + START_SECONDS
        while self.ready() < replicas or not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the service did not start:\n{self.log.read_text()}")
            time.sleep(0.1)


@dataclass(frozen=True)
class Request:
    """One request; seconds from the kill, negative before."""

    started: float
    ended: float
    retrying: bool
    outcome: str
    """`right`, `WRONG`, or what the error was."""


@dataclass
class Load:
    """Clients that send single shots one after the other until `stop`."""

    url: str
    shots: PackedBits
    predictions: Bits
    requests: list[tuple[float, float, bool, str]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self, number: int) -> None:
        retrying = number % 2 == 1
        choice = np.random.default_rng(number)
        with httpx.Client(timeout=60) as once, Client(self.url, timeout_seconds=60) as client:
            while not self.stopped.is_set():
                shot = int(choice.integers(len(self.shots)))
                started = time.monotonic()
                outcome = self._retried(client, shot) if retrying else self._once(once, shot)
                self.requests.append((started, time.monotonic(), retrying, outcome))

    def _once(self, client: httpx.Client, shot: int) -> str:
        try:
            answer = client.post(f"{self.url}/v1/models/m/decode", content=self.shots[shot].tobytes(), headers=B8)
        except httpx.HTTPError as error:
            return type(error).__name__
        if answer.status_code != 200:
            kind = answer.json()["type"] if "json" in answer.headers.get("content-type", "") else answer.text[:60]
            return f"{answer.status_code} {kind}"
        return "right" if answer.content == pack_bits(self.predictions[[shot]]).tobytes() else "WRONG"

    def _retried(self, client: Client, shot: int) -> str:
        try:
            answer = client.decode("m", self.shots[[shot]], bit_packed_shots=True).predictions
        except ServiceError as error:
            return f"{error.status} {error.type or error.detail[:60]}"
        return "right" if (answer == self.predictions[[shot]]).all() else "WRONG"


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
            "RAY_USAGE_STATS_ENABLED": "0",
            "TANDEM_INSECURE": "1",  # it listens on loopback
            "TANDEM_MODELS": MODELS,
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


def kill_one(cluster: Cluster, *, clients: int, before: float, after: float) -> list[Request]:
    """Kills a replica with SIGKILL while clients send shots, and gives all requests, the first one first."""
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.002)
    shots = sample(experiment.circuit, shots=200, seed=2031).detection_events
    predictions = np.asarray(make_decoder("bposd", experiment).decode_batch(shots, bit_packed_shots=True), dtype=bool)
    load = Load(cluster.url, shots, predictions)
    threads = [threading.Thread(target=load.run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(before)
        killed = time.monotonic()
        os.kill(cluster.replicas()[0], signal.SIGKILL)
        time.sleep(after)
    finally:
        load.stopped.set()
        for thread in threads:
            thread.join()
    times = sorted(load.requests)
    return [Request(start - killed, end - killed, retrying, outcome) for start, end, retrying, outcome in times]


def summary(requests: list[Request], *, command: str) -> str:
    """What docs/results/service/ray.md says."""
    lines = ["# A Ray Serve replica killed under load", "", f"    {command}", ""]
    lines += [f"{platform.machine()}, {os.cpu_count()} cores for cluster and clients together, two replicas.", ""]
    lines += ["| clients | requests | answered right | otherwise | last start of one that failed | longest |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for retrying, name in ((False, "send once"), (True, "`service.client.client`")):
        mine = [request for request in requests if request.retrying == retrying]
        bad = [request for request in mine if request.outcome != "right"]
        kinds = ", ".join(f"{count} x {kind}" for kind, count in Counter(one.outcome for one in bad).items()) or "none"
        last = f"{max(one.started for one in bad):+.3f} s from the kill" if bad else "-"
        longest = max(one.ended - one.started for one in mine)
        right = len(mine) - len(bad)
        lines += [f"| {name} | {len(mine):,} | {right:,} | {kinds} | {last} | {longest:.3f} s |"]
    late = [request for request in requests if request.started > 2]
    before = np.median([one.ended - one.started for one in requests if one.ended < 0])
    wrong = sum(request.outcome != "right" for request in late)
    lines += ["", f"Of {len(late):,} requests that began later than 2 s after the kill, {wrong} failed. "]
    lines[-1] += f"The median request took {before * 1e3:.1f} ms before it."
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--before", type=float, default=10, help="seconds of load before the kill")
    parser.add_argument("--after", type=float, default=40, help="and after it")
    parser.add_argument("--out", type=Path, help="file to write; the terminal if not given")
    options = parser.parse_args()
    with cluster() as running:
        requests = kill_one(running, clients=options.clients, before=options.before, after=options.after)
        replaced = running.ready() > 2
    command = shlex.join(["python", "benchmarks/ray_replicas.py", *sys.argv[1:]])
    text = summary(requests, command=command)
    text += f"A new replica was {'' if replaced else 'not yet '}ready {options.after:g} s after the kill.\n"
    if options.out is None:
        print(text, end="")
    else:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


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
    main()
