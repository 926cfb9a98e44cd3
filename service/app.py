"""The application: routes, errors and metrics around one `Engine`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel
from starlette.types import ASGIApp

from service.auth import KeyRing
from service.errors import ClosingError, NotReadyError, UnauthorizedError
from service.http.bounds import Gate
from service.http.dependencies import EngineDependency
from service.http.middleware import PROBES, Observe, RefuseOtherSites, RequireKey
from service.http.parsing import BodyParser
from service.http.problems import Problem, add_problem_handlers, problem_responses
from service.models.changes import ModelChanges
from service.models.engine import Engine, ModelLoadError
from service.models.model import DecoderFactory
from service.models.model_file import ModelFile
from service.oip import monitoring
from service.oip import routes as oip
from service.oip.errors import FORMS, PREFIX, error_responses
from service.oip.schemas import InferenceError, InferRequest, InferResponse
from service.rest import admin, decode, experiments, models, page, sampling
from service.settings import Settings
from service.streams import hub
from service.streams.hub import StreamHub
from service.telemetry.metrics import Metrics
from service.wire.schemas import DecodeResponse, Status

DESCRIPTION = """Decodes shots of bivariate bicycle codes. Take the circuit of an experiment from
`/v1/models/{id}/circuit`, sample its detectors with stim, and send them to `/v1/models/{id}/decode`."""

SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

OPEN_PATHS = PROBES | frozenset(page.FILES)
"""Answered without a key: probes have none, and learn nothing else; the page has to ask for one."""

LINKED_PATHS = frozenset(page.FILES)
"""What pages of other sites may link to, also where they may not ask for anything."""

SCHEMAS_BY_REFERENCE: tuple[type[BaseModel], ...] = (
    Problem,
    DecodeResponse,
    InferenceError,
    InferRequest,
    InferResponse,
)
"""Schemas that the documentation of routes refers to by name; FastAPI has to be told of them."""

health = APIRouter(tags=["health"])


@health.head("/healthz", include_in_schema=False)
@health.get("/healthz", responses=problem_responses())
async def healthz() -> Status:
    """Whether the process answers at all."""
    return Status(status="ok")


@health.head("/readyz", include_in_schema=False)
@health.get("/readyz", responses=problem_responses(NotReadyError, ClosingError))
async def readyz(engine: EngineDependency) -> Status:
    """Whether every model has been loaded and has decoded once."""
    engine.check_ready()
    return Status(status="ready")


@health.head("/metrics", include_in_schema=False)
@health.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, engine: EngineDependency) -> Response:
    """Prometheus metrics."""
    content, media_type = engine.metrics.exposition(request.headers.get("accept", ""))
    return Response(content, headers={"content-type": media_type})


# FastAPI looks through them in this order, the one that has to be fast first.
ROUTERS = (
    decode.router,
    health,
    models.router,
    experiments.router,
    admin.router,
    monitoring.router,
    oip.router,
    sampling.router,
    page.router,
    hub.router,
)


class Application(FastAPI):
    """FastAPI with middleware outside of its error handling, and with an OpenAPI document that is complete.

    Middleware added the usual way does not see the answers to unexpected errors; that of `surround` does.

    Args:
        surround: wraps an ASGI application in middleware.
        maxima: the largest allowed value of some query parameters, by name, for the document.
        lifespan: see FastAPI.
    """

    def __init__(
        self,
        *,
        surround: Callable[[ASGIApp], ASGIApp],
        maxima: Mapping[str, int],
        lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    ) -> None:
        super().__init__(
            title="Tandem",
            version=_version(),
            description=DESCRIPTION,
            lifespan=lifespan,
            redirect_slashes=False,
            docs_url=None,  # the page of `service.rest.page`, which needs no other host
            redoc_url=None,
        )
        self._surround = surround
        self._maxima = maxima

    def build_middleware_stack(self) -> ASGIApp:
        return self._surround(super().build_middleware_stack())

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, with the schemas, the API keys and the bounds that FastAPI cannot know of."""
        if self.openapi_schema is not None:
            return self.openapi_schema
        document = super().openapi()
        schemas = document["components"]["schemas"]
        for model in SCHEMAS_BY_REFERENCE:
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        document["components"]["securitySchemes"] = SECURITY_SCHEMES
        for path, operations in document["paths"].items():
            for operation in operations.values():
                self._complete(operation, path)
        return document

    def _complete(self, operation: dict[str, Any], path: str) -> None:
        responses = error_responses if path.startswith(PREFIX) else problem_responses
        if path not in OPEN_PATHS:
            operation["security"] = [{}, *({name: []} for name in SECURITY_SCHEMES)]
            operation["responses"] |= {"401": responses(UnauthorizedError)[401]}
        if path.startswith(PREFIX):
            # FastAPI documents a 422 for every path parameter, though any text is a valid one here.
            operation["responses"].pop("422", None)
        for parameter in operation.get("parameters", ()):
            if parameter["name"] in self._maxima:
                parameter["schema"]["anyOf"][0]["maximum"] = self._maxima[parameter["name"]]


def create_app(
    settings: Settings | None = None,
    *,
    make_decoder: DecoderFactory | None = None,
    on_load_error: Callable[[ModelLoadError], None] | None = None,
) -> FastAPI:
    """Makes the application; `uvicorn --factory service.app:create_app` runs it too.

    Args:
        settings: by default from the environment.
        make_decoder: makes decoders in place of `decoder.making`.
        on_load_error: is told when a model cannot be loaded, after which /readyz never answers 200.

    Raises:
        ValueError: settings that are out of range, or name an unknown code, decoder or noise; malformed API keys.
        OSError: the file of API keys cannot be read.
    """
    settings, file = _with_model_file(settings or Settings())
    metrics = Metrics()
    engine = Engine(settings, metrics=metrics, make=make_decoder)
    secrets = None if settings.api_keys is None else settings.api_keys.get_secret_value()
    keys = KeyRing(keys=secrets, file=settings.api_keys_file)
    streams = StreamHub(engine, keys=keys)
    changes = ModelChanges(engine, file=file)
    parser = BodyParser(patience_seconds=settings.body_timeout_seconds)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start(on_load_error=on_load_error)
        engine.background.start("the sweeper of streams", streams.sweep)
        engine.background.start("the follower of the models file", changes.follow)
        yield
        engine.background.stop()
        await engine.close()
        parser.close()

    def surround(inner: ASGIApp) -> ASGIApp:
        refused = partial(metrics.failure, "")
        if keys.required:
            inner = RequireKey(inner, keys=keys, open_paths=OPEN_PATHS, forms=FORMS, on_refused=refused)
        else:
            inner = RefuseOtherSites(
                inner,
                hosts=frozenset(map(str.lower, settings.allowed_hosts)),
                open_paths=LINKED_PATHS,
                forms=FORMS,
                on_refused=refused,
            )
        return Observe(inner, metrics=metrics, access_log=settings.access_log, draining=engine.draining.is_set)

    maxima = {"rounds": settings.max_rounds, "timeout_ms": int(settings.decode_timeout_seconds * 1e3)}
    app = Application(surround=surround, maxima=maxima, lifespan=lifespan)
    app.state.engine, app.state.changes, app.state.streams, app.state.keys = engine, changes, streams, keys
    app.state.gate = Gate(settings.max_requests_in_flight, most_bytes=settings.max_bodies_bytes)
    app.state.parser = parser
    for router in ROUTERS:
        app.include_router(router)
    add_problem_handlers(app, on_problem=_count_problem, forms=FORMS)
    return app


def _with_model_file(settings: Settings) -> tuple[Settings, ModelFile | None]:
    """Settings with the models of the file that they name, which is made if it is missing, and that file."""
    if settings.models_file is None:
        return settings, None
    file = ModelFile(settings.models_file)
    file.create(settings.models)
    return Settings(**dict(settings) | {"models": file.read()}), file


def _count_problem(request: Request, kind: str) -> None:
    if request.scope["path"].endswith(("/readyz", "/ready")):
        return  # "not ready" is a proper answer to the question whether the service is
    engine: Engine = request.app.state.engine
    model = request.path_params.get("model_id", "")
    engine.metrics.failure(model if model in engine.models else "", kind)


def _version() -> str:
    try:
        return version("tandem-decoder")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0"
