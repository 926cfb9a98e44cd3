"""Detection events that arrive layer by layer: folded into the network's state at once where it can be done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from decoder.base import Decoding
from decoder.neural.folding import NetworkFolder
from decoder.neural.model import EventFold
from simulation.bits import Bits

if TYPE_CHECKING:
    from decoder.neural.decoder import NeuralDecoder


def open_stream(decoder: NeuralDecoder, *, shots: int) -> LayerStream:
    """The stream that suits a decoder's network.

    Raises:
        ValueError: shots below 1 or above the decoder's max_batch.
    """
    if not 1 <= shots <= decoder.max_batch:
        raise ValueError(
            f"a stream of shots={shots} must hold 1 to {decoder.max_batch} of them (the decoder's max_batch)"
        )
    folder = decoder.folder()
    return KeepingStream(decoder, shots=shots) if folder is None else FoldingStream(decoder, folder, shots=shots)


class LayerStream(ABC):
    """Takes the layers of some experiments in order; see `decoder.base.Stream`."""

    def __init__(self, decoder: NeuralDecoder, *, shots: int) -> None:
        self.decoder = decoder
        self.shots = shots
        self.folded = 0
        """Layers taken so far."""

    def fold(self, layer: Bits) -> None:
        """Takes the next layer, bool (shots, its detectors).

        Raises:
            ValueError: all layers have been taken, or the shape or the dtype of this one is wrong.
        """
        layers, t = self.decoder.layers, self.folded
        if t == len(layers):
            raise ValueError(
                f"all {t} layers of this experiment have been folded; take the answer with finish(), and begin "
                "another stream for the next experiment"
            )
        if not isinstance(layer, np.ndarray) or layer.dtype != np.bool_:
            found = layer.dtype if isinstance(layer, np.ndarray) else type(layer).__name__
            raise ValueError(f"a layer must be a numpy array of bools, not {found}; convert with .astype(bool)")
        expected = (self.shots, len(layers[t]))
        if layer.shape != expected:
            raise ValueError(
                f"layer {t} of {len(layers)} must have shape {expected} (shots, detectors of this layer), not "
                f"{layer.shape}"
            )
        self._take(t, layer)
        self.folded += 1

    def finish(self) -> Decoding:
        """The answer, the same as that of `NeuralDecoder.decode_soft`.

        Raises:
            ValueError: a layer is missing.
        """
        layers = len(self.decoder.layers)
        if self.folded < layers:
            raise ValueError(
                f"only {self.folded} of the {layers} layers of this experiment have been folded; the answer needs all"
            )
        return self._answer()

    @abstractmethod
    def _take(self, t: int, layer: Bits) -> None: ...

    @abstractmethod
    def _answer(self) -> Decoding: ...


class FoldingStream(LayerStream):
    """Folds each layer into the network's state on arrival."""

    def __init__(self, decoder: NeuralDecoder, folder: NetworkFolder[Any], *, shots: int) -> None:
        super().__init__(decoder, shots=shots)
        self.folder = folder
        self.state = folder.start(shots)

    def _take(self, t: int, layer: Bits) -> None:
        self.state = self.folder.step(self.state, layer, t=t, phase=EventFold.phase(t, len(self.decoder.layers)))

    def _answer(self) -> Decoding:
        return self.folder.readout(self.state)


class KeepingStream(LayerStream):
    """Keeps the events until all have arrived, then decodes them."""

    def __init__(self, decoder: NeuralDecoder, *, shots: int) -> None:
        super().__init__(decoder, shots=shots)
        self.events = np.zeros((shots, decoder.num_detectors), dtype=np.bool_)

    def _take(self, t: int, layer: Bits) -> None:
        self.events[:, self.decoder.layers[t]] = layer

    def _answer(self) -> Decoding:
        return self.decoder.decode_soft(self.events)
