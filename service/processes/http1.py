"""uvicorn's HTTP/1.1 with bounds: deadlines, a budget for what is no body, and room for those who are turned away."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Sized
from enum import Enum
from functools import partial
from itertools import chain
from math import inf

import httptools
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import BusyError
from service.http.middleware import PROBES
from service.http.problems import problem_of, problem_response
from service.processes.connections import BAD_REQUEST, MAX_PIECE_BYTES, BoundedConfig, Deadlines, last_words

MAX_HEADER_BYTES = 2**16
MAX_HEADERS = 128
"""Lines. Each costs some microseconds wherever headers are looked through."""
MAX_TARGET_BYTES = 2**13
"""Of a path and its query (RFC 9112, 3, asks for 8000)."""
MAX_CHUNK_BYTES = 2**12
"""Most bytes that the sizes of chunks and trailers take beside a body."""
BODY_SHARE = 4
"""What part of the body they may take on top: chunks of 24 bytes may go on for ever, and those of one byte not."""
MAX_PIPELINE = 8
"""Most requests that wait behind another before no more is read. What was read with them may hold more."""
REFUSED_SECONDS = 2
"""How long a connection over the limit may wait for its client."""
RESERVE = 64
"""Most connections over the limit; one more ends the oldest of them."""
PATIENCE_SECONDS = 1
"""A connection that has waited this long for its client makes room when there are too many."""


_TOO_SLOW = last_words(b"408 Request Timeout")
_TARGET_TOO_LONG = last_words(b"414 URI Too Long")
_HEADERS_TOO_LONG = last_words(b"431 Request Header Fields Too Large")


class Stage(Enum):
    """How much of a request has come."""

    NOTHING = 0
    HEADERS = 1
    """Some of its headers."""
    BODY = 2
    """All headers, and not all of the body."""


class _Flow(FlowControl):
    """Reads no more while many requests wait in the pipeline. Some may: who does not read does not see a hang-up."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if len(self._pipeline) < MAX_PIPELINE:
            super().resume_reading()


class HttpProtocol(Deadlines, HttpToolsProtocol):
    """uvicorn's HTTP/1.1 by httptools with bounds.

    The application bounds bodies itself. When it has answered without reading a body to its end, the rest is read and
    dropped for at most `body_timeout_seconds`: a client that sends everything before it reads gets its answer, and one
    that never stops sending is cut off.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        assert isinstance(self.config, BoundedConfig)
        self._waiting, self._reserve, self._turns = self.config.waiting, self.config.reserve, self.config.turns
        self.asked = False
        """Whether a first request has come: a new connection is given the time for that when the server drains."""
        self._stage = Stage.NOTHING
        self._overhead = 0
        """What came of this request and was no body: when it is over `MAX_HEADER_BYTES` that is too much."""
        self._body_left = 0
        """How much of a body of known length is still to come."""
        self._running: RequestResponseCycle | None = None
        self._deaf = False
        self._objection = b""
        """What is wrong with the headers that the parser finds nothing wrong with."""
        self._refused = len(self.connections) > self.bounds.max_connections and not self._make_room()
        if self._refused:
            self.app = partial(probes_alone, self.app)
            self._reserve[self] = None
            if len(self._reserve) > RESERVE:
                _end(next(iter(self._reserve)))
        self._wait(self.bounds.header_timeout_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        for cycle in self._unanswered():
            cycle.disconnected = True
            cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def write_seconds(self) -> float:
        return self.bounds.write_timeout_seconds

    def piece_bytes(self) -> int:
        return max(super().piece_bytes(), min(self._body_left, MAX_PIECE_BYTES))

    def late(self) -> None:
        if self._stage is Stage.BODY:
            self.cut_off()  # `close` would wait for what the client does not read
        else:
            self._last_words(b"" if self.asked and self._stage is Stage.NOTHING else _TOO_SLOW)

    def shutdown(self) -> None:
        """Closes the connection when the server ends. A request that is at work or has come is answered before."""
        if self._unanswered() or not (self._stage is Stage.HEADERS or _has_sent(self.transport)):
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._overhead += len(data)
        try:
            while data:
                data = self._parse(data)
        except httptools.HttpParserError:
            too_long = _HEADERS_TOO_LONG if self._overhead > MAX_HEADER_BYTES else BAD_REQUEST
            self._refuse(self._objection or too_long)
        lines = len(self.headers) if self._stage is Stage.HEADERS else 0
        if (self._overhead > MAX_HEADER_BYTES or lines > MAX_HEADERS) and not self._deaf:
            self._refuse(_HEADERS_TOO_LONG)

    def _parse(self, data: bytes) -> bytes:
        """Parses requests up to one that wants another protocol, and returns what is to be parsed then."""
        try:
            self.parser.feed_data(data)
            return b""
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        if self.scope["method"] == "CONNECT":
            self._refuse(BAD_REQUEST)  # what follows would be for somebody else
            return b""
        if dict(self.headers).get(b"upgrade", b"").lower() == b"websocket" and not (
            self._refused or self._unanswered()
        ):
            self._forget()
            self.handle_websocket_upgrade()
            return b""
        # A server may ignore the header (RFC 9110, 7.8). The parser took the body for the other protocol's.
        return self._without_upgrade() + rest

    def _should_upgrade(self) -> bool:
        # Is asked of requests that the parser takes for an upgrade. uvicorn leaves them alone, and `_parse` goes on.
        return self.scope["method"] != "CONNECT"

    def _without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.scope["method"].encode(), self.url, version)]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._stage = Stage.HEADERS
        if self.asked:  # the first one's time runs since the connection was made
            self._wait(self.bounds.header_timeout_seconds)

    def on_headers_complete(self) -> None:
        self._check_headers()
        self._stage = Stage.BODY
        self._overhead = MAX_HEADER_BYTES - MAX_CHUNK_BYTES
        length = dict(self.headers).get(b"content-length", b"")
        self._body_left = int(length) if length else 0
        self.asked = True
        super().on_headers_complete()
        self._wait(self.bounds.body_timeout_seconds)

    def _check_headers(self) -> None:
        if len(self.url) > MAX_TARGET_BYTES:
            self._objection = _TARGET_TOO_LONG
        elif len(self.headers) > MAX_HEADERS or (
            # What has come may have some of the body at its end.
            self._overhead > MAX_HEADER_BYTES and sum(map(len, chain(*self.headers))) > MAX_HEADER_BYTES
        ):
            self._objection = _HEADERS_TOO_LONG
        if self._objection:
            raise ValueError("the headers are too long")  # becomes an HttpParserError

    def on_body(self, body: bytes) -> None:
        self._overhead -= len(body) + len(body) // BODY_SHARE
        self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._stage = Stage.NOTHING
        self._overhead = self._body_left = 0
        super().on_message_complete()
        self._wait(self.bounds.keep_alive_seconds)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]
        first, self._running = self._running is None, cycle
        if first and cycle.scope["path"] in PROBES:  # those that come one behind the other wait like all else
            super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]
        else:
            self._turns.add(partial(self._start_in_turn, cycle, app), loop=self.loop)

    def _start_in_turn(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:
        if not cycle.disconnected:
            super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.flow.resume_reading()  # uvicorn does so when the pipeline was longer yet
        self._unset_keepalive_if_required()  # which any byte would stop
        bounds = self.bounds
        self._wait(
            {
                Stage.NOTHING: bounds.keep_alive_seconds,
                Stage.HEADERS: bounds.header_timeout_seconds,
                Stage.BODY: bounds.body_timeout_seconds,
            }[self._stage]
        )

    def send_400_response(self, msg: str) -> None:
        self._refuse(BAD_REQUEST)

    def _wait(self, seconds: float) -> None:
        """Gives the client so long to go on, unless it is the client that waits."""
        now = self.loop.time()
        self._waiting.pop(self, None)
        if self._unanswered():  # each of which the application answers in time
            self.due = inf
        else:
            self._waiting[self] = now
            self.due = now + (min(seconds, REFUSED_SECONDS) if self._refused else seconds)

    def _unanswered(self) -> list[RequestResponseCycle]:
        """Requests whose headers have come and that are not answered yet, the first one first."""
        running = self._running
        at_work = [] if running is None or running.response_complete else [running]
        return at_work + [cycle for cycle, _ in reversed(self.pipeline)]

    def _refuse(self, answer: bytes) -> None:
        """Takes no more from a client: what it sends cannot be understood, or has no end.

        Requests that came whole before are answered, and then the connection is closed.
        """
        self._deaf = True
        unanswered = self._unanswered()
        broken = unanswered.pop() if unanswered and self._stage is Stage.BODY else None
        if unanswered:
            if broken is not None:
                self.pipeline.popleft()
            self.cycle = unanswered[-1]
            self.cycle.keep_alive = False
            return
        if broken is not None:
            broken.disconnected = True
            broken.message_event.set()
        self._last_words(b"" if broken is not None and broken.response_started else answer)

    def _last_words(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

    def _make_room(self) -> bool:
        """Closes the connection that has waited longest for its client; whether there is one that waited for long."""
        oldest, since = next(iter(self._waiting.items()), (None, inf))
        if oldest is None or self.loop.time() - since < PATIENCE_SECONDS:
            return False
        _end(oldest)
        return True

    def _forget(self) -> None:
        self._waiting.pop(self, None)
        self._reserve.pop(self, None)


def _has_sent(transport: asyncio.Transport) -> bool:
    """Whether something has come from the client that is not read yet, which may be its end."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _end(connection: HttpProtocol) -> None:
    connection._forget()  # it is lost only later, and is not to be chosen again until then
    connection.cut_off()


async def probes_alone(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Lets probes pass on a connection that is one too many, and answers all else itself."""
    if scope["path"] in PROBES:
        await app(scope, receive, send)
        return
    problem = problem_of(BusyError("too many connections are open; try again later, or keep fewer open"))
    headers = {"Retry-After": "1", "Connection": "close"}
    await problem_response(problem, headers=headers)(scope, receive, send)
