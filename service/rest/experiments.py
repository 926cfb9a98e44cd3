"""Circuits and detector error models of the clients' own, sent once and then called by their ids."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from service import errors
from service.http.bounds import content_type, read_body, unless_disconnected
from service.http.dependencies import EngineDependency, GateDependency
from service.http.problems import problem_responses
from service.wire.schemas import B8, ExperimentList, ExperimentRecord
from simulation.files import Kind

router = APIRouter(prefix="/v1", tags=["experiments"])


_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {B8: {"schema": {"type": "string"}}}}}


@router.post(
    "/experiments",
    status_code=201,
    response_model=ExperimentRecord,
    responses={
        200: {"model": ExperimentRecord, "description": "It was kept already."},
        **problem_responses(
            errors.BodyTimeoutError,
            errors.BodyTooLargeError,
            errors.UnsupportedMediaTypeError,
            errors.UnsupportedEncodingError,
            errors.InvalidParametersError,
            errors.InvalidExperimentError,
            errors.ConflictError,
            errors.BusyError,
            errors.DecodeTimeoutError,
        ),
    },
    openapi_extra=_BODY,
)
async def post_experiment(
    request: Request,
    response: Response,
    engine: EngineDependency,
    gate: GateDependency,
    kind: Annotated[Kind, Query(description="A stim circuit, or a detector error model.")] = "circuit",
) -> ExperimentRecord:
    """Keeps a stim circuit or a detector error model for the API key that it was sent with.

    The answer's id then stands for it, as `experiment`, in the place of basis, rounds and p.
    """
    content_type(request, (B8,))
    settings = engine.settings
    with gate.enter() as hold:
        content = await read_body(
            request,
            max_bytes=settings.max_experiment_bytes,
            timeout_seconds=settings.body_timeout_seconds,
            hold=hold,
            advice="write repeated rounds as a REPEAT block, take fewer, or use gzip",
        )
        kept, new = await unless_disconnected(request, engine.experiments.add(content, kind=kind))
    response.status_code = 201 if new else 200
    return kept.record


@router.get("/experiments", responses=problem_responses())
async def list_experiments(engine: EngineDependency) -> ExperimentList:
    """All experiments that were sent with this API key, the oldest first."""
    return ExperimentList(experiments=[kept.record for kept in engine.experiments.all()])


@router.get(
    "/experiments/{experiment_id}",
    responses=problem_responses(errors.UnknownExperimentError, errors.InvalidParametersError),
)
async def get_experiment(experiment_id: str, engine: EngineDependency) -> ExperimentRecord:
    """One of them: what it is, and which decoders take it."""
    return engine.experiments.find(experiment_id).record


@router.delete(
    "/experiments/{experiment_id}",
    status_code=204,
    responses=problem_responses(errors.UnknownExperimentError, errors.InvalidParametersError),
)
async def delete_experiment(experiment_id: str, engine: EngineDependency) -> Response:
    """Keeps an experiment no longer."""
    engine.experiments.remove(experiment_id)
    return Response(status_code=204)
