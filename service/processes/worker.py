"""One of several processes that serve: it tells the supervisor whether it is ready, and ends with it."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

from fastapi import FastAPI

from service.processes.server import Server
from service.settings import read_settings


def work(
    listeners: Sequence[socket.socket], pipe: Connection, *, create_app: Callable[..., FastAPI], load_first: bool
) -> None:
    """Serves until SIGTERM, or until the supervisor has ended.

    Args:
        listeners: the sockets that all workers accept connections from.
        pipe: to the supervisor. A worker that is ready sends None about once a second; one that cannot start sends
            the reason. The supervisor sends None when all workers are ready.
        create_app: makes the application; see `service.app.create_app`.
        load_first: whether to accept connections only when all models are loaded.
    """

    def fail(error: Exception) -> None:
        pipe.send(str(error))
        server.stop()

    def tick() -> None:
        if engine.loaded:
            with suppress(OSError):
                pipe.send(None)

    def listen_to_supervisor() -> None:
        with suppress(EOFError, OSError):
            while True:
                pipe.recv()
                engine.awaits_others = False
        server.stop()

    try:
        settings = read_settings()
        app = create_app(settings, on_load_error=fail)
    except (ValueError, OSError) as error:
        pipe.send(str(error))
        return
    engine = app.state.engine
    engine.awaits_others = not load_first
    server = Server(app, settings, on_tick=tick, load_first=load_first)
    signal.signal(signal.SIGTERM, server.stop)
    for signum in (signal.SIGINT, signal.SIGHUP):  # Ctrl-C reaches all processes; the supervisor passes it on
        signal.signal(signum, signal.SIG_IGN)
    threading.Thread(target=listen_to_supervisor, name="supervisor", daemon=True).start()
    server.run(sockets=list(listeners))
