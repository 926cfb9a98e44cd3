"""Long bodies are parsed in a child process: a parser holds the interpreter's lock, and with it the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from decoder.processes import ChildProcess
from service.errors import BusyError

P = ParamSpec("P")
T = TypeVar("T")

SHORT_BYTES = 2**16
"""A body up to here is parsed at once, which takes some milliseconds at most."""
NICENESS = 3
"""Of the child: the loop and the decoders go first, but beside others that are always busy it gets on as well."""


class BodyParser:
    """The child process that parses, one body after the other. It starts with the first long one.

    Args:
        patience_seconds: the child is replaced when one body takes longer.
    """

    def __init__(self, *, patience_seconds: float) -> None:
        self.child = ChildProcess(size=1, patience_seconds=patience_seconds, niceness=NICENESS, attempts=2)
        self._turns = ThreadPoolExecutor(max_workers=1, thread_name_prefix="parse")

    async def parse(
        self, function: Callable[Concatenate[bytes, P], T], body: bytes, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Calls a function of a module with a body, in the child if that is long, and raises what it raises.

        Raises:
            BusyError: the child ended, for want of memory perhaps, or hung.
        """
        if len(body) <= SHORT_BYTES:
            return function(body, *args, **kwargs)
        work = partial(self.child.call, function, body, *args, **kwargs)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._turns, work)
        except (RuntimeError, TimeoutError, MemoryError) as error:
            raise BusyError(f"a body of {len(body)} bytes was not parsed: {error}; send b8", retry_after=1) from error

    def close(self) -> None:
        """Ends the child, also in the midst of a body."""
        self._turns.shutdown(wait=False, cancel_futures=True)
        self.child.close(for_good=True)
