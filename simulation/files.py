"""Files: output that is either complete or absent and never overwrites by accident, and whether a file changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

ShotFormat = Literal["b8", "01", "dets"]
"""Stim's formats of shots that are supported: packed bytes, text, and sparse text; see `simulation.shot_files`."""

Kind = Literal["circuit", "dem"]
"""Of a text of stim's: a circuit, or a detector error model."""


def check_output_path(path: Path, *, force: bool) -> None:
    """Refuses a path that cannot be written, before any work is done for it.

    Args:
        path: A file to be, or an existing file with `force`.
        force: An existing file may be replaced.

    Raises:
        FileExistsError: the file exists and `force` is not set.
        OSError: it is no regular file, or its directory is missing or not writable.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the name of a file")
    if path.exists():
        if not path.is_file():
            raise OSError(f"{path} is no regular file; write to a file and copy it there")
        if not force:
            raise FileExistsError(f"{path} exists; choose another name or pass --force to replace it")
    parent = path.parent
    if not parent.is_dir():
        raise FileNotFoundError(f"there is no directory {parent} to write {path.name} into; create it first")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"the directory {parent} is not writable")


@contextmanager
def atomic_write(path: Path, *, force: bool) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and renames it to `path` when the block ends without an error.

    A reader never sees half a file, and an error leaves what was there before.

    Raises:
        FileExistsError, OSError: as `check_output_path` says, checked at the start.
    """
    path = path.resolve()  # replace what a symbolic link points to, not the link
    check_output_path(path, force=force)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"cannot write {path}: {reason}; what was there before, if anything, is intact") from None
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, force: bool) -> None:
    """Writes a text file atomically.

    Raises:
        OSError: as `check_output_path` says, or the disk is full.
    """
    with atomic_write(path, force=force) as partial:
        partial.write_text(text, encoding="utf-8")


def file_version(path: Path) -> tuple[int, int, int]:
    """Differs after each change of a file: its time of modification in ns, its size in bytes and its inode.

    Raises:
        OSError: there is no such file, or it cannot be reached.
    """
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
