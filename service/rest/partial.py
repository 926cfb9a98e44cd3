"""Answers in parts: what the network says at once, second opinions as they arrive, a JSON object a line."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import ExitStack

import numpy as np
from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from service.http.bounds import Gate, work_on_body
from service.models.engine import Engine
from service.models.model import Model
from service.models.second_opinions import AskedOpinions
from service.rest.bodies import read_shots
from service.wire.schemas import DecodeQuery
from service.wire.shots import ANSWERED_BY, answer_object

NDJSON = "application/x-ndjson"


class Lines(StreamingResponse):
    """A response of lines that holds something until the last of them is sent, or the client has gone."""

    def __init__(self, lines: AsyncIterator[bytes], held: ExitStack, *, headers: dict[str, str]) -> None:
        super().__init__(lines, media_type=NDJSON, headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


async def answer_in_parts(
    request: Request, engine: Engine, gate: Gate, model: Model, query: DecodeQuery, sent: str
) -> Lines:
    """Decodes a body with a pair, and answers in parts.

    Args:
        request: whose body.
        engine: of the service.
        gate: bounds how many requests are at work.
        model: a pair.
        query: of the request.
        sent: the body's media type.
    """
    # The model may be replaced while lines are sent, which begins when the route has returned.
    with ExitStack() as stack:
        stack.enter_context(model.lease())
        began = time.perf_counter()

        async def ask(body: bytes) -> AskedOpinions:
            decoder, shots = await read_shots(engine, model, query, sent, body)
            answer = await engine.decode_first(model, decoder, shots)
            assert model.second is not None
            seconds = engine.patience(model, query.deadline_ms, since=began)
            return model.second.ask(answer, model.experiment(query), shots, seconds=seconds)

        asked = await work_on_body(request, ask, gate=gate, settings=engine.settings, timeout_ms=query.timeout_ms)
        headers = {"X-Tandem-Model": model.settings.id, "X-Tandem-Num-Shots": str(len(asked.answer.predictions))}
        return Lines(_lines(asked, model.settings.id, query), stack.pop_all(), headers=headers)


async def _lines(asked: AskedOpinions, model_id: str, query: DecodeQuery) -> AsyncIterator[bytes]:
    first = answer_object(
        asked.answer,
        model=model_id,
        confidence=query.confidence is not False,
        flip_probabilities=query.flip_probabilities,
    )
    answered_by = np.full(len(asked.answer.predictions), "first", dtype=object)
    answered_by[asked.rows] = "pending"
    yield _line({**first, "answered_by": answered_by.tolist()})
    async for row, prediction, opinion in asked.each():
        yield _line(
            {"shot": row, "prediction": prediction.view(np.uint8).tolist(), "answered_by": ANSWERED_BY[opinion]}
        )
    yield _line({"done": True})


def _line(content: dict[str, object]) -> bytes:
    return to_json(content) + b"\n"
