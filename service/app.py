"""The application: routes, errors and metrics around one `Engine`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.types import ASGIApp

from service.auth import KeyRing
from service.errors import ClosingError, NotReadyError, UnauthorizedError
from service.http.bounds import Gate
from service.http.dependencies import EngineDependency
from service.http.middleware import PROBES, Observe, RequireKey
from service.http.problems import Problem, add_problem_handlers, problem_responses
from service.models.changes import ModelChanges
from service.models.engine import Engine, ModelLoadError
from service.models.model import DecoderFactory
from service.models.model_file import ModelFile
from service.oip import routes as oip
from service.oip.errors import error_response, error_responses
from service.rest import admin, decode, models, page, sampling
from service.settings import Settings
from service.streams import hub
from service.streams.hub import StreamHub
from service.telemetry.metrics import Metrics
from service.wire.schemas import Status

DESCRIPTION = """Decodes shots of bivariate bicycle codes. Take the circuit of an experiment from
`/v1/models/{id}/circuit`, sample its detectors with stim, and send them to `/v1/models/{id}/decode`."""

_KEY_HEADER = {"type": "apiKey", "in": "header", "name": "X-API-Key"}

OPEN_PATHS = PROBES | frozenset(page.FILES)
"""Answered without a key: probes have none, and learn nothing else; the page has to ask for one."""

health = APIRouter(tags=["health"])


class Application(FastAPI):
    """FastAPI inside of more ASGI: middleware added the usual way does not see the answers to unexpected errors."""

    def __init__(self, *, surround: Callable[[ASGIApp], ASGIApp], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._surround = surround

    def build_middleware_stack(self) -> ASGIApp:
        return self._surround(super().build_middleware_stack())


def create_app(
    settings: Settings | None = None,
    *,
    make_decoder: DecoderFactory | None = None,
    on_load_error: Callable[[ModelLoadError], None] | None = None,
) -> FastAPI:
    """Makes the application; `uvicorn --factory service.app:create_app` runs it too.

    Args:
        settings: by default from the environment.
        make_decoder: makes decoders in place of `decoder.catalog`.
        on_load_error: is told when a model cannot be loaded, after which /readyz never answers 200.

    Raises:
        ValueError: settings that are out of range, or name an unknown code, decoder or noise; API keys that are none.
        OSError: the file of API keys cannot be read.
    """
    settings = settings or Settings()
    file = None if settings.models_file is None else ModelFile(settings.models_file)
    if file is not None:
        file.create(settings.models)
        settings = Settings(**dict(settings) | {"models": file.read()})
    metrics = Metrics()
    engine = Engine(settings, metrics=metrics, make=make_decoder)
    keys = KeyRing(
        keys=settings.api_keys.get_secret_value() if settings.api_keys else None, file=settings.api_keys_file
    )
    streams = StreamHub(engine, keys=keys)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start(on_load_error=on_load_error)
        streams.start()
        following = asyncio.create_task(app.state.changes.follow())
        yield
        following.cancel()
        await streams.close()
        await engine.close()

    forms = {oip.PREFIX: error_response}

    def surround(app: ASGIApp) -> ASGIApp:
        if keys.required:
            refused = partial(metrics.failure, "")
            app = RequireKey(app, keys=keys, open_paths=OPEN_PATHS, forms=forms, on_refused=refused)
        return Observe(app, metrics=metrics, access_log=settings.access_log, draining=engine.draining.is_set)

    app = Application(
        title="Tandem",
        version=_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        surround=surround,
    )
    app.state.engine = engine
    app.state.changes = ModelChanges(engine, file=file)
    app.state.streams = streams
    app.state.gate = Gate(settings.max_requests_in_flight)
    # FastAPI looks through them in this order, the one that has to be fast first.
    for router in (
        decode.router,
        health,
        models.router,
        admin.router,
        oip.router,
        sampling.router,
        page.router,
        hub.router,
    ):
        app.include_router(router)
    add_problem_handlers(app, on_problem=_count_problem, forms=forms)
    maxima = {"rounds": settings.max_rounds, "timeout_ms": int(settings.decode_timeout_seconds * 1e3)}
    app.openapi = lambda: _openapi(app, maxima=maxima)  # type: ignore[method-assign]
    return app


@health.get("/healthz", responses=problem_responses())
async def healthz() -> Status:
    """Whether the process answers at all."""
    return Status(status="ok")


@health.get("/readyz", responses=problem_responses(NotReadyError, ClosingError))
async def readyz(engine: EngineDependency) -> Status:
    """Whether every model has been loaded and has decoded once."""
    engine.check_ready()
    return Status(status="ready")


@health.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, engine: EngineDependency) -> Response:
    """Prometheus metrics."""
    content, media_type = engine.metrics.exposition(request.headers.get("accept", ""))
    return Response(content, headers={"content-type": media_type})


def _count_problem(request: Request, kind: str) -> None:
    if request.scope["path"].endswith(("/readyz", "/ready")):
        return  # it was asked whether the service is ready, and was answered
    engine: Engine = request.app.state.engine
    model = request.path_params.get("model_id", "")
    engine.metrics.failure(model if model in engine.models else "", kind)


def _openapi(app: FastAPI, *, maxima: Mapping[str, int]) -> dict[str, Any]:
    """FastAPI's document, and what it cannot know."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document["components"]["schemas"]
        referred: tuple[type[BaseModel], ...] = (Problem, *decode.SCHEMAS_BY_REFERENCE, *oip.SCHEMAS_BY_REFERENCE)
        for model in referred:
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        schemes = {"bearer": {"type": "http", "scheme": "bearer"}, "header": _KEY_HEADER}
        document["components"]["securitySchemes"] = schemes
        for path, operations in document["paths"].items():
            responses = error_responses if path.startswith(oip.PREFIX) else problem_responses
            for operation in operations.values():
                if path not in OPEN_PATHS:
                    operation["security"] = [{}, *({name: []} for name in schemes)]
                    operation["responses"] |= {"401": responses(UnauthorizedError)[401]}
                if path.startswith(oip.PREFIX):
                    # FastAPI thinks that a path of text could be invalid.
                    operation["responses"].pop("422", None)
                for parameter in operation.get("parameters", ()):
                    if parameter["name"] in maxima:
                        parameter["schema"]["anyOf"][0]["maximum"] = maxima[parameter["name"]]
        app.openapi_schema = document
    return app.openapi_schema


def _version() -> str:
    try:
        return version("tandem-decoder")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0"
