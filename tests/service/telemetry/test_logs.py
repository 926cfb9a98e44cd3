"""Request ids, and what the log says of a request."""

from __future__ import annotations

import json
import logging
import os
import re
from contextlib import suppress

import pytest

from service.telemetry import background
from service.telemetry.logs import JsonFormatter, TextFormatter
from tests.helpers import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def access(caplog):
    caplog.set_level(logging.INFO, "service.access")

    def lines() -> list[dict]:
        return [record.fields for record in caplog.records if record.name == "service.access"]

    return lines


async def test_a_request_id_is_made_or_taken_over(serve, make):
    async with serve(make) as client:
        made = [(await client.get("/healthz")).headers["x-request-id"] for _ in range(2)]
        assert len(set(made)) == 2
        assert all(re.fullmatch("[0-9a-f]{32}", one) for one in made)
        response = await client.get("/v1/models/none", headers={"x-request-id": "run-7/shot.3"})
        assert response.headers["x-request-id"] == response.json()["request_id"] == "run-7/shot.3"
        for insane in ("", "a b", "x" * 129, "-rf", "a\x01"):
            response = await client.get("/nothing", headers={"x-request-id": insane})
            assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
            assert response.json()["request_id"] == response.headers["x-request-id"]


async def test_a_line_for_each_request(serve, make, access, caplog):
    async with serve(make, api_keys="alice:alice-0123456789abcdef") as client:
        client.headers["x-api-key"] = "alice-0123456789abcdef"
        body = {"shots": [[0] * 72] * 3}
        await client.post("/v1/models/m/decode", json=body, headers={"x-request-id": "one"})
        await client.post("/v1/models/m/decode", json={"shots": [[2] * 72]})
        await client.get("/v1/models/../../etc/passwd")
        await client.get("/readyz")
        await client.get("/v1/models", headers={"x-api-key": "wrong-0123456789abcdef"})
    decoded, invalid, unknown, refused = access()
    times = {name: decoded.pop(name) for name in ("queue_ms", "compute_ms", "total_ms")}
    assert 0 <= times["compute_ms"] <= times["total_ms"]
    assert decoded == {
        "request_id": "one",
        "method": "POST",
        "route": "/v1/models/{model_id}/decode",
        "status": 200,
        "shots": 3,
        "client": "127.0.0.1",
        "key": "alice",
        "model": "m",
    }
    assert (invalid["status"], invalid["shots"]) == (422, 0)
    assert (unknown["status"], unknown["route"], unknown.get("model")) == (404, None, None)
    assert (refused["status"], refused["key"]) == (401, None)
    assert not any(record.exc_info for record in caplog.records)


async def test_an_unexpected_error_has_its_request_id_everywhere(serve, echo, access, caplog):
    made = []

    def make(model, experiment):
        made.append(experiment)
        if len(made) > 1:
            raise RuntimeError("broken")
        echo.num_detectors = experiment.num_detectors
        return echo

    async with serve(make) as client:
        response = await client.post(
            "/v1/models/m/decode?p=0.1", json={"shots": [[0] * 72]}, headers={"x-request-id": "seven"}
        )
    assert (response.status_code, response.headers["x-request-id"], response.json()["request_id"]) == (
        500,
        "seven",
        "seven",
    )
    assert access()[-1]["status"] == 500


async def test_no_lines_when_they_are_not_wanted(serve, make, access):
    async with serve(make, access_log=False) as client:
        await client.get("/v1/models")
    assert access() == []


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("service.x", logging.WARNING, __file__, 1, message, (), None)
    vars(made).update(extra)
    return made


def test_json_lines():
    line = JsonFormatter().format(record('two\nlines and "quotes"', request_id="r1", fields={"status": 200}))
    assert "\n" not in line
    found = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", found.pop("time"))
    assert found == {
        "level": "warning",
        "logger": "service.x",
        "message": 'two\nlines and "quotes"',
        "request_id": "r1",
        "status": 200,
    }


def test_text_lines_cannot_be_forged():
    line = TextFormatter().format(record("request", fields={"client": "a\nFAKE"}, request_id="r1"))
    assert line.endswith(r'WARNING request request_id="r1" client="a\nFAKE"')


def test_nobody_waits_for_who_reads_the_log(monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setattr(background, "STDERR", writing)
    handler = background.BackgroundHandler()
    handler.setFormatter(TextFormatter())
    lines = 2 * background.MAX_LINES  # of 100 bytes: more than the pipe and those that may wait
    for number in range(lines):
        handler.handle(record("x" * 100, request_id=str(number)))
    written = bytearray()
    os.set_blocking(reading, False)

    def all_is_written() -> bool:
        with suppress(BlockingIOError):
            written.extend(os.read(reading, 2**16))
        return not handler._lines.unfinished_tasks

    eventually(all_is_written)
    all_is_written()  # what came between that read and the last look at what waits
    dropped = sum(map(int, re.findall(rb"(\d+) lines of the log were dropped", written)))
    assert dropped > 0
    assert written.count(b"xxx request_id=") + dropped == lines
    os.close(reading)
    os.close(writing)
