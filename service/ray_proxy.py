"""A middleware for Ray's proxies: when the replica at work on a request dies, the answer is 503 and to ask again.

Without it the proxies answer 500 in plain text, from which no client can tell that another replica would answer. They
take it from RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=service.ray_proxy:middlewares, in the environment of `ray start`
or `serve run`.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ReplicaLostError
from service.http.problems import answer_for, problem_of
from service.oip.errors import FORMS


@dataclass(frozen=True)
class AnswerLostRequests:
    """Answers requests that got no answer. Where an answer has begun, the server cuts the connection off."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        await self.app(scope, receive, watched)
        if scope["type"] == "http" and not started:
            error = ReplicaLostError("the replica at work on this request is lost; send it again", retry_after=0)
            response = answer_for(scope["path"], problem_of(error), forms=FORMS, headers=error.headers)
            await response(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Ray Serve puts around its HTTP proxies."""
    return [Middleware(AnswerLostRequests)]
