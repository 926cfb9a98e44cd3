"""The command line, `tandem`, without `serve` and `decode --url`, which `service.cli` adds.

A command raises ValueError or OSError for what its user can put right; that becomes one line on stderr and
exit code 2; whatever else it raises is a mistake of ours and keeps its traceback.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from decoder.commands.benchmark import benchmark
from decoder.commands.circuit import circuit
from decoder.commands.code import code
from decoder.commands.codes import codes
from decoder.commands.decode import decode
from decoder.commands.export import export
from decoder.commands.inspect import inspect
from decoder.commands.sample import sample
from decoder.commands.train import train
from decoder.commands.tune import tune
from decoder.commands.warm_up import warm_up

USAGE_ERROR = 2
INTERRUPTED = 130

# typer carries its own copy of click or uses click itself, depending on its version; this name is in both.
_UsageError: Any = typer.BadParameter.__bases__[0]


class OneLineErrors(TyperGroup):
    """Commands whose errors are one line on stderr and an exit code."""

    def main(self, *args: Any, standalone_mode: bool = True, **options: Any) -> Any:
        """Runs the command line and exits; without `standalone_mode`, returns or raises as typer does."""
        _log_on_stderr()
        run = partial(super().main, *args, **options | {"standalone_mode": False})
        if not standalone_mode:
            return run()
        code = INTERRUPTED
        try:
            # A number is the code of a typer.Exit; commands themselves return None.
            code = run() or 0
        except (KeyboardInterrupt, typer.Abort):
            pass
        except _UsageError as error:
            context = getattr(error, "ctx", None)
            hint = f" (see '{context.command_path} --help')" if context is not None else ""
            code = _fail(f"{error.format_message()}{hint}")
        except (ValueError, OSError) as error:
            code = _fail(describe(error))
        except MemoryError as error:
            code = _fail(f"not enough memory for that; ask for fewer shots at once ({error})")
        if code == INTERRUPTED:
            _fail("interrupted")
        sys.exit(code)


def describe(error: ValueError | OSError) -> str:
    """An error's message as one line, without the number of an OSError."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error) or type(error).__name__


def _log_on_stderr() -> None:
    """Shows what the library tells people who wait (`decoder.compiled`), unless the command has a log of its own."""
    logging.getLogger("decoder").setLevel(logging.INFO)
    if logging.lastResort is not None:  # the handler of processes without others
        logging.lastResort.setLevel(logging.INFO)
        logging.lastResort.setFormatter(logging.Formatter("tandem: %(message)s"))


def _fail(message: str) -> int:
    line = " ".join(message.split())
    print(f"tandem: {line}", file=sys.stderr)
    return USAGE_ERROR


def tandem(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    """Decodes bivariate bicycle codes: simulate, train, decode, benchmark, serve.

    \b
    Example:
      tandem sample bb72 --rounds 6 --p 0.002 --basis Z --shots 2000 --seed 1 \\
        --out shots.b8 --obs-out flips.b8
      tandem decode --decoder neural --code bb72 --rounds 6 --p 0.002 --basis Z \\
        --in shots.b8 --out predictions.b8 --obs-in flips.b8
    """
    if version:
        from importlib.metadata import version as version_of

        print(version_of("tandem-decoder"))
    elif context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(USAGE_ERROR)


COMMANDS: tuple[Callable[..., None], ...] = (codes, code, circuit, inspect, sample, train, tune, export, warm_up)
"""All commands but `decode`, which the service replaces by its own, and the group `benchmark`."""


def make_app(commands: Iterable[Callable[..., None]]) -> typer.Typer:
    """A command line of some commands and of `benchmark`, in this order."""
    app = typer.Typer(
        name="tandem",
        cls=OneLineErrors,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(tandem)
    for command in commands:
        app.command()(command)
    app.add_typer(benchmark, name="benchmark")
    return app


app = make_app((*COMMANDS, decode))

if __name__ == "__main__":
    app(prog_name="tandem")
