"""What all calls share: a record with its request id, the API key, and errors as statuses of gRPC."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypeAlias

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from pydantic_core import to_jsonable_python
from tritonclient.grpc import service_pb2

from service.auth import KeyRing, bearer
from service.errors import InternalError, RequestError, UnauthorizedError
from service.http.problems import problem_of
from service.models.engine import Engine
from service.telemetry.logs import ACCESS
from service.telemetry.record import RequestRecord, recording

logger = logging.getLogger(__name__)

Answer: TypeAlias = Callable[[Any], Awaitable[Any]]
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

STATUSES = {
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.INTERNAL_SERVER_ERROR: grpc.StatusCode.INTERNAL,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""Of errors, by their status over HTTP; all others are INVALID_ARGUMENT."""
PROBLEM = "tandem-problem"
"""Trailing metadata: the kind of an error, the end of its `type` over HTTP."""
PROBES = frozenset({"ServerLive", "ServerReady"})
"""Answered without a key, and not logged."""


class Calls:
    """How calls are answered.

    Args:
        engine: whose models.
        keys: those that are accepted.
        access_log: whether to log calls.
    """

    def __init__(self, engine: Engine, *, keys: KeyRing, access_log: bool) -> None:
        self._engine = engine
        self._keys = keys
        self._access_log = access_log

    async def answer(self, work: Answer, request: Any, context: Context, *, response: type[Message]) -> Any:
        """Answers a call of one request; an error becomes its status.

        Args:
            work: gives the answer, as a message or as what the JSON over HTTP is made of.
            request: the message.
            context: gRPC's, of the call.
            response: the kind of message to answer with.
        """
        try:
            answered = await self._work(work, request, context)
        except RequestError as error:
            trailing = ((PROBLEM, error.kind), *((name.lower(), value) for name, value in error.headers.items()))
            status = STATUSES.get(HTTPStatus(error.status), grpc.StatusCode.INVALID_ARGUMENT)
            await context.abort(status, _text(error), trailing)
        return answered if isinstance(answered, Message) else ParseDict(to_jsonable_python(answered), response())

    async def answer_or_tell(self, work: Answer, request: Any, context: Context) -> Any:
        """Answers one request of a stream, or tells in its place what is wrong."""
        try:
            answered = await self._work(work, request, context)
        except RequestError as error:
            told = service_pb2.ModelInferResponse(id=request.id, model_name=request.model_name)
            return service_pb2.ModelStreamInferResponse(error_message=_text(error), infer_response=told)
        return service_pb2.ModelStreamInferResponse(infer_response=answered)

    async def _work(self, work: Answer, request: Any, context: Context) -> Any:
        name = work.__name__
        model = str(getattr(request, "model_name", getattr(request, "name", "")))
        try:
            with self._recorded(name, context):
                return await work(request)
        except asyncio.CancelledError:  # the client left, its deadline is over, or the service ends
            self._count(model, "disconnected")
            raise
        except RequestError as error:
            self._count(model, error.kind)
            raise
        except Exception as error:
            logger.exception("%s failed", name)
            self._count(model, InternalError.kind)
            raise InternalError("something unexpected happened; it is in the server's log") from error

    @contextmanager
    def _recorded(self, name: str, context: Context) -> Iterator[RequestRecord]:
        """Makes the record of the request at work, checks the key, and logs a line in the end.

        Raises:
            UnauthorizedError: a key is needed, and there is none that is known.
        """
        headers = {
            key.encode(): value if isinstance(value, bytes) else value.encode()
            for key, value in context.invocation_metadata() or ()
        }
        with recording(headers.get(b"x-request-id", b"").decode("latin-1")) as record:
            try:
                if self._keys.required and name not in PROBES:
                    secret = bearer(headers)
                    record.key = None if secret is None else self._keys.find(secret)
                    if record.key is None:
                        wrong = "this API key is not known, or not any more" if secret else "an API key is needed"
                        raise UnauthorizedError(f"{wrong}; send one as metadata, authorization: Bearer KEY")
                yield record
            finally:
                if self._access_log and name not in PROBES and ACCESS.isEnabledFor(logging.INFO):
                    ACCESS.info("call", extra={"fields": _fields(name, context, record)})

    def _count(self, model: str, reason: str) -> None:
        self._engine.metrics.failure(model if model in self._engine.models else "", reason)


def _text(error: RequestError) -> str:
    problem = problem_of(error)
    if problem.instance is None:
        return error.detail
    logger.error("%s (%s)", error.detail, problem.instance)
    return f"{error.detail} ({problem.instance})"


def _fields(name: str, context: Context, record: RequestRecord) -> dict[str, object]:
    return {
        "request_id": record.id,
        "method": name,
        "shots": record.shots,
        "queue_ms": round(record.queue_seconds * 1e3, 3),
        "compute_ms": round(record.compute_seconds * 1e3, 3),
        "total_ms": round((time.perf_counter() - record.started) * 1e3, 3),
        "client": context.peer(),
        "key": record.key.name if record.key is not None else None,
    }
