"""All models of the service: which there are, whether they are ready, and how they come and go."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from decoder.scheduling import take_short_slices
from service.background import Background
from service.errors import ClosingError, NotReadyError, UnknownModelError
from service.models.experiments import ExperimentStore
from service.models.memory import Room, memory_limit
from service.models.model import DecoderFactory, Model
from service.settings import ModelSettings, Settings
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)


class ModelLoadError(ValueError):
    """A model of the settings cannot be made: weights that are missing or do not fit, for instance."""


class Engine:
    """All models of the service. The application's lifespan calls `start` and `close`.

    Args:
        settings: which models, and all bounds.
        metrics: counts what happens.
        make: makes decoders, given a model's settings and an experiment; by default `decoder.making`.

    Raises:
        ValueError: a model's settings name an unknown code, decoder or noise.
    """

    def __init__(self, settings: Settings, *, metrics: Metrics, make: DecoderFactory | None = None) -> None:
        self.settings = settings
        self.metrics = metrics
        self.background = Background()
        """Work beside the requests; the application's lifespan starts it."""
        self.draining = threading.Event()
        """Set once `drain` has been called."""
        self.awaits_others = False
        """Whether other worker processes are still loading their models, and this one is to be ready with them."""
        self.load_error: ModelLoadError | None = None
        self.models: Mapping[str, Model] = {}
        self._make = make
        self._room = Room(settings.memory_limit_bytes or memory_limit(), lambda: self.models.values())
        self.experiments = ExperimentStore(settings, self._room)
        """Circuits and error models that clients have sent."""
        self._closing = False
        self._loading: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        for model in settings.models:
            self._serve(self.new_model(model))

    def check_ready(self) -> None:
        """Checks that every model is loaded.

        Raises:
            NotReadyError: a model is still being loaded, or cannot be, or background work dies again and again.
            ClosingError: the service is shutting down.
        """
        if self._closing or self.draining.is_set():
            raise ClosingError("the service is shutting down")
        if self.load_error is not None:
            raise NotReadyError(f"{self.load_error}; restart the service when that is put right")
        if (dying := self.background.dying) is not None:
            raise NotReadyError(f"{dying} dies again and again; see the log")
        missing = [model_id for model_id, model in self.models.items() if not model.ready]
        if missing:
            raise NotReadyError(f"being loaded: {', '.join(missing)}; ask again", retry_after=1)
        if self.awaits_others:
            raise NotReadyError("other workers are still loading their models; ask again", retry_after=1)

    def start(self, *, on_load_error: Callable[[ModelLoadError], None] | None = None) -> None:
        """Begins to load every model. Returns at once: see `check_ready`.

        Args:
            on_load_error: is called when a model cannot be loaded; the engine will then never be ready.
        """
        take_short_slices()  # holds for this thread and those that it starts from here on
        self._loading = asyncio.create_task(self._load(on_load_error))

    async def wait_until_loaded(self) -> None:
        """Returns when every model is loaded, or one cannot be."""
        if self._loading is not None:
            await asyncio.shield(self._loading)

    @property
    def loaded(self) -> bool:
        return all(model.ready for model in self.models.values())

    def drain(self) -> None:
        """Stops being ready, so that load balancers send no new work here; what comes nevertheless is done."""
        self.draining.set()
        self.metrics.ready.set(0)

    async def close(self) -> None:
        """Refuses new work, finishes what is queued, and stops the threads."""
        self._closing = True
        if self._loading is not None:
            self._loading.cancel()
        await asyncio.gather(*(model.close() for model in self.models.values()), *self._retiring)
        await asyncio.to_thread(self.experiments.close)

    def model(self, model_id: str) -> Model:
        """The model with an id. Whoever awaits anything while using it holds a `Model.lease`.

        Raises:
            UnknownModelError: no model has this id.
        """
        try:
            return self.models[model_id]
        except KeyError:
            known = ", ".join(sorted(self.models))
            raise UnknownModelError(f"there is no model {model_id[:80]!r}; this service has {known}") from None

    def new_model(self, model: ModelSettings) -> Model:
        """A model that is neither loaded nor served yet.

        Raises:
            ValueError: the settings name an unknown code, decoder or noise.
        """
        return Model(
            model,
            self.settings,
            metrics=self.metrics,
            room=self._room,
            experiments=self.experiments,
            make=self._make,
        )

    def replace(self, model: Model) -> None:
        """Serves a model that is loaded from now on. Requests at work on one of the same id end there."""
        old = self.models.get(model.id)
        self._serve(model)
        if old is not None:
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

    def _serve(self, model: Model) -> None:
        # A new mapping, as the old one may be being iterated over.
        self.models = {**self.models, model.id: model}
        self.metrics.add_model(model.id, queued_shots=partial(getattr, model.worker, "queued_shots"))

    def _retire(self, model: Model) -> None:
        task = asyncio.create_task(model.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

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
        if not self.draining.is_set():
            self.metrics.ready.set(1)
