"""Answers in parts: what the network says at once, second opinions as they arrive, a JSON object a line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack

from fastapi.responses import StreamingResponse
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from service.models.model import Model
from service.models.second_opinions import AskedOpinions
from service.wire.schemas import DecodeQuery
from service.wire.shots import ANSWERED_BY, result_object

NDJSON = "application/x-ndjson"


class PartialAnswer(StreamingResponse):
    """The lines of a pair's answer. The model stays open until the last is sent or the client has disconnected."""

    def __init__(self, asked: AskedOpinions, model: Model, query: DecodeQuery, *, headers: Mapping[str, str]) -> None:
        super().__init__(_lines(asked, model.id, query), media_type=NDJSON, headers=headers)
        self._held = ExitStack()
        self._held.enter_context(model.lease())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


async def _lines(asked: AskedOpinions, model_id: str, query: DecodeQuery) -> AsyncIterator[bytes]:
    content = result_object(asked.first, query, model=model_id)
    answered_by = ["pending" if row in asked.pending else "first" for row in range(len(asked.first.predictions))]
    yield _line(content | {"answered_by": answered_by})
    async for row, prediction, opinion in asked.each():
        yield _line({"shot": row, "prediction": prediction.view("u1").tolist(), "answered_by": ANSWERED_BY[opinion]})
    yield _line({"done": True})


def _line(content: dict[str, object]) -> bytes:
    return to_json(content) + b"\n"
