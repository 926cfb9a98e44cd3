"""Models loaded, replaced and removed while the service runs, without a request noticing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from service.errors import ConflictError, ModelNotLoadedError, NotStoredError, RequestError
from service.models.engine import Engine
from service.models.model import Model, model_version
from service.models.model_file import ModelFile
from service.settings import ModelSettings

logger = logging.getLogger(__name__)

Change = Callable[[dict[str, ModelSettings]], object]

WATCH_SECONDS = 0.5
"""How often a file of models is looked at."""


class ModelChanges:
    """Changes the models of an engine one after the other, and keeps a file of models in step.

    A new model is loaded, and makes the decoders of the experiments in use, beside the one that it replaces, which
    answers meanwhile, so that for some time there is memory needed for both.

    Args:
        engine: whose models.
        file: is written after each change; and changes made to it, by other processes perhaps, are followed.
    """

    def __init__(self, engine: Engine, *, file: ModelFile | None) -> None:
        self._engine = engine
        self._file = file
        self._lock = asyncio.Lock()
        self._seen = file.version() if file is not None else ()

    async def put(self, settings: ModelSettings) -> Model:
        """Loads a model and serves it, in the place of the one with its id if there is any.

        Raises:
            ModelNotLoadedError: it cannot be loaded; what was served before still is.
            NotStoredError: the file cannot be written; what was served before still is.
            NotReadyError, ClosingError: the service is starting or ending.
        """
        async with self._lock:
            self._engine.check_ready()
            return await self._put(settings, store=lambda models: models.update({settings.id: settings}))

    async def remove(self, model_id: str) -> None:
        """Serves a model no longer.

        Raises:
            UnknownModelError: there is no such model.
            ConflictError: it is the last one.
            NotStoredError: the file cannot be written; the model is served as before.
        """
        last = ConflictError(f"{model_id} is the only model; put another one in place first")

        def pop(models: dict[str, ModelSettings]) -> None:
            if not models.keys() - {model_id}:  # other processes remove models, too
                raise last
            models.pop(model_id, None)

        async with self._lock:
            self._engine.model(model_id)
            if len(self._engine.models) == 1:
                raise last
            await self._store(pop)
            self._engine.remove(model_id)
            logger.info("model %s is removed", model_id)

    async def follow(self) -> None:
        """Follows the file until cancelled. A model that cannot be loaded is logged, and what was there stays."""
        while self._file is not None:
            await asyncio.sleep(WATCH_SECONDS)
            async with self._lock:
                version = self._file.version()
                if version and version != self._seen and all(model.ready for model in self._engine.models.values()):
                    self._seen = version
                    await self._follow(self._file)

    async def _follow(self, file: ModelFile) -> None:
        try:
            wanted = {model.id: model for model in file.read()}
        except (ValueError, OSError) as error:
            logger.error("the models stay as they are: %s", error)
            return
        for model_id, settings in wanted.items():
            served = self._engine.models.get(model_id)
            if served is None or served.version != model_version(settings):
                try:
                    await self._put(settings)
                except RequestError as error:
                    logger.error("%s", error)
        for model_id in self._engine.models.keys() - wanted.keys():
            self._engine.remove(model_id)
            logger.info("model %s is removed", model_id)

    async def _store(self, change: Change) -> None:
        """Writes a change to the file before it is made, as a change that is made cannot be refused any more."""
        if self._file is None:
            return
        try:
            await asyncio.to_thread(self._file.update, change)
        except (ValueError, OSError) as error:
            raise NotStoredError(f"the models stay as they are: {error}") from error

    async def _put(self, settings: ModelSettings, *, store: Change | None = None) -> Model:
        most = self._engine.settings.max_rounds
        if settings.rounds > most:
            raise ModelNotLoadedError(f"model {settings.id} has {settings.rounds} rounds and at most {most} are served")
        model = None
        try:
            model = await asyncio.to_thread(self._engine.new_model, settings)
            await model.load()
            if (old := self._engine.models.get(settings.id)) is not None:
                await model.warm_up(old.wanted)
            if store is not None:
                await self._store(store)
        except Exception as error:
            if model is not None:
                await model.close()
            if isinstance(error, RequestError):
                raise
            if not isinstance(error, (ValueError, OSError)):
                logger.exception("model %s cannot be loaded", settings.id)
            raise ModelNotLoadedError(f"model {settings.id} cannot be loaded: {error}") from error
        self._engine.replace(model)
        logger.info("model %s is put in place", settings.id)
        return model
