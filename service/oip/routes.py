"""The routes of the Open Inference Protocol under /v2, for the same models as those under /v1."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from service import errors
from service.http.bounds import OF_FORMS, media_type, work_on_body
from service.http.dependencies import EngineDependency, GateDependency, ModelDependency
from service.http.parsing import BodyParser
from service.oip import inference, schemas
from service.oip.errors import PREFIX, error_responses
from service.oip.requests import HEADER_LENGTH, check_addressee, parse_request
from service.oip.responses import infer_response, input_metadata, output_metadata, platform_of

EXTENSIONS = ["binary_tensor_data", "model_configuration", "statistics"]

router = APIRouter(prefix=PREFIX, tags=["open inference protocol"])


async def check_version(model_version: str) -> None:
    """Refuses requests for another version than the one there is.

    Raises:
        UnknownVersionError: there is no such version.
    """
    if model_version != schemas.VERSION:
        raise errors.UnknownVersionError(
            f"there is no version {model_version!r}; every model has version {schemas.VERSION} alone"
        )


@router.get("", responses=error_responses())
async def get_server(request: Request) -> schemas.ServerMetadata:
    """The server, and which extensions of the protocol it speaks."""
    return schemas.ServerMetadata(name="tandem", version=request.app.version, extensions=EXTENSIONS)


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", responses=error_responses())
async def live() -> schemas.ServerLive:
    """Whether the process answers at all."""
    return schemas.ServerLive(live=True)


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", responses=error_responses(errors.NotReadyError, errors.ClosingError))
async def ready(engine: EngineDependency) -> schemas.ServerReady:
    """Whether every model has been loaded and has decoded once."""
    engine.check_ready()
    return schemas.ServerReady(ready=True)


MODEL_ERRORS = error_responses(
    errors.UnknownModelError, errors.UnknownVersionError, errors.NotReadyError, errors.ClosingError
)
VERSIONED = "/models/{model_id}/versions/{model_version}"


@router.get("/models/{model_id}", responses=MODEL_ERRORS)
@router.get(VERSIONED, responses=MODEL_ERRORS, dependencies=[Depends(check_version)])
async def get_model_metadata(model: ModelDependency) -> schemas.ModelMetadata:
    """The tensors of a model's default experiment."""
    model.check_ready()
    return schemas.ModelMetadata(
        name=model.id,
        versions=[schemas.VERSION],
        platform=platform_of(model),
        inputs=input_metadata(model),
        outputs=output_metadata(model),
    )


@router.head("/models/{model_id}/ready", include_in_schema=False)
@router.get("/models/{model_id}/ready", responses=MODEL_ERRORS)
@router.get(f"{VERSIONED}/ready", responses=MODEL_ERRORS, dependencies=[Depends(check_version)])
async def model_ready(model: ModelDependency) -> schemas.ModelReady:
    """Whether a model has been loaded and has decoded once."""
    model.check_ready()
    return schemas.ModelReady(name=model.id, ready=True)


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_HEADER_LENGTH = {
    "description": "Bytes of the JSON, where binary tensors follow it.",
    "schema": {"type": "integer", "minimum": 1},
}
INFER: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {
            "description": "The outputs, in the order of the shots.",
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/InferResponse"}},
                "application/octet-stream": _BINARY,
            },
            "headers": {HEADER_LENGTH: _HEADER_LENGTH},
        },
        **error_responses(*errors.DECODE_ERRORS, errors.UnknownVersionError),
    },
    "openapi_extra": {
        "parameters": [{"name": HEADER_LENGTH, "in": "header", "required": False, **_HEADER_LENGTH}],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": f"#/components/schemas/{schemas.InferRequest.__name__}"}},
                "application/octet-stream": _BINARY,
            },
        },
    },
}


@router.post("/models/{model_id}/infer", **INFER)
@router.post(f"{VERSIONED}/infer", dependencies=[Depends(check_version)], **INFER)
async def infer(request: Request, gate: GateDependency, model: ModelDependency) -> Response:
    """Decodes shots: one input, `detection_events` or `detection_events_b8`.

    The body is JSON, and binary tensors after it if the header Inference-Header-Content-Length says where it ends;
    its Content-Type may be left out, but must not be one that forms of web pages have. `parameters` choose the
    experiment: basis, rounds, p; `timeout_ms` says how long the answer is wanted.
    """
    model.metrics.requests.labels(model.id).inc()
    if request.scope["query_string"]:
        raise errors.InvalidParametersError("this route takes no query; basis, rounds and p go into `parameters`")
    if (sent_as := media_type(request)) in OF_FORMS:
        raise errors.UnsupportedMediaTypeError(f"content type {sent_as}; send application/json, or none")
    header_length = request.headers.get(HEADER_LENGTH)
    parser: BodyParser = request.app.state.parser

    async def work(body: bytes) -> Response:
        sent, values = await parser.parse(
            parse_request, body, header_length=header_length, most_shots=model.bounds.max_shots_per_request
        )
        check_addressee(sent, model.id)
        result, outputs = await inference.infer(model, sent, values)
        return infer_response(result, model_name=model.id, request_id=sent.id, outputs=outputs)

    return await work_on_body(request, work, gate=gate, settings=model.bounds)
