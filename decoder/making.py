"""Decoders of an experiment, made by their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from decoder.base import BatchDecoder
from decoder.catalog import ClassicalDecoder, decoder_spec
from simulation.circuits import MemoryExperiment
from simulation.experiments import Experiment, as_experiment
from simulation.foreign.experiment import Source


def make_decoder(
    name: str,
    experiment: Experiment | Source,
    *,
    weights: Path | None = None,
    device: str = "cpu",
    seconds: float | None = None,
) -> BatchDecoder:
    """Makes a decoder that takes the shots of an experiment, whichever of its detectors it uses inside.

    Args:
        name: one of `decoder.catalog.DECODERS`.
        experiment: whose shots it is to decode, or any stim circuit or detector error model.
        weights: the network's weights; None for those that are shipped. For the network and pairs with it alone.
        device: where the network computes: "cpu", "cuda", or "cuda:N". All else computes on the CPU.
        seconds: for each shot, of classical decoders; see `DecoderSettings.limited`. None for no limit.

    Raises:
        ValueError: an unknown name, a package that is not installed, an experiment that the decoder cannot take (none
            can take a circuit without detectors or with random ones), weights or a GPU for a decoder without a
            network, weights that do not fit, or no such device.
        OSError: the weights cannot be read.
    """
    spec, experiment = decoder_spec(name), as_experiment(experiment)
    if isinstance(experiment, MemoryExperiment) and experiment.noise.is_silent:
        raise ValueError(f"{experiment} has no noise, so there is nothing to decode; give a p above 0")
    if spec.settings is not None:
        if weights is not None:
            raise ValueError(f"the decoder {name!r} has no weights to load; leave the weights out or use 'neural'")
        if device != "cpu":
            raise ValueError(f"the decoder {name!r} computes on the CPU alone; leave the device out or use 'neural'")
        return ClassicalDecoder(name, seconds)(experiment)
    from decoder.neural.decoder import NeuralDecoder  # torch takes seconds to import

    if spec.second is not None:
        from decoder.tandem.pairs import make_pair

        return make_pair(spec.second, experiment, weights=weights, device=device)
    return NeuralDecoder.load(experiment, weights=weights, device=device)


@dataclass(frozen=True)
class NamedDecoder:
    """`make_decoder` with all but the experiment given; a value that can be sent to other processes."""

    name: str
    weights: Path | None = None
    device: str = "cpu"
    seconds: float | None = None

    def __call__(self, experiment: Experiment) -> BatchDecoder:
        """See `make_decoder`."""
        return make_decoder(self.name, experiment, weights=self.weights, device=self.device, seconds=self.seconds)
