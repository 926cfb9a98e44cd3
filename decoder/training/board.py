"""A run's curves for TensorBoard, beside its CSV file, where that package is installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class Board:
    """Scalars in a folder that `tensorboard --logdir` shows; does nothing without the package (extra `tensorboard`).

    Args:
        folder: is created; one run's own.
        keep_until: what is there of later steps is replaced, as a run continues from that step.
    """

    def __init__(self, folder: Path, *, keep_until: int) -> None:
        self._writer: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            purged = keep_until + 1 if keep_until else None
            self._writer = SummaryWriter(str(folder), purge_step=purged)

    def write(self, values: Mapping[str, float], *, step: int) -> None:
        """Adds a point to each curve."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()
