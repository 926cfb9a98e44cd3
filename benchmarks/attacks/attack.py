"""What an attack is, how a service is watched meanwhile, and sockets that say what no client would."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.harness import MODEL, Service

CAP_MIB = 3 * 1024
"""The memory that the service may have, all its processes together; over it, it is killed, as a container would be."""
PROBE_SECONDS = 0.02
WAIT_SECONDS = 20.0
"""How long an attack waits for what has to come."""


@dataclass(frozen=True)
class Attack:
    """One attack.

    Args:
        name: in the report.
        run: attacks, and returns what the service did wrong beside what is watched, or None.
        settings: of the service.
        options: of `tandem serve`.
        models: that are served.
        slow: the longest /healthz in seconds that still counts as held.
        growth_mib: the most that the memory may grow by.
        children_may_end: whether processes of models that are replaced or removed end, as they should.
    """

    name: str
    run: Callable[[Service], str | None]
    settings: Mapping[str, object] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    slow: float = 0.25
    growth_mib: float = 256
    models: tuple[Mapping[str, object], ...] = (MODEL,)
    children_may_end: bool = False


@dataclass(frozen=True)
class Watched:
    """What a service went through."""

    before_mib: float
    """What all its processes held together at first."""
    resident_mib: float
    """The most that they held."""
    health_seconds: float
    """The longest answer of /healthz, over a new connection each time."""
    health_failures: int
    """How often it was not 200."""
    lost: tuple[str, ...]
    """The commands of processes of the service that ended."""


def family(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def _command(pid: int) -> str:
    """What a process runs; nothing of one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    return ""


def resident_mib(pids: list[int]) -> float:
    """What processes hold together."""
    pages = 0
    for pid in pids:
        with suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def ask_health(port: int, timeout: float = WAIT_SECONDS) -> bool:
    """Whether /healthz answers 200 on a connection of its own."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            return connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def _watch(pid: int, port: int, end: Connection) -> None:
    """Looks at a service until told to stop; runs in a process of its own, so that no attack slows its clock."""
    before = {each: _command(each) for each in family(pid)}
    first = resident_mib(list(before))
    most, longest, failures = 0.0, 0.0, 0
    end.send(None)  # it watches
    while True:
        stopping = end.poll(PROBE_SECONDS)
        pids = family(pid)
        most = max(most, resident_mib(pids))
        if most > CAP_MIB:
            for each in pids:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
        started = time.monotonic()
        failures += not ask_health(port)
        longest = max(longest, time.monotonic() - started)
        if stopping or most > CAP_MIB:
            break
    # Not by `family`: the system may leave out children of a process while others of its children come and go.
    lost = tuple(command for each, command in before.items() if _command(each) != command)
    end.send(Watched(first, most, longest, failures, lost))


@contextmanager
def watching(running: Service) -> Iterator[list[Watched]]:
    """Watches a service for as long as the block lasts; then the list holds what was seen."""
    spawn = multiprocessing.get_context("spawn")
    near, far = spawn.Pipe()
    seen: list[Watched] = []
    process = spawn.Process(target=_watch, args=(running.process.pid, running.port, far), daemon=True)
    process.start()
    far.close()
    near.recv()
    try:
        yield seen
        with suppress(OSError):
            near.send(None)
        seen.append(near.recv())
    finally:
        process.join()


def dial(port: int, timeout: float = WAIT_SECONDS, *, small: bool = False) -> socket.socket:
    """A connection to the service, if wanted with a small buffer for what is received."""
    connection = socket.socket()
    if small:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(timeout)
    connection.connect(("127.0.0.1", port))
    return connection


def until_closed(connection: socket.socket) -> tuple[bytes, bool]:
    """Reads until the service closes a connection, or it is silent for the connection's timeout: all, and whether."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except TimeoutError:
        return received, False
    except OSError:
        pass
    return received, True


def flood(port: int, head: bytes, piece: bytes, *, seconds: float, most: int = 2**30) -> int:
    """Sends a head and then a piece over and over until the service closes: the bytes that it took."""
    sent, end = 0, time.monotonic() + seconds
    with suppress(OSError), dial(port) as connection:
        connection.sendall(head)
        while time.monotonic() < end and sent < most:
            sent += connection.send(piece)
    return sent


def together(count: int, work: Callable[[], int]) -> list[int]:
    """Does the same from several threads at once."""
    with ThreadPoolExecutor(count) as pool:
        return [job.result() for job in [pool.submit(work) for _ in range(count)]]
