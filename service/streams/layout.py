"""Which layers a stream has, and how many detectors are in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from service.errors import InvalidLayerError, InvalidParametersError
from service.models.experiments import kept_of
from service.models.model import Model
from service.models.windows import Windows
from service.wire.schemas import AnyExperimentQuery
from simulation.bits import Bits, PackedBits, pack_bits
from simulation.circuits import MemoryExperiment
from simulation.foreign.kept import KeptExperiment


class Layout(Protocol):
    """The layers of one experiment."""

    @property
    def basis(self) -> str | None:
        """Of the logical memory, if it is known."""

    @property
    def sizes(self) -> list[int]:
        """What the message `opened` tells of the layers' detectors."""

    @property
    def layers(self) -> int | None:
        """How many there are, if that is known."""

    @property
    def observables(self) -> int:
        """Of the experiment."""

    def check(self, t: int, *, last: bool) -> None:
        """Checks that the layer of a round may come.

        Raises:
            InvalidLayerError: it may not, or not as the last one, or it must be that.
        """

    def detectors(self, t: int, *, last: bool) -> int:
        """How many a layer has."""

    def packed(self, shot: Sequence[Bits]) -> PackedBits:
        """All layers as one shot, bit-packed (1, ceil(detectors / 8))."""


def layout_of(model: Model, query: AnyExperimentQuery, *, windows: Windows | None) -> Layout:
    """The layers of the experiment that a request asks for.

    Args:
        model: decodes.
        query: names the experiment.
        windows: in which it is to be decoded, if in any.

    Raises:
        InvalidParametersError, UnknownExperimentError: see `Model.any_experiment`, or a window is longer than all
            layers, or than what is decoded at once.
    """
    most = model.bounds.max_rounds if windows is None else model.bounds.max_window_rounds
    experiment = model.any_experiment(query, most_rounds=most)
    layout: Layout
    if isinstance(experiment, MemoryExperiment):
        layout = MemoryLayout(experiment.basis, model.code.cells, model.code.k, query.rounds, most)
        most_layers = min(layout.layers or most + 1, model.bounds.max_rounds + 1)
    else:
        layout = KeptLayout(experiment)
        most_layers = len(layout.sizes)
    if windows is not None and windows.window > most_layers:
        detail = f"a window of {windows.window} layers is longer than the {most_layers} that it may have here"
        raise InvalidParametersError.of(f"{detail}; take a shorter one, or none", parameter="window")
    return layout


@dataclass(frozen=True)
class MemoryLayout:
    """One of the model's own experiments: one check type in the first and the last layer, both in between."""

    basis: str
    cells: int
    observables: int
    rounds: int | None
    """None: as many as layers come before the last one."""
    most_rounds: int

    @property
    def sizes(self) -> list[int]:
        """Of the first layer, of those in between, and of the last."""
        return [self.cells, 2 * self.cells, self.cells]

    @property
    def layers(self) -> int | None:
        """See `Layout.layers`."""
        return None if self.rounds is None else self.rounds + 1

    def check(self, t: int, *, last: bool) -> None:
        """See `Layout.check`."""
        most = self.rounds or self.most_rounds
        if last:
            if t == 0:
                raise InvalidLayerError("the layer of round 0 cannot be the last; the readout's comes after it")
            if self.rounds is not None and t < most:
                raise InvalidLayerError(
                    f"round {t} was said to be the last, but the stream was opened with rounds={most}"
                )
        elif t >= most:
            limit = "the stream was opened with" if self.rounds else "this service decodes at most"
            raise InvalidLayerError(f"{limit} rounds={most}, so the layer of round {t} must be the last (flag 1)")

    def detectors(self, t: int, *, last: bool) -> int:
        """See `Layout.detectors`."""
        return self.cells if last or t == 0 else 2 * self.cells

    def packed(self, shot: Sequence[Bits]) -> PackedBits:
        """See `Layout.packed`: detectors are numbered round by round."""
        return pack_bits(np.concatenate(shot)[None])


class KeptLayout:
    """An experiment that was sent: the layers of its record."""

    def __init__(self, experiment: KeptExperiment) -> None:
        kept = kept_of(experiment)
        self.basis = kept.record.inspection.basis
        self.sizes = kept.record.layers
        self.layers, self.observables = len(self.sizes), experiment.num_observables
        self._order = kept.order

    def check(self, t: int, *, last: bool) -> None:
        """See `Layout.check`."""
        if last != (t == len(self.sizes) - 1):
            raise InvalidLayerError(
                f"the experiment has {len(self.sizes)} layers, so the last (flag 1) is that of round "
                f"{len(self.sizes) - 1}, not of round {t}"
                if last
                else f"the layer of round {t} is the last of the experiment; set flag 1"
            )

    def detectors(self, t: int, *, last: bool) -> int:
        """See `Layout.detectors`."""
        return self.sizes[t]

    def packed(self, shot: Sequence[Bits]) -> PackedBits:
        """See `Layout.packed`."""
        events = np.concatenate(shot)
        if self._order is not None:
            ordered = np.empty_like(events)
            ordered[self._order] = events
            events = ordered
        return pack_bits(events[None])
