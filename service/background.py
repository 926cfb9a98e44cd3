"""Work that goes on beside the requests for as long as the service runs: when it dies, it is started again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

RESTART_SECONDS = 1.0
"""How long after its end work is started again."""
LASTING_SECONDS = 60.0
"""Work that has run for so long is taken to go well again."""
MOST_DEATHS = 3
"""So many ends in a row, none of them after `LASTING_SECONDS`, and the service is not ready."""


class Background:
    """Tasks of one event loop that are to run until `stop`."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._deaths: dict[str, int] = {}

    @property
    def dying(self) -> str | None:
        """The name of work that dies again and again, if there is any."""
        return next((name for name, deaths in self._deaths.items() if deaths >= MOST_DEATHS), None)

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Runs work, and again a moment after it has raised; work that returns has nothing left to do.

        Args:
            name: of the work, for the log and for /readyz.
            work: is called for each run.
        """
        self._tasks.append(asyncio.create_task(self._run(name, work), name=name))

    def stop(self) -> None:
        """Cancels all tasks."""
        for task in self._tasks:
            task.cancel()

    async def _run(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            began = time.monotonic()
            # Work that dies is forgiven while it still runs, so that /readyz need not wait for its next death.
            forgiven = asyncio.get_running_loop().call_later(LASTING_SECONDS, self._deaths.pop, name, None)
            try:
                await work()
                return
            except Exception:
                self._deaths[name] = self._deaths.get(name, 0) + 1
                ran = time.monotonic() - began
                logger.exception("%s died after %.1f s and is started again", name, ran)
            finally:
                forgiven.cancel()
            await asyncio.sleep(RESTART_SECONDS)
