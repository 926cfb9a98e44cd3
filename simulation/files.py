"""Files: output that is either complete or absent and never overwrites by accident, and whether a file changed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import BinaryIO, Literal

ShotFormat = Literal["b8", "01", "dets"]
"""Stim's formats of shots that are supported: packed bytes, text, and sparse text; see `simulation.shots.files`."""

Kind = Literal["circuit", "dem"]
"""Of a text of stim's: a circuit, or a detector error model."""


STANDARD = Path("-")
"""Standard input or output, in place of a file."""
_STANDARD_INPUTS = {STANDARD, Path("/dev/stdin"), Path("/dev/fd/0"), Path("/proc/self/fd/0")}
_STANDARD_OUTPUTS = {STANDARD, Path("/dev/stdout"), Path("/dev/fd/1"), Path("/proc/self/fd/1")}


def is_standard_output(path: Path | None) -> bool:
    """Whether a file is another name for standard output, so that nothing else may be printed there."""
    return path in _STANDARD_OUTPUTS


def check_output_path(path: Path, *, force: bool) -> None:
    """Refuses a path that cannot be written, before any work is done for it.

    Standard output (-), devices and pipes can be.

    Args:
        path: A file to be, or an existing file with `force`.
        force: An existing file may be replaced.

    Raises:
        FileExistsError: the file exists and `force` is not set.
        OSError: its directory is missing or not writable.
    """
    if _is_stream(path):
        return
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the name of a file")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists; choose another name or pass --force to replace it")
    parent = path.parent
    if not parent.is_dir():
        raise FileNotFoundError(f"there is no directory {parent} to write {path.name} into; create it first")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"the directory {parent} is not writable")
    try:  # some folders, such as /proc, say only when they are asked to that they take no files
        _partial(path).touch()
        _partial(path).unlink()
    except OSError as error:
        raise type(error)(f"cannot write {path}: {error.strerror or error}") from None


def _partial(path: Path) -> Path:
    """Where a file is while it is not complete."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


@contextmanager
def atomic_write(path: Path, *, force: bool) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and renames it to `path` when the block ends without an error.

    A reader never sees half a file, and an error leaves what was there before. What goes to standard output (-), a
    device or a pipe is copied there when the block ends without an error.

    Raises:
        FileExistsError, OSError: as `check_output_path` says, checked at the start.
    """
    if _is_stream(path):
        with TemporaryDirectory() as folder:
            partial = Path(folder) / "output"
            yield partial
            with partial.open("rb") as file, _open_output(path) as stream:
                shutil.copyfileobj(file, stream)
                stream.flush()
        return
    path = path.resolve()  # replace what a symbolic link points to, not the link
    check_output_path(path, force=force)
    partial = _partial(path)
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


def _is_stream(path: Path) -> bool:
    """Whether bytes go there one after the other: standard input or output, a device or a pipe."""
    return path == STANDARD or (path.exists() and not path.is_file() and not path.is_dir())


@contextmanager
def _open_output(path: Path) -> Iterator[BinaryIO]:
    if path == STANDARD:
        yield sys.stdout.buffer
    else:
        with path.open("wb") as file:
            yield file


@contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """Opens a file or a pipe, or standard input (-), to be read.

    Raises:
        OSError: there is none, it is a directory or a device, or it cannot be read.
    """
    if path == STANDARD:
        yield sys.stdin.buffer
        return
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give a file")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.is_char_device() and path not in _STANDARD_INPUTS:
        raise OSError(f"{path} is a device, which never ends; give a file or a pipe")
    with path.open("rb") as file:
        yield file


@contextmanager
def readable_file(path: Path) -> Iterator[Path]:
    """A regular file with the same content: the file itself, or a copy of all that comes from a pipe.

    Raises:
        OSError: as `open_input` says.
    """
    with open_input(path) as file:
        if not _is_stream(path):
            yield path
            return
        with NamedTemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            copy.flush()
            yield Path(copy.name)


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
