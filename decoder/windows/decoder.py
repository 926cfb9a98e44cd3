"""Overlapping windows, each of which fixes the errors in its first layers and passes on what they flip later.

The scheme is "overlapping recovery" of Dennis et al. (quant-ph/0110143), as Gong, Cammerer and Renes (arXiv 2403.18901)
use it for these codes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from decoder.base import BatchDecoder, ErrorDecoder
from decoder.classical.settings import DecoderSettings
from decoder.limits import check_fields
from decoder.windows.models import WindowModel, window_model
from decoder.windows.shortening import shortened
from simulation.bases import Detectors
from simulation.bits import Bits
from simulation.check_types import CheckTypes, find_check_types
from simulation.experiments import Experiment
from simulation.faults import FaultModel
from simulation.placement import Placement

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class WindowSettings(DecoderSettings):
    """How to decode in windows.

    Raises:
        ValueError: a window shorter than what it is to fix, or below 1.
    """

    inner: DecoderSettings
    """What decodes each window; it has to tell errors (`decoder.base.ErrorDecoder`)."""
    window: int
    """Layers of detectors in each window, at most those of the experiment."""
    commit: int
    """How many layers later the next window begins: errors that begin in these layers are fixed."""

    def __post_init__(self) -> None:
        check_fields(self, window=1, commit=1)
        if self.commit > self.window:
            raise ValueError(f"commit={self.commit} must be at most window={self.window}")

    def limited(self, seconds: float) -> WindowSettings:
        """See `DecoderSettings.limited`; the time is that for each window."""
        return replace(self, inner=self.inner.limited(seconds))

    def of_faults(
        self, model: FaultModel, types: CheckTypes, *, detectors: Detectors, placement: Placement | None = None
    ) -> BatchDecoder:
        """Refuses, as a fault model does not say when its detectors come.

        Raises:
            ValueError: always.
        """
        raise ValueError("windows need to know when detectors come; give the experiment, not its fault model")

    def decoder(self, experiment: Experiment, *, detectors: Detectors) -> WindowDecoder:
        """Makes a decoder; see `DecoderSettings.decoder`."""
        return WindowDecoder(experiment, self, detectors=detectors)


class WindowDecoder(BatchDecoder):
    """Decodes an experiment window by window, with the memory that a few windows take, however long it is."""

    def __init__(self, experiment: Experiment, settings: WindowSettings, *, detectors: Detectors) -> None:
        """Prepares the windows; their decoders are made when they are first needed.

        Args:
            experiment: whose shots are to be decoded; see `simulation.foreign.layers` for when its detectors come.
            settings: the windows, and what decodes them.
            detectors: see `DecoderSettings.decoder`.

        Raises:
            ValueError: a window is longer than the experiment, errors reach beyond a window, or the decoder tells no
                errors, or cannot take a window.
        """
        super().__init__(num_detectors=experiment.num_detectors, num_observables=experiment.num_observables)
        self.settings = settings
        window, commit = settings.window, settings.commit
        self._short = shortened(experiment.source, window=window, margin=max(2, window - commit))
        if window > self._short.layers:
            raise ValueError(
                f"a window of {window} layers is longer than a shot of {self._short.layers}; take a shorter one, "
                "or decode without windows"
            )
        short = self._short.experiment
        types = find_check_types(short.fault_model, circuit=short.circuit, dem=short.dem)
        used = types.sufficient if detectors == "XZ" else None
        self.layers: tuple[Indices, ...] = self._short.layers_with(used)
        """The detectors of each layer that are looked at, ascending."""
        self._model, self._types, self._layer_of = short.fault_model, types, self._short.layer_of_short
        if used is not None:
            self._model, self._layer_of = self._model.restrict(used), self._layer_of[used]
            self._types = CheckTypes.one(self._model, types.found)
        self._windows: dict[int, tuple[WindowModel, ErrorDecoder]] = {}
        self._decoders: dict[bytes, ErrorDecoder] = {}
        self.window_at(0)  # what is wrong with windows is said now

    def predict(self, events: Bits) -> Bits:
        """The flips of all errors fixed; see `decoder.base.BatchDecoder`."""
        stream = WindowStream(self, shots=len(events))
        for layer in self.layers:
            stream.fold(events[:, layer])
        return stream.predictions

    def stream(self, *, shots: int = 1) -> WindowStream:
        """Begins to decode experiments whose events arrive layer by layer.

        Args:
            shots: experiments side by side.
        """
        return WindowStream(self, shots=shots)

    def window_at(self, start: int) -> tuple[WindowModel, ErrorDecoder]:
        """The window that begins at a layer, and its decoder; windows that are the same share both."""
        place = self._short.place(start)
        if place not in self._windows:
            model = window_model(
                self._model,
                self._types,
                self._layer_of,
                start=place,
                window=self.settings.window,
                commit=self.settings.commit,
            )
            key = _digest(model)
            if key not in self._decoders:
                self._decoders[key] = self._make(model)
            self._windows[place] = model, self._decoders[key]
        return self._windows[place]

    def _make(self, model: WindowModel) -> ErrorDecoder:
        decoder = self.settings.inner.of_faults(model.fault_model, model.check_types, detectors="XYZ")
        if not isinstance(decoder, ErrorDecoder):
            raise ValueError(f"{type(decoder).__name__} tells no errors, so none could be fixed; use serial or bposd")
        return decoder


class WindowStream:
    """Experiments side by side whose layers of detection events come one by one."""

    def __init__(self, decoder: WindowDecoder, *, shots: int) -> None:
        self._decoder = decoder
        self._start = 0
        self._events = np.zeros((shots, 0), dtype=np.bool_)  # of the window's layers so far, without what was fixed
        self.received = 0
        """Layers that have come."""
        self.committed = 0
        """Layers whose errors are fixed: with all of them, `predictions` are final."""
        self.predictions: Bits = np.zeros((shots, decoder.num_observables), dtype=np.bool_)
        """(shots, observables): the flips of the errors that are fixed."""
        self.converged: Bits = np.ones(shots, dtype=np.bool_)
        """(shots,): whether the errors found explained the events of every window so far."""

    def fold(self, layer: Bits) -> None:
        """Takes the next layer, and decodes a window if it is full or this was the last layer.

        Args:
            layer: bool (shots, detectors of this layer that are looked at), ascending; see `WindowDecoder.layers`.

        Raises:
            ValueError: all layers have come, or the shape is not as above.
        """
        layers = self._decoder.layers
        if self.received == len(layers):
            raise ValueError(f"all {len(layers)} layers have come already")
        if layer.shape != (wanted := (len(self.predictions), len(layers[self.received]))):
            raise ValueError(f"layer {self.received} has the shape {layer.shape}, and not {wanted}")
        self._events = np.concatenate([self._events, layer], axis=1)
        self.received += 1
        last = self.received == len(layers)
        if last or self.received == self._start + self._decoder.settings.window:
            self._decode(last=last)

    def _decode(self, *, last: bool) -> None:
        model, decoder = self._decoder.window_at(self._start)
        found = decoder.decode_to_errors(self._events)
        fixed = (found.errors & model.fixed).T.astype(np.int32)
        self.converged &= found.converged
        self.predictions ^= (model.observables @ fixed).T % 2 == 1
        self._events = (self._events ^ ((model.effect @ fixed).T % 2 == 1))[:, model.carried :]
        self._start += self._decoder.settings.commit
        self.committed = self.received if last else self._start


def _digest(model: WindowModel) -> bytes:
    """Differs between windows that are not decoded alike, but for the last digits of priors, which are rounded."""
    faults = model.fault_model
    matrices = (faults.check_matrix, faults.observable_matrix)
    parts = [part for matrix in matrices for part in (matrix.indptr, matrix.indices, matrix.data)]
    hashed = hashlib.sha256(str([matrix.shape for matrix in matrices]).encode())
    for part in (*parts, np.round(np.log(faults.priors), 9), faults.instructions, model.check_types.memory):
        hashed.update(np.ascontiguousarray(part).tobytes())
    return hashed.digest()
