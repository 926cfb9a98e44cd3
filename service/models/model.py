"""One model of the service: its experiments, its decoders, and the threads and processes that run them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from copy import copy
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from decoder.base import Decoder, Reweighting, SoftBatchDecoder, SoftDecoder
from decoder.catalog import decoder_spec
from decoder.making import NamedDecoder
from decoder.processes import ChildEndedError, ChildProcess
from decoder.tandem.pairs import THRESHOLD
from decoder.windows.decoder import WindowByWindow
from service.errors import (
    ClosingError,
    DecodeTimeoutError,
    InvalidParametersError,
    NotReadyError,
    RequestError,
    UnknownExperimentError,
)
from service.models.batching import BatchWorker, decode_some, kept_with
from service.models.building import Builder, DecoderCache, in_time
from service.models.experiments import SAMPLES, ExperimentStore, kept_of
from service.models.memory import Room, taken
from service.models.second_opinions import SecondOpinions
from service.models.windows import InWindows
from service.settings import ModelSettings, Settings
from service.telemetry.metrics import Metrics
from service.wire.schemas import AnyExperimentQuery, ExperimentQuery
from simulation.bases import Basis
from simulation.bits import PackedBits, pack_bits
from simulation.circuits import MemoryExperiment
from simulation.codes import BivariateBicycleCode, parse_code
from simulation.experiments import Experiment
from simulation.files import file_version
from simulation.foreign.kept import KeptExperiment
from simulation.noise import NoiseModel
from simulation.shots.sampling import sample

DecoderFactory = Callable[[ModelSettings, Experiment], Decoder]

EXPERIMENT_CACHE_SIZE = 64
WARM_UP_SHOTS = 4
BUILD_PATIENCE_SECONDS = 300.0
"""With a child that makes a decoder, which may compile functions first."""
SHED_FROM_BYTES = 64 * 2**20
"""Less than that is not worth a new child."""
USUAL_CHILD_BYTES = 2**28
"""Of a child with one decoder, where it was not measured."""
SHED_SECONDS = 10.0
"""How long the event loop may take to drop decoders."""
CLASSICAL_BATCH_SHOTS = 64
"""Classical decoders take a batch shot by shot, so a larger one only makes others wait."""


class Model:
    """One served model: a code and a decoder, a default experiment, a queue with its thread.

    Args:
        settings: the model's own.
        bounds: the service's settings.
        metrics: counts the batches.
        room: the memory that decoders may take.
        experiments: those that clients have sent.
        make: makes decoders in place of `decoder.making`.

    Raises:
        ValueError: the settings name an unknown code, decoder or noise.
    """

    def __init__(
        self,
        settings: ModelSettings,
        bounds: Settings,
        *,
        metrics: Metrics,
        room: Room,
        experiments: ExperimentStore,
        make: DecoderFactory | None = None,
    ) -> None:
        self.id = settings.id
        self.settings = settings
        self.bounds = bounds
        self.metrics = metrics
        self.version = model_version(settings)
        self.code: BivariateBicycleCode = parse_code(settings.code)
        self.detectors = decoder_spec(settings.decoder).detectors
        self.device = settings.device or (bounds.device if settings.network else "cpu")
        self.ready = False
        self.gives_confidence: bool | None = None
        self.gives_errors: bool | None = None
        self.details: Mapping[str, object] = {}
        self.second: SecondOpinions | None = None
        """The second decoder of a pair, once the model is ready; None for models that are no pairs."""
        self._has_network = settings.network
        self._closing = False
        self._room = room
        self._sent = experiments
        self._child = ChildProcess(
            size=bounds.decoder_cache_size + 1,
            patience_seconds=bounds.child_patience_seconds,
            attempts=2,
            max_bytes=room.most_bytes,
        )
        self._child_bytes: dict[ChildProcess, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.circuits = Builder(seconds=bounds.build_timeout_seconds)
        """Makes circuits, samples shots and the like; never waits for a decoder."""
        self._make = make or self._make_decoder
        self._leases = 0
        self._unused = asyncio.Event()
        self._unused.set()
        self._experiment = lru_cache(EXPERIMENT_CACHE_SIZE)(self._make_experiment)
        self.default = self._experiment(settings.basis, settings.rounds, settings.p)
        _ = self.default.circuit  # made now, so that the list of models need not wait for it
        self._decoders: DecoderCache[Experiment | InWindows] = DecoderCache(
            self._build, Builder(seconds=bounds.build_timeout_seconds), size=bounds.decoder_cache_size
        )
        most = bounds.max_batch_shots if settings.network else min(CLASSICAL_BATCH_SHOTS, bounds.max_batch_shots)
        self._max_batch_shots = settings.max_batch_shots or most
        self.worker = BatchWorker(
            name=self.id,
            max_batch_shots=self._max_batch_shots,
            max_queued_shots=bounds.max_queued_shots,
            on_batch=partial(metrics.batch, self.id),
        )

    def check_ready(self) -> None:
        """Checks that shots can be decoded.

        Raises:
            NotReadyError: the model is still being loaded, or cannot be.
            ClosingError: the service is shutting down.
        """
        if self._closing:
            raise ClosingError("the service is shutting down; send the shots to another instance")
        if not self.ready:
            raise NotReadyError(f"model {self.id} is being loaded; wait for /readyz", retry_after=1)

    def experiment(self, query: ExperimentQuery, *, most_rounds: int | None = None) -> MemoryExperiment:
        """The experiment that a request asks for; what it leaves out is that of the default.

        Args:
            query: what is asked for.
            most_rounds: that it may have; None for those that are decoded as a whole.

        Raises:
            InvalidParametersError: too many rounds, or values that the model's noise does not allow.
        """
        default, most = self.settings, most_rounds or self.bounds.max_rounds
        if query.rounds is not None and query.rounds > most:
            detail = f"rounds={query.rounds} is more than the {most} that this service decodes"
            raise InvalidParametersError.of(detail, parameter="rounds")
        try:
            return self._experiment(query.basis or default.basis, query.rounds or default.rounds, query.p or default.p)
        except ValueError as error:
            raise InvalidParametersError(str(error)) from error

    def any_experiment(
        self, query: AnyExperimentQuery, *, most_rounds: int | None = None
    ) -> MemoryExperiment | KeptExperiment:
        """The same, or the experiment that the client has sent.

        Raises:
            InvalidParametersError: see `experiment`, or it is named beside one that was sent.
            UnknownExperimentError: the client's key has sent none of this id.
        """
        if query.experiment is None:
            return self.experiment(query, most_rounds=most_rounds)
        if (query.basis, query.rounds, query.p) != (None, None, None):
            detail = "experiment says all that basis, rounds and p would say; leave these out"
            raise InvalidParametersError.of(detail, parameter="experiment")
        return self._sent.find(query.experiment).experiment

    async def decoder(self, wanted: MemoryExperiment | KeptExperiment | InWindows) -> Decoder:
        """The decoder for an experiment, made if need be. In windows it is a `WindowByWindow`.

        Raises:
            InvalidParametersError: this decoder cannot take such an experiment.
            UnknownExperimentError: the experiment was sent, and has been deleted.
            BusyError: too many decoders are being made, or there is no memory for another one.
            DecodeTimeoutError: it is not made in time.
        """
        experiment = wanted.experiment if isinstance(wanted, InWindows) else wanted
        if self._has_network and isinstance(experiment, KeptExperiment):
            self._require_own(experiment)
        try:
            return await self._decoders.get(wanted, seconds=self.bounds.build_timeout_seconds)
        except ValueError as error:
            raise InvalidParametersError(str(error)) from error
        except (MemoryError, ChildEndedError) as error:
            detail = f"a decoder of model {self.id} for this experiment takes more memory than it may have"
            raise InvalidParametersError(f"{detail}; take fewer rounds") from error
        except FileNotFoundError:
            if isinstance(experiment, KeptExperiment):
                raise UnknownExperimentError(f"experiment {experiment.sha256} was deleted; send it again") from None
            raise

    async def samples(self, experiment: Experiment) -> PackedBits:
        """A few shots of an experiment, bit-packed (shots, bytes).

        Raises:
            BusyError, DecodeTimeoutError: see `Builder.run`.
            UnknownExperimentError: it was sent, and has been deleted.
        """
        if isinstance(experiment, KeptExperiment):
            return kept_of(experiment).samples
        drawn = partial(sample, shots=SAMPLES, seed=1)
        return await self.circuits.run(lambda: drawn(copy(experiment).source).detection_events)

    async def priors(self, decoder: Decoder) -> npt.NDArray[np.float64]:
        """The probabilities of the errors (errors,) of a decoder that takes others.

        Raises:
            BusyError, DecodeTimeoutError: see `Builder.run`.
        """
        known: dict[str, npt.NDArray[np.float64]] = kept_with(decoder, "priors", dict)
        if "priors" not in known:
            reweighting: Reweighting = decoder.reweighting  # type: ignore[attr-defined]
            known["priors"] = await self._decoders.builder.run(lambda: reweighting.priors)
        return known["priors"]

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Keeps the model open for as long as the `with` block lasts, even if it is replaced meanwhile."""
        self._leases += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._leases -= 1
            if not self._leases:
                self._unused.set()

    async def load(self) -> None:
        """Starts the thread and makes the default experiment's decoder: then the model is ready.

        Raises:
            ValueError, OSError: it cannot be made, for want of its weights perhaps.
        """
        self._loop = asyncio.get_running_loop()
        self.worker.start()
        decoder = await self._decoders.get(self.default, seconds=None)
        self._child_bytes = {child: taken([child.pid]) for child in self._children if child.pid is not None}
        self.gives_confidence = isinstance(decoder, SoftDecoder)
        self.gives_errors = getattr(decoder, "num_errors", None) is not None
        self.details = getattr(decoder, "model_info", {})
        second = decoder_spec(self.settings.decoder).second
        if second is not None:
            threshold = THRESHOLD if self.settings.threshold is None else self.settings.threshold
            self.second = SecondOpinions(
                self.settings, second=second, threshold=threshold, metrics=self.metrics.opinions
            )
            self.second.warm_up(self.default)
        self.ready = True

    @property
    def wanted(self) -> list[Experiment | InWindows]:
        """Those experiments that decoders are kept for, the one used last at the end."""
        return self._decoders.used()

    async def warm_up(self, wanted: Iterable[Experiment | InWindows]) -> None:
        """Makes decoders for the experiments of a model that this one is to replace; some may be impossible here.

        They may be of another code or noise: what counts is their bases, rounds and physical error rates. Those that
        clients have sent are as they are. What is not made within the time of one is left to the requests that want it.
        """
        with suppress(DecodeTimeoutError):
            async with in_time(self.bounds.build_timeout_seconds):
                for other in reversed(list(wanted)):
                    with suppress(RequestError, ValueError):
                        if isinstance(other, MemoryExperiment):
                            await self.decoder(self._experiment(other.basis, other.rounds, other.noise.p))
                        elif isinstance(other, KeptExperiment):
                            await self.decoder(other)

    async def retire(self) -> None:
        """Waits until no request uses the model, and closes it."""
        await self._unused.wait()
        await self.close()

    async def close(self) -> None:
        """Refuses new work, finishes what is queued, and stops the thread and the child process."""
        self._closing = True
        for builder in (self.circuits, self._decoders.builder):
            builder.close()
        await asyncio.to_thread(self.worker.close)
        await asyncio.to_thread(self._child.close, for_good=True)
        self._decoders.clear()
        if self.second is not None:
            await asyncio.to_thread(self.second.close)

    def _require_own(self, experiment: KeptExperiment) -> None:
        """Refuses an experiment that was sent and that a network does not know as one of its code but for names."""
        facts = kept_of(experiment).record.inspection
        found = next(one for one in facts.decoders if one.decoder == self.settings.decoder)
        if not found.applies or facts.code is None or parse_code(facts.code) != self.code:
            why = f"it is one of {facts.code}, and the network that of {self.code}" if found.applies else found.why
            raise InvalidParametersError.of(f"model {self.id} cannot decode it: {why}", parameter="experiment")

    def _make_experiment(self, basis: Basis, rounds: int, p: float) -> MemoryExperiment:
        return MemoryExperiment(
            code=self.code, basis=basis, rounds=rounds, noise=NoiseModel.parse(self.settings.noise, p)
        )

    def _make_decoder(self, settings: ModelSettings, experiment: Experiment) -> Decoder:
        # Of a pair the network alone: the second decoder has processes of its own.
        name = "neural" if settings.network else settings.decoder
        make = NamedDecoder(name, weights=settings.weights, device=self.device, seconds=self.bounds.max_shot_seconds)
        return self._child.decoder(make, experiment) if settings.isolated else make(experiment)

    def shed(self) -> None:
        """Gives back the memory of all decoders but those that were there at first; others are made again if need be.

        Not in the event loop's thread.
        """
        dropped: Future[int] = Future()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(lambda: dropped.set_result(self._decoders.drop()))
            dropped.result(SHED_SECONDS)
        if self.excess:
            for child in self._children:
                child.close()  # what it is at is done again by the next one

    @property
    def excess(self) -> int:
        """Bytes that the children take beyond those that they took when the model was loaded."""
        beyond = (taken([child.pid or 0]) - self._child_bytes.get(child, USUAL_CHILD_BYTES) for child in self._children)
        return sum(bytes_ for bytes_ in beyond if bytes_ > SHED_FROM_BYTES)

    @property
    def _children(self) -> tuple[ChildProcess, ...]:
        return (self._child, *(() if self.second is None else self.second.pool.children))

    def _build(self, wanted: Experiment | InWindows) -> Decoder:
        """Makes a decoder and lets it decode, so that no client pays for what first calls set up."""
        if isinstance(wanted, InWindows):
            return self._build_in_windows(wanted)
        experiment = copy(wanted)  # which keeps its circuit and matrices no longer than the decoder does
        with self._room.take() if self.ready else nullcontext(), self._child.patient(BUILD_PATIENCE_SECONDS):
            decoder = self._make(self.settings, experiment)
            if isinstance(experiment, KeptExperiment):  # what it means is known in the child alone
                shots = kept_of(experiment).samples[:WARM_UP_SHOTS]
                hard = shots[[np.argmax(np.bitwise_count(shots).sum(axis=1))]]
                decode_some(decoder, shots)
            else:
                for count in self._warm_up_batches():
                    decode_some(decoder, sample(experiment.source, shots=count, seed=0).detection_events)
                # Noise needs the most iterations that there are.
                hard = pack_bits(np.random.default_rng(0).random((1, decoder.num_detectors)) < 0.5)
            if isinstance(decoder, SoftBatchDecoder):
                self.worker.expect(decoder, seconds=_seconds_of(decoder, hard))
            return decoder

    def _build_in_windows(self, wanted: InWindows) -> Decoder:
        """The same of a decoder that is asked window by window."""
        settings = self.settings.model_copy(update={"decoder": wanted.decoder})
        with self._room.take(), self._child.patient(BUILD_PATIENCE_SECONDS):
            decoder = self._make(settings, copy(wanted.experiment))
            if not isinstance(decoder, WindowByWindow):
                raise ValueError(f"the decoder {wanted.decoder} cannot be asked window by window")
            decoder.prepare()
            return decoder

    def _warm_up_batches(self) -> Iterable[int]:
        """Shots in each: on a GPU every power of two that batches are filled up to, as each has its own graph."""
        if self.device == "cpu":
            return (WARM_UP_SHOTS,)
        return (1 << power for power in range((self._max_batch_shots - 1).bit_length() + 1))


def _seconds_of(decoder: Decoder, shot: PackedBits) -> float:
    """How long a decoder takes for a shot."""
    began = time.perf_counter()
    decode_some(decoder, shot)
    return time.perf_counter() - began


def model_version(model: ModelSettings) -> tuple[object, ...]:
    """Changes when the settings of a model change, or its weights file does."""
    try:
        return model, None if model.weights is None else file_version(model.weights)
    except OSError:
        return model, None
