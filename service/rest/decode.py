"""The native route that decodes: shots in JSON or b8."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json

from service.errors import DECODE_ERRORS, InvalidParametersError, NotAcceptableError
from service.http.bounds import best_answer_type, content_type, work_on_body
from service.http.dependencies import DirectRoute, GateDependency, ModelDependency
from service.http.parsing import BodyParser
from service.http.problems import problem_responses
from service.models.model import Model
from service.models.prepared import Prepared, not_a_pair
from service.models.second_opinions import AskedOpinions
from service.rest.partial_answers import NDJSON, PartialAnswer
from service.wire.reweights import Reweights, Values, split_body
from service.wire.schemas import B8, JSON, DecodeQuery, DecodeRequest
from service.wire.shots import (
    ERRORS_HEADER,
    HURRIED_HEADER,
    WARNING_HEADER,
    DecodeResult,
    parse_b8,
    parse_json,
    result_object,
    result_parts,
)
from simulation.bits import packed_size

router = APIRouter(prefix="/v1", route_class=DirectRoute)

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_TEXT = {"schema": {"type": "string"}}
_ANSWER = {
    "description": "The predictions, in the order of the shots.",
    "content": {JSON: {"schema": {"$ref": "#/components/schemas/DecodeResponse"}}, B8: _BINARY, NDJSON: _TEXT},
    "headers": {
        "Server-Timing": _TEXT | {"description": "`queue`, `compute` and of pairs `second`, milliseconds."},
        "X-Tandem-Model": _TEXT,
        "X-Tandem-Num-Shots": {"schema": {"type": "integer"}},
        ERRORS_HEADER: {"schema": {"type": "integer"}, "description": "Errors of the model, if they are answered."},
        HURRIED_HEADER: {"schema": {"type": "integer"}, "description": "Shots decoded in a hurry, if there are any."},
        WARNING_HEADER: {"schema": {"type": "string"}, "description": "What looks wrong of the shots, if anything."},
        "X-Tandem-Parts": _TEXT
        | {"description": "b8 only: the parts of the body in order, with their lengths in bytes."},
    },
}
_BODY = {"required": True, "content": {JSON: {"schema": DecodeRequest.model_json_schema()}, B8: _BINARY}}


@router.post(
    "/models/{model_id}/decode",
    tags=["decode"],
    response_class=Response,
    responses={200: _ANSWER, **problem_responses(NotAcceptableError, *DECODE_ERRORS)},
    openapi_extra={"requestBody": _BODY},
)
async def decode(
    request: Request, gate: GateDependency, model: ModelDependency, query: Annotated[DecodeQuery, Query()]
) -> Response:
    """Decodes shots, sent as JSON or as stim's b8.

    A b8 body is answered in b8 unless `Accept` prefers JSON, and the other way round. A binary answer is the
    predictions in b8; with `confidence=true` then one little-endian float32 a shot, and with
    `flip_probabilities=true` then one a shot and observable, shot by shot. Parts that the decoder does not
    have are left out; the header X-Tandem-Parts says what is there. Of a pair `opinions=true` adds one byte a shot:
    0 the network, which was sure; 1 the second decoder; 2 the network, as the second was late; 3 as it failed.
    With `errors=true` the error that a classical decoder found comes as a bit for each error of the detector error
    model, in b8, and then a byte a shot: whether it explains the shot. Reweights are other probabilities of the errors.

    With `partial=true` a pair answers a line of JSON at once, in which unsure shots are `pending`, then a line for each
    second opinion (`shot`, `prediction`, `answered_by`), and at the end `{"done": true}`.
    """
    model.metrics.requests.labels(model.id).inc()
    sent = content_type(request, (JSON, B8))
    wanted = best_answer_type(request, (sent, JSON if sent == B8 else B8))
    if query.model_fields_set:
        check_options(model, query, sent=sent, wanted=wanted)

    parser: BodyParser = request.app.state.parser

    async def work(body: bytes) -> DecodeResult | AskedOpinions:
        prepared = await Prepared.of(model, query)
        values: Values | None = None
        if sent == JSON:
            shots, values = await parser.parse(parse_json, body, prepared.expected)
        else:
            if query.reweights is not None:
                sizes = {"shot_bytes": packed_size(prepared.expected.num_detectors), "errors": prepared.num_errors}
                body, values = split_body(body, form=query.reweights, **sizes)
            shots = parse_b8(body, prepared.expected)
        reweights = None if values is None else Reweights(values, query.reweights_are)
        if query.partial:
            return await prepared.ask(shots, deadline_ms=query.deadline_ms)
        return await prepared.decode(shots, deadline_ms=query.deadline_ms, errors=query.errors, reweights=reweights)

    answer = await work_on_body(request, work, gate=gate, settings=model.bounds, timeout_ms=query.timeout_ms)
    if isinstance(answer, DecodeResult):
        return _response(answer, model.id, query, wanted)
    headers = {"X-Tandem-Model": model.id, "X-Tandem-Num-Shots": str(len(answer.first.predictions))}
    return PartialAnswer(answer, model, query, headers=headers)


def check_options(model: Model, query: DecodeQuery, *, sent: str, wanted: str) -> None:
    """Checks the parameters that only pairs have, and those for one form of body or answer.

    Raises:
        InvalidParametersError: one is given for a model that is no pair, or for a form that cannot hold it.
    """
    if model.ready and model.second is None:
        for name in ("deadline_ms", "opinions", "partial"):
            if getattr(query, name):
                raise not_a_pair(model.id, name)
    if query.reweights is not None and sent == JSON:
        detail = "the query names the reweights of a b8 body; in JSON `reweights` of the body says which there are"
        raise InvalidParametersError.of(detail, parameter="reweights")
    if query.partial and wanted != JSON:
        raise InvalidParametersError.of("partial answers are JSON; send Accept: application/json", parameter="partial")


def _response(result: DecodeResult, model_id: str, query: DecodeQuery, wanted: str) -> Response:
    headers = {
        "Server-Timing": result.server_timing,
        "X-Tandem-Model": model_id,
        "X-Tandem-Num-Shots": str(len(result.predictions)),
    } | result.headers
    if wanted == JSON:
        return Response(to_json(result_object(result, query, model=model_id)), headers=headers, media_type=JSON)
    parts = result_parts(result, query)
    headers["X-Tandem-Parts"] = ", ".join(f"{name}={len(part)}" for name, part in parts.items())
    return Response(b"".join(parts.values()), headers=headers, media_type=B8)
