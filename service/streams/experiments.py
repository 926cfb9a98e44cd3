"""One experiment whose layers arrive one by one, and are decoded together when the last one is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np

from service.models.engine import Engine
from service.models.model import Model, no_pair
from service.wire.schemas import ExperimentQuery
from service.wire.shots import DecodeResult
from simulation.bits import Bits, pack_bits

Question = Callable[[], Awaitable[DecodeResult]]
"""Waits for the answer to what was asked, with the layers that had come by then."""


class StreamedExperiment:
    """Keeps the layers; the whole is decoded in one batch with all other shots, streamed or not.

    Whoever calls has checked the layers' sizes, and that there is one after the first.

    Args:
        engine: whose decoders.
        model: is ready.
        choice: without rounds, as many as layers are taken before the last.
        deadline_ms: of pairs, counted from the last layer; None takes the model's default.

    Raises:
        InvalidParametersError: a deadline for a model that is no pair.
    """

    def __init__(
        self, engine: Engine, model: Model, choice: ExperimentQuery, *, deadline_ms: float | None = None
    ) -> None:
        if deadline_ms is not None and model.second is None:
            raise no_pair(model.settings.id, "deadline_ms")
        self._deadline_ms = deadline_ms
        self._engine = engine
        self._model = model
        self._choice = choice
        self._layers: list[Bits] = []

    async def prepare(self) -> None:
        """Makes the decoder, if the number of rounds is known already.

        Raises:
            ServiceError: there is no such experiment, or not now.
        """
        if self._choice.rounds is not None:
            await self._engine.decoder(self._model, self._choice)

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
        choice = self._choice.model_copy(update={"rounds": len(layers) - 1})
        decoder = await self._engine.decoder(self._model, choice)
        # Detectors are numbered round by round, so that the layers one after another are a shot.
        shot = pack_bits(np.concatenate(layers)[None])
        if running:
            return await self._engine.decode_first(self._model, decoder, shot)
        return await self._engine.decode(self._model, decoder, shot, choice=choice, deadline_ms=self._deadline_ms)
