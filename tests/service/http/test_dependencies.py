"""Routes without FastAPI's resolution of dependencies answer as those with it."""

from __future__ import annotations

from typing import Annotated

import pytest
from fastapi import APIRouter, Query, Request, Response

from service.http.dependencies import DirectRoute, GateDependency, ModelDependency
from service.wire.schemas import DecodeQuery

QUERIES = ["rounds=0", "rounds=soon", "rounds=", "basis=Y", "p=0.5", "p=nan", "colour=red", "colour=red&basis=z"]
QUERIES += ["rounds=1&rounds=x", "%FF=%FF"]


@pytest.mark.anyio
@pytest.mark.parametrize("query", QUERIES)
async def test_a_wrong_query_is_refused_in_the_same_words(client, query):
    direct = (await client.post(f"/v1/models/bb72-bposd/decode?{query}")).json()
    usual = (await client.get(f"/v1/models/bb72-bposd?{query}")).json()
    assert direct["type"] == "urn:problem-type:tandem:invalid-parameters"
    assert (direct["errors"], direct["detail"]) == (usual["errors"], usual["detail"])


def test_a_handler_with_other_parameters_is_refused():
    router = APIRouter(route_class=DirectRoute)

    async def handler(request: Request, gate: GateDependency, model: ModelDependency, other: str) -> Response:
        return Response()

    with pytest.raises(TypeError, match="other parameters"):
        router.add_api_route("/models/{model_id}/x", handler)

    async def complete(
        request: Request,
        gate: GateDependency,
        model: ModelDependency,
        query: Annotated[DecodeQuery, Query()],
    ) -> Response:
        return Response()

    router.add_api_route("/models/{model_id}/x", complete)
