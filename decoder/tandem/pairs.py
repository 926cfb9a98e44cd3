"""Pairs with the network as the first decoder, and when such a pair asks its second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from decoder.base import Decoding, SoftDecoder
from decoder.catalog import ClassicalDecoder
from decoder.statistics import shots_in_share
from decoder.tandem.decoder import PooledDecoder, TandemDecoder
from decoder.tandem.opinions import OpinionPool
from simulation.experiments import Experiment
from simulation.foreign.experiment import Source
from simulation.shots.sampling import CHUNK_SHOTS, sample

THRESHOLD = 0.9
"""The confidence below which the second decoder is asked, unless it is said otherwise: where the first one's answer is
wrong in one of ten such shots or more. As the confidence is a probability, that holds at any noise, and how many shots
are passed on follows from it."""
MEASURED_SHOTS = 4 * CHUNK_SHOTS
"""Shots that the first decoder decodes to find the confidence that only a given share of them falls short of."""
SEED = 5_417_203
"""Of these shots, so that a pair passes on the same shots wherever it is made."""


def make_pair(
    second: str,
    experiment: Experiment,
    *,
    weights: Path | None = None,
    share: float | None = None,
    threshold: float | None = None,
    pool: OpinionPool | None = None,
    deadline_ms: float | None = None,
    device: str = "cpu",
) -> TandemDecoder:
    """The network with a second decoder.

    Args:
        second: one of `decoder.catalog.DECODERS`.
        experiment: whose shots are to be decoded.
        weights: the network's; None for those that are shipped.
        share: of the experiment's shots, the least confident, which the second gets, in place of a threshold.
        threshold: of the confidence, below which the second is asked; None for `THRESHOLD`.
        pool: where the second works; None for this process, which then waits while it does.
        deadline_ms: see `TandemDecoder`.
        device: where the network computes: "cpu", "cuda", or "cuda:N".

    Raises:
        ValueError: an unknown decoder, a package that is not installed, weights that do not fit, a share and a
            threshold, or one of them out of range, a deadline without a pool, or no such device.
        OSError: the weights cannot be read.
    """
    from decoder.neural.decoder import NeuralDecoder  # torch takes seconds to import

    if share is not None and threshold is not None:
        raise ValueError("a share of the shots and a threshold are both given; leave one of them out")
    first = NeuralDecoder.load(experiment, weights=weights, device=device)
    if share is not None:
        threshold = threshold_for(first, experiment.source, share=share)
    elif threshold is None:
        threshold = THRESHOLD
    other = ClassicalDecoder(second)(experiment) if pool is None else PooledDecoder(pool, experiment)
    return TandemDecoder(first, other, threshold=threshold, deadline_ms=deadline_ms)


def threshold_for(first: SoftDecoder, source: Source, *, share: float) -> float:
    """The confidence below which a share of the shots of an experiment lies, found by decoding some of them.

    Args:
        first: the first decoder of the pair.
        source: what the shots are drawn from.
        share: from 0 to 1. Equally sure shots stay together, so that fewer may be passed on.

    Raises:
        ValueError: the share is out of range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} must be from 0 to 1")
    events = sample(source, shots=MEASURED_SHOTS, seed=SEED).detection_events
    batches = (events[start : start + CHUNK_SHOTS] for start in range(0, MEASURED_SHOTS, CHUNK_SHOTS))
    decoded = Decoding.concatenate([first.decode_soft(batch, bit_packed_shots=True) for batch in batches])
    return threshold_of(np.sort(decoded.confidence), share=share)


def threshold_of(confidence: npt.NDArray[np.floating], *, share: float) -> float:
    """The confidence of the first shot that no longer fits into a share of all; confidence (shots,), ascending."""
    fits = shots_in_share(share, len(confidence))
    return float(confidence[fits]) if fits < len(confidence) else 1.0
