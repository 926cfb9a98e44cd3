"""Slices of time, as Linux itself tells them."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import threading

import pytest

from decoder.processes import ChildProcess
from decoder.scheduling import SLICE_SECONDS, take_short_slices, take_usual_slices

SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
FORM = "=IIQiIQQQ"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in SCHED_GETATTR, reason="Linux' scheduler is asked"
)


def attributes() -> tuple[int, ...]:
    """Size, policy, flags, niceness, priority, runtime (the slice, ns), deadline, period of this thread."""
    buffer = ctypes.create_string_buffer(struct.calcsize(FORM))
    assert ctypes.CDLL(None).syscall(SCHED_GETATTR[platform.machine()], 0, buffer, len(buffer), 0) == 0
    return struct.unpack(FORM, buffer.raw)


def in_thread(function):
    """What a function returns in a thread of its own with usual slices; this one's stay what other tests made them."""
    results = []

    def run():
        take_usual_slices()
        results.append(function())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


def test_slices_are_short_and_then_as_before_and_nothing_else_changes():
    def run():
        os.setpriority(os.PRIO_PROCESS, 0, 3)
        before = attributes()
        done = take_short_slices()
        during = attributes()
        return before, done, during, take_usual_slices(), attributes()

    before, done, during, undone, after = in_thread(run)
    assert (done, undone) == (True, True)
    assert after == before
    assert during[:5] == before[:5]
    if before[5]:  # Linux before 6.12 knows no slices and tells none
        assert during[5] == round(1e9 * SLICE_SECONDS) < before[5]


def test_worker_processes_have_usual_slices():
    usual = in_thread(attributes)

    def run():
        take_short_slices()
        child = ChildProcess(size=1, niceness=10)
        try:
            return child.call(attributes)
        finally:
            child.close()

    found = in_thread(run)
    assert found[5] == usual[5]
    assert found[3] == usual[3] + 10


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert not take_short_slices()
