"""The `tandem` command: the decoder's commands, `serve`, and `decode` with a service to do the work."""

from __future__ import annotations

from decoder.cli import COMMANDS, make_app
from service.commands.decode import decode
from service.commands.serve import serve

app = make_app((*COMMANDS, decode, serve))


def main() -> None:
    """The console script."""
    app(prog_name="tandem")
