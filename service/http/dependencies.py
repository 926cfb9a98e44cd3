"""The arguments that routes share: the engine, a model, the gate that bounds requests, and the experiment asked for.

FastAPI's resolution of dependencies takes as long as everything else that the service does to decode a shot, so
`DirectRoute` passes the same arguments to the route that decodes without it.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any, TypeVar, get_args

from fastapi import Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from service.http.bounds import Gate
from service.models.engine import Engine
from service.models.model import Model
from service.wire.schemas import ExperimentQuery

Schema = TypeVar("Schema", bound=BaseModel)

# Dependencies are coroutines because FastAPI hands plain functions to threads, which takes some 0.4 ms each.


async def get_engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


async def get_gate(request: Request) -> Gate:
    gate: Gate = request.app.state.gate
    return gate


EngineDependency = Annotated[Engine, Depends(get_engine)]
GateDependency = Annotated[Gate, Depends(get_gate)]


async def get_model(model_id: str, engine: EngineDependency) -> AsyncIterator[Model]:
    model = engine.model(model_id)
    with model.lease():
        yield model


ModelDependency = Annotated[Model, Depends(get_model)]
ExperimentParameters = Annotated[ExperimentQuery, Query()]


class DirectRoute(APIRoute):
    """A route below /models/{model_id} whose handler has exactly the parameters `request`, `gate`, `model`, `query`.

    It is declared and documented like any other; `query` is annotated with a pydantic model and `Query()`.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint
        parameters = inspect.signature(endpoint, eval_str=True).parameters
        if set(parameters) != {"request", "gate", "model", "query"} or self.dependencies:
            raise TypeError(f"{endpoint.__name__} has other parameters than such a route, or dependencies")
        schema: type[BaseModel] = get_args(parameters["query"].annotation)[0]
        no_query = schema()

        async def handle(request: Request) -> Response:
            state = request.app.state
            model: Model = state.engine.model(request.path_params["model_id"])
            with model.lease():
                query = read_query(request, schema) if request.scope["query_string"] else no_query
                response: Response = await endpoint(request=request, gate=state.gate, model=model, query=query)
                return response

        return handle


def read_query(request: Request, schema: type[Schema]) -> Schema:
    """Reads the query of a request. Of a parameter that is given more than once the last value counts.

    Raises:
        RequestValidationError: the query does not fit the schema.
    """
    try:
        return schema.model_validate(dict(request.query_params))
    except ValidationError as error:
        flaws = [dict(flaw) | {"loc": ("query", *flaw["loc"])} for flaw in error.errors(include_url=False)]
        raise RequestValidationError(flaws) from None
