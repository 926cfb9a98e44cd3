"""One experiment whose layers arrive one by one, and are decoded together when the last one is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np

from service.models.model import Model
from service.models.prepared import Prepared, not_a_pair
from service.wire.schemas import ExperimentQuery
from service.wire.shots import DecodeResult
from simulation.bits import Bits, pack_bits

Question = Callable[[], Awaitable[DecodeResult]]
"""Waits for the answer to what was asked, with the layers that had come by then."""


class StreamedExperiment:
    """Keeps the layers; the whole is decoded in one batch with all other shots, streamed or not.

    Whoever calls has checked the layers' sizes, and that there is one after the first.

    Args:
        model: is ready.
        query: without rounds, as many as layers are taken before the last.
        deadline_ms: of pairs, counted from the last layer; None takes the model's default.

    Raises:
        InvalidParametersError: a deadline for a model that is no pair.
    """

    def __init__(self, model: Model, query: ExperimentQuery, *, deadline_ms: float | None = None) -> None:
        if deadline_ms is not None and model.second is None:
            raise not_a_pair(model.settings.id, "deadline_ms")
        self._deadline_ms = deadline_ms
        self._model = model
        self._query = query
        self._layers: list[Bits] = []

    async def prepare(self) -> None:
        """Makes the decoder, if the number of rounds is known already.

        Raises:
            RequestError: there is no such experiment, or not now.
        """
        if self._query.rounds is not None:
            await Prepared.of(self._model, self._query)

    def take(self, layer: Bits) -> None:
        """Takes the next layer, bool (detectors,), which is not the last."""
        self._layers.append(layer)

    def ask(self, last: Bits, *, running: bool = False) -> Question:
        """Asks for the answer as if `last` came after the layers taken so far; more may then be taken.

        With `running` an estimate is wanted, for which no second decoder is asked. The question raises a RequestError
        where there is no answer.
        """
        # A list of its own: more layers may have come when its turn does.
        return partial(self._decode, [*self._layers, last], running)

    def drop(self) -> None:
        """Nothing more will be asked for."""
        self._layers = []

    async def _decode(self, layers: list[Bits], running: bool) -> DecodeResult:
        query = self._query.model_copy(update={"rounds": len(layers) - 1})
        prepared = await Prepared.of(self._model, query)
        # Detectors are numbered round by round, so that the layers one after another are a shot.
        shot = pack_bits(np.concatenate(layers)[None])
        if running:
            return await prepared.decode_first(shot)
        return await prepared.decode(shot, deadline_ms=self._deadline_ms)
