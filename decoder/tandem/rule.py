"""When a pair asks its second decoder, how long it waits for it, and whose answer counts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from simulation.bits import Bits

HANDOVER_SECONDS = 1e-3
"""So long before a deadline waiting ends: a thread that slept may have to wait for a core, and then tells others."""


class Opinion(IntEnum):
    """Who answered a shot, and why."""

    FIRST = 0
    """The first decoder, which was sure."""
    SECOND = 1
    """The second decoder."""
    LATE = 2
    """The first, as the second was not there by the deadline."""
    FAILED = 3
    """The first, as the second crashed, hung, could not be made or had too much to do."""


def unsure(confidence: npt.NDArray[np.floating], threshold: float) -> npt.NDArray[np.bool_]:
    """bool (shots,): which of the first decoder's answers, by their confidence (shots,), need a second opinion."""
    return confidence < threshold


def seconds_left(deadline_ms: float, *, began: float) -> float:
    """How long from now second opinions can be waited for; not above 0 when it is too late.

    Args:
        deadline_ms: milliseconds from `began` to the answer.
        began: when the shots came, by `time.perf_counter`.
    """
    return began + deadline_ms / 1e3 - HANDOVER_SECONDS - time.perf_counter()


def merge(first: Bits, futures: Sequence[Future[Bits]]) -> tuple[Bits, npt.NDArray[np.uint8]]:
    """The second's answers where they are there; the first's, and why, where not.

    Args:
        first: bool (shots, observables).
        futures: what `OpinionPool.ask` gave for these shots. Those that are not done are cancelled.

    Returns:
        The predictions, bool (shots, observables), and who made each, `Opinion` (shots,).
    """
    predictions = first.copy()
    opinions = np.full(len(futures), Opinion.SECOND, np.uint8)
    for row, future in enumerate(futures):
        if future.cancel() or not future.done():
            opinions[row] = Opinion.LATE
        elif future.exception() is not None:
            opinions[row] = Opinion.FAILED
        else:
            predictions[row] = future.result()
    return predictions, opinions
