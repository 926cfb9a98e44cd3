"""The native API: models, their experiments, and decoding in JSON and b8."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from service.batching import Answer
from service.engine import Engine, ExperimentChoice, Model
from service.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    BusyError,
    ClosingError,
    DeadlineExceededError,
    DecoderFailedError,
    DecodeTimeoutError,
    InvalidParametersError,
    InvalidShotsError,
    NotAcceptableError,
    NotReadyError,
    TooManyShotsError,
    UnknownModelError,
    UnsupportedMediaTypeError,
)
from service.http import Gate, best_answer_type, content_type, deadline, read_body, unless_disconnected
from service.problems import problem_responses
from service.schemas import (
    CodeInfo,
    DecodeQuery,
    DecodeRequest,
    DecodeResponse,
    ExperimentInfo,
    ExperimentQuery,
    Limits,
    ModelInfo,
    ModelList,
)
from service.shots import answer_json, answer_parts, parse_b8, parse_json
from simulation.circuits import MemoryExperiment

JSON = "application/json"
B8 = "application/octet-stream"

router = APIRouter(prefix="/v1")


# Dependencies are coroutines because FastAPI hands plain functions to threads, which takes some 0.4 ms each.


async def get_engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


async def get_gate(request: Request) -> Gate:
    gate: Gate = request.app.state.gate
    return gate


EngineDependency = Annotated[Engine, Depends(get_engine)]
GateDependency = Annotated[Gate, Depends(get_gate)]


async def get_model(model_id: str, engine: EngineDependency) -> AsyncIterator[Model]:
    with engine.lease(model_id) as model:
        yield model


ModelDependency = Annotated[Model, Depends(get_model)]
ExperimentParameters = Annotated[ExperimentQuery, Query()]


@router.get("/models", tags=["models"], responses=problem_responses())
async def list_models(engine: EngineDependency) -> ModelList:
    """All models, each with its default experiment."""
    return ModelList(models=[model_info(engine, model, model.default) for model in engine.models.values()])


@router.get(
    "/models/{model_id}",
    tags=["models"],
    responses=problem_responses(UnknownModelError, InvalidParametersError, BusyError),
)
async def get_modelmodel_info(
    engine: EngineDependency, model: ModelDependency, query: ExperimentParameters
) -> ModelInfo:
    """One model, and the size of the shots of the experiment asked for."""
    experiment = engine.experiment(model, _choice(query))
    return await engine.build(lambda: model_info(engine, model, experiment))


@router.get(
    "/models/{model_id}/circuit",
    tags=["models"],
    response_class=PlainTextResponse,
    responses=problem_responses(UnknownModelError, InvalidParametersError, BusyError),
)
async def get_circuit(engine: EngineDependency, model: ModelDependency, query: ExperimentParameters) -> str:
    """The experiment's circuit as stim text: what makes the shots that the model decodes."""
    experiment = engine.experiment(model, _choice(query))
    return await engine.build(lambda: f"{experiment.circuit}\n")


@router.get(
    "/models/{model_id}/dem",
    tags=["models"],
    response_class=PlainTextResponse,
    responses=problem_responses(UnknownModelError, InvalidParametersError, BusyError),
)
async def get_dem(engine: EngineDependency, model: ModelDependency, query: ExperimentParameters) -> str:
    """The detector error model of the experiment's circuit as stim text."""
    experiment = engine.experiment(model, _choice(query))
    return await engine.build(lambda: f"{experiment.dem}\n")


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
    have are left out; the header X-Tandem-Parts says what is there.
    """
    engine.metrics.request(model.settings.id)
    sent = content_type(request, (JSON, B8))
    wanted = best_answer_type(request, (sent, JSON if sent == B8 else B8))
    with gate.enter():
        limits = engine.settings
        try:
            async with deadline(query.timeout_ms, most_seconds=limits.decode_timeout_seconds):
                body = await read_body(
                    request, max_bytes=limits.max_body_bytes, timeout_seconds=limits.body_timeout_seconds
                )
                answer = await unless_disconnected(request, _decode(engine, model, _choice(query), sent, body))
        except asyncio.CancelledError:
            # The server gives requests so long to end when it shuts down, and no longer.
            raise ClosingError("the service shut down before the shots were decoded") from None
        return _answer(answer, model.settings.id, query, wanted)


async def _decode(engine: Engine, model: Model, choice: ExperimentChoice, sent: str, body: bytes) -> Answer:
    decoder = await engine.decoder(model, choice)
    parse = parse_json if sent == JSON else parse_b8
    shots = parse(
        body,
        num_detectors=decoder.num_detectors,
        num_observables=decoder.num_observables,
        max_shots=engine.settings.max_shots_per_request,
    )
    return await engine.decode(model, decoder, shots)


def _answer(answer: Answer, model_id: str, query: DecodeQuery, wanted: str) -> Response:
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
    parts = answer_parts(answer, confidence=query.confidence is True, flip_probabilities=query.flip_probabilities)
    headers["X-Tandem-Parts"] = ", ".join(f"{name}={len(part)}" for name, part in parts.items())
    return Response(b"".join(parts.values()), headers=headers, media_type=B8)


def _choice(query: ExperimentQuery) -> ExperimentChoice:
    return ExperimentChoice(basis=query.basis, rounds=query.rounds, p=query.p)


def model_info(engine: Engine, model: Model, experiment: MemoryExperiment) -> ModelInfo:
    """What the service says of a model."""
    settings, code = model.settings, model.code
    return ModelInfo(
        id=settings.id,
        code=CodeInfo(id=str(code), n=code.n, k=code.k, d=code.d),
        decoder=settings.decoder,
        detectors=model.detectors,
        ready=model.ready,
        gives_confidence=model.gives_confidence,
        experiment=ExperimentInfo(
            basis=experiment.basis,
            rounds=experiment.rounds,
            p=experiment.noise.p,
            noise=str(experiment.noise),
            num_detectors=experiment.num_detectors,
            num_observables=experiment.num_observables,
        ),
        limits=Limits(
            max_body_bytes=engine.settings.max_body_bytes,
            max_shots_per_request=engine.settings.max_shots_per_request,
            max_rounds=engine.settings.max_rounds,
        ),
        details=dict(model.details),
    )


SCHEMAS_BY_REFERENCE: tuple[type[BaseModel], ...] = (DecodeResponse,)
"""Schemas that the routes above refer to without FastAPI knowing."""
