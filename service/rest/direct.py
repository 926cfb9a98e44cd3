"""Routes whose handlers are called without FastAPI's resolution of dependencies, which takes as long as all the rest.

They are declared and documented like any other: only the way from a request to the handler's arguments is shorter.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, get_args

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from service.models.engine import Engine

Query = TypeVar("Query", bound=BaseModel)


class DirectRoute(APIRoute):
    """A route below a model's, with the parameters `request`, `engine`, `gate`, `model` and `query`, all of them.

    They are what `service.rest.models` means by these names; `query` is annotated with a pydantic model and `Query()`.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint
        parameters = inspect.signature(endpoint, eval_str=True).parameters
        if set(parameters) != {"request", "engine", "gate", "model", "query"} or self.dependencies:
            raise TypeError(f"{endpoint.__name__} has other parameters than such a route, or dependencies")
        schema: type[BaseModel] = get_args(parameters["query"].annotation)[0]
        no_query = schema()

        async def handle(request: Request) -> Response:
            state = request.app.state
            engine: Engine = state.engine
            with engine.lease(request.path_params["model_id"]) as model:
                query = read_query(request, schema) if request.scope["query_string"] else no_query
                response: Response = await endpoint(
                    request=request, engine=engine, gate=state.gate, model=model, query=query
                )
                return response

        return handle


def read_query(request: Request, schema: type[Query]) -> Query:
    """The query of a request; of a parameter that is there more than once, the last.

    Raises:
        RequestValidationError: it is not as the schema wants it.
    """
    try:
        return schema.model_validate(dict(request.query_params))
    except ValidationError as error:
        flaws = [dict(flaw) | {"loc": ("query", *flaw["loc"])} for flaw in error.errors(include_url=False)]
        raise RequestValidationError(flaws) from None
