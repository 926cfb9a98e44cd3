"""The arguments that routes share: the engine, a model, the gate that bounds requests, and the experiment asked for.

FastAPI's resolution of dependencies takes as long as everything else that the service does to decode a shot, so
`DirectRoute` passes the same arguments to the route that decodes without it.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any, get_args

from fastapi import Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from service.errors import InvalidParametersError
from service.http.bounds import Gate
from service.models.engine import Engine
from service.models.model import Model
from service.wire.schemas import ExperimentQuery

# Dependencies are coroutines because FastAPI hands plain functions to threads, which takes some 0.4 ms each.


def state(name: str) -> Any:
    """The dependency on what `create_app` has put into `app.state` under a name."""

    async def get(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(get)


EngineDependency = Annotated[Engine, state("engine")]
GateDependency = Annotated[Gate, state("gate")]


def query_values(request: Request) -> dict[str, str]:
    """The parameters of a request's query.

    Raises:
        InvalidParametersError: one is given twice, and only one of its values could count.
    """
    items = request.query_params.multi_items()
    values = dict(items)
    if len(values) < len(items):
        (name, _), *_ = Counter(name for name, _ in items).most_common(1)
        raise InvalidParametersError.of(f"{name[:80]} is given more than once; give it once", parameter=name[:80])
    return values


async def get_model(model_id: str, request: Request, engine: EngineDependency) -> AsyncIterator[Model]:
    model = engine.model(model_id)
    query_values(request)
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
            bound, given = request.app.state, request.scope["query_string"]
            model: Model = bound.engine.model(request.path_params["model_id"])
            with model.lease():
                try:
                    query = schema.model_validate(query_values(request)) if given else no_query
                except ValidationError as error:
                    flaws = [dict(flaw) | {"loc": ("query", *flaw["loc"])} for flaw in error.errors(include_url=False)]
                    raise RequestValidationError(flaws) from None
                response: Response = await endpoint(request=request, gate=bound.gate, model=model, query=query)
                return response

        return handle
