"""All models of the service: which there are, and what requests ask of them.

Every wire format (JSON, b8, tensors) stands on `Engine.decode`; nothing here knows of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

from decoder.base import Decoder
from decoder.scheduling import take_short_slices
from decoder.tandem.rule import seconds_left
from service.errors import (
    ClosingError,
    DecodeTimeoutError,
    Flaw,
    InvalidParametersError,
    NotReadyError,
    UnknownModelError,
)
from service.models.building import Builder
from service.models.model import DecoderFactory, Model, no_pair
from service.settings import ModelSettings, Settings
from service.telemetry.metrics import Metrics
from service.telemetry.record import current_record
from service.wire.schemas import ExperimentQuery
from service.wire.shots import DecodeResult
from simulation.bits import PackedBits
from simulation.circuits import MemoryExperiment

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ModelLoadError(ValueError):
    """A model of the settings cannot be made: weights that are missing or do not fit, for instance."""


class Engine:
    """All models. `start` and `close` belong to the application's lifespan.

    Args:
        settings: which models, and all bounds.
        metrics: counts what happens.
        make: makes decoders, given a model's settings and an experiment; by default `decoder.catalog`.

    Raises:
        ValueError: a model's settings name an unknown code, decoder or noise.
    """

    def __init__(self, settings: Settings, *, metrics: Metrics, make: DecoderFactory | None = None) -> None:
        self.settings = settings
        self.metrics = metrics
        self._builder = Builder()
        self._closing = False
        self.draining = False
        self.awaits_others = False
        """Whether to call itself ready only when the other workers are, too."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loading: asyncio.Task[None] | None = None
        self.load_error: ModelLoadError | None = None
        self._make = make
        self._retiring: set[asyncio.Task[None]] = set()
        self.revision = 0
        """Counts models put in place, and those that are gone."""
        self.models: Mapping[str, Model] = {}
        for model in settings.models:
            self._serve(self.new_model(model))

    def check_ready(self) -> None:
        """Raises:
        NotReadyError: a model is still being loaded, or cannot be.
        ClosingError: the service is shutting down.
        """
        if self._closing or self.draining:
            raise ClosingError("the service is shutting down")
        if self.load_error is not None:
            raise NotReadyError(f"{self.load_error}; restart the service when that is put right")
        missing = [model_id for model_id, model in self.models.items() if not model.ready]
        if missing:
            raise NotReadyError(f"being loaded: {', '.join(missing)}; ask again", retry_after=1)
        if self.awaits_others:
            raise NotReadyError("other workers are still loading their models; ask again", retry_after=1)

    def check_model_ready(self, model: Model) -> None:
        """Raises:
        NotReadyError: the model is still being loaded, or cannot be.
        ClosingError: the service is shutting down.
        """
        if self._closing:
            raise ClosingError("the service is shutting down; send the shots to another instance")
        if not model.ready:
            raise NotReadyError(f"model {model.settings.id} is being loaded; wait for /readyz", retry_after=1)

    def start(self, *, on_load_error: Callable[[ModelLoadError], None] | None = None) -> None:
        """Starts the threads and begins to load every model. Returns at once: see `check_ready`.

        Args:
            on_load_error: is told when a model cannot be loaded; the engine will then never be ready.
        """
        take_short_slices()  # and so the threads started from here on
        self._loop = asyncio.get_running_loop()
        for model in self.models.values():
            model.worker.start()
        self._loading = asyncio.create_task(self._load(on_load_error))

    async def wait_until_loaded(self) -> None:
        """Returns when every model is loaded, or one cannot be."""
        if self._loading is not None:
            await asyncio.shield(self._loading)

    @property
    def loaded(self) -> bool:
        return all(model.ready for model in self.models.values())

    def others_are_ready(self) -> None:
        """All workers have loaded their models."""
        self.awaits_others = False

    def drain(self) -> None:
        """Is not ready any more, so that no new work is sent here, but does what comes nevertheless."""
        self.draining = True
        self.metrics.ready(False)

    async def close(self) -> None:
        """Refuses new work, finishes what is queued, and stops the threads."""
        self._closing = True
        if self._loading is not None:
            self._loading.cancel()
        await asyncio.gather(*(model.close() for model in self.models.values()), *self._retiring)
        self._builder.close()

    def model(self, model_id: str) -> Model:
        """Raises:
        UnknownModelError: no model has this id.
        """
        try:
            return self.models[model_id]
        except KeyError:
            known = ", ".join(sorted(self.models))
            raise UnknownModelError(f"there is no model {model_id!r}; this service has {known}") from None

    @contextmanager
    def lease(self, model_id: str) -> Iterator[Model]:
        """A model to use for one request; until that ends the model is not closed, though it may be replaced.

        Raises:
            UnknownModelError: no model has this id.
        """
        model = self.model(model_id)
        with model.lease():
            yield model

    def new_model(self, model: ModelSettings) -> Model:
        """A model that is neither loaded nor served yet.

        Raises:
            ValueError: the settings name an unknown code, decoder or noise.
        """
        return Model(
            model,
            self.settings,
            metrics=self.metrics,
            builder=self._builder,
            deliver=self._deliver,
            make=self._make,
        )

    def replace(self, model: Model) -> None:
        """Serves a model that is loaded from now on. Requests at work on one of the same id end there."""
        old = self.models.get(model.settings.id)
        self._serve(model)
        self._retire(old)

    def remove(self, model_id: str) -> None:
        """Serves a model no longer. Requests at work on it end there.

        Raises:
            UnknownModelError: no model has this id.
        """
        old = self.model(model_id)
        self.models = {name: model for name, model in self.models.items() if name != model_id}
        self.metrics.remove_model(model_id)
        self._retire(old)

    def experiment(self, model: Model, choice: ExperimentQuery) -> MemoryExperiment:
        """The experiment that a request means, within the service's bounds.

        Raises:
            InvalidParametersError: too many rounds, or values that the model's noise does not allow.
        """
        self._check_rounds(choice)
        return model.experiment(choice)

    async def build(self, build: Callable[[], T]) -> T:
        """Builds something slow, such as a circuit's text, beside the event loop.

        Raises:
            BusyError: too many builds wait.
        """
        return await self._builder.run(build)

    async def decoder(self, model: Model, choice: ExperimentQuery) -> Decoder:
        """The decoder for an experiment, made if need be.

        Raises:
            InvalidParametersError: no such experiment, or not for this decoder.
            BusyError: too many decoders are being made.
            NotReadyError, ClosingError: the model is not loaded yet, or no longer.
        """
        self.check_model_ready(model)
        self._check_rounds(choice)
        try:
            return await model.decoders.get(model.decoder_experiment(choice))
        except ValueError as error:
            raise InvalidParametersError(str(error)) from error

    async def decode(
        self,
        model: Model,
        decoder: Decoder,
        shots: PackedBits,
        *,
        choice: ExperimentQuery,
        deadline_ms: float | None = None,
    ) -> DecodeResult:
        """Queues shots and waits for their turn, and of a pair for second opinions. Cancelling takes them out again.

        Args:
            model: whose queue.
            decoder: from `decoder`.
            shots: bit-packed uint8 (shots, ceil(detectors / 8)), at least one.
            choice: the experiment that they come from.
            deadline_ms: milliseconds after which a second opinion is late; None takes the model's default.

        Raises:
            InvalidParametersError: a deadline for a model that is no pair.
            BusyError: the queue is full.
            ClosingError: the service is shutting down.
            DecodeTimeoutError: no answer within the time set.
            DecoderFailedError: the decoder raised on the batch.
        """
        if model.second is None:
            if deadline_ms is not None:
                raise no_pair(model.settings.id, "deadline_ms")
            return await self.decode_first(model, decoder, shots)
        began = time.perf_counter()
        answer = await self.decode_first(model, decoder, shots)
        seconds = self.patience(model, deadline_ms, since=began)
        return await model.second.ask(answer, model.experiment(choice), shots, seconds=seconds).all()

    def patience(self, model: Model, deadline_ms: float | None, *, since: float) -> float:
        """Seconds from now to the end of the waiting for second opinions, of a request that came at a time."""
        if deadline_ms is None and model.second is not None:
            deadline_ms = model.second.deadline_ms
        seconds = since + self.settings.decode_timeout_seconds - time.perf_counter()
        return seconds if deadline_ms is None else min(seconds, seconds_left(deadline_ms, began=since))

    async def decode_first(self, model: Model, decoder: Decoder, shots: PackedBits) -> DecodeResult:
        """`decode` without second opinions.

        Args:
            model: whose queue.
            decoder: from `decoder`.
            shots: bit-packed uint8 (shots, ceil(detectors / 8)), at least one.

        Raises:
            BusyError: the queue is full.
            ClosingError: the service is shutting down.
            DecodeTimeoutError: no answer within the time set.
            DecoderFailedError: the decoder raised on the batch.
        """
        future = _awaitable(model.worker.submit(decoder, shots))
        limit = self.settings.decode_timeout_seconds
        try:
            with self.metrics.waiting(model.settings.id, shots=len(shots)):
                async with asyncio.timeout(limit):
                    answer = await future
        except TimeoutError:
            raise DecodeTimeoutError(
                f"no answer within {limit:g} s; send fewer shots at once, or try again later", retry_after=1
            ) from None
        self.metrics.queued(model.settings.id, seconds=answer.queue_seconds)
        if (record := current_record()) is not None:
            record.decoded(shots=len(shots), queue_seconds=answer.queue_seconds, compute_seconds=answer.compute_seconds)
        return answer

    def _check_rounds(self, choice: ExperimentQuery) -> None:
        most = self.settings.max_rounds
        if choice.rounds is not None and choice.rounds > most:
            detail = f"rounds={choice.rounds} is more than the {most} that this service decodes"
            raise InvalidParametersError(detail, flaws=[Flaw(detail, parameter="rounds")])

    def _deliver(self, settle: Callable[[], None]) -> None:
        # One call for all that a batch answers: each wakes the loop's thread, which takes the interpreter's lock.
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop has ended, and with it all who waited
            self._loop.call_soon_threadsafe(settle)

    def _serve(self, model: Model) -> None:
        self.revision += 1
        # A new mapping, so that whoever goes through the old one is not disturbed.
        self.models = {**self.models, model.settings.id: model}
        self.metrics.add_model(model.settings.id, queued_shots=partial(getattr, model.worker, "queued_shots"))

    def _retire(self, model: Model | None) -> None:
        if model is not None:
            task = asyncio.create_task(model.retire())
            self._retiring.add(task)
            task.add_done_callback(self._retired)

    def _retired(self, task: asyncio.Task[None]) -> None:
        self._retiring.discard(task)
        self.revision += 1

    async def _load(self, on_load_error: Callable[[ModelLoadError], None] | None) -> None:
        for model_id, model in self.models.items():
            started = time.perf_counter()
            try:
                await model.load()
            except Exception as error:
                self.load_error = ModelLoadError(f"model {model_id} cannot be loaded: {error}")
                self.load_error.__cause__ = error
                logger.error("%s", self.load_error, exc_info=not isinstance(error, (ValueError, OSError)))
                if on_load_error is not None:
                    on_load_error(self.load_error)
                return
            logger.info("model %s is ready after %.1f s", model_id, time.perf_counter() - started)
        if not self.draining:
            self.metrics.ready(True)


def _awaitable(job: Future[DecodeResult]) -> asyncio.Future[DecodeResult]:
    """The future of a job that is settled in this loop's thread. `asyncio.wrap_future` is for other threads."""
    waiter: asyncio.Future[DecodeResult] = asyncio.get_running_loop().create_future()

    def settle(done: Future[DecodeResult]) -> None:
        if waiter.done() or done.cancelled():
            return
        error = done.exception()
        if error is None:
            waiter.set_result(done.result())
        else:
            waiter.set_exception(error)

    job.add_done_callback(settle)
    waiter.add_done_callback(lambda waiter: job.cancel() if waiter.cancelled() else None)
    return waiter
