"""Where a training run lives: its signals, its processes and its device."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist

from decoder.devices import usable_device


@contextmanager
def signals_caught() -> Iterator[list[int]]:
    """SIGINT and SIGTERM fill the list instead of ending the process; a second one ends it."""
    caught: list[int] = []
    previous = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def catch(signum: int, frame: FrameType | None) -> None:
        caught.append(signum)
        for s, handler in previous.items():
            signal.signal(s, handler)

    try:
        for s in previous:
            signal.signal(s, catch)
    except ValueError:  # not in the main thread, where signals do not arrive anyway
        previous.clear()
    try:
        yield caught
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)


def join_processes() -> tuple[int, int]:
    """(rank, world size), from torchrun's environment; one process without it."""
    if "RANK" not in os.environ:
        return 0, 1
    if not dist.is_initialized():
        # Optimizers import this sooner or later. Imported when there is a process group, it keeps that for ever.
        import torch._dynamo

        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return dist.get_rank(), dist.get_world_size()


def leave_processes() -> None:
    """Ends what `join_processes` began, and waits for its threads: those of gloo want the interpreter when they drop a
    tensor, and abort the process if that ends meanwhile. Not after an error, as others may wait for this process.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


def pick_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = usable_device(name)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", device.index or 0)))
        torch.cuda.set_device(device)
    return device


def choose_threads(work: Callable[[], object]) -> int:
    """Has torch use as many CPU threads as do some work soonest, of 1, 2, 4, ... up to its own choice.

    Small networks are slower on many threads than on one, by far on a machine that does other things besides.

    Returns:
        How many those are.
    """
    most, best, least = torch.get_num_threads(), 1, math.inf
    work()  # the first time takes longer than the others
    for threads in sorted({*(2**i for i in range(most.bit_length())), most}):
        torch.set_num_threads(threads)
        seconds = min(_timed(work) for _ in range(2))
        if seconds > 0.95 * least:
            break
        best, least = threads, seconds
    torch.set_num_threads(best)
    return best


def _timed(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def device_name(device: torch.device) -> str:
    """What a device is, in words, such as "cpu (2 threads)"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu ({threads} thread{'' if threads == 1 else 's'})"
