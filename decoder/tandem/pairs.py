"""Pairs with the network as the first decoder, by the thresholds that its weights file holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decoder.catalog import ClassicalDecoder
from decoder.tandem.decoder import PooledDecoder, TandemDecoder
from decoder.tandem.opinions import OpinionPool
from simulation.experiments import Experiment


def make_pair(
    second: str,
    experiment: Experiment,
    *,
    weights: Path | None = None,
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
        threshold: of the confidence, below which the second is asked; None for the one that was tuned.
        pool: where the second works; None for this process, which then waits while it does.
        deadline_ms: see `TandemDecoder`.
        device: where the network computes: "cpu", "cuda", or "cuda:N".

    Raises:
        ValueError: an unknown decoder, a package that is not installed, weights that do not fit or hold no threshold
            for this second decoder, a deadline without a pool, or no such device.
        OSError: the weights cannot be read.
    """
    from decoder.neural.decoder import NeuralDecoder  # torch takes seconds to import

    first = NeuralDecoder.load(experiment, weights=weights, device=device)
    if threshold is None:
        threshold = tuned_threshold(first.model_info, second)
    other = ClassicalDecoder(second)(experiment) if pool is None else PooledDecoder(pool, experiment)
    return TandemDecoder(first, other, threshold=threshold, deadline_ms=deadline_ms)


def tuned_threshold(network: Mapping[str, Any], second: str) -> float:
    """The threshold that a network's weights hold for a second decoder.

    Args:
        network: its `model_info`.
        second: the second decoder.

    Raises:
        ValueError: they hold none.
    """
    try:
        return float(network["thresholds"][second]["threshold"])
    except (KeyError, TypeError, ValueError):
        code = network.get("code")
        raise ValueError(
            f"these weights of {code} hold no threshold for second opinions of {second}; choose one with "
            f"`tandem tune --code {code} --second {second} --store`, and --weights if they are your own"
        ) from None
