"""Starts several processes that serve the same sockets, watches them, and ends them.

All accept connections from them, so that when one dies the others take the next connections at once. uvicorn's
own supervisor looks only every half second, ends with the first replacement that cannot start, and leaves its workers
behind when it is killed itself.
"""

from __future__ import annotations

import logging
import logging.config
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from service.settings import Settings
from service.telemetry.logs import log_config

logger = logging.getLogger(__name__)

SILENT_SECONDS = 30.0
"""A worker that is ready and sends nothing for this long is taken to hang, and is killed."""
BACK_OFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""How long the next replacement waits: entry n after n workers in a row that did not get ready."""
SPARE_SECONDS = 10
"""How much longer than the settings say workers may take to end."""


@dataclass(eq=False)
class _Worker:
    process: ForkServerProcess
    pipe: Connection
    ready: bool = False
    """Whether it has said that its models are loaded."""
    heard: float = field(default_factory=time.monotonic)
    """When it last said something, by `time.monotonic`."""
    outdated: bool = False
    """Whether a newer worker is to take its place."""
    leaving: bool = False
    """Whether a newer worker has taken its place, and it drains."""


class Supervisor:
    """Starts workers, replaces those that die or hang, and on SIGTERM or SIGINT lets all drain and ends.

    On SIGHUP it replaces the workers one after the other: each new one is ready before an old one drains. New workers
    read the files that the settings name again.

    Args:
        listeners: the sockets that all accept from.
        settings: for how long workers may take to end, and what the log looks like. Workers read their own from
            the environment.
        workers: how many.
        target: what each process runs, a function of a module: given the listeners, its end of a pipe, and
            `load_first`. See `service.processes.worker.work`.
        preload: a module that the process imports which all workers are forked from.
        sockets: a folder for the sockets over which that process is asked.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        settings: Settings,
        *,
        workers: int,
        target: Callable[..., None],
        preload: str,
        sockets: Path,
    ) -> None:
        # multiprocessing would make a folder where temporary files go, whose path may be too long for a socket.
        vars(multiprocessing.current_process())["_config"]["tempdir"] = str(sockets)
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload([preload])
        self._listeners = listeners
        self._target = target
        self._settings = settings
        self._count = workers
        self._workers: list[_Worker] = []
        self._failure: str | None = None
        self._all_ready = False
        self._failed_starts = 0
        self._not_before = 0.0
        self._signals: set[int] = set()
        self._wake, self._waker = socket.socketpair()

    def run(self) -> None:
        """Returns when all workers have ended.

        Raises:
            ValueError: a model cannot be loaded, at the start.
        """
        logging.config.dictConfig(log_config(form=self._settings.log_format, level=self._settings.log_level))
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, lambda signum, frame: self._signals.add(signum))
        for end in (self._wake, self._waker):
            end.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        while self._failure is None and not {signal.SIGTERM, signal.SIGINT} & self._signals:
            if signal.SIGHUP in self._signals:
                self._signals.discard(signal.SIGHUP)
                for worker in self._serving():
                    worker.outdated = True
            self._start_missing()
            self._step()
        self._end()
        if self._failure is not None:
            raise ValueError(self._failure)

    def _serving(self) -> list[_Worker]:
        """The workers that are to go on."""
        return [worker for worker in self._workers if not worker.leaving]

    def _start_missing(self) -> None:
        serving = self._serving()
        wanted = self._count + any(worker.outdated for worker in serving)
        for _ in range(wanted - len(serving)):
            if time.monotonic() >= self._not_before:
                self._workers.append(self._start())

    def _start(self) -> _Worker:
        pipe, far_end = self._forks.Pipe()
        # The first ones listen at once, to say that they are not ready; a replacement when it can do the work.
        process = self._forks.Process(
            target=self._target,
            args=(self._listeners, far_end),
            kwargs={"load_first": self._all_ready},
            name="tandem-worker",
        )
        process.start()
        far_end.close()
        logger.info("worker %d is started", process.pid)
        return _Worker(process, pipe)

    def _step(self) -> None:
        """Waits for news of the workers, or half a second, and acts on it."""
        news = [source for worker in self._workers for source in (worker.process.sentinel, worker.pipe)]
        wait([self._wake, *news], timeout=0.5)
        with suppress(BlockingIOError):
            self._wake.recv(1024)
        for worker in list(self._workers):
            self._listen(worker)
            if not worker.process.is_alive():
                self._remove(worker)
            elif worker.ready and not worker.leaving and time.monotonic() - worker.heard > SILENT_SECONDS:
                logger.error("worker %d hangs and is killed", worker.process.pid)
                worker.process.kill()
        ready = [worker for worker in self._serving() if worker.ready]
        self._all_ready = self._all_ready or len(ready) >= self._count
        outdated = [worker for worker in ready if worker.outdated]
        if outdated and len(ready) > self._count:
            outdated[0].leaving = True
            outdated[0].process.terminate()

    def _listen(self, worker: _Worker) -> None:
        """Reads what a worker has sent: None when it is ready, and then about once a second, or why it cannot start."""
        with suppress(EOFError, OSError):
            while worker.pipe.poll():
                said = worker.pipe.recv()
                worker.heard = time.monotonic()
                if said is not None and not self._all_ready:
                    self._failure = said
                elif said is not None:
                    logger.error("worker %d cannot start: %s", worker.process.pid, said)
                elif not worker.ready:
                    worker.ready = True
                    self._failed_starts = 0
                    logger.info("worker %d is ready", worker.process.pid)
            if self._all_ready and worker.ready:
                worker.pipe.send(None)

    def _remove(self, worker: _Worker) -> None:
        """Forgets a worker that has ended, and says when its replacement may start, if it needs one."""
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        if (directory := os.environ.get("PROMETHEUS_MULTIPROC_DIR")) and worker.process.pid is not None:
            mark_process_dead(worker.process.pid, directory)  # type: ignore[no-untyped-call]
        if worker.leaving:
            return
        logger.error("worker %d ended with code %s and is replaced", worker.process.pid, worker.process.exitcode)
        if not worker.ready:
            self._failed_starts += 1
        pause = BACK_OFF_SECONDS[min(self._failed_starts, len(BACK_OFF_SECONDS) - 1)]
        self._not_before = time.monotonic() + pause

    def _end(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for listener in self._listeners:
            listener.close()
        limit = self._settings.drain_seconds + 2 * self._settings.shutdown_timeout_seconds + SPARE_SECONDS
        end = time.monotonic() + limit
        for worker in self._workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            if worker.process.is_alive():
                logger.error("worker %d did not end and is killed", worker.process.pid)
                worker.process.kill()
                worker.process.join()
