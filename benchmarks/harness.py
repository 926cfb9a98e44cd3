"""What the benchmarks share: a service in a process of its own, shots with the right answers, options and reports."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import httpx
import numpy as np
import numpy.typing as npt

from decoder.benchmark.reporting.provenance import git_state, machine
from simulation.bits import PackedBits
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "docs" / "results" / "service"
CLIENT_CORE, SERVER_CORE = 0, 1
Cores = tuple[int | None, int | None]
"""Of the client and of what it measures; None for any."""
CORES = f"Service on core {SERVER_CORE}, clients on core {CLIENT_CORE}."
START_SECONDS = 180
STOP_SECONDS = 60
MODEL: Mapping[str, Any] = {"id": "bb72", "code": "bb72", "rounds": 6, "basis": "Z"}
"""What is served, with the default settings of models unless told otherwise."""
B8 = "application/octet-stream"
SERVER = f"{shlex.quote(sys.executable)} -c 'from service.cli import main; main()' serve --port {{port}}"


class NothingMeasured(ValueError):
    """There is too little to say anything of; the message says what to do."""


def run_script(main: Callable[[], object]) -> NoReturn:
    """Ends the process with what `main` returns; a mistake, or nothing measured, is one line and 2."""
    try:
        sys.exit(main() or 0)  # type: ignore[arg-type]
    except (ValueError, OSError) as error:
        from decoder.cli import USAGE_ERROR, describe  # loads all commands, which a run without mistakes does not need

        print(f"{Path(sys.argv[0]).name}: {' '.join(describe(error).split())}", file=sys.stderr)
        sys.exit(USAGE_ERROR)


def arguments(doc: str | None, *, out: Path | None = RESULTS, **options: tuple[float, str]) -> argparse.Namespace:
    """Reads the command line of a benchmark of the service.

    Args:
        doc: the script's docstring.
        out: where results go by default: a folder, or None for a script that writes one file or to the terminal.
        options: the default and the help of each number above 0; `--seed` and `--out` come with them.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (default, help) in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=help or None)
    parser.add_argument("--seed", type=int, default=2031)
    parser.add_argument("--out", type=Path, default=out, help="where the report goes")
    parsed = parser.parse_args()
    for name in options:
        if getattr(parsed, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0")
    return parsed


def command() -> str:
    """How this script was started, from the root of the repository."""
    script = Path(sys.argv[0]).resolve()
    return shlex.join(["python", f"{script.parent.name}/{script.name}", *sys.argv[1:]])


def machine_and_versions(*packages: str) -> str:
    """The processor, the system, and the versions of Python and of packages."""
    host = machine()
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{host['cpu']}, {host['cores']} cores, {host['system']}, Python {platform.python_version()}, {versions}"


def write_text(path: Path, text: str) -> None:
    """Writes a file, and the folders that it lies in; a result that is there is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def timing_row(name: str, seconds: Sequence[float], *, digits: int = 0) -> dict[str, object]:
    """A row of a report's table: how many requests there were, and how long they took."""
    times = zip(("p50 ms", "p99 ms", "max ms"), milliseconds(seconds, 0.5, 0.99, 1), strict=True)
    return {"": name, "requests": len(seconds), **{label: f"{time:.{digits}f}" for label, time in times}}


@dataclass(frozen=True)
class Resources:
    """What a process holds, from /proc."""

    resident_mib: float
    threads: int
    descriptors: int
    cpu_seconds: float
    """Since it was started."""


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


@dataclass(frozen=True)
class Service:
    """A running `tandem serve`."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def resources(self) -> Resources:
        """What its first process holds."""
        process = Path(f"/proc/{self.process.pid}")
        values = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        # After the command, which may hold spaces, in brackets: state, ..., utime and stime as fields 14 and 15.
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        return Resources(
            resident_mib=int(values["VmRSS"].split()[0]) / 1024,
            threads=int(values["Threads"]),
            descriptors=len(os.listdir(process / "fd")),
            cpu_seconds=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        )

    def workers(self) -> list[int]:
        """The processes that a supervisor has started to answer."""
        return [
            worker
            for child in children_of(self.process.pid)
            if "forkserver" in Path(f"/proc/{child}/cmdline").read_text()
            for worker in children_of(child)
        ]

    def failure(self, what: str) -> RuntimeError:
        """An error that shows the log."""
        return RuntimeError(f"{what}; it said:\n{self.log.read_text()}")


@contextmanager
def serve(
    *options: str,
    core: int | None = SERVER_CORE,
    models: Sequence[Mapping[str, object]] | None = (MODEL,),
    server: str = SERVER,
    **settings: object,
) -> Iterator[Service]:
    """Runs `tandem serve` on a free port, ready when the block begins and ended with it.

    Args:
        options: of the command.
        server: another command in its place, with {port} in it; the options come behind it.
        core: the one that it may use; None for all.
        models: to serve; None for those of the environment, or by default.
        settings: of the service, by name.

    Raises:
        RuntimeError: it did not get ready, or did not end as it should.
    """
    environment = os.environ | {f"TANDEM_{name.upper()}": str(value) for name, value in settings.items()}
    if models is not None:
        environment |= {"TANDEM_MODELS": json.dumps(models), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="tandem-") as folder, socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))  # who wants any port is not given this one
        port = held.getsockname()[1]
        command = [*shlex.split(server.format(port=port)), *options]
        log = Path(folder) / "log"
        with log.open("w") as stderr:
            process = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=stderr, stderr=stderr)
        running = Service(process, port, log)
        try:
            pin(core, process.pid)  # before it has any thread
            _wait_until_ready(running)
            yield running
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                if process.wait(STOP_SECONDS) != 0:
                    raise running.failure("the service ended with an error")
        finally:
            process.kill()
            process.wait()


def _wait_until_ready(running: Service) -> None:
    """Waits until the service is ready to decode."""
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False) as client:
        while running.process.poll() is None and time.monotonic() < deadline:
            try:
                if client.get(f"{running.url}/readyz", timeout=START_SECONDS).is_success:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.05)
    raise running.failure("the service did not get ready")


def pin(core: int | None, pid: int = 0) -> None:
    """Moves a process, this one by default, to a core, if it is there; None leaves it where it is."""
    if core is not None and core < (os.cpu_count() or 1):
        os.sched_setaffinity(pid, {core})


def decode_request(shots: bytes, *, model: str = MODEL["id"], query: str = "") -> bytes:
    """An HTTP request to decode shots in b8, whose answer is their predictions in b8."""
    head = f"POST /v1/models/{model}/decode{query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {B8}\r\n"
    return f"{head}Content-Length: {len(shots)}\r\n\r\n".encode() + shots


@dataclass(frozen=True, eq=False)
class Shots:
    """Shots with the answers that the decoder gives when it is asked directly."""

    events: PackedBits
    """(shots, ceil(detectors / 8))."""
    answers: PackedBits
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

    def random_request(self, draw: np.random.Generator, count: int = 1) -> tuple[bytes, bytes]:
        """The same, from a random shot on."""
        return self.request(int(draw.integers(len(self) - count + 1)), count)


def sample_shots(count: int, *, p: float, seed: int, model: Mapping[str, Any] = MODEL) -> Shots:
    """Samples shots of a model's experiment and decodes them in this process, with one thread."""
    import torch  # takes seconds, which a script that needs no shots does not spend

    from decoder.making import make_decoder

    torch.set_num_threads(1)
    words = {name: model[name] for name in ("code", "basis", "rounds") if name in model}
    experiment = MemoryExperiment.create(**words, p=p)
    events = sample(experiment.circuit, shots=count, seed=seed).detection_events
    # What the decoder knows of p is what the service's knows: the model's default.
    served = MemoryExperiment.create(**words, p=model.get("p", 0.001))
    decoder = make_decoder(str(model.get("decoder", "neural")), served)
    answers = decoder.decode_batch(events, bit_packed_shots=True, bit_packed_predictions=True)
    return Shots(events, answers.view(np.uint8), decoder, p, seed)


def milliseconds(seconds: Sequence[float] | npt.NDArray[np.float64], *quantiles: float) -> list[float]:
    """Quantiles in milliseconds.

    Raises:
        NothingMeasured: of no times.
    """
    if not len(seconds):
        raise NothingMeasured("no request was answered; give it more time or more shots")
    return [float(value) * 1e3 for value in np.quantile(seconds, quantiles)]


def most_common(counts: Counter[str]) -> str:
    """The most frequent entries, for people; `none` of none."""
    return ", ".join(f"{count} x {what}" for what, count in counts.most_common(3)) or "none"


def markdown_table(rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table of rows, the first of which has the headings."""
    head, *others = [[str(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *others))


@dataclass
class Report:
    """What a benchmark of the service found."""

    name: str
    title: str
    notes: list[str] = field(default_factory=list)
    rows: list[dict[str, object]] = field(default_factory=list)
    """Of the table, all with the same columns."""
    goals: list[tuple[str, str, bool]] = field(default_factory=list)
    """What was wanted, what was found, and whether that is enough."""

    def goal(self, wanted: str, found: str, *, met: bool) -> None:
        """Adds a goal."""
        self.goals.append((wanted, found, bool(met)))

    def goal_of_growth(self, wanted: str, before: float, after: float, *, most: float) -> None:
        """A goal for the service's memory, in MiB; `most` is the share that it may grow by."""
        grown = after / before - 1
        self.goal(wanted, f"{before:.0f} to {after:.0f} MiB ({100 * grown:+.1f} %)", met=grown <= most)

    def goal_of_tracebacks(self, running: Service, *, prefix: str = "") -> None:
        """A goal for the service's log."""
        tracebacks = running.log.read_text().count("Traceback")
        self.goal(f"{prefix}no traceback in the log", f"{tracebacks}", met=tracebacks == 0)

    @property
    def met(self) -> bool:
        """Whether all goals are."""
        return all(met for *_, met in self.goals)

    def write(self, folder: Path) -> int:
        """Prints the report, and writes it as Markdown and JSON.

        Returns:
            The exit status: 1 if a goal was missed.
        """
        facts = {"command": command(), "git": git_state(Path(__file__)), "machine": machine()}
        text = self._markdown(facts)
        print(text)
        goals = [dict(zip(("goal", "found", "met"), goal, strict=True)) for goal in self.goals]
        content = {"title": self.title, "rows": self.rows, "goals": goals, "notes": self.notes} | facts
        write_text(folder / f"{self.name}.md", f"{text}\n")
        write_text(folder / f"{self.name}.json", f"{json.dumps(content, indent=1)}\n")
        return 0 if self.met else 1

    def _markdown(self, facts: Mapping[str, Any]) -> str:
        parts = [f"# {self.title}"]
        if self.rows:
            parts.append(markdown_table([self.rows[0], *(row.values() for row in self.rows)]))
        goals = [(wanted, found, "met" if met else "**missed**") for wanted, found, met in self.goals]
        parts.append(markdown_table([("goal", "found", ""), *goals]))
        git, host = facts["git"] or {"commit": "unknown", "clean": True}, facts["machine"]
        load = ", ".join(f"{value:.2f}" for value in host["load_average"] or ())
        origin = [
            f"command: `{facts['command']}`",
            f"commit: {git['commit']}{'' if git['clean'] else ', with changes'}",
            f"machine: {host['cpu']}, {host['cores']} cores shared with other work, {host['system']}; load {load}",
        ]
        return "\n\n".join([*parts, "\n".join(f"- {note}" for note in (*self.notes, *origin))])
