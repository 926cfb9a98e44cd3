"""What the calls of GRPCInferenceService answer, each under its name in the protocol."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from service.errors import ClosingError, NotReadyError, UnknownVersionError
from service.http.bounds import Gate
from service.models.engine import Engine
from service.models.model import Model
from service.oip import monitoring, routes, schemas
from service.oip.inference import infer
from service.rpc.tensors import read_request, write_response


class Answers:
    """A method for each call: it takes the request, and gives the answer as a message, or as what is written as one.

    Args:
        app: as `service.app.create_app` makes it.
    """

    def __init__(self, app: FastAPI) -> None:
        self._version = app.version
        self._engine: Engine = app.state.engine
        self._gate: Gate = app.state.gate

    async def ServerLive(self, request: Any) -> Any:
        return {"live": True}

    async def ServerReady(self, request: Any) -> Any:
        try:
            self._engine.check_ready()
        except (NotReadyError, ClosingError):
            return {"ready": False}
        return {"ready": True}

    async def ServerMetadata(self, request: Any) -> Any:
        return schemas.ServerMetadata(name="tandem", version=self._version, extensions=routes.EXTENSIONS)

    async def ModelReady(self, request: Any) -> Any:
        try:
            self._model(request.name, request.version).check_ready()
        except (NotReadyError, ClosingError):
            return {"ready": False}
        return {"ready": True}

    async def ModelMetadata(self, request: Any) -> Any:
        return await routes.get_model_metadata(self._model(request.name, request.version))

    async def ModelConfig(self, request: Any) -> Any:
        return {"config": await monitoring.get_config(self._model(request.name, request.version))}

    async def ModelStatistics(self, request: Any) -> Any:
        if not request.name:
            return await monitoring.get_all_statistics(self._engine)
        return await monitoring.get_statistics(self._model(request.name, request.version))

    async def RepositoryIndex(self, request: Any) -> Any:
        return {"models": monitoring.index_of(self._engine, ready=request.ready)}

    async def ModelInfer(self, request: Any) -> Any:
        """Decodes shots, as `service.oip.routes.infer` does."""
        model = self._model(request.model_name, request.model_version)
        metrics = model.metrics
        metrics.requests.labels(model.id).inc()
        with model.lease(), metrics.in_flight.track_inprogress(), self._gate.enter() as hold:
            hold(request.ByteSize())
            sent, values = read_request(request)
            result, outputs = await infer(model, sent, values)
            return write_response(result, model_name=model.id, request_id=sent.id, outputs=outputs)

    def _model(self, name: str, version: str) -> Model:
        if version not in ("", schemas.VERSION):
            raise UnknownVersionError(
                f"there is no version {version[:80]!r}; every model has version {schemas.VERSION} alone"
            )
        return self._engine.model(name)
