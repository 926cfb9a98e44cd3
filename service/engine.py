"""The models of the service: their experiments, their decoders, and the threads that run them.

Every wire format (JSON and b8 today) stands on `Engine.decode`; nothing here knows of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeVar

from decoder.base import Decoder, PackedBits, SoftDecoder
from decoder.registry import detectors_used, make_decoder
from service.batching import Answer, BatchWorker, decode_packed
from service.errors import (
    BusyError,
    ClosingError,
    DecodeTimeoutError,
    Flaw,
    InvalidParametersError,
    NotReadyError,
    UnknownModelError,
)
from service.isolation import ChildProcess
from service.metrics import Metrics
from service.record import current_record
from service.settings import ModelSettings, Settings
from simulation.circuits import MemoryExperiment
from simulation.codes import BivariateBicycleCode, parse_code
from simulation.detectors import Basis
from simulation.noise import NoiseModel
from simulation.sampling import sample

logger = logging.getLogger(__name__)

T = TypeVar("T")
DecoderFactory = Callable[[ModelSettings, MemoryExperiment], Decoder]

MAX_PENDING_BUILDS = 8
"""Circuits and decoders that may wait to be built; one more is refused."""
BUILD_RETRY_SECONDS = 5
EXPERIMENT_CACHE_SIZE = 64
WARM_UP_SHOTS = 4
CLASSICAL_BATCH_SHOTS = 64
"""Classical decoders take a batch shot by shot, so a larger one only makes others wait."""


class ModelLoadError(ValueError):
    """A model of the settings cannot be made: weights that are missing or do not fit, for instance."""


@dataclass(frozen=True)
class ExperimentChoice:
    """What a request says of its experiment; None takes the model's default."""

    basis: Basis | None = None
    rounds: int | None = None
    p: float | None = None


class Builder:
    """One thread that builds circuits and decoders beside the event loop; how many may wait is bounded."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="build")
        self._pending = 0

    async def run(self, build: Callable[[], T]) -> T:
        """Raises:
        BusyError: too many builds wait.
        """
        if self._pending >= MAX_PENDING_BUILDS:
            raise BusyError(
                f"{self._pending} other experiments are being prepared; try again later",
                retry_after=BUILD_RETRY_SECONDS,
            )
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, build)
        finally:
            self._pending -= 1

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


class DecoderCache:
    """Decoders by experiment, the least recently used dropped first. However many ask, each is built once.

    Belongs to one event loop.

    Args:
        build: makes a decoder; runs in the builder's thread.
        builder: the thread.
        size: decoders kept besides the first one asked for, which is never dropped.
    """

    def __init__(self, build: Callable[[MemoryExperiment], Decoder], *, builder: Builder, size: int) -> None:
        self._build = build
        self._builder = builder
        self._size = size
        self._first: MemoryExperiment | None = None
        self._tasks: OrderedDict[MemoryExperiment, asyncio.Task[Decoder]] = OrderedDict()

    async def get(self, experiment: MemoryExperiment) -> Decoder:
        task = self._tasks.get(experiment)
        if task is None:
            task = asyncio.create_task(self._builder.run(partial(self._build, experiment)))
            self._tasks[experiment] = task
            task.add_done_callback(lambda task: self._built(experiment, task))
        self._tasks.move_to_end(experiment)
        # A client that leaves does not stop a build that others may wait for.
        return await asyncio.shield(task)

    def _built(self, experiment: MemoryExperiment, task: asyncio.Task[Decoder]) -> None:
        if task.cancelled() or task.exception() is not None:
            del self._tasks[experiment]  # the next request tries again
            return
        self._first = self._first or experiment
        done = [key for key, task in self._tasks.items() if task.done() and key != self._first]
        for key in done[: max(0, len(done) - self._size)]:
            del self._tasks[key]


class Model:
    """One served model: a code and a decoder, a default experiment, a queue with its thread.

    Raises:
        ValueError: the settings name an unknown code, decoder or noise.
    """

    def __init__(
        self,
        model: ModelSettings,
        settings: Settings,
        *,
        metrics: Metrics,
        builder: Builder,
        make: DecoderFactory,
    ) -> None:
        self.settings = model
        self.code: BivariateBicycleCode = parse_code(model.code)
        self.detectors = detectors_used(model.decoder)
        self.ready = False
        self.gives_confidence: bool | None = None
        self.details: Mapping[str, object] = {}
        self._make = make
        self._experiment = lru_cache(EXPERIMENT_CACHE_SIZE)(self._make_experiment)
        self.default = self._experiment(model.basis, model.rounds, model.p)
        _ = self.default.circuit  # made now, so that the list of models need not wait for it
        self.decoders = DecoderCache(self._build, builder=builder, size=settings.decoder_cache_size)
        self.worker = BatchWorker(
            name=model.id,
            max_batch_shots=_max_batch_shots(model, settings),
            max_queued_shots=settings.max_queued_shots,
            on_batch=partial(metrics.batch, model.id),
        )

    def experiment(self, choice: ExperimentChoice) -> MemoryExperiment:
        """The experiment that a request means.

        Raises:
            InvalidParametersError: there is none such.
        """
        default = self.settings
        try:
            return self._experiment(
                choice.basis or default.basis, choice.rounds or default.rounds, choice.p or default.p
            )
        except ValueError as error:
            raise InvalidParametersError(str(error)) from error

    def decoder_experiment(self, choice: ExperimentChoice) -> MemoryExperiment:
        """The experiment to make a decoder for: the network knows no p, so requests for any p share one."""
        if self.settings.decoder == "neural":
            choice = ExperimentChoice(basis=choice.basis, rounds=choice.rounds)
        return self.experiment(choice)

    def loaded(self, decoder: Decoder) -> None:
        """Takes note of the default experiment's decoder: the model is ready."""
        self.gives_confidence = isinstance(decoder, SoftDecoder)
        self.details = getattr(decoder, "model_info", {})
        self.ready = True

    def _make_experiment(self, basis: Basis, rounds: int, p: float) -> MemoryExperiment:
        return MemoryExperiment(
            code=self.code, basis=basis, rounds=rounds, noise=NoiseModel.parse(self.settings.noise, p)
        )

    def _build(self, experiment: MemoryExperiment) -> Decoder:
        """Makes a decoder and lets it decode once, so that no client pays for what first calls set up."""
        decoder = self._make(self.settings, experiment)
        shots = sample(experiment.circuit, shots=WARM_UP_SHOTS, seed=0).detection_events
        decode_packed(decoder, shots)
        return decoder


def _max_batch_shots(model: ModelSettings, settings: Settings) -> int:
    default = settings.max_batch_shots if model.decoder == "neural" else CLASSICAL_BATCH_SHOTS
    return model.max_batch_shots or min(default, settings.max_batch_shots)


class Engine:
    """All models. `start` and `close` belong to the application's lifespan.

    Args:
        settings: which models, and all bounds.
        metrics: counts what happens.
        make: makes decoders, given a model's settings and an experiment; by default `decoder.registry`.

    Raises:
        ValueError: a model's settings name an unknown code, decoder or noise.
    """

    def __init__(self, settings: Settings, *, metrics: Metrics, make: DecoderFactory | None = None) -> None:
        self.settings = settings
        self.metrics = metrics
        self._children: dict[str, ChildProcess] = {}
        self._builder = Builder()
        self._closing = False
        self.draining = False
        self._loading: asyncio.Task[None] | None = None
        self.load_error: ModelLoadError | None = None
        self.models = {
            model.id: Model(model, settings, metrics=metrics, builder=self._builder, make=make or self._make_decoder)
            for model in settings.models
        }
        for model_id, model in self.models.items():
            metrics.add_model(model_id, queued_shots=partial(getattr, model.worker, "queued_shots"))

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

    def start(self, *, on_load_error: Callable[[ModelLoadError], None] | None = None) -> None:
        """Starts the threads and begins to load every model. Returns at once: see `check_ready`.

        Args:
            on_load_error: is told when a model cannot be loaded; the engine will then never be ready.
        """
        for model in self.models.values():
            model.worker.start()
        self._loading = asyncio.create_task(self._load(on_load_error))

    def drain(self) -> None:
        """Is not ready any more, so that no new work is sent here, but does what comes nevertheless."""
        self.draining = True

    async def close(self) -> None:
        """Refuses new work, finishes what is queued, and stops the threads."""
        self._closing = True
        if self._loading is not None:
            self._loading.cancel()
        await asyncio.gather(*(asyncio.to_thread(model.worker.close) for model in self.models.values()))
        self._builder.close()
        for child in self._children.values():
            child.close()

    def model(self, model_id: str) -> Model:
        """Raises:
        UnknownModelError: no model has this id.
        """
        try:
            return self.models[model_id]
        except KeyError:
            known = ", ".join(sorted(self.models))
            raise UnknownModelError(f"there is no model {model_id!r}; this service has {known}") from None

    def experiment(self, model: Model, choice: ExperimentChoice) -> MemoryExperiment:
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

    async def decoder(self, model: Model, choice: ExperimentChoice) -> Decoder:
        """The decoder for an experiment, made if need be.

        Raises:
            InvalidParametersError: no such experiment, or not for this decoder.
            BusyError: too many decoders are being made.
            NotReadyError, ClosingError: the model is not loaded yet, or no longer.
        """
        if self._closing:
            raise ClosingError("the service is shutting down; send the shots to another instance")
        if not model.ready:
            raise NotReadyError(f"model {model.settings.id} is being loaded; wait for /readyz", retry_after=1)
        self._check_rounds(choice)
        try:
            return await model.decoders.get(model.decoder_experiment(choice))
        except ValueError as error:
            raise InvalidParametersError(str(error)) from error

    async def decode(self, model: Model, decoder: Decoder, shots: PackedBits) -> Answer:
        """Queues shots and waits for their turn. Cancelling takes them out of the queue.

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
        future = asyncio.wrap_future(model.worker.submit(decoder, shots))
        limit = self.settings.decode_timeout_seconds
        try:
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

    def _check_rounds(self, choice: ExperimentChoice) -> None:
        most = self.settings.max_rounds
        if choice.rounds is not None and choice.rounds > most:
            detail = f"rounds={choice.rounds} is more than the {most} that this service decodes"
            raise InvalidParametersError(detail, flaws=[Flaw(detail, parameter="rounds")])

    def _make_decoder(self, model: ModelSettings, experiment: MemoryExperiment) -> Decoder:
        if not model.isolated:
            return make_decoder(model.decoder, experiment, weights=model.weights)
        child = self._children.setdefault(model.id, ChildProcess(size=self.settings.decoder_cache_size + 1))
        return child.decoder(model.decoder, experiment, weights=model.weights)

    async def _load(self, on_load_error: Callable[[ModelLoadError], None] | None) -> None:
        for model_id, model in self.models.items():
            started = time.perf_counter()
            try:
                decoder = await model.decoders.get(model.default)
            except Exception as error:
                self.load_error = ModelLoadError(f"model {model_id} cannot be loaded: {error}")
                self.load_error.__cause__ = error
                logger.error("%s", self.load_error, exc_info=not isinstance(error, (ValueError, OSError)))
                if on_load_error is not None:
                    on_load_error(self.load_error)
                return
            model.loaded(decoder)
            logger.info("model %s is ready after %.1f s", model_id, time.perf_counter() - started)
