"""What all calls share: a place, a record with its request id, the API key, limits of time, and errors as statuses.

gRPC waits for ever for a client's message, and for a client that reads nothing. So every call is a stream for gRPC,
also one of a single request: then its messages are read and written here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from http import HTTPStatus
from typing import Any, TypeAlias

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message
from pydantic_core import to_jsonable_python
from tritonclient.grpc import service_pb2

from service.auth import Key, KeyRing, bearer
from service.errors import (
    BodyTimeoutError,
    InternalError,
    InvalidParametersError,
    RequestError,
    StreamTimeoutError,
    UnauthorizedError,
)
from service.http.bounds import Gate
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
    HTTPStatus.REQUEST_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    HTTPStatus.INTERNAL_SERVER_ERROR: grpc.StatusCode.INTERNAL,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""Of errors, by their status over HTTP; all others are INVALID_ARGUMENT."""
PROBLEM = "tandem-problem"
"""Trailing metadata: the kind of an error, the end of its `type` over HTTP."""
PROBES = frozenset({"ServerLive", "ServerReady"})
"""Answered without a key and when no place is free, and not logged."""
MAX_NAME = 80
"""Characters of a model's name that an error repeats."""
MAX_AHEAD = 16
"""Most requests of a stream that are at work at once."""


class Calls:
    """How calls are answered.

    Args:
        engine: whose models; its settings bound the calls.
        keys: those that are accepted.
        places: bounds how many calls there are at once.
    """

    def __init__(self, engine: Engine, *, keys: KeyRing, places: Gate) -> None:
        self._engine = engine
        self._keys = keys
        self._places = places
        self._settings = engine.settings

    async def answer(self, work: Answer, context: Context, *, request: type[Message], response: type[Message]) -> None:
        """Answers a call of one request; an error becomes its status.

        Args:
            work: gives the answer, as a message or as what the JSON over HTTP is made of.
            context: gRPC's, of the call.
            request: the kind of message to read.
            response: the kind of message to answer with.
        """
        async with self._call(work.__name__, context):
            answered = await self._work(work, context, lambda: self._read(context, request))
            message = answered if isinstance(answered, Message) else ParseDict(to_jsonable_python(answered), response())
            await self._write(context, message)

    async def answer_each(self, work: Answer, context: Context) -> None:
        """Answers the requests of a stream in their order, several at work at once; an error does not end it.

        It ends when no request comes for `stream_idle_seconds` while none is at work.
        """
        loop, seconds = asyncio.get_running_loop(), self._settings.stream_idle_seconds
        waiting: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
        room = asyncio.Semaphore(MAX_AHEAD)
        tasks: set[asyncio.Task[Any]] = set()
        idle = asyncio.timeout(seconds)

        def ended(task: asyncio.Task[Any]) -> None:
            tasks.discard(task)
            if not tasks and not idle.expired():
                idle.reschedule(loop.time() + seconds)

        async def read() -> None:
            try:
                while (raw := await context.read()) is not grpc.aio.EOF:
                    if not idle.expired():
                        idle.reschedule(None)
                    tasks.add(task := asyncio.create_task(self._answer_or_tell(work, raw, context)))
                    task.add_done_callback(ended)
                    waiting.put_nowait(task)
                    await room.acquire()
            finally:
                waiting.put_nowait(None)

        async with self._call("ModelStreamInfer", context):
            self._check_key(context)
            try:
                async with idle:
                    reader = asyncio.create_task(read())
                    try:
                        while (task := await waiting.get()) is not None:
                            await self._write(context, await task)
                            room.release()
                    finally:
                        for each in (left := [reader, *tasks]):
                            each.cancel()
                        await asyncio.gather(*left, return_exceptions=True)
            except TimeoutError:
                raise StreamTimeoutError(f"no request came for {seconds:g} s; begin another stream") from None

    async def _answer_or_tell(self, work: Answer, raw: bytes, context: Context) -> Any:
        """Answers one request of a stream, or tells in its place what is wrong."""
        request = service_pb2.ModelInferRequest()

        async def read() -> Any:
            return _parse(raw, request)

        try:
            answered = await self._work(work, context, read)
        except RequestError as error:
            told = service_pb2.ModelInferResponse(id=request.id, model_name=request.model_name[:MAX_NAME])
            return service_pb2.ModelStreamInferResponse(error_message=_text(error), infer_response=told)
        return service_pb2.ModelStreamInferResponse(infer_response=answered)

    @asynccontextmanager
    async def _call(self, name: str, context: Context) -> AsyncIterator[None]:
        """Has a place for a call, and ends it with the status of what goes wrong."""
        try:
            with nullcontext() if name in PROBES else self._places.enter():
                yield
        except RequestError as error:
            trailing = ((PROBLEM, error.kind), *((name.lower(), value) for name, value in error.headers.items()))
            status = STATUSES.get(HTTPStatus(error.status), grpc.StatusCode.INVALID_ARGUMENT)
            async with self._while_read():
                await context.abort(status, _text(error), trailing)

    async def _work(self, work: Answer, context: Context, read: Callable[[], Awaitable[Any]]) -> Any:
        """Reads a request and does what it asks for."""
        name, model = work.__name__, ""
        try:
            with self._recorded(name, context):
                request = await read()
                model = str(getattr(request, "model_name", getattr(request, "name", "")))
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

    async def _read(self, context: Context, kind: type[Message]) -> Any:
        """The one request of a call."""
        seconds = self._settings.body_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                raw = await context.read()
        except TimeoutError:
            raise BodyTimeoutError(f"the request was not there within {seconds:g} s; send fewer shots") from None
        if raw is grpc.aio.EOF:
            raise InvalidParametersError("this call has no request; send one message")
        return _parse(raw, kind())

    async def _write(self, context: Context, message: Message) -> None:
        async with self._while_read():
            await context.write(message)

    @asynccontextmanager
    async def _while_read(self) -> AsyncIterator[None]:
        """Ends a call whose client does not read what is sent in the block."""
        try:
            async with asyncio.timeout(self._settings.write_timeout_seconds):
                yield
        except TimeoutError:
            raise asyncio.CancelledError from None  # a status would not be read either; gRPC resets the stream

    @contextmanager
    def _recorded(self, name: str, context: Context) -> Iterator[RequestRecord]:
        """Makes the record of the request at work, checks the key, and logs a line in the end.

        Raises:
            UnauthorizedError: a key is needed, and there is none that is known.
        """
        with recording(_metadata(context).get(b"x-request-id", b"").decode("latin-1")) as record:
            try:
                if name not in PROBES:
                    record.key = self._check_key(context)
                yield record
            finally:
                if self._settings.access_log and name not in PROBES and ACCESS.isEnabledFor(logging.INFO):
                    ACCESS.info("call", extra={"fields": _fields(name, context, record)})

    def _check_key(self, context: Context) -> Key | None:
        """The key of a call; None where none is needed."""
        if not self._keys.required:
            return None
        secret = bearer(_metadata(context))
        key = None if secret is None else self._keys.find(secret)
        if key is None:
            wrong = "this API key is not known, or not any more" if secret else "an API key is needed"
            raise UnauthorizedError(f"{wrong}; send one as metadata, authorization: Bearer KEY")
        return key

    def _count(self, model: str, reason: str) -> None:
        self._engine.metrics.failure(model if model in self._engine.models else "", reason)


def _parse(raw: bytes, message: Message) -> Message:
    """Reads a message into an empty one. gRPC itself would log a traceback of one that cannot be read."""
    try:
        message.ParseFromString(raw)
    except DecodeError:
        raise InvalidParametersError("this is no message of the Open Inference Protocol") from None
    return message


def _metadata(context: Context) -> dict[bytes, bytes]:
    return {
        key.encode(): value if isinstance(value, bytes) else value.encode()
        for key, value in context.invocation_metadata() or ()
    }


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
        **record.times,
        "client": context.peer(),
        "key": record.key.name if record.key is not None else None,
    }
