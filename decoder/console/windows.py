"""Options of sliding windows, which commands share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True, kw_only=True)
class WindowOptions:
    """Whether to decode in windows."""

    window: Annotated[
        int | None,
        typer.Option("--window", metavar="W", min=1, help="Decode in windows of W layers, in constant memory."),
    ] = None
    commit: Annotated[
        int | None,
        typer.Option("--commit", metavar="C", min=1, help="Layers by which windows move on.", show_default="half of W"),
    ] = None

    def names(self, decoders: Sequence[str]) -> list[str]:
        """The names of decoders, in windows if these are asked for.

        Raises:
            ValueError: --commit without --window.
        """
        if self.window is None:
            if self.commit is not None:
                raise ValueError("--commit says how far windows move on; add --window, or leave it out")
            return list(decoders)
        return [f"{name}-window-{self.window}-{self.commit or max(1, self.window // 2)}" for name in decoders]
