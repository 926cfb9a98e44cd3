"""Where `tandem serve` listens: a port, a Unix domain socket, or both."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where to listen, and what may be heard there."""

    host: Annotated[str, typer.Option(envvar="TANDEM_HOST", help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[
        int,
        typer.Option(envvar="TANDEM_PORT", min=0, max=65535, help="Port to listen on; 0 takes a free one."),
    ] = 8000
    uds: Annotated[
        Path | None,
        typer.Option(envvar="TANDEM_UDS", metavar="PATH", help="Unix domain socket to listen on besides."),
    ] = None
    uds_mode: Annotated[
        str,
        typer.Option(envvar="TANDEM_UDS_MODE", metavar="MODE", help="Permissions of that socket, as chmod takes them."),
    ] = "600"
    no_port: Annotated[
        bool, typer.Option("--no-port", envvar="TANDEM_NO_PORT", help="Listen on the Unix domain socket alone.")
    ] = False
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", envvar="TANDEM_INSECURE", help="Listen to other machines although no API keys are set."
        ),
    ] = False

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-7]{3,4}", self.uds_mode):
            raise ValueError(f"--uds-mode {self.uds_mode}: give permissions in octal, such as 660")
        if self.no_port and self.uds is None:
            raise ValueError("--no-port leaves nothing to listen on; give a socket with --uds")

    def check_access(self, settings: Settings) -> None:
        """Checks that nobody can decode who is not meant to.

        Raises:
            ValueError: anybody on other machines could, or this machine has no such address.
        """
        from service.auth import is_loopback
        from service.processes.listening import listen_on_port

        open_to_all = not (self.no_port or self.insecure or is_loopback(self.host))
        if open_to_all and not (settings.api_keys or settings.api_keys_file):
            listen_on_port(self.host, self.port).close()  # if this machine has no such address, that is said instead
            raise ValueError(
                f"{self.host} can be reached from other machines and no API keys are set; set TANDEM_API_KEYS or "
                "--api-keys-file, or say --insecure"
            )

    @contextmanager
    def listen(self) -> Iterator[list[socket.socket]]:
        """Listens on all of them.

        Raises:
            ValueError: that is not possible.
        """
        from service.processes.listening import listen_on_path, listen_on_port

        with ExitStack() as held:
            listeners = [] if self.no_port else [held.enter_context(listen_on_port(self.host, self.port))]
            if self.uds is not None:
                listeners.append(held.enter_context(listen_on_path(self.uds, mode=int(self.uds_mode, 8))))
            yield listeners
