"""Pairs with the network as the first decoder, by the thresholds that its weights file holds."""

from __future__ import annotations

from pathlib import Path

from decoder.neural.decoder import NeuralDecoder
from decoder.registry import make_decoder
from decoder.tandem.decoder import PooledDecoder, TandemDecoder
from decoder.tandem.opinions import OpinionPool
from simulation.circuits import MemoryExperiment


def make_pair(
    second: str,
    experiment: MemoryExperiment,
    *,
    weights: Path | None = None,
    threshold: float | None = None,
    pool: OpinionPool | None = None,
    deadline_ms: float | None = None,
) -> TandemDecoder:
    """The network with a second decoder.

    Args:
        second: one of `decoder.registry.DECODERS`.
        experiment: whose shots are to be decoded.
        weights: the network's; None for those that are shipped.
        threshold: of the confidence, below which the second is asked; None for the one that was tuned.
        pool: where the second works; None for this process, which then waits while it does.
        deadline_ms: see `TandemDecoder`.

    Raises:
        ValueError: an unknown decoder, a package that is not installed, weights that do not fit or hold no threshold
            for this second decoder, or a deadline without a pool.
        OSError: the weights cannot be read.
    """
    first = NeuralDecoder.load(experiment, weights=weights)
    if threshold is None:
        threshold = tuned_threshold(first, second)
    other = make_decoder(second, experiment) if pool is None else PooledDecoder(pool, experiment)
    return TandemDecoder(first, other, threshold=threshold, deadline_ms=deadline_ms)


def tuned_threshold(first: NeuralDecoder, second: str) -> float:
    """The threshold that a network's weights hold for a second decoder.

    Raises:
        ValueError: they hold none.
    """
    try:
        return float(first.info.thresholds[second]["threshold"])
    except (KeyError, TypeError, ValueError):
        code = first.model.geometry.code
        raise ValueError(
            f"{first.info.path} holds no threshold for second opinions of {second}; choose one with "
            f"`tandem tune --code {code} --second {second} --weights {first.info.path.name} --store`"
        ) from None
