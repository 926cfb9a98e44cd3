"""Processes that are started for a part of the work, and Ctrl-C."""

import subprocess
import sys

from simulation import interrupts

# Gets the signal before it has said what it does with it, as processes do that are still importing.
WORKER = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)
from simulation import interrupts
interrupts.leave_to_the_parent()
os.kill(os.getpid(), signal.SIGINT)
print("still there")
"""


def test_an_interrupt_while_processes_start_ends_the_parent_alone():
    with interrupts.held_back():
        worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
    assert worker.communicate() == ("still there\n", None)
    assert worker.returncode == 0
