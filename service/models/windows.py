"""Decoders in windows: what a request asks for, and a single window as the queue takes decoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from decoder.catalog import decoder_spec, windowed
from decoder.windows.decoder import WindowByWindow, WindowSettings
from service.errors import InvalidParametersError
from service.models.batching import InPieces, kept_with
from simulation.bits import Bits
from simulation.experiments import Experiment


@dataclass(frozen=True)
class Windows:
    """A model's decoder in windows."""

    decoder: str
    """Its name in `decoder.catalog`."""
    window: int
    """Layers in each."""
    commit: int
    """Layers by which they move on."""

    @classmethod
    def asked_for(cls, decoder: str, *, window: int | None, commit: int | None) -> Windows | None:
        """The windows that a request asks for, or that a model's decoder has anyway; None for neither.

        Args:
            decoder: the name of the model's.
            window, commit: as the request says; without `commit` half of the window.

        Raises:
            InvalidParametersError: the decoder has windows of its own or tells no errors, or these make no sense.
        """
        spec = decoder_spec(decoder)
        own = spec.settings if isinstance(spec.settings, WindowSettings) else None
        if window is None:
            if commit is not None:
                detail = "commit says how far windows move on; add window, or leave it out"
                raise InvalidParametersError.of(detail, parameter="commit")
            return None if own is None else cls(decoder, own.window, own.commit)
        if own is not None:
            detail = f"the decoder {decoder} has windows of its own; leave window and commit out"
            raise InvalidParametersError.of(detail, parameter="window")
        commit = commit or max(1, window // 2)
        try:
            return cls(windowed(spec, window=window, commit=commit).name, window, commit)
        except ValueError as error:
            raise InvalidParametersError.of(str(error), parameter="window") from error


@dataclass(frozen=True)
class InWindows:
    """An experiment for which a decoder in windows is wanted, and not the model's own."""

    experiment: Experiment
    decoder: str
    """See `Windows.decoder`."""


class FixingWindow(InPieces):
    """One window of an experiment, a decoder whose rows are flips, then the events left, then whether it converged.

    Args:
        decoder: of the experiment.
        start: the layer at which the window begins.
        sizes: detectors of each of its layers.
    """

    def __init__(self, decoder: WindowByWindow, start: int, sizes: Sequence[int]) -> None:
        self._decoder, self._start = decoder, start
        self._flips, self._left = decoder.num_observables, list(sizes[decoder.plan.commit :])
        rows = self._flips + sum(self._left) + 1
        super().__init__(num_detectors=sum(sizes), num_observables=rows, at_once=decoder.plan.at_once)

    def predict(self, events: Bits) -> Bits:
        """See `decoder.base.BatchDecoder`."""
        fixed = self._decoder.fix(self._start, events)
        return np.concatenate([fixed.flips, fixed.events, fixed.converged[:, None]], axis=1)

    def told(self, row: Bits) -> tuple[Bits, list[Bits], bool]:
        """What a row says: the flips, the events left in each layer that the next window has as well, and the rest."""
        *left, _ = np.split(row[self._flips : -1], np.cumsum(self._left))
        return row[: self._flips], left, bool(row[-1])


def fixing_window(decoder: WindowByWindow, start: int, sizes: Sequence[int]) -> FixingWindow:
    """A window as a decoder; of those that are alike always the same, so that they share batches."""
    like = decoder.plan.first_like(start)
    return kept_with(decoder, (FixingWindow, like), lambda: FixingWindow(decoder, like, sizes))
