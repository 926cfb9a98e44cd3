"""Overlapping windows, each of which fixes the errors in its first layers and passes on what they flip later.

The scheme is "overlapping recovery" of Dennis et al. (quant-ph/0110143), as Gong, Cammerer and Renes (arXiv 2403.18901)
use it for these codes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from decoder.base import BatchDecoder, Decoder, ErrorDecoder, SoftDecoder
from decoder.classical.settings import DecoderSettings
from decoder.limits import check_fields
from decoder.windows.models import WindowModel, window_model
from decoder.windows.shortening import by_layer, shortened
from simulation.bases import Detectors
from simulation.bits import Bits
from simulation.check_types import CheckTypes, find_check_types
from simulation.experiments import Experiment
from simulation.faults import FaultModel
from simulation.placement import Placement

Indices = npt.NDArray[np.int64]

SIDE_BY_SIDE = 16
"""Shots that `serial` decodes at once; other decoders take one after the other."""
WARM_UP_SHOTS = 4


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


@dataclass(frozen=True, eq=False)
class Fixed:
    """What one window decides for some shots."""

    flips: Bits
    """bool (shots, observables): those of the errors that are fixed."""
    events: Bits
    """bool (shots, detectors): those of the layers that the next window has as well, without what is fixed."""
    converged: Bits
    """bool (shots,): whether the errors found explain all events of the window."""


@dataclass(frozen=True)
class WindowPlan:
    """The windows of an experiment: where each begins, and which are alike."""

    window: int
    """Layers in each."""
    commit: int
    """Layers by which they move on."""
    first: int
    """Windows that begin here or later, but before `last`, are alike if they are whole periods apart."""
    period: int
    """In layers."""
    last: int
    """The first window that is counted from the end."""
    at_once: int
    """How many shots are decoded in the time of little more than one."""

    def first_like(self, start: int) -> int:
        """The first window that is as the one that begins at a layer."""
        return start if start >= self.last else min(start, self.first + max(0, start - self.first) % self.period)


@runtime_checkable
class WindowByWindow(Decoder, Protocol):
    """A decoder that can be asked for one window after the other; what is known of a shot stays with who asks."""

    @property
    def plan(self) -> WindowPlan:
        """The windows."""

    def prepare(self) -> None:
        """Makes the decoders of all windows and decodes with each, so that nobody waits for that later."""

    def fix(self, start: int, events: Bits) -> Fixed:
        """Decodes a window.

        Args:
            start: the layer at which it begins.
            events: bool (shots, detectors of its layers), layer by layer, each ascending. What earlier windows have
                fixed is taken out already.

        Raises:
            ValueError: another number of detectors.
        """


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
        self._looked_at = self._short.looked_at(used)
        self.layers: tuple[Indices, ...] = tuple(
            layer[self._looked_at[self._short.place(t)]] for t, layer in enumerate(by_layer(self._short.layer_of))
        )
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

    @property
    def plan(self) -> WindowPlan:
        """See `WindowByWindow`."""
        settings, short = self.settings, self._short
        return WindowPlan(
            window=settings.window,
            commit=settings.commit,
            first=short.first,
            period=short.period,
            last=short.last,
            at_once=SIDE_BY_SIDE if isinstance(self.window_at(0)[1], SoftDecoder) else 1,
        )

    def prepare(self) -> None:
        """See `WindowByWindow`."""
        random, known = np.random.default_rng(0), set[int]()
        for start in self._starts():
            model, decoder = self.window_at(start)
            if id(decoder) not in known:
                known.add(id(decoder))
                faults = model.fault_model
                errors = random.random((faults.num_mechanisms, WARM_UP_SHOTS)) < faults.priors[:, None]
                decoder.decode_to_errors((faults.check_matrix.astype(np.int32) @ errors).T % 2 == 1)

    def fix(self, start: int, events: Bits) -> Fixed:
        """See `WindowByWindow`."""
        looked_at = self._looked_at_from(start, self.settings.window)
        if events.ndim != 2 or events.shape[1] != len(looked_at):
            raise ValueError(f"the window at layer {start} has {len(looked_at)} detectors, not {events.shape[1:]}")
        fixed = self.fixed(start, events[:, looked_at])
        past = len(self._looked_at_from(start, self.settings.commit))
        left = events[:, past:].copy()
        left[:, looked_at[past:]] = fixed.events
        return replace(fixed, events=left)

    def fixed(self, start: int, events: Bits) -> Fixed:
        """As `fix`, with those detectors alone that are looked at."""
        model, decoder = self.window_at(start)
        found = decoder.decode_to_errors(events)
        fixed = (found.errors & model.fixed).T.astype(np.int32)
        return Fixed(
            flips=(model.observables @ fixed).T % 2 == 1,
            events=(events ^ ((model.effect @ fixed).T % 2 == 1))[:, model.carried :],
            converged=found.converged,
        )

    def _starts(self) -> range:
        """Where windows begin."""
        after_first = max(0, len(self.layers) - self.settings.window)
        return range(0, after_first + self.settings.commit, self.settings.commit)

    def _looked_at_from(self, start: int, layers: int) -> npt.NDArray[np.bool_]:
        """(detectors,): which of those in so many layers are looked at."""
        ends = min(start + layers, len(self.layers))
        return np.concatenate([self._looked_at[self._short.place(t)] for t in range(start, ends)])

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
        fixed = self._decoder.fixed(self._start, self._events)
        self.converged &= fixed.converged
        self.predictions ^= fixed.flips
        self._events = fixed.events
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
