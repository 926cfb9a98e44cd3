"""Errors as the Open Inference Protocol has them: {"error": "..."} with a status."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Response
from pydantic_core import to_json

from service.errors import InternalError, RequestError
from service.http.problems import ErrorForm, Problem
from service.oip.schemas import InferenceError

MEDIA_TYPE = "application/json"


def error_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem in this protocol's form."""
    text = problem.detail or problem.title
    if problem.instance:
        text = f"{text} ({problem.instance})"
    return Response(
        to_json({"error": text}), status_code=_status(problem.status), headers=headers, media_type=MEDIA_TYPE
    )


PREFIX = "/v2"
FORMS: Mapping[str, ErrorForm] = {PREFIX: error_response}
"""How problems are written below a path, where not as problem+json."""


def error_responses(*errors: type[RequestError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a FastAPI route that may answer with these errors (and with 500)."""
    everything: tuple[type[RequestError], ...] = (*errors, InternalError)
    titles: dict[int, list[str]] = {}
    for error in everything:
        titles.setdefault(_status(error.status), []).append(error.title)
    schema = {"$ref": f"#/components/schemas/{InferenceError.__name__}"}
    return {
        status: {"description": "; ".join(same), "content": {MEDIA_TYPE: {"schema": schema}}}
        for status, same in titles.items()
    }


def _status(status: int) -> int:
    # Of what the service itself calls a 422 this protocol's clients expect 400.
    return HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status
