"""All decoders as sinter decoders.

Use them from sinter's command line with
``--custom_decoders_module_function decoder.sinter:decoders``, or from Python:

    >>> import sinter
    >>> from decoder.sinter import decoders
    >>> from simulation.circuits import MemoryExperiment
    >>> circuit = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.001).circuit
    >>> [stats] = sinter.collect(
    ...     num_workers=1, tasks=[sinter.Task(circuit=circuit)], decoders=["bposd"],
    ...     custom_decoders=decoders(), max_shots=100,
    ... )
    >>> stats.shots
    100
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import sinter
import stim

from decoder.base import Decoder, PackedBits
from decoder.classical.bposd import BpOsdDecoder, BpOsdSettings
from decoder.registry import DECODERS
from simulation.circuits import Detectors
from simulation.detectors import DetectorGrid
from simulation.faults import FaultModel


def decoders() -> dict[str, sinter.Decoder]:
    """Every decoder of `decoder.registry.DECODERS`, by the same names."""
    return {"neural": NeuralSinterDecoder(), **bposd_decoders()}


def bposd_decoders() -> dict[str, sinter.Decoder]:
    """The decoders that take any detector error model, not only that of a memory experiment."""
    return {
        name: BpOsdSinterDecoder(settings=spec.bposd, detectors=spec.detectors)
        for name, spec in DECODERS.items()
        if spec.bposd is not None
    }


@dataclass(frozen=True, kw_only=True)
class BpOsdSinterDecoder(sinter.Decoder):  # type: ignore[misc]
    """BP-OSD for any detector error model."""

    settings: BpOsdSettings
    """How to decode."""
    detectors: Detectors
    """XZ: use the memory basis's detectors alone where the model has the detectors of both bases, marked by
    the coordinates (x, y, round, type); every detector where it has not. XYZ: always every detector."""

    def compile_decoder_for_dem(self, *, dem: stim.DetectorErrorModel) -> sinter.CompiledDecoder:
        """Prepares to decode the shots of a model; see `sinter.Decoder`."""
        chosen = _memory_basis_detectors(dem) if self.detectors == "XZ" else None
        return _Compiled(BpOsdDecoder(FaultModel.from_dem(dem), self.settings, detectors=chosen))


@dataclass(frozen=True)
class NeuralSinterDecoder(sinter.Decoder):  # type: ignore[misc]
    """The network, with the weights that are shipped for the experiment's code."""

    def compile_decoder_for_dem(self, *, dem: stim.DetectorErrorModel) -> sinter.CompiledDecoder:
        """Loads the network for a memory experiment's model; see `sinter.Decoder`.

        Raises:
            ValueError: the model is not that of a memory experiment that there are weights for.
        """
        from decoder.neural.decoder import NeuralDecoder  # torch takes seconds to import

        return _Compiled(NeuralDecoder.for_dem(dem))


class _Compiled(sinter.CompiledDecoder):  # type: ignore[misc]
    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def decode_shots_bit_packed(self, *, bit_packed_detection_event_data: npt.NDArray[np.uint8]) -> PackedBits:
        predictions = self._decoder.decode_batch(
            bit_packed_detection_event_data, bit_packed_shots=True, bit_packed_predictions=True
        )
        return predictions.view(np.uint8)


def _memory_basis_detectors(dem: stim.DetectorErrorModel) -> npt.NDArray[np.int64] | None:
    try:
        grid = DetectorGrid.of(dem)
        return grid.indices_of(grid.memory_basis) if grid.has_both_bases else None
    except ValueError:  # not a memory experiment: nothing tells the bases apart
        return None
