"""What the service accepts connections from: a TCP port, a Unix domain socket, or both."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from service.sockets import claimed, identity, remove_socket

BACKLOG = 2048
MAX_ACCEPTED = 16
"""Most connections that are accepted at once. More would take them from other workers that are less busy."""
PAUSE_SECONDS = 1.0
"""How long nothing is accepted where the system has no room for more."""

logger = logging.getLogger(__name__)


class Acceptor:
    """What uvicorn needs of an asyncio server, but it accepts several connections between two rounds of other work.

    uvloop accepts one; then whoever asks for /healthz waits for so many rounds as there are connections before it.

    Args:
        listener: the socket.
        make: makes a protocol for each connection.
    """

    def __init__(self, listener: socket.socket, make: Callable[[], asyncio.BaseProtocol]) -> None:
        self.sockets = (listener,)
        self._make = make
        self._loop = asyncio.get_running_loop()
        self.connecting: set[asyncio.Task[Any]] = set()
        """Connections that are accepted and have no protocol yet."""
        self._serving = True
        self._listen()

    def is_serving(self) -> bool:
        return self._serving

    def close(self) -> None:
        """Accepts no more; the socket stays open."""
        if self._serving:
            self._serving = False
            self._loop.remove_reader(self.sockets[0])

    async def wait_closed(self) -> None:
        """Returns when every connection that was accepted has its protocol."""
        await asyncio.gather(*self.connecting)

    def _listen(self) -> None:
        if self._serving:
            self._loop.add_reader(self.sockets[0], self._accept)

    def _accept(self) -> None:
        try:
            for connection in islice(accept_waiting(self.sockets[0]), MAX_ACCEPTED):
                task = self._loop.create_task(self._loop.connect_accepted_socket(self._make, connection))
                self.connecting.add(task)
                task.add_done_callback(self.connecting.discard)
        except OSError as error:
            logger.error("no connection can be accepted: %s", error.strerror)
            self._loop.remove_reader(self.sockets[0])
            self._loop.call_later(PAUSE_SECONDS, self._listen)


def accept_waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """Accepts the connections that wait.

    Raises:
        OSError: the system has no room for one.
    """
    listener.setblocking(False)
    while True:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        connection.setblocking(False)
        yield connection


def listen_on_port(host: str, port: int) -> socket.socket:
    """Listens on a port; 0 takes a free one.

    Raises:
        ValueError: the system does not allow it, or somebody else does.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        with _closed_on_error(listener):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            # Only one of two sockets with SO_REUSEADDR can listen, so this is where some busy ports show.
            listener.listen(BACKLOG)
    except OSError as error:
        hint = "; choose another --port, 0 for any free one" if error.errno == errno.EADDRINUSE else ""
        raise ValueError(f"cannot listen on {host}:{port}: {error.strerror or error}{hint}") from error
    return listener


@contextmanager
def listen_on_path(path: Path, *, mode: int) -> Iterator[socket.socket]:
    """Listens on a Unix domain socket while the block lasts, and then removes its file.

    A file that a service has left behind which was killed is replaced; a socket that somebody listens on is not.

    Args:
        path: of the socket.
        mode: permissions of its file; who may write to it may connect.

    Raises:
        ValueError: the system does not allow it, or somebody else listens there.
    """
    path = path.absolute()
    try:
        listener = _bind(path, mode)
        made = identity(path)
    except OSError as error:
        hint = "; choose another --uds" if error.errno == errno.EADDRINUSE else ""
        raise ValueError(f"cannot listen on {path}: {error.strerror or error}{hint}") from error
    try:
        with listener:
            yield listener
    finally:
        remove_socket(path, made=made)


def where(listeners: Sequence[socket.socket]) -> str:
    """The URLs of listeners."""
    return " and ".join(map(_url, listeners))


def _url(listener: socket.socket) -> str:
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{address}"
    host, port, *_ = address
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _bind(path: Path, mode: int) -> socket.socket:
    with claimed(path):
        listener = socket.socket(socket.AF_UNIX)
        with _closed_on_error(listener):
            listener.bind(str(path))
            path.chmod(mode)  # nobody can connect before it listens
            listener.listen(BACKLOG)
        return listener


@contextmanager
def _closed_on_error(listener: socket.socket) -> Iterator[None]:
    try:
        yield
    except OSError:
        listener.close()
        raise
