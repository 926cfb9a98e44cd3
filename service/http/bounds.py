"""Bounds on requests, their bodies and their time, and media types: what FastAPI leaves to the application."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    BusyError,
    ClosingError,
    DeadlineExceededError,
    InvalidParametersError,
    NotAcceptableError,
    UnsupportedMediaTypeError,
)
from service.http.encodings import decoded_body
from service.settings import Settings
from service.telemetry.record import current_record

T = TypeVar("T")

OF_FORMS = frozenset({"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
"""Media types that a page of any site can have a browser send without asking first (CORS)."""


@dataclass(eq=False)
class Gate:
    """Bounds how many requests, or streams, are at work at once, and how many bytes all of them hold.

    Args:
        most: how many may be.
        what: what is counted, for the error's message.
        most_bytes: that all may hold.
        what_bytes: what these are, for the error's message.
    """

    most: int
    what: str = "requests are at work"
    most_bytes: int = 0
    what_bytes: str = "bodies"
    _inside: int = field(default=0, init=False)
    _bytes: int = field(default=0, init=False)

    @contextmanager
    def enter(self) -> Iterator[Callable[[int], None]]:
        """Counts one more for as long as the `with` block lasts.

        Yields:
            What the block calls with each number of bytes that it holds from then on. It may raise BusyError.

        Raises:
            BusyError: there are `most` already.
        """
        if self._inside >= self.most:
            raise BusyError(f"{self._inside} {self.what} already; try again later", retry_after=1)
        self._inside += 1
        held = 0

        def hold(count: int) -> None:
            nonlocal held
            if self._bytes + count > self.most_bytes:
                detail = f"{self._bytes} bytes of {self.what_bytes} are held, and at most {self.most_bytes} may be"
                raise BusyError(f"{detail}; try again later", retry_after=1)
            self._bytes += count
            held += count

        try:
            yield hold
        finally:
            self._inside -= 1
            self._bytes -= held


async def read_body(
    request: Request,
    *,
    max_bytes: int,
    timeout_seconds: float,
    hold: Callable[[int], None] | None = None,
    advice: str = "send fewer shots at once, or b8 for JSON",
) -> bytes:
    """Reads a body, without its Content-Encoding, and stops as soon as it is too long, whatever length was declared.

    Args:
        request: whose body.
        max_bytes: that it may have, as sent and decoded.
        timeout_seconds: that it may take.
        hold: is told of each number of bytes that come; see `Gate.enter`.
        advice: what to do about a body that is too long or too slow.

    Raises:
        BusyError: all bodies together are too long.
        BodyTooLargeError: more than `max_bytes`, as sent or decoded.
        BodyTimeoutError: not there within the time.
        UnsupportedEncodingError: see `decoded_body`.
        ClientDisconnect: the client left.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes, advice)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_seconds):
            async for chunk in decoded_body(request):
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(max_bytes, advice)
                if hold is not None:
                    hold(len(chunk))
    except TimeoutError:
        raise BodyTimeoutError(f"the body was not there within {timeout_seconds:g} s; {advice}") from None
    return bytes(body)


@asynccontextmanager
async def deadline(timeout_ms: int, *, most_seconds: float) -> AsyncIterator[None]:
    """Cancels the `async with` block when the time that the client gave is over.

    Args:
        timeout_ms: milliseconds, from when the request came.
        most_seconds: how long the service itself waits at most.

    Raises:
        InvalidParametersError: the client asks for more than the service gives.
        DeadlineExceededError: the time is over.
    """
    most = int(most_seconds * 1e3)
    if timeout_ms > most:
        detail = f"timeout_ms={timeout_ms} is more than the {most} that this service waits"
        raise InvalidParametersError.of(detail, parameter="timeout_ms")
    record = current_record()
    spent = 0.0 if record is None else time.perf_counter() - record.started
    limit = asyncio.timeout(timeout_ms / 1e3 - spent)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceededError(f"not done within {timeout_ms} ms; send fewer shots, or allow more time") from None


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work`, but cancels it when the client leaves. Call it when the body has been read.

    Raises:
        ClientDisconnect: the client left.
    """
    here = asyncio.current_task()
    assert here is not None
    cancelled_before = here.cancelling()
    left = False

    def leave(_: object) -> None:
        nonlocal left
        left = True
        here.cancel()

    gone = asyncio.create_task(_disconnected(request))
    gone.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError:
        # As in `asyncio.timeout`: swallow our own cancellation, but not one that somebody else asked for as well.
        if left and here.uncancel() <= cancelled_before:
            raise ClientDisconnect from None
        raise
    finally:
        gone.remove_done_callback(leave)
        gone.cancel()


async def work_on_body(
    request: Request,
    work: Callable[[bytes], Coroutine[Any, Any, T]],
    *,
    gate: Gate,
    settings: Settings,
    timeout_ms: int | None = None,
) -> T:
    """Reads a body and works on it, within the bounds of the settings and as long as the client stays.

    Args:
        request: whose body.
        work: what to make of it.
        gate: bounds how many do so at once.
        settings: bound the body.
        timeout_ms: see `deadline`; None gives all the time.

    Raises:
        BusyError: too many requests are at work.
        ClosingError: the server gave the work up.
        RequestError, ClientDisconnect: as `read_body`, `deadline` and the work.
    """
    with gate.enter() as hold:
        try:
            most = settings.decode_timeout_seconds
            async with nullcontext() if timeout_ms is None else deadline(timeout_ms, most_seconds=most):
                body = await read_body(
                    request,
                    max_bytes=settings.max_body_bytes,
                    timeout_seconds=settings.body_timeout_seconds,
                    hold=hold,
                )
                return await unless_disconnected(request, work(body))
        except asyncio.CancelledError:
            # The server cancels requests that take longer to end than it waits when it shuts down.
            raise ClosingError("the service shut down before the shots were decoded") from None


def media_type(request: Request) -> str:
    """The media type of a request's body, in lower case and without parameters; empty if it has none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def content_type(request: Request, supported: Sequence[str]) -> str:
    """The media type of a request's body, without parameters.

    Raises:
        UnsupportedMediaTypeError: it is none of `supported`.
    """
    found = media_type(request)
    if found not in supported:
        raise UnsupportedMediaTypeError(f"content type {found or 'missing'}; send one of {', '.join(supported)}")
    return found


def best_answer_type(request: Request, offered: Sequence[str]) -> str:
    """The media type that the Accept header likes best (RFC 9110, 12.5.1); of equals, the first offered.

    Raises:
        NotAcceptableError: it accepts none of `offered`.
    """
    return _best_type(",".join(request.headers.getlist("accept")) or "*/*", tuple(offered))


@lru_cache(64)
def _best_type(accept: str, offered: tuple[str, ...]) -> str:
    ranges = dict(_media_range(item) for item in accept.split(",") if item.strip())
    qualities = [_quality(media_type, ranges) for media_type in offered]
    best = max(qualities)
    if best <= 0:
        raise NotAcceptableError(f"Accept: {accept[:200]} leaves nothing to answer; accept {' or '.join(offered)}")
    return offered[qualities.index(best)]


def _media_range(item: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in item.split(";"))
    quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
    try:
        return name, float(quality)
    except ValueError:
        return name, 0.0


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    family = media_type.partition("/")[0]
    return next((ranges[name] for name in (media_type, f"{family}/*", "*/*") if name in ranges), 0.0)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _too_large(max_bytes: int, advice: str) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is longer than {max_bytes} bytes; {advice}")
