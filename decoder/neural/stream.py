"""Detection events that arrive layer by layer: folded into the network's state at once where it can be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from decoder.base import Decoding
from decoder.neural.backends.base import Backend
from decoder.neural.backends.events import EventPlacement
from simulation.bits import Bits


class LayerStream:
    """Takes the layers of some experiments in order; see `decoder.base.Stream`.

    Args:
        backend: what computes the network.
        placement: where the experiments' events stand.
        shots: experiments side by side.
        decode: from all events, bool (shots, detectors), to the answer. If given, the events are kept until all have
            arrived; if not, each layer is folded into the network's state on arrival.
    """

    def __init__(
        self,
        backend: Backend[Any],
        placement: EventPlacement,
        *,
        shots: int,
        decode: Callable[[Bits], Decoding] | None = None,
    ) -> None:
        self.backend, self.placement, self.shots, self._decode = backend, placement, shots, decode
        self.folded = 0
        """Layers taken so far."""
        if self.folds:
            self._state = backend.start(shots)
        else:
            self._events = np.zeros((shots, placement.num_detectors), dtype=np.bool_)

    @property
    def folds(self) -> bool:
        """Whether layers are folded into the network's state on arrival."""
        return self._decode is None

    def fold(self, layer: Bits) -> None:
        """Takes the next layer, bool (shots, its detectors); see `decoder.base.Stream.fold`."""
        layers, t = self.placement.layers, self.folded
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
        if self.folds:
            events, phase = self.placement.dense_layer(t, layer), self.placement.phase(t)
            self._state = self.backend.step(self._state, events, phase=phase)
        else:
            self._events[:, layers[t]] = layer
        self.folded += 1

    def finish(self) -> Decoding:
        """The answer, the same as that of `NeuralDecoder.decode_soft`; see `decoder.base.Stream.finish`."""
        layers = len(self.placement.layers)
        if self.folded < layers:
            raise ValueError(
                f"only {self.folded} of the {layers} layers of this experiment have been folded; the answer needs all"
            )
        return self.backend.readout(self._state) if self._decode is None else self._decode(self._events)
