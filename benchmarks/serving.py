"""A service in a process of its own, a client that costs little, and the page that a benchmark leaves behind.

The client is its own few lines over asyncio and uvloop: it shares the machine with the service that it measures, and
httpx would take more of the time that is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import uvloop

from decoder.benchmark.reporting.provenance import git_state, machine
from decoder.making import make_decoder
from simulation.bits import pack_bits
from simulation.circuits import MemoryExperiment
from simulation.sampling import sample

T = TypeVar("T")

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "docs" / "results" / "service"
CLIENT_CORE, SERVER_CORE = 0, 1
START_SECONDS = 180
MODEL = {"id": "bb72", "code": "bb72", "rounds": 6, "basis": "Z"}
MODEL_ID = "bb72"
B8 = "application/octet-stream"

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Resources:
    """What a process holds, from /proc."""

    resident_mib: float
    threads: int
    descriptors: int
    cpu_seconds: float
    """Since it was started."""

    @classmethod
    def of(cls, pid: int) -> Resources:
        status = Path(f"/proc/{pid}/status").read_text()
        values = dict(line.split(":", 1) for line in status.splitlines())
        # After the command, which may hold spaces, in brackets: state, ..., utime and stime as fields 14 and 15.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return cls(
            resident_mib=int(values["VmRSS"].split()[0]) / 1024,
            threads=int(values["Threads"]),
            descriptors=len(os.listdir(f"/proc/{pid}/fd")),
            cpu_seconds=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        )


@dataclass(frozen=True)
class Service:
    """A running `tandem serve`."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def workers(self) -> list[int]:
        """The processes that a supervisor has started to answer."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
        return [child for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]

    def tracebacks(self) -> int:
        return self.log.read_text().count("Traceback")


@contextmanager
def service(
    *arguments: str,
    core: int | None = SERVER_CORE,
    models: Sequence[Mapping[str, object]] = (MODEL,),
    **settings: object,
) -> Iterator[Service]:
    """Runs `tandem serve` on a free port, ready when the block begins.

    Args:
        arguments: of the command.
        core: the one that it may use; None for all.
        models: to serve.
        settings: of the service, by name.

    Raises:
        RuntimeError: it did not get ready.
    """
    variables = {f"TANDEM_{name.upper()}": str(value) for name, value in settings.items()}
    environment = os.environ | {"TANDEM_MODELS": json.dumps(models), "OMP_NUM_THREADS": "1"} | variables
    command = [sys.executable, "-c", "from service.cli import main; main()", "serve", "--port", "0", *arguments]
    with tempfile.TemporaryDirectory(prefix="tandem-") as folder:
        log = Path(folder) / "log"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        try:
            if core is not None and core < (os.cpu_count() or 1):
                os.sched_setaffinity(process.pid, {core})  # before it has any thread
            assert process.stdout is not None
            found = re.search(r"http://[\d.]+:(\d+)", process.stdout.readline())
            running = Service(process, int(found[1]) if found else 0, log)
            if not found or not run(_ready(running)):
                raise RuntimeError(f"the service did not get ready; it said:\n{log.read_text()}")
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


async def _ready(running: Service) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and running.process.poll() is None:
        try:
            connection = await Connection.open(running.port)
            reply = await connection.ask(b"GET /readyz HTTP/1.1\r\nHost: tandem\r\n\r\n")
            connection.close()
            if reply.status == 200:
                return True
        except OSError:
            pass  # not listening yet
        await asyncio.sleep(0.05)
    return False


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        found = re.search(rf"\r\n{name}: *([^\r]*)".encode(), self.head, re.IGNORECASE)
        return found[1].decode() if found else None


class Connection(asyncio.Protocol):
    """One connection that is kept: a request, its answer, and the next."""

    def __init__(self) -> None:
        self._received = b""
        self._waiting: asyncio.Future[Reply] | None = None
        self._transport: Any = None
        self.lost = False

    @classmethod
    async def open(cls, port: int) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    async def ask(self, request: bytes) -> Reply:
        """Sends a request and waits for the answer.

        Raises:
            ConnectionError: the connection ended before it.
        """
        self.send(request)
        return await self.reply()

    def send(self, data: bytes) -> None:
        if self.lost:
            raise ConnectionResetError("the connection is closed")
        self._waiting = self._waiting or asyncio.get_running_loop().create_future()
        self._transport.write(data)

    async def reply(self) -> Reply:
        assert self._waiting is not None, "nothing was asked"
        try:
            return await self._waiting
        finally:
            self._waiting = None

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        """Leaves without a word."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head = self._received[:end]
        length = _LENGTH.search(head)
        end += int(length[1]) if length else 0
        if len(self._received) >= end:
            reply = Reply(int(head[9:12]), head, self._received[len(head) : end])
            self._received = self._received[end:]
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError("the connection was lost"))
            self._waiting.exception()  # seen, even if nobody waits


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine as the service runs its own, with uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def pin(core: int) -> None:
    """Moves this process to a core, if it is there."""
    if core < (os.cpu_count() or 1):
        os.sched_setaffinity(0, {core})


def decode_request(shots: bytes, *, model: str = MODEL_ID, query: str = "") -> bytes:
    """A request to decode shots in b8, whose answer is their predictions in b8."""
    head = f"POST /v1/models/{model}/decode{query} HTTP/1.1\r\nHost: tandem\r\nContent-Type: {B8}\r\n"
    return f"{head}Content-Length: {len(shots)}\r\n\r\n".encode() + shots


@dataclass(frozen=True, eq=False)
class Shots:
    """Shots with the answers that the decoder gives when it is asked directly."""

    events: npt.NDArray[np.uint8]
    """(shots, ceil(detectors / 8))."""
    answers: npt.NDArray[np.uint8]
    """(shots, ceil(observables / 8))."""
    decoder: Any
    p: float
    seed: int

    def __len__(self) -> int:
        return len(self.events)

    def request(self, first: int, count: int = 1) -> tuple[bytes, bytes]:
        """A request of some shots in a row, and the body that is the right answer to it."""
        some = slice(first, first + count)
        return decode_request(self.events[some].tobytes()), self.answers[some].tobytes()


def sample_shots(count: int, *, p: float, seed: int, model: Mapping[str, Any] = MODEL) -> Shots:
    """Samples shots of a model's experiment and decodes them in this process, with one thread."""
    torch.set_num_threads(1)
    experiment = MemoryExperiment.create(code=model["code"], basis=model["basis"], rounds=model["rounds"], p=p)
    events = sample(experiment.circuit, shots=count, seed=seed).detection_events
    # What the decoder knows of p is what the service's knows: the model's default.
    served = MemoryExperiment.create(code=model["code"], basis=model["basis"], rounds=model["rounds"], p=0.001)
    decoder = make_decoder(str(model.get("decoder", "neural")), served)
    return Shots(events, pack_bits(decoder.decode_batch(events, bit_packed_shots=True)), decoder, p, seed)


@dataclass
class Report:
    """What a benchmark found."""

    name: str
    title: str
    notes: list[str] = field(default_factory=list)
    rows: list[dict[str, object]] = field(default_factory=list)
    """Of the table, all with the same columns."""
    goals: list[tuple[str, str, bool]] = field(default_factory=list)
    """What was wanted, what was found, and whether that is enough."""

    def goal(self, wanted: str, found: str, *, met: bool) -> None:
        self.goals.append((wanted, found, bool(met)))

    @property
    def met(self) -> bool:
        return all(met for *_, met in self.goals)

    def write(self, folder: Path | None = RESULTS) -> int:
        """Prints the report, and writes it as markdown and JSON unless there is no folder.

        Returns:
            The exit status: 1 if a goal was missed.
        """
        command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
        facts = {"command": command, "git": git_state(Path(__file__)), "machine": machine()}
        text = "\n".join(self._markdown(facts))
        print(text)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            goals = [dict(zip(("goal", "found", "met"), goal, strict=True)) for goal in self.goals]
            content = {"title": self.title, "rows": self.rows, "goals": goals, "notes": self.notes} | facts
            (folder / f"{self.name}.md").write_text(f"{text}\n")
            (folder / f"{self.name}.json").write_text(f"{json.dumps(content, indent=1)}\n")
        return 0 if self.met else 1

    def _markdown(self, facts: Mapping[str, Any]) -> Iterator[str]:
        yield f"# {self.title}\n"
        if self.rows:
            yield _row(self.rows[0])
            yield _row(["---"] * len(self.rows[0]))
            yield from (_row(row.values()) for row in self.rows)
            yield ""
        yield _row(["goal", "found", ""])
        yield _row(["---"] * 3)
        yield from (_row([wanted, found, "met" if met else "**missed**"]) for wanted, found, met in self.goals)
        yield ""
        yield from (f"- {note}" for note in self.notes)
        git, host = facts["git"] or {"commit": "unknown", "clean": False}, facts["machine"]
        changed = "" if git["clean"] else ", with changes"
        load = ", ".join(f"{value:.2f}" for value in host["load_average"] or ())
        yield f"- command: `{facts['command']}`"
        yield f"- commit: {git['commit']}{changed}"
        yield f"- machine: {host['cpu']}, {host['cores']} cores shared with other work, {host['system']}; load {load}"


def _row(cells: Any) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def milliseconds(seconds: Sequence[float] | npt.NDArray[np.float64], *quantiles: float) -> list[float]:
    """Quantiles in milliseconds."""
    return [float(value) * 1e3 for value in np.quantile(seconds, quantiles)]
