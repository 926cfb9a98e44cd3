"""Triton's extensions about what there is and what it has done: configuration, statistics, the index of models.

Sources: https://github.com/triton-inference-server/server/blob/main/docs/protocol, extension_model_configuration.md,
extension_statistics.md and extension_model_repository.md.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from pydantic import TypeAdapter, ValidationError

from service import errors
from service.http.bounds import read_body
from service.http.dependencies import EngineDependency, ModelDependency
from service.models.engine import Engine
from service.models.model import Model
from service.oip import schemas
from service.oip.errors import PREFIX, error_responses
from service.oip.responses import input_metadata, output_metadata, platform_of
from service.oip.routes import MODEL_ERRORS, VERSIONED, check_version

router = APIRouter(prefix=PREFIX, tags=["open inference protocol"])

MAX_INDEX_BYTES = 1024

_TYPES = TypeAdapter[schemas.ConfigType](schemas.ConfigType)


@router.get("/models/stats", responses=error_responses())
async def get_all_statistics(engine: EngineDependency) -> schemas.Statistics:
    """What all models have done since the service was started."""
    return schemas.Statistics(model_stats=[statistics_of(model) for model in engine.models.values()])


@router.get("/models/{model_id}/stats", responses=MODEL_ERRORS)
@router.get(f"{VERSIONED}/stats", responses=MODEL_ERRORS, dependencies=[Depends(check_version)])
async def get_statistics(model: ModelDependency) -> schemas.Statistics:
    """What a model has done since the service was started."""
    return schemas.Statistics(model_stats=[statistics_of(model)])


@router.get("/models/{model_id}/config", responses=MODEL_ERRORS)
@router.get(f"{VERSIONED}/config", responses=MODEL_ERRORS, dependencies=[Depends(check_version)])
async def get_config(model: ModelDependency) -> schemas.ModelConfig:
    """A model's configuration as Triton's tools read it."""
    model.check_ready()
    settings = model.settings
    parameters = {
        "code": str(model.code),
        "basis": settings.basis,
        "rounds": str(settings.rounds),
        "p": repr(settings.p),
        "noise": settings.noise,
    }
    return schemas.ModelConfig(
        name=model.id,
        platform=platform_of(model),
        max_batch_size=model.bounds.max_shots_per_request,
        input=[_config(tensor) for tensor in input_metadata(model)],
        output=[_config(tensor) for tensor in output_metadata(model)],
        parameters={name: schemas.ConfigParameter(string_value=value) for name, value in parameters.items()},
    )


@router.post("/repository/index", responses=error_responses(errors.InvalidParametersError, errors.BodyTooLargeError))
async def get_index(request: Request, engine: EngineDependency) -> list[schemas.IndexedModel]:
    """The models, and whether they are ready. The body may be left out."""
    body = await read_body(
        request,
        max_bytes=MAX_INDEX_BYTES,
        timeout_seconds=engine.settings.body_timeout_seconds,
        advice='send nothing, or {"ready": true}',
    )
    try:
        asked = schemas.IndexRequest.model_validate_json(body) if body else schemas.IndexRequest()
    except ValidationError as error:
        raise errors.InvalidParametersError('the body is not {"ready": true} or {"ready": false}') from error
    return index_of(engine, ready=asked.ready)


def index_of(engine: Engine, *, ready: bool) -> list[schemas.IndexedModel]:
    """The models of an engine, or those alone that are ready."""
    listed = [_indexed(model, engine.load_error) for model in engine.models.values()]
    return [model for model in listed if model.state == "READY" or not ready]


def statistics_of(model: Model) -> schemas.ModelStatistics:
    """What a model has done, from the same counters as /metrics."""
    totals = model.metrics.totals(model.id)

    def duration(metric: str) -> schemas.Duration:
        return schemas.Duration(count=int(totals[f"{metric}_count"]), ns=int(totals[f"{metric}_sum"] * 1e9))

    return schemas.ModelStatistics(
        name=model.id,
        version=schemas.VERSION,
        last_inference=int(totals["tandem_last_request_timestamp_seconds"] * 1e3),
        inference_count=int(totals["tandem_shots_total"]),
        execution_count=int(totals["tandem_batches_total"]),
        inference_stats=schemas.InferenceStatistics(
            success=duration("tandem_request_seconds"),
            fail=schemas.Duration(count=int(totals["tandem_failures_total"])),
            queue=duration("tandem_queue_seconds"),
            compute_infer=duration("tandem_compute_seconds"),
        ),
    )


def _config(tensor: schemas.TensorMetadata) -> schemas.ConfigTensor:
    of_a_shot = tensor.shape[1:] or [1]
    return schemas.ConfigTensor(
        name=tensor.name, data_type=_TYPES.validate_python(f"TYPE_{tensor.datatype}"), dims=of_a_shot
    )


def _indexed(model: Model, load_error: Exception | None) -> schemas.IndexedModel:
    if model.ready:
        return schemas.IndexedModel(name=model.id, version=schemas.VERSION, state="READY")
    if load_error is None:
        return schemas.IndexedModel(name=model.id, version=schemas.VERSION, state="LOADING")
    return schemas.IndexedModel(name=model.id, version=schemas.VERSION, state="UNAVAILABLE", reason=str(load_error))
