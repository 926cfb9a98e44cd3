"""Threads for which others wait: they shall have a core as soon as they want one, even where all are busy."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

SLICE_SECONDS = 1e-4
"""The least that Linux allows."""
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}


def take_short_slices() -> bool:
    """Lets the calling thread, and those that it starts, preempt others of their priority when they wake up.

    Linux, from 6.12 on, lets a thread that wakes up begin at once if it asks for shorter slices of time than the one
    that has the core; otherwise it may wait for the end of that one's slice, some milliseconds. It gets no larger share
    of the core by that. Takes no privilege. See `man sched_setattr`, where the slice is `sched_runtime`.

    Returns:
        Whether it was done: False where the operating system does not offer it.
    """
    return _set_slice(SLICE_SECONDS)


def take_usual_slices() -> bool:
    """Takes `take_short_slices` back, as for a process that such a thread started."""
    return _set_slice(0)


def _set_slice(seconds: float) -> bool:
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None or sys.platform != "linux" or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    form = "=IIQiIQQQ"
    attributes = struct.pack(form, struct.calcsize(form), os.SCHED_OTHER, 0, niceness, 0, round(1e9 * seconds), 0, 0)
    return int(ctypes.CDLL(None).syscall(number, 0, attributes, 0)) == 0
