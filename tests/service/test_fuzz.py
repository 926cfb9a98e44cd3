"""schemathesis on our own OpenAPI document, briefly; benchmarks/fuzz.py does it at length."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)


def no_server_error(context: Any, response: Any, case: schemathesis.Case) -> bool | None:
    """504 is the answer to a client that allows too little time: `timeout_ms=1`."""
    return None if response.status_code == 504 else not_a_server_error(context, response, case)


CHECKS = [
    no_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.mark.parametrize("model_id", [None, "bb72"])
def test_no_server_error_and_no_undocumented_answer(url, model_id):
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    names = []
    found: Any
    for found in schema.get_all_operations():
        operation = found.ok()
        if model_id is not None and "model_id" not in operation.path:
            continue
        names.append(operation.label)

        @seed(2031)
        @settings(
            max_examples=4,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            if model_id is not None:
                case.path_parameters["model_id"] = model_id
            case.call_and_validate(checks=CHECKS)

        check()
    assert {"POST /v1/models/{model_id}/decode", "POST /v2/models/{model_id}/infer"} <= set(names)
