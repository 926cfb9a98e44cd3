from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.anyio

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
INFERENCE_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/InferenceError"}}}


@pytest.fixture
async def document(client) -> dict[str, Any]:
    return (await client.get("/openapi.json")).json()


async def test_every_error_of_every_route_is_documented_in_its_form(document):
    for path, operations in document["paths"].items():
        form = INFERENCE_ERROR if path.startswith("/v2") else PROBLEM
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if not status.startswith("2"):
                    assert response["content"] == form, (path, status)
    assert "401" not in document["paths"]["/readyz"]["get"]["responses"]
    decode = document["paths"]["/v1/models/{model_id}/decode"]["post"]
    assert set(decode["responses"]) == {"200", "401", "404", "406", "408", "413", "415", "422", "500", "503", "504"}
    assert set(decode["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    for versions in ("", "/versions/{model_version}"):
        infer = document["paths"][f"/v2/models/{{model_id}}{versions}/infer"]["post"]
        assert set(infer["responses"]) == {"200", "400", "401", "404", "408", "413", "415", "500", "503", "504"}
        assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
        names = ["model_id", "model_version", "Inference-Header-Content-Length"]
        assert {parameter["name"] for parameter in infer["parameters"]} == set(names if versions else names[::2])


async def test_every_reference_leads_somewhere(document):
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    names = {reference.rpartition("/")[2] for reference in references(document)}
    assert names <= set(document["components"]["schemas"])
    assert {"DecodeResponse", "InferRequest", "InferResponse"} <= names


async def test_bounds_of_the_settings_are_in_the_document(document):
    parameters = document["paths"]["/v1/models/{model_id}/decode"]["post"]["parameters"]
    rounds = next(parameter for parameter in parameters if parameter["name"] == "rounds")
    assert rounds["schema"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 4}
