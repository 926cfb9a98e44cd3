"""What `tandem serve` imports once, into the process that workers are forked from, and nowhere else.

Imports are nearly all of the time that a worker takes to start. This process outlives a signal that is sent to
all processes of the service, as the supervisor hears of its workers through it.
"""

from __future__ import annotations

import gc
import signal

import decoder.neural.decoder  # noqa: F401
import service.app
import service.processes.worker  # noqa: F401

gc.freeze()  # or each worker would write to all of it, and share nothing

for _signum in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_signum, signal.SIG_IGN)
