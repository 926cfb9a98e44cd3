"""Blocks counted on a Ray cluster: the same blocks, so the same counts, on many machines."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sinter

from decoder.benchmark.counting.blocks import Block, task_stats
from decoder.benchmark.counting.count_file import append_line

CONNECT_SECONDS = 10


def collect_with_ray(
    blocks: Sequence[Block], *, address: str, file: Path | None, counted: Callable[[sinter.TaskStats], None]
) -> None:
    """Counts the failures of blocks, one on each CPU of the cluster at a time; see `collection.collect`.

    Every machine of the cluster needs this package in the same version.

    Raises:
        ValueError: Ray is not installed, or a decoder raises it; OSError: no cluster answers, or the file fails.
    """
    try:
        import ray
    except ImportError:
        raise ValueError("--ray needs the package ray: pip install 'tandem-decoder[ray]'") from None
    _check_that_someone_answers(address)
    try:
        ray.init(
            address=address,
            include_dashboard=False if address == "local" else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OSError(f"no Ray cluster answers at {address!r}: {error}") from None
    try:
        count = ray.remote(num_cpus=1)(Block.count)
        pending = {count.remote(block): block for block in blocks}
        while pending:
            [done], _ = ray.wait(list(pending), num_returns=1)
            stats = task_stats(pending.pop(done).task, _result(ray, done))
            if file is not None:
                append_line(file, stats)
            counted(stats)
    finally:
        ray.shutdown()


def _check_that_someone_answers(address: str) -> None:
    """Asks once whether the port of a cluster's head is open, since Ray itself keeps trying for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator:
        return  # "local" or "auto"
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise OSError(f"no Ray cluster answers at {address!r}: {error}") from None


def _result(ray: Any, done: Any) -> sinter.AnonTaskStats:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ValueError | OSError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise OSError(f"the Ray cluster failed: {error}; what it had counted is kept") from None
