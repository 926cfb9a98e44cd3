"""Writes the log in a thread of its own, so that nobody waits for whoever reads it."""

from __future__ import annotations

import logging
import os
import queue
import threading

STDERR = 2
MAX_LINES = 4096
"""Most lines that wait to be written; more are dropped, and counted."""
FLUSH_SECONDS = 1.0
"""How long the end of the process waits for the lines that are left."""


class BackgroundHandler(logging.Handler):
    """Writes records to stderr. A pipe that is full, or a disk that hangs, holds up its thread alone."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[str] = queue.Queue(MAX_LINES)
        self._dropped = 0
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Waits until all is written, but not for long."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, FLUSH_SECONDS)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            dropped, self._dropped = self._dropped, 0
            if dropped:
                said = f"{dropped} lines of the log were dropped, as it was not read in time"
                line += "\n" + self.format(logging.LogRecord(__name__, logging.WARNING, "", 0, said, None, None))
            # Not by `sys.stderr`: whose lock this thread may hold when the process ends.
            left = memoryview(f"{line}\n".encode(errors="backslashreplace"))
            try:
                while left:
                    left = left[os.write(STDERR, left) :]
            except OSError:
                pass  # there is nobody to tell
            self._lines.task_done()
