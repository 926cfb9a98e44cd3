"""One model of the service: its experiments, its decoders, and the threads and processes that run them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial

from decoder.base import Decoder, SoftDecoder
from decoder.catalog import detectors_used
from decoder.making import NamedDecoder
from decoder.processes import ChildProcess
from decoder.tandem.pairs import tuned_threshold
from service.errors import (
    Flaw,
    InvalidParametersError,
)
from service.models.batching import BatchWorker, Deliver, decode_packed
from service.models.building import Builder, DecoderCache
from service.models.second_opinions import SecondOpinions, second_of
from service.settings import ModelSettings, Settings
from service.telemetry.metrics import Metrics
from service.wire.schemas import ExperimentQuery
from simulation.bases import Basis
from simulation.circuits import MemoryExperiment
from simulation.codes import BivariateBicycleCode, parse_code
from simulation.noise import NoiseModel
from simulation.sampling import sample

DecoderFactory = Callable[[ModelSettings, MemoryExperiment], Decoder]

EXPERIMENT_CACHE_SIZE = 64
WARM_UP_SHOTS = 4
CLASSICAL_BATCH_SHOTS = 64
"""Classical decoders take a batch shot by shot, so a larger one only makes others wait."""


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
        deliver: Deliver,
        make: DecoderFactory | None = None,
    ) -> None:
        self.settings = model
        self.version = model_version(model)
        self.code: BivariateBicycleCode = parse_code(model.code)
        self.detectors = detectors_used(model.decoder)
        self.device = model.device or (settings.device if model.network else "cpu")
        self.ready = False
        self.gives_confidence: bool | None = None
        self.details: Mapping[str, object] = {}
        self.second: SecondOpinions | None = None
        """Of a pair that is ready."""
        self._metrics = metrics
        self._child = ChildProcess(size=settings.decoder_cache_size + 1)
        self._make = make or self._make_decoder
        self._leases = 0
        self._unused = asyncio.Event()
        self._unused.set()
        self._experiment = lru_cache(EXPERIMENT_CACHE_SIZE)(self._make_experiment)
        self.default = self._experiment(model.basis, model.rounds, model.p)
        _ = self.default.circuit  # made now, so that the list of models need not wait for it
        self.decoders = DecoderCache(self._build, builder=builder, size=settings.decoder_cache_size)
        self.max_batch_shots = _max_batch_shots(model, settings)
        self.worker = BatchWorker(
            name=model.id,
            max_batch_shots=self.max_batch_shots,
            max_queued_shots=settings.max_queued_shots,
            on_batch=partial(metrics.batch, model.id),
            deliver=deliver,
        )

    def experiment(self, choice: ExperimentQuery) -> MemoryExperiment:
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

    def decoder_experiment(self, choice: ExperimentQuery) -> MemoryExperiment:
        """The experiment to make a decoder for: the network knows no p, so requests for any p share one."""
        if self.settings.network:
            choice = ExperimentQuery(basis=choice.basis, rounds=choice.rounds)
        return self.experiment(choice)

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Keeps the model's thread and decoders while a request uses it, even if it is replaced meanwhile."""
        self._leases += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._leases -= 1
            if not self._leases:
                self._unused.set()

    async def load(self) -> None:
        """Makes the default experiment's decoder: then the model is ready.

        Raises:
            ValueError, OSError: it cannot be made, for want of its weights perhaps.
        """
        decoder = await self.decoders.get(self.default)
        self.gives_confidence = isinstance(decoder, SoftDecoder)
        self.details = getattr(decoder, "model_info", {})
        second = second_of(self.settings.decoder)
        if second is not None:
            threshold = self.settings.threshold
            if threshold is None:
                threshold = tuned_threshold(self.details, second)
            self.second = SecondOpinions(self.settings, threshold=threshold, metrics=self._metrics)
            self.second.warm_up(self.default)
        self.ready = True

    async def retire(self) -> None:
        """Waits until no request uses the model, and closes it."""
        await self._unused.wait()
        await self.close()

    async def close(self) -> None:
        """Refuses new work, finishes what is queued, and stops the thread and the child process."""
        await asyncio.to_thread(self.worker.close)
        self._child.close()
        if self.second is not None:
            await asyncio.to_thread(self.second.close)

    def _make_experiment(self, basis: Basis, rounds: int, p: float) -> MemoryExperiment:
        return MemoryExperiment(
            code=self.code, basis=basis, rounds=rounds, noise=NoiseModel.parse(self.settings.noise, p)
        )

    def _make_decoder(self, model: ModelSettings, experiment: MemoryExperiment) -> Decoder:
        # Of a pair the network alone: the second decoder has processes of its own.
        name = "neural" if model.network else model.decoder
        make = NamedDecoder(name, weights=model.weights, device=self.device)
        return self._child.decoder(make, experiment) if model.isolated else make(experiment)

    def _build(self, experiment: MemoryExperiment) -> Decoder:
        """Makes a decoder and lets it decode, so that no client pays for what first calls set up."""
        decoder = self._make(self.settings, experiment)
        for shots in self._warm_up_batches():
            decode_packed(decoder, sample(experiment.circuit, shots=shots, seed=0).detection_events)
        return decoder

    def _warm_up_batches(self) -> Iterable[int]:
        """Shots in each: on a GPU every power of two that batches are filled up to, as each has its own graph."""
        if self.device == "cpu":
            return (WARM_UP_SHOTS,)
        return (1 << power for power in range((self.max_batch_shots - 1).bit_length() + 1))


def model_version(model: ModelSettings) -> tuple[object, ...]:
    """Changes when the settings of a model change, or its weights file does."""
    try:
        status = model.weights.stat() if model.weights is not None else None
    except OSError:
        status = None
    return model, status and (status.st_mtime_ns, status.st_size, status.st_ino)


def _max_batch_shots(model: ModelSettings, settings: Settings) -> int:
    default = settings.max_batch_shots if model.network else CLASSICAL_BATCH_SHOTS
    return model.max_batch_shots or min(default, settings.max_batch_shots)


def no_pair(model_id: str, name: str) -> InvalidParametersError:
    """A parameter of pairs in a request for another model."""
    detail = f"{name} belongs to pairs, and model {model_id} is none; leave it out"
    return InvalidParametersError(detail, flaws=[Flaw(detail, parameter=name)])
