"""The application: routes, errors and metrics around one `Engine`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from service import page, sampling, streaming, v1
from service.engine import DecoderFactory, Engine, ModelLoadError
from service.errors import ClosingError, NotReadyError
from service.http import Gate
from service.metrics import Metrics
from service.oip import routes as oip
from service.oip.errors import error_response
from service.problems import Problem, add_problem_handlers, problem_responses
from service.schemas import Status
from service.settings import Settings
from service.streaming import StreamHub

DESCRIPTION = """Decodes shots of bivariate bicycle codes. Take the circuit of an experiment from
`/v1/models/{id}/circuit`, sample its detectors with stim, and send them to `/v1/models/{id}/decode`."""

health = APIRouter(tags=["health"])


def create_app(
    settings: Settings | None = None,
    *,
    make_decoder: DecoderFactory | None = None,
    on_load_error: Callable[[ModelLoadError], None] | None = None,
) -> FastAPI:
    """Makes the application; `uvicorn --factory service.app:create_app` runs it too.

    Args:
        settings: by default from the environment.
        make_decoder: makes decoders in place of `decoder.registry`.
        on_load_error: is told when a model cannot be loaded, after which /readyz never answers 200.

    Raises:
        ValueError: settings that are out of range, or name an unknown code, decoder or noise.
    """
    settings = settings or Settings()
    metrics = Metrics()
    engine = Engine(settings, metrics=metrics, make=make_decoder)
    streams = StreamHub(engine)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start(on_load_error=on_load_error)
        streams.start()
        yield
        await streams.close()
        await engine.close()

    app = FastAPI(
        title="Tandem", version=_version(), description=DESCRIPTION, lifespan=lifespan, redirect_slashes=False
    )
    app.state.engine = engine
    app.state.streams = streams
    app.state.gate = Gate(settings.max_requests_in_flight)
    app.include_router(health)
    app.include_router(v1.router)
    app.include_router(oip.router)
    app.include_router(sampling.router)
    app.include_router(page.router)
    app.include_router(streaming.router)
    add_problem_handlers(app, on_problem=_count_problem, forms={oip.PREFIX: error_response})
    app.openapi = lambda: _openapi(app, max_rounds=settings.max_rounds)  # type: ignore[method-assign]
    return app


@health.get("/healthz", responses=problem_responses())
async def healthz() -> Status:
    """Whether the process answers at all."""
    return Status(status="ok")


@health.get("/readyz", responses=problem_responses(NotReadyError, ClosingError))
async def readyz(engine: v1.EngineDependency) -> Status:
    """Whether every model has been loaded and has decoded once."""
    engine.check_ready()
    return Status(status="ready")


@health.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, engine: v1.EngineDependency) -> Response:
    """Prometheus metrics."""
    content, media_type = engine.metrics.exposition(request.headers.get("accept", ""))
    return Response(content, headers={"content-type": media_type})


def _count_problem(request: Request, kind: str) -> None:
    if request.scope["path"].endswith(("/readyz", "/ready")):
        return  # it was asked whether the service is ready, and was answered
    engine: Engine = request.app.state.engine
    model = request.path_params.get("model_id", "")
    engine.metrics.failure(model if model in engine.models else "", kind)


def _openapi(app: FastAPI, *, max_rounds: int) -> dict[str, Any]:
    """FastAPI's document, and what it cannot know."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document["components"]["schemas"]
        referred: tuple[type[BaseModel], ...] = (Problem, *v1.SCHEMAS_BY_REFERENCE, *oip.SCHEMAS_BY_REFERENCE)
        for model in referred:
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        for path, operations in document["paths"].items():
            for operation in operations.values():
                if path.startswith(oip.PREFIX):
                    # FastAPI thinks that a path of text could be invalid.
                    operation["responses"].pop("422", None)
                for parameter in operation.get("parameters", ()):
                    if parameter["name"] == "rounds":
                        parameter["schema"]["anyOf"][0]["maximum"] = max_rounds
        app.openapi_schema = document
    return app.openapi_schema


def _version() -> str:
    try:
        return version("tandem-decoder")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0"
