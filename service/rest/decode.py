"""The native route that decodes: shots in JSON or b8."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from service.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    BusyError,
    ClosingError,
    DeadlineExceededError,
    DecoderFailedError,
    DecodeTimeoutError,
    Flaw,
    InvalidParametersError,
    InvalidShotsError,
    NotAcceptableError,
    NotReadyError,
    TooManyShotsError,
    UnknownModelError,
    UnsupportedMediaTypeError,
)
from service.http.bounds import B8, JSON, best_answer_type, content_type, work_on_body
from service.http.dependencies import EngineDependency, GateDependency, ModelDependency
from service.http.problems import problem_responses
from service.models.engine import Engine
from service.models.model import Model, no_pair
from service.rest.bodies import read_shots
from service.rest.direct import DirectRoute
from service.rest.partial import NDJSON, answer_in_parts
from service.wire.schemas import DecodeQuery, DecodeRequest, DecodeResponse
from service.wire.shots import DecodeResult, answer_json, answer_parts

router = APIRouter(prefix="/v1", route_class=DirectRoute)


@router.post(
    "/models/{model_id}/decode",
    tags=["decode"],
    response_class=Response,
    responses={
        200: {
            "description": "The predictions, in the order of the shots.",
            "content": {
                JSON: {"schema": {"$ref": "#/components/schemas/DecodeResponse"}},
                B8: {"schema": {"type": "string", "format": "binary"}},
                NDJSON: {"schema": {"type": "string"}},
            },
            "headers": {
                "Server-Timing": {
                    "schema": {"type": "string"},
                    "description": "`queue` and `compute`, milliseconds.",
                },
                "X-Tandem-Model": {"schema": {"type": "string"}},
                "X-Tandem-Num-Shots": {"schema": {"type": "integer"}},
                "X-Tandem-Parts": {
                    "schema": {"type": "string"},
                    "description": "b8 only: the parts of the body in order, with their lengths in bytes.",
                },
            },
        },
        **problem_responses(
            UnknownModelError,
            NotAcceptableError,
            BodyTimeoutError,
            BodyTooLargeError,
            TooManyShotsError,
            UnsupportedMediaTypeError,
            InvalidParametersError,
            InvalidShotsError,
            DecoderFailedError,
            BusyError,
            DecodeTimeoutError,
            DeadlineExceededError,
            NotReadyError,
            ClosingError,
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": DecodeRequest.model_json_schema()},
                B8: {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
)
async def decode(
    request: Request,
    engine: EngineDependency,
    gate: GateDependency,
    model: ModelDependency,
    query: Annotated[DecodeQuery, Query()],
) -> Response:
    """Decodes shots, sent as JSON or as stim's b8.

    A b8 body is answered in b8 unless `Accept` prefers JSON, and the other way round. A binary answer is the
    predictions in b8; with `confidence=true` then one little-endian float32 a shot, and with
    `flip_probabilities=true` then one a shot and observable, shot by shot. Parts that the decoder does not
    have are left out; the header X-Tandem-Parts says what is there. Of a pair `opinions=true` adds one byte a shot:
    0 the network, which was sure; 1 the second decoder; 2 the network, as the second was late; 3 as it failed.

    With `partial=true` a pair answers a line of JSON at once, in which unsure shots are `pending`, then a line for each
    second opinion (`shot`, `prediction`, `answered_by`), and at the end `{"done": true}`.
    """
    engine.metrics.request(model.settings.id)
    sent = content_type(request, (JSON, B8))
    wanted = best_answer_type(request, (sent, JSON if sent == B8 else B8))
    check_pair(model, query, wanted)
    if query.partial:
        return await answer_in_parts(request, engine, gate, model, query, sent)
    answer = await work_on_body(
        request,
        partial(_decode, engine, model, query, sent),
        gate=gate,
        settings=engine.settings,
        timeout_ms=query.timeout_ms,
    )
    return _answer(answer, model.settings.id, query, wanted)


async def _decode(engine: Engine, model: Model, query: DecodeQuery, sent: str, body: bytes) -> DecodeResult:
    decoder, shots = await read_shots(engine, model, query, sent, body)
    return await engine.decode(model, decoder, shots, choice=query, deadline_ms=query.deadline_ms)


def check_pair(model: Model, query: DecodeQuery, wanted: str) -> None:
    """Raises:
    InvalidParametersError: the query asks for what this model, or this form of answer, does not have.
    """
    if model.ready and model.second is None:
        for name in ("deadline_ms", "opinions", "partial"):
            if getattr(query, name):
                raise no_pair(model.settings.id, name)
    if query.partial and wanted != JSON:
        detail = "partial answers are JSON; send Accept: application/json"
        raise InvalidParametersError(detail, flaws=[Flaw(detail, parameter="partial")])


def _answer(answer: DecodeResult, model_id: str, query: DecodeQuery, wanted: str) -> Response:
    queue, compute = answer.queue_seconds * 1e3, answer.compute_seconds * 1e3
    headers = {
        "Server-Timing": f"queue;dur={queue:.3f}, compute;dur={compute:.3f}",
        "X-Tandem-Model": model_id,
        "X-Tandem-Num-Shots": str(len(answer.predictions)),
    }
    if wanted == JSON:
        confidence = query.confidence is not False
        content = answer_json(
            answer, model=model_id, confidence=confidence, flip_probabilities=query.flip_probabilities
        )
        return Response(content, headers=headers, media_type=JSON)
    parts = answer_parts(
        answer,
        confidence=query.confidence is True,
        flip_probabilities=query.flip_probabilities,
        opinions=query.opinions,
    )
    headers["X-Tandem-Parts"] = ", ".join(f"{name}={len(part)}" for name, part in parts.items())
    return Response(b"".join(parts.values()), headers=headers, media_type=B8)


SCHEMAS_BY_REFERENCE: tuple[type[BaseModel], ...] = (DecodeResponse,)
"""Schemas that the route above refers to without FastAPI knowing."""
