"""Models loaded, replaced and removed over HTTP, with a key for administrators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from jiter import from_json
from pydantic import ValidationError

from service import errors
from service.http.bounds import content_type, read_body
from service.http.dependencies import EngineDependency, state
from service.http.problems import problem_responses
from service.models.changes import ModelChanges
from service.rest.models import model_info
from service.settings import ModelSettings, Settings
from service.telemetry.record import current_record
from service.wire.schemas import JSON, ModelInfo

MAX_BODY_BYTES = 2**16


async def administrators_only() -> None:
    """Refuses all requests but those with a key for administrators.

    Raises:
        ForbiddenError: this one has none.
    """
    record = current_record()
    if record is None or record.key is None or not record.key.admin:
        raise errors.ForbiddenError("models are changed with a key for administrators only: name:admin:key")


ChangesDependency = Annotated[ModelChanges, state("changes")]
router = APIRouter(prefix="/v1", tags=["administration"], dependencies=[Depends(administrators_only)])


@router.put(
    "/models/{model_id}",
    responses=problem_responses(
        errors.ForbiddenError,
        errors.BodyTimeoutError,
        errors.BodyTooLargeError,
        errors.UnsupportedMediaTypeError,
        errors.UnsupportedEncodingError,
        errors.InvalidParametersError,
        errors.ModelNotLoadedError,
        errors.NotStoredError,
        errors.NotReadyError,
        errors.ClosingError,
    ),
    openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": ModelSettings.model_json_schema()}}}},
)
async def put_model(model_id: str, request: Request, engine: EngineDependency, changes: ChangesDependency) -> ModelInfo:
    """Loads a model and serves it, in the place of the one with this id if there is any.

    It answers when the new model is at work. Requests at work on the old one end there; none is dropped.
    """
    content_type(request, (JSON,))
    body = await read_body(request, max_bytes=MAX_BODY_BYTES, timeout_seconds=engine.settings.body_timeout_seconds)
    model = await changes.put(_parse(body, model_id, engine.settings))
    return model_info(engine, model, model.default)


@router.delete(
    "/models/{model_id}",
    status_code=204,
    responses=problem_responses(
        errors.ForbiddenError,
        errors.UnknownModelError,
        errors.ConflictError,
        errors.NotStoredError,
        errors.InvalidParametersError,
    ),
)
async def delete_model(model_id: str, changes: ChangesDependency) -> Response:
    """Serves a model no longer. Requests at work on it end there."""
    await changes.remove(model_id)
    return Response(status_code=204)


def _parse(body: bytes, model_id: str, settings: Settings) -> ModelSettings:
    try:
        content = from_json(body, catch_duplicate_keys=True)
    except ValueError as error:
        raise errors.InvalidParametersError.of(f"the body is no JSON: {error}", pointer="#") from None
    if not isinstance(content, dict) or content.get("id", model_id) != model_id:
        raise errors.InvalidParametersError.of(
            f"send an object whose id, if it has one, is {model_id!r}", pointer="#/id"
        )
    try:
        model = ModelSettings.model_validate(content | {"id": model_id})
    except ValidationError as error:
        first = error.errors()[0]
        place = "/".join(map(str, first["loc"]))
        raise errors.InvalidParametersError.of(f"{place}: {first['msg']}", pointer=f"#/{place}") from None
    if model.weights is None:
        return model
    return model.model_copy(update={"weights": _within(settings.model_dir, model.weights)})


def _within(directory: Path | None, weights: Path) -> Path:
    """The path of weights, which are relative to the directory; paths that leave it are refused unseen."""
    if directory is None:
        detail = "weights other than the shipped ones need the setting model_dir"
        raise errors.InvalidParametersError.of(detail, pointer="#/weights")
    try:
        root = directory.resolve()
        path = (root / weights).resolve()
        found = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, perhaps, or a NUL
        raise errors.InvalidParametersError.of(f"these weights have no path: {error}", pointer="#/weights") from None
    if not path.is_relative_to(root):
        detail = "weights must lie in the directory of the setting model_dir"
        raise errors.InvalidParametersError.of(detail, pointer="#/weights")
    if not found:
        detail = "there is no such file in the directory of the setting model_dir"
        raise errors.InvalidParametersError.of(detail, pointer="#/weights")
    return path
