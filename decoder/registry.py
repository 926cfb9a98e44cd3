"""Decoders by name, as the command line, the benchmarks and the service ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from decoder.base import Decoder
from decoder.classical.bposd import BRAVYI, OSD0, BpOsdDecoder, BpOsdSettings
from decoder.classical.split_relay import SPLIT_RELAY, SplitRelayDecoder
from decoder.relay.rules import Rules
from simulation.circuits import Detectors

if TYPE_CHECKING:
    from simulation.circuits import MemoryExperiment


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """What a decoder's name stands for."""

    summary: str
    """One line for people."""
    detectors: Detectors
    """Which detectors it decodes with: XZ, those of the memory basis, or XYZ, those of both bases."""
    bposd: BpOsdSettings | None = None
    """The settings of a BP-OSD decoder; None for others."""
    relay: Rules | None = None
    """The rules of a decoder by relay belief propagation; None for others."""


DECODERS: Mapping[str, DecoderSpec] = MappingProxyType(
    {
        "neural": DecoderSpec(summary="recurrent transformer, both bases' detectors", detectors="XYZ"),
        "bposd": DecoderSpec(
            summary="BP-OSD with the settings of Bravyi et al.: min-sum, 10,000 iterations, OSD-CS 7",
            detectors="XZ",
            bposd=BRAVYI,
        ),
        "bposd-xyz": DecoderSpec(
            summary="BP-OSD with the settings of Bravyi et al. on both bases' detectors (slow)",
            detectors="XYZ",
            bposd=BRAVYI,
        ),
        "bposd-osd0": DecoderSpec(
            summary="BP-OSD with no slow tail: min-sum, 30 iterations, OSD-0", detectors="XZ", bposd=OSD0
        ),
        "relay-split": DecoderSpec(
            summary="relay belief propagation on both check types at once, as the network reads it, but alone",
            detectors="XYZ",
            relay=SPLIT_RELAY,
        ),
    }
)
"""All decoders, the first being the default."""


def decoder_spec(name: str) -> DecoderSpec:
    """Looks a decoder up.

    Raises:
        ValueError: no decoder has that name.
    """
    if name not in DECODERS:
        raise ValueError(f"unknown decoder {name!r}: use one of {', '.join(DECODERS)}")
    return DECODERS[name]


def make_decoder(name: str, experiment: MemoryExperiment, *, weights: Path | None = None) -> Decoder:
    """Makes a decoder that takes the shots of an experiment, whichever of its detectors it uses inside.

    Args:
        name: one of `DECODERS`.
        experiment: whose shots it is to decode.
        weights: the network's weights; None for those that are shipped. For "neural" alone.

    Raises:
        ValueError: an unknown name, weights for a decoder that has none, or weights that do not fit.
        OSError: the weights cannot be read.
    """
    spec = decoder_spec(name)
    if weights is not None and (spec.bposd or spec.relay):
        raise ValueError(f"the decoder {name!r} has no weights to load; leave the weights out or use 'neural'")
    if spec.bposd is not None:
        detectors = experiment.grid.indices_of(experiment.basis) if spec.detectors == "XZ" else None
        return BpOsdDecoder(experiment.fault_model, spec.bposd, detectors=detectors)
    if spec.relay is not None:
        return SplitRelayDecoder(experiment.fault_model, experiment.grid, spec.relay)
    from decoder.neural.decoder import NeuralDecoder  # torch takes seconds to import

    return NeuralDecoder.load(experiment, weights=weights)


def detectors_used(name: str) -> Detectors:
    """Which detectors a decoder decodes with: "XZ" or "XYZ".

    Raises:
        ValueError: no decoder has that name.
    """
    return decoder_spec(name).detectors
