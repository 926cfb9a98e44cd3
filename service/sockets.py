"""The files of Unix domain sockets: whose place they may take, and when they go."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Makes sure that nothing is at a path while the block lasts, which puts a socket there; a stale one is removed.

    Raises:
        OSError: the system does not allow it, somebody listens there, or a file that is no socket is there.
    """
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        # Or each of two that start at once could take the other's for a stale one.
        fcntl.flock(directory, fcntl.LOCK_EX)
        _remove_if_stale(path)
        yield
    finally:
        os.close(directory)


def remove_socket(path: Path, *, made: tuple[int, int]) -> None:
    """Removes a socket's file, unless another has taken its place since `identity` said `made`."""
    with suppress(OSError):
        if identity(path) == made:
            path.unlink()


def identity(path: Path) -> tuple[int, int]:
    """What tells a file from every other that is there at the same time: its device and its inode.

    Raises:
        OSError: there is no file.
    """
    found = path.lstat()
    return found.st_dev, found.st_ino


def _remove_if_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "a file that is no socket is there")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)  # it may be too busy to answer
            probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink()
    except FileNotFoundError:
        pass
    except BlockingIOError:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from None
    else:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
