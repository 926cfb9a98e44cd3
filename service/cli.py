"""The `tandem` command: `decoder.cli` and, on top of it, `serve`, and a `decode` that knows of services."""

from __future__ import annotations

import copy
import errno
import signal
import socket
from types import FrameType
from typing import Annotated, Any

import typer

from decoder.cli import app, run
from service.decode_command import decode

app.command()(decode)  # in the place of decoder.cli's, whose options it has too


@app.command()
def serve(
    host: Annotated[str, typer.Option(envvar="TANDEM_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(envvar="TANDEM_PORT", min=0, max=65535, help="Port to listen on; 0 takes a free one."),
    ] = 8000,
) -> None:
    """Serve all models over HTTP until SIGTERM or Ctrl-C; requests at work are finished first.

    All else is set by environment variables that start with TANDEM_ (docs/api.md).

    \b
    Example:
      tandem serve --port 8080
    """
    with _listen(host, port) as listener:
        _serve(listener)


def main() -> None:
    """The console script."""
    run()


def _serve(listener: socket.socket) -> None:
    # These take a second or two to import, which the other commands need not wait for.
    import uvicorn

    from service.app import create_app
    from service.settings import read_settings
    from service.websockets import StreamServer, websocket_options

    failures: list[Exception] = []

    def stop(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    def ask_to_exit(signum: int, frame: FrameType | None) -> None:
        server.should_exit = True

    settings = read_settings()
    server = StreamServer(
        uvicorn.Config(
            create_app(settings, on_load_error=stop),
            access_log=settings.access_log,
            log_config=_log_config(),
            timeout_graceful_shutdown=settings.shutdown_timeout_seconds,
            **websocket_options(settings),
        )
    )
    # uvicorn drains on these signals and then raises them again, which would end the process like a crash.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, ask_to_exit)
    host, port, *_ = listener.getsockname()
    typer.echo(f"listening on http://{f'[{host}]' if ':' in host else host}:{port} (documentation at /docs)")
    server.run(sockets=[listener])
    if failures:
        raise failures[0]


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Only one of two sockets with SO_REUSEADDR can listen, so this is where some busy ports show.
        listener.listen()
    except OSError as error:
        hint = "; choose another --port, 0 for any free one" if error.errno == errno.EADDRINUSE else ""
        raise ValueError(f"cannot listen on {host}:{port}: {error.strerror or error}{hint}") from error
    return listener


def _log_config() -> dict[str, Any]:
    from uvicorn.config import LOGGING_CONFIG

    config = copy.deepcopy(LOGGING_CONFIG)
    config["loggers"]["service"] = {"handlers": ["default"], "level": "INFO"}
    return config
