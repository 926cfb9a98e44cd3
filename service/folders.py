"""Temporary folders of this process. One that is killed leaves its own behind; the next to start removes them."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "tandem-serve-"
OWNER = ".owner"
"""A file in each folder, which its process keeps locked: the system unlocks it when that ends, however it does."""
SHORT_PLACES = ("/tmp", "/dev/shm")
"""Where sockets go if the path of the usual temporary folder is too long for them."""
MAX_SOCKET_PATH = 107
"""Bytes (unix(7))."""
MAX_SOCKET_NAME = 32
"""What the name of a socket takes of them, at most."""


@contextmanager
def own_folder(*, place: Path | None = None) -> Iterator[Path]:
    """A temporary folder that is removed in the end, and with it those of processes that were killed.

    Args:
        place: where it is made; by default where temporary files go.

    Raises:
        OSError: it cannot be made.
    """
    place = place or Path(tempfile.gettempdir())
    for left in place.glob(f"{PREFIX}*/{OWNER}"):
        _remove_if_left(left)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    try:
        with (folder / f"{OWNER}.new").open("w") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX)
            (folder / f"{OWNER}.new").rename(folder / OWNER)  # has this name only now that it is locked
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def socket_folder(usual: Path) -> Iterator[Path]:
    """The usual folder if its path leaves room for the name of a socket, otherwise one elsewhere.

    Raises:
        OSError: there is none elsewhere either.
    """
    if len(os.fsencode(usual)) + MAX_SOCKET_NAME <= MAX_SOCKET_PATH:
        yield usual
        return
    place = next((place for place in SHORT_PLACES if os.access(place, os.W_OK | os.X_OK)), None)
    if place is None:
        raise OSError(f"{usual} is too long a path for sockets; set TMPDIR to a shorter one")
    with own_folder(place=Path(place)) as folder:
        yield folder


def _remove_if_left(owner: Path) -> None:
    """Removes the folder that an owner's file is in if that is of this user and nobody's any more."""
    with suppress(OSError):  # it is locked, or being removed
        if owner.parent.lstat().st_uid == os.geteuid():  # and not a trap of somebody else's
            with owner.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(owner.parent, ignore_errors=True)
