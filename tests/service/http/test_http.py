from __future__ import annotations

import pytest
from fastapi import Request

from service.errors import BusyError, NotAcceptableError
from service.http.bounds import Gate, best_answer_type

OFFERED = ("application/json", "application/octet-stream")


def accepting(*values: str) -> Request:
    return Request({"type": "http", "headers": [(b"accept", value.encode()) for value in values]})


@pytest.mark.parametrize(
    ("accept", "best"),
    [
        ([], OFFERED[0]),
        (["*/*"], OFFERED[0]),
        (["application/octet-stream"], OFFERED[1]),
        (["Application/Octet-Stream"], OFFERED[1]),
        (["application/json;q=0.5, application/octet-stream"], OFFERED[1]),
        (["application/json;q=0.5, application/*;q=0.6"], OFFERED[1]),
        (["text/html, application/*;q=0.2"], OFFERED[0]),
        (["text/html", "application/octet-stream ; q=0.1"], OFFERED[1]),
        (["*/*, application/json;q=0"], OFFERED[1]),
    ],
)
def test_best_answer_type(accept, best):
    assert best_answer_type(accepting(*accept), OFFERED) == best


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "application/json;q=high", "image/*, text/*"])
def test_nothing_acceptable(accept):
    with pytest.raises(NotAcceptableError, match="application/json or application/octet-stream"):
        best_answer_type(accepting(accept), OFFERED)


def test_gate_lets_in_again_who_has_left():
    gate = Gate(1)
    for _ in range(2):
        with gate.enter(), pytest.raises(BusyError), gate.enter():
            pytest.fail("there is room for one")
