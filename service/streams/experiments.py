"""One experiment whose layers arrive one by one: folded on arrival by networks that can, kept for the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np

from service.errors import DecodeTimeoutError
from service.models.batching import Answer
from service.models.engine import Engine
from service.models.folding import FoldedExperiment, FoldWorker
from service.models.model import ExperimentChoice, Model, no_pair
from simulation.bits import Bits, pack_bits

Question = Callable[[], Awaitable[Answer]]
"""Waits for the answer to what was asked, at the state in which it was."""


class StreamedExperiment(Protocol):
    """The layers so far. Whoever calls has checked their sizes, and that there is one after the first."""

    async def prepare(self) -> None:
        """Makes what is needed to decode, as far as it is known yet.

        Raises:
            ServiceError: there is no such experiment, or not now.
        """

    def take(self, layer: Bits) -> None:
        """Takes the next layer, bool (detectors,), which is not the last.

        Raises:
            ServiceError: it cannot be taken.
        """

    def ask(self, last: Bits, *, running: bool = False) -> Question:
        """Asks for the answer as if `last` came after the layers taken so far; more may then be taken.

        With `running` an estimate is wanted, for which no second decoder is asked.

        Raises:
            ServiceError: it cannot be asked for now. The question raises it too, where there is no answer.
        """

    def drop(self) -> None:
        """Nothing more will be asked for."""


def streamed_experiment(
    engine: Engine, model: Model, choice: ExperimentChoice, *, deadline_ms: float | None = None
) -> StreamedExperiment:
    """Begins an experiment.

    Args:
        engine: whose decoders.
        model: is ready.
        choice: without rounds, as many as layers are taken before the last.
        deadline_ms: of pairs, counted from the last layer; None takes the model's default.

    Raises:
        InvalidParametersError: a deadline for a model that is no pair.
    """
    if deadline_ms is not None and model.second is None:
        raise no_pair(model.settings.id, "deadline_ms")
    if model.folds:
        return _Folded(engine.fold_worker(model, choice), timeout=engine.settings.decode_timeout_seconds)
    return _Kept(engine, model, choice, deadline_ms)


class _Kept:
    """Keeps the layers; the whole is decoded in one batch with all other shots, streamed or not."""

    def __init__(self, engine: Engine, model: Model, choice: ExperimentChoice, deadline_ms: float | None) -> None:
        self._deadline_ms = deadline_ms
        self._engine = engine
        self._model = model
        self._choice = choice
        self._layers: list[Bits] = []

    async def prepare(self) -> None:
        if self._choice.rounds is not None:
            await self._engine.decoder(self._model, self._choice)

    def take(self, layer: Bits) -> None:
        self._layers.append(layer)

    def ask(self, last: Bits, *, running: bool = False) -> Question:
        # A list of its own: more layers may have come when its turn does.
        return partial(self._decode, [*self._layers, last], running)

    def drop(self) -> None:
        self._layers = []

    async def _decode(self, layers: list[Bits], running: bool) -> Answer:
        choice = replace(self._choice, rounds=len(layers) - 1)
        decoder = await self._engine.decoder(self._model, choice)
        # Detectors are numbered round by round, so that the layers one after another are a shot.
        shot = pack_bits(np.concatenate(layers)[None])
        if running:
            return await self._engine.decode_first(self._model, decoder, shot)
        return await self._engine.decode(self._model, decoder, shot, choice=choice, deadline_ms=self._deadline_ms)


class _Folded:
    """Keeps the network's state alone."""

    def __init__(self, worker: FoldWorker, *, timeout: float) -> None:
        self._worker = worker
        self._timeout = timeout
        self._experiment = FoldedExperiment()
        self._taken = 0

    async def prepare(self) -> None:
        await self._worker.prepare()

    def take(self, layer: Bits) -> None:
        self._worker.fold(self._experiment, layer, phase="middle" if self._taken else "first")
        self._taken += 1

    def ask(self, last: Bits, *, running: bool = False) -> Question:
        return partial(self._within_time, self._worker.answer(self._experiment, last))

    def drop(self) -> None:
        self._worker.forget(self._experiment)

    async def _within_time(self, answer: asyncio.Future[Answer]) -> Answer:
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError:
            raise DecodeTimeoutError(
                f"no answer within {self._timeout:g} s; open fewer streams at once", retry_after=1
            ) from None
