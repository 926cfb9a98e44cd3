"""Middleware around every request: a request id, a line in the log, and the check of the API key.

It is plain ASGI outside of FastAPI, so that no route and no error can bypass it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Set
from contextlib import nullcontext
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.auth import KeyRing, bearer, is_loopback
from service.errors import ForbiddenError, RequestError, UnauthorizedError
from service.http.problems import ErrorForm, answer_for, problem_of
from service.telemetry.logs import ACCESS
from service.telemetry.metrics import Metrics
from service.telemetry.record import RequestRecord, current_record, recording

PROBES = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
QUIET_PATHS = PROBES | {"/metrics"}
"""Asked for every few seconds: logged at level debug, and not counted as in flight."""
POLICY_VIOLATION = 1008
"""WebSocket close code (RFC 6455, 7.4.1); before the handshake is accepted it becomes HTTP 403."""


@dataclass(frozen=True, eq=False)
class Observe:
    """Gives each request an id (X-Request-ID, the client's own if it is safe to log), counts it, and logs one line.

    Args:
        app: what answers.
        metrics: counts the requests in flight.
        access_log: whether to log requests.
        draining: whether to ask clients to close their connections after the answer.
    """

    app: ASGIApp
    metrics: Metrics
    access_log: bool
    draining: Callable[[], bool]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            kind = message["type"]
            if kind in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
                status = message.get("status", 101)
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = record.id
                if self.draining() and kind == "http.response.start":
                    headers["Connection"] = "close"
            elif kind == "websocket.close" and status == 0:
                status = 403
            await send(message)

        quiet = scope["path"] in QUIET_PATHS
        wanted_id = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        with recording(wanted_id) as record:
            try:
                counted = scope["type"] == "http" and not quiet
                with self.metrics.in_flight.track_inprogress() if counted else nullcontext():
                    await self.app(scope, receive, send_with_id)
            finally:
                level = logging.DEBUG if quiet else logging.INFO
                if self.access_log and ACCESS.isEnabledFor(level):
                    ACCESS.log(level, "request", extra={"fields": _fields(scope, record, status)})


@dataclass(frozen=True, eq=False)
class RequireKey:
    """Answers 401 to requests that bring none of the keys.

    A WebSocket is refused before it is accepted; where the server cannot answer that with 401, with close code 1008.

    Args:
        app: what answers.
        keys: the known keys.
        open_paths: paths that need no key.
        forms: see `service.http.problems.answer_for`.
        on_refused: is called for each refused request, with the kind of problem.
    """

    app: ASGIApp
    keys: KeyRing
    open_paths: Set[str]
    forms: Mapping[str, ErrorForm]
    on_refused: Callable[[str], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_open = scope["type"] == "http" and scope["path"] in self.open_paths
        if scope["type"] not in ("http", "websocket") or is_open:
            await self.app(scope, receive, send)
            return
        secret = bearer(dict(scope["headers"]))
        key = None if secret is None else self.keys.find(secret)
        if key is None:
            await self._refuse(secret, scope, receive, send)
            return
        if (record := current_record()) is not None:
            record.key = key
        await self.app(scope, receive, send)

    async def _refuse(self, secret: bytes | None, scope: Scope, receive: Receive, send: Send) -> None:
        wrong = "this API key is not known, or not any more" if secret else "an API key is needed"
        error = UnauthorizedError(f"{wrong}; send one as Authorization: Bearer KEY, or as X-API-Key")
        challenge = 'Bearer realm="tandem"' + (', error="invalid_token"' if secret else "")  # RFC 6750, 3
        self.on_refused(error.kind)
        await _refuse(error, scope, receive, send, forms=self.forms, headers={"WWW-Authenticate": challenge})


@dataclass(frozen=True, eq=False)
class RefuseOtherSites:
    """Answers 403 to what pages of other sites have a browser send to a service without keys.

    Such a page cannot read answers, but for a name of its own that it lets point to this machine (DNS rebinding): what
    comes to a loopback address has to ask for one by its name. And it could keep the service busy, or open WebSockets,
    which no browser guards: what says that it comes from elsewhere is refused. Probes may ask as they like.

    Args:
        app: what answers.
        hosts: names for this service, in lower case, beside those of loopback addresses.
        open_paths: paths that pages of others may lead to.
        forms: see `service.http.problems.answer_for`.
        on_refused: is called for each refused request, with the kind of problem.
    """

    app: ASGIApp
    hosts: Set[str]
    open_paths: Set[str]
    forms: Mapping[str, ErrorForm]
    on_refused: Callable[[str], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asks = scope["type"] in ("http", "websocket") and scope["path"] not in PROBES
        error = self._error(scope) if asks else None
        if error is None:
            await self.app(scope, receive, send)
            return
        self.on_refused(error.kind)
        await _refuse(error, scope, receive, send, forms=self.forms, headers={})

    def _error(self, scope: Scope) -> ForbiddenError | None:
        headers = Headers(scope=scope)
        host = _Place.of(f"//{headers.get('host', 'localhost')}")  # none from HTTP/1.0, which no browser speaks
        to_loopback = scope.get("server") is not None and is_loopback(scope["server"][0])
        if to_loopback and not (is_loopback(host.name) or host.name in self.hosts):
            detail = f"Host: {host.name[:80]!r} is no name of this machine"
            return ForbiddenError(f"{detail}; ask 127.0.0.1, or put the name into allowed_hosts")
        elsewhere = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if (sent_by := headers.get("origin")) is not None:
            origin = _Place.of(sent_by)
            elsewhere = origin != host and origin.name not in self.hosts
        elif scope["path"] in self.open_paths:
            elsewhere = False
        if elsewhere:
            return ForbiddenError("this comes from a page of another site, which needs a service with API keys")
        return None


@dataclass(frozen=True)
class _Place:
    """Where a page comes from, or what a request asks for: in lower case, both empty where that cannot be read."""

    place: str
    name: str

    @classmethod
    def of(cls, url: str) -> _Place:
        try:
            parts = urlsplit(url.lower())
            return cls(parts.netloc, parts.hostname or "")
        except ValueError:  # brackets without an address between them, perhaps
            return cls("", "")


async def _refuse(
    error: RequestError,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    forms: Mapping[str, ErrorForm],
    headers: Mapping[str, str],
) -> None:
    """Answers with a problem; closes a WebSocket where the server cannot answer it so."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await receive()
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": error.title})
        return
    response = answer_for(scope["path"], problem_of(error), forms=forms, headers=headers)
    await response(scope, receive, send)


def _fields(scope: Scope, record: RequestRecord, status: int) -> dict[str, object]:
    """What is logged of a request; of its path the route's template only, as clients can put anything into a path."""
    route = getattr(scope.get("route"), "path", None)
    client = scope.get("client")
    fields: dict[str, object] = {
        "request_id": record.id,
        "method": scope.get("method", "WEBSOCKET"),
        "route": route,
        "status": status,
        "shots": record.shots,
        **record.times,
        "client": client[0] if client else None,
        "key": record.key.name if record.key is not None else None,
    }
    if "model_id" in scope.get("path_params", {}) and status != 404:
        fields["model"] = scope["path_params"]["model_id"]
    return fields
