"""Shots in files, in the formats of stim: b8 (packed bytes), 01 (text) and dets (sparse text).

The formats have no header (https://github.com/quantumlib/Stim/blob/main/doc/result_formats.md): what the bits
mean comes from the experiment, so a file is checked against the experiment's counts when it is read.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import get_args

import numpy as np
import stim

from simulation.bits import PackedBits, packed_size
from simulation.files import STANDARD, ShotFormat, atomic_write, readable_file


def read_shots(
    path: Path, *, format: ShotFormat, num_detectors: int = 0, num_observables: int = 0, num_errors: int = 0
) -> PackedBits:
    """Reads shots of detection events, of observable flips, or of the one followed by the other; or errors.

    Args:
        path: The file, or a pipe; - is standard input.
        format: ``b8``, ``01`` or ``dets``.
        num_detectors: Detectors in each shot of the file.
        num_observables: Observables in each shot of the file, after the detectors.
        num_errors: Errors of the detector error model, in the place of both.

    Returns:
        uint8 (shots, ceil(bits / 8)), little-endian; an empty file has no shots.

    Raises:
        ValueError: an unknown format, no bits to read, or content that does not fit format or counts.
        OSError: the file is missing, a directory, or not readable.
    """
    bits = num_detectors + num_observables + num_errors
    _check_format(format, bits)
    counts = _counts(num_detectors, num_observables, num_errors)
    with readable_file(path) as file:
        if format == "b8":
            return _parse_b8(np.fromfile(file, dtype=np.uint8), bits, name=_name(path), counts=counts)
        try:
            shots = stim.read_shot_data_file(
                path=file,
                format=format,
                num_detectors=num_detectors,
                num_observables=num_observables,
                num_measurements=num_errors,
                bit_packed=True,
            )
        except (ValueError, RuntimeError) as error:
            reason = _first_bad_line(file, bits) if format == "01" else None
            reason = reason or " ".join(str(error).split())
            raise ValueError(f"{_name(path)} does not hold shots of {counts} in format {format}: {reason}") from None
        return np.asarray(shots, dtype=np.uint8)


def write_shots(
    path: Path,
    shots: PackedBits,
    *,
    format: ShotFormat,
    num_detectors: int = 0,
    num_observables: int = 0,
    num_errors: int = 0,
    force: bool = False,
) -> None:
    """Writes shots atomically: the file is complete or not there.

    Args:
        path: The file, or a pipe; - is standard output.
        shots: uint8 (shots, ceil(bits / 8)), little-endian: the detectors, then the observables.
        format: ``b8``, ``01`` or ``dets``.
        num_detectors: Detectors in each shot.
        num_observables: Observables in each shot.
        num_errors: Errors of the detector error model, in the place of both; `dets` writes M for each, as stim does.
        force: An existing file may be replaced.

    Raises:
        ValueError: an unknown format, or shots that do not fit the counts.
        OSError: `path` exists and `force` is not set, it cannot be written, or the disk is full.
    """
    bits, counts = num_detectors + num_observables + num_errors, _counts(num_detectors, num_observables, num_errors)
    _check_format(format, bits)
    if shots.dtype != np.uint8 or shots.ndim != 2 or shots.shape[1] != packed_size(bits):
        raise ValueError(
            f"shots of {counts} are a uint8 array of shape "
            f"(shots, {packed_size(bits)}), not {shots.dtype} {shots.shape}"
        )
    if _has_stray_bits(shots, bits):
        raise ValueError(f"some shots have bits set beyond their {counts}")
    with atomic_write(path, force=force) as partial:
        stim.write_shot_data_file(
            data=shots,
            path=partial,
            format=format,
            num_detectors=num_detectors,
            num_observables=num_observables,
            num_measurements=num_errors,
        )
        # stim does not notice a disk that is full, so look at what is there.
        try:
            written = read_shots(
                partial,
                format=format,
                num_detectors=num_detectors,
                num_observables=num_observables,
                num_errors=num_errors,
            )
        except ValueError:
            written = None
        if written is None or not np.array_equal(written, shots):
            raise OSError(errno.ENOSPC, "not all shots could be written; is the disk full?", str(path))


def _check_format(format: str, bits: int) -> None:
    if format not in get_args(ShotFormat):
        raise ValueError(f"unknown shot format {format!r}: use {', '.join(get_args(ShotFormat))}")
    if bits < 1:
        raise ValueError("a shot has to have at least one detector or observable")


def _counts(num_detectors: int, num_observables: int, num_errors: int) -> str:
    counts = {"detectors": num_detectors, "observables": num_observables, "errors": num_errors}
    return " and ".join(f"{count} {name}" for name, count in counts.items() if count)


def _name(path: Path) -> str:
    return "standard input" if path == STANDARD else str(path)


class WrongLengthError(ValueError):
    """A b8 file that fits no whole number of shots."""

    def __init__(self, message: str, *, num_bytes: int) -> None:
        super().__init__(message)
        self.num_bytes = num_bytes


def _parse_b8(data: PackedBits, bits: int, *, name: str, counts: str) -> PackedBits:
    shot_bytes = packed_size(bits)
    if data.size % shot_bytes:
        message = (
            f"{name} has {data.size} bytes, no multiple of the {shot_bytes} bytes of a shot ({counts}); "
            "check the experiment that it was made for, and its format"
        )
        raise WrongLengthError(message, num_bytes=data.size)
    shots = data.reshape(-1, shot_bytes)
    if _has_stray_bits(shots, bits):
        raise ValueError(
            f"{name} has shots with bits set beyond their {counts}; "
            "check the experiment that it was made for, and its format"
        )
    return shots


def _has_stray_bits(shots: PackedBits, bits: int) -> bool:
    return bool(bits % 8 and np.any(shots[:, -1] >> (bits % 8)))


def _first_bad_line(path: Path, bits: int) -> str | None:
    """What is wrong with a file of 01 shots, and where; stim names neither the line nor the character."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            shot = line.rstrip(b"\r\n")
            stray = shot.strip(b"01")
            if stray:
                character = stray[:1].decode("ascii", errors="backslashreplace")
                return f"line {number} has the character {character!r}, and only 0 and 1 may stand there"
            if len(shot) != bits:
                return f"line {number} has {len(shot)} values"
            if not line.endswith(b"\n"):
                return f"line {number}, the last, does not end with a newline"
    return None
