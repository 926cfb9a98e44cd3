"""`tandem serve`: the service on a port of this machine, in one process or several."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer

from decoder.console.groups import with_groups
from service.commands.addresses import Addresses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.connection import Connection

    from service.settings import Settings


SPARE_DESCRIPTORS = 512
"""For connections over the limit, models, processes and files."""


@with_groups
def serve(
    *,
    addresses: Addresses,
    workers: Annotated[
        int,
        typer.Option(
            envvar="TANDEM_WORKERS",
            min=1,
            help="Processes that answer, each with all models and, above 1, one thread to compute a network's answer.",
        ),
    ] = 1,
    grpc_port: Annotated[
        int | None, typer.Option(help="Port for the Open Inference Protocol over gRPC; as --set grpc_port=.")
    ] = None,
    api_keys_file: Annotated[
        Path | None, typer.Option(help="File of API keys, `name:key` a line; as --set api_keys_file=.")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="`text` or `json`; as --set log_format=.")] = None,
    log_level: Annotated[
        str | None, typer.Option(help="`debug`, `info`, `warning` or `error`; as --set log_level=.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any setting of --settings; may be repeated."),
    ] = None,
    list_settings: Annotated[bool, typer.Option("--settings", help="List all settings and exit.")] = False,
) -> None:
    """Serve all models over HTTP until SIGTERM or Ctrl-C; requests at work are finished first.

    Every setting may also come from the environment, as TANDEM_ and its name; flags win (docs/api.md).

    \b
    Example:
      tandem serve --port 8080 --set max_rounds=20
    """
    if list_settings:
        _print_settings()
        return
    flags = {"grpc_port": grpc_port, "api_keys_file": api_keys_file, "log_format": log_format, "log_level": log_level}
    given = _put_into_environment(
        [*(set_ or []), *(f"{name}={value}" for name, value in flags.items() if value is not None)]
    )
    settings = _settings(given)
    addresses.check_access(settings)
    _allow_descriptors(settings)
    _check_temporary_folder()
    with addresses.listen() as listeners:
        if settings.serves_grpc:
            _check_grpc(listeners, settings, workers)
        if workers == 1:
            _serve(listeners, settings)
        else:
            _supervise(listeners, settings, workers)


def _serve(listeners: Sequence[socket.socket], settings: Settings) -> None:
    """Serves in this process."""
    from service.app import create_app
    from service.processes.server import Server

    app = create_app(settings, on_load_error=lambda error: server.stop())
    server = Server(app, settings)
    # uvicorn drains on these signals and then raises them again, which would end the process like a crash.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, server.stop)
    _say_where(listeners)
    server.run(sockets=list(listeners))
    logging.shutdown()  # the log goes first; the error that is raised is the last line
    if app.state.engine.load_error is not None:
        raise app.state.engine.load_error


def _supervise(listeners: Sequence[socket.socket], settings: Settings, workers: int) -> None:
    """Serves in several processes, and watches them from this one."""
    from service.folders import own_folder, socket_folder
    from service.settings import LEAST_MEMORY_BYTES, variable

    # Workers share the cores: several threads in each would only be in one another's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with own_folder() as shared, socket_folder(shared) as sockets:
        # prometheus_client reads this when it is imported.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared)
        if settings.models_file is None:
            os.environ[variable("models_file")] = str(shared / "models.json")
        if settings.experiments_dir is None:
            os.environ[variable("experiments_dir")] = str(shared / "experiments")
        from service.models.memory import memory_limit
        from service.processes.supervisor import Supervisor

        share = (settings.memory_limit_bytes or memory_limit()) // workers
        os.environ[variable("memory_limit_bytes")] = str(max(share, LEAST_MEMORY_BYTES))

        _say_where(listeners)
        Supervisor(
            listeners, settings, workers=workers, target=_work, preload="service.commands.forked", sockets=sockets
        ).run()


def _work(listeners: Sequence[socket.socket], pipe: Connection, *, load_first: bool) -> None:
    """What each process does that the supervisor starts; see `service.processes.worker.work`."""
    from service.app import create_app
    from service.processes.worker import work

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until the server handles it; see `service.commands.forked`
    work(listeners, pipe, create_app=create_app, load_first=load_first)


def _check_grpc(listeners: Sequence[socket.socket], settings: Settings, workers: int) -> None:
    """Checks that gRPC can be served.

    Raises:
        ValueError: its packages are missing, its port is taken (gRPC would share it with another service), its
            socket cannot be listened on, or several workers would need the same one: gRPC makes sockets itself.
    """
    from service.processes.listening import listen_on_path, listen_on_port
    from service.processes.server import rpc_host

    if not all(map(find_spec, ("grpc", "tritonclient", "google.protobuf"))):
        raise ValueError("gRPC needs packages that are not installed: pip install 'tandem-decoder[grpc]'")
    if settings.grpc_uds is not None and workers > 1:
        raise ValueError("grpc_uds is for one worker; serve gRPC of several on a port, with --grpc-port")
    what = "--grpc-port"
    try:
        if settings.grpc_port is not None:
            listen_on_port(rpc_host(listeners), settings.grpc_port).close()
        if settings.grpc_uds is not None:
            what = "grpc_uds"
            with listen_on_path(settings.grpc_uds, mode=int(settings.grpc_uds_mode, 8)):
                pass  # gRPC listens there later, where a mistake could not be told in one line
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _say_where(listeners: Sequence[socket.socket]) -> None:
    from service.processes.listening import where

    try:
        typer.echo(f"listening on {where(listeners)} (documentation at /docs)")
    except OSError:  # a full disk, or a pipe that nobody reads any more: no reason not to serve
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _allow_descriptors(settings: Settings) -> None:
    """Makes sure that every connection that may be open has a file descriptor.

    Raises:
        ValueError: the system does not allow that many.
    """
    needed = settings.max_connections + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ValueError(
            f"max_connections={settings.max_connections} needs {needed} open files, and this process may have {hard}; "
            "lower max_connections, or raise the limit (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _check_temporary_folder() -> None:
    try:
        TemporaryFile().close()
    except OSError as error:
        raise ValueError(f"no temporary folder can be written: {error}; set TMPDIR to one that can") from error


def _print_settings() -> None:
    """A line for each setting: its name, its default and what it is."""
    from decoder.console.output import print_table
    from service.settings import Settings

    rows = [
        (name, "" if field.default_factory or field.default is None else field.default, field.description)
        for name, field in Settings.model_fields.items()
    ]
    print_table(["setting", "default", "what it is"], rows)


def _settings(given: Mapping[str, str]) -> Settings:
    """Reads the settings. What is wrong is called as its user called it: by what `given` says of its variable."""
    from service.settings import read_settings  # takes a second or two, which `tandem --help` need not wait for

    try:
        return read_settings()
    except ValueError as error:
        message = str(error)
        for name, value in given.items():
            message = message.replace(name, value)
        raise ValueError(message) from None


def _put_into_environment(assignments: list[str]) -> dict[str, str]:
    """Sets variables as NAME=VALUE says, from where settings are read, also by the processes of workers.

    Returns:
        What each variable is called on the command line.
    """
    from service.settings import variable

    given = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment}: write --set NAME=VALUE")
        os.environ[variable(name)] = value
        given[variable(name)] = f"--set {name}"
    return given
