"""Errors as RFC 9457 problem details: application/problem+json, whatever went wrong."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service.errors import Flaw, InternalError, InvalidParametersError, RequestError
from service.telemetry.record import current_record

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:problem-type:tandem:"
MAX_FLAWS = 10
"""Most flaws listed in one answer."""

OnProblem = Callable[[Request, str], None]
"""Is called for each problem, with the request and the kind of problem."""


class FlawSchema(BaseModel):
    """One thing wrong with a request."""

    detail: str = Field(description="What is wrong, and what is wanted.")
    parameter: str | None = Field(default=None, description="The query parameter or header at fault.")
    pointer: str | None = Field(default=None, description="JSON pointer to the value at fault in the body.")


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(description="What kind of problem: a stable name to tell problems apart by.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status.")
    detail: str | None = Field(default=None, description="What went wrong this time, and what to do.")
    instance: str | None = Field(default=None, description="Names this one occurrence, also in the server's log.")
    request_id: str | None = Field(default=None, description="The request's X-Request-ID.")
    errors: list[FlawSchema] | None = Field(default=None, description="What exactly is wrong with the request.")


ErrorForm = Callable[[Problem, Mapping[str, str] | None], Response]
"""Writes a problem, with these headers, in the form that the clients of some routes expect."""


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The answer for a problem; says which request had it."""
    if (record := current_record()) is not None:
        problem = problem.model_copy(update={"request_id": record.id})
    return Response(
        to_json(problem, exclude_none=True), status_code=problem.status, headers=headers, media_type=MEDIA_TYPE
    )


def answer_for(
    path: str, problem: Problem, *, forms: Mapping[str, ErrorForm], headers: Mapping[str, str] | None
) -> Response:
    """The answer for a problem in the form that belongs to a path.

    Args:
        path: of the request.
        problem: what to tell.
        forms: the forms other than problem+json, each by the path at and below which it is used.
        headers: of the answer.
    """
    below = (form for root, form in forms.items() if path == root or path.startswith(f"{root}/"))
    return next(below, problem_response)(problem, headers)


def problem_of(error: RequestError) -> Problem:
    """The problem details of an error."""
    flaws = [FlawSchema(**vars(flaw)) for flaw in error.flaws[:MAX_FLAWS]]
    return Problem(
        type=TYPE_PREFIX + error.kind,
        title=error.title,
        status=error.status,
        detail=error.detail,
        instance=uuid.uuid4().urn if error.status == HTTPStatus.INTERNAL_SERVER_ERROR else None,
        errors=flaws or None,
    )


def problem_responses(*errors: type[RequestError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a FastAPI route that may answer with these problems (and with 500)."""
    by_status: dict[int, list[type[RequestError]]] = {}
    everything: tuple[type[RequestError], ...] = (*errors, InternalError)
    for error in everything:
        by_status.setdefault(error.status, []).append(error)
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    return {
        status: {
            "description": "; ".join(f"{error.title} (`{error.kind}`)" for error in same),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status, same in by_status.items()
    }


def add_problem_handlers(app: FastAPI, *, on_problem: OnProblem, forms: Mapping[str, ErrorForm]) -> None:
    """Makes every error of an application a problem+json answer, those of the framework included.

    Args:
        app: the application.
        on_problem: is called for each problem.
        forms: see `answer_for`.
    """

    async def service_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)
        on_problem(request, error.kind)
        problem = problem_of(error)
        if problem.instance:
            logger.error("%s %s: %s (%s)", request.method, request.url.path, error.detail, problem.instance)
        return answer_for(request.scope["path"], problem, forms=forms, headers=error.headers)

    async def invalid_parameters(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return await service_error(request, InvalidParametersError.because(*map(_parameter_flaw, error.errors())))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        on_problem(request, status.phrase.lower().replace(" ", "-"))
        detail = f"{request.method} {request.url.path}: {status.description or error.detail}; see /docs"
        problem = Problem(type="about:blank", title=status.phrase, status=status, detail=detail)
        return answer_for(request.scope["path"], problem, forms=forms, headers=error.headers)

    async def unexpected(request: Request, error: Exception) -> Response:
        # Starlette raises the error again after this, and the server logs its traceback.
        return await service_error(request, InternalError("something unexpected happened; it is in the server's log"))

    async def disconnected(request: Request, error: Exception) -> Response:
        on_problem(request, "disconnected")
        return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody is there to read it

    app.add_exception_handler(RequestError, service_error)
    app.add_exception_handler(ClientDisconnect, disconnected)
    app.add_exception_handler(RequestValidationError, invalid_parameters)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, unexpected)


def _parameter_flaw(flaw: Mapping[str, Any]) -> Flaw:
    parameter = ".".join(map(str, flaw["loc"][1:]))
    if flaw["type"] == "extra_forbidden":
        return Flaw("there is no such parameter; see /docs", parameter=parameter)
    return Flaw(f"{flaw['msg']}, not {str(flaw['input'])[:80]!r}", parameter=parameter)
