"""What routes ask for: the engine, a model that stays as long as the request, and the gate that bounds requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Query, Request

from service.http.bounds import Gate
from service.models.engine import Engine
from service.models.model import Model
from service.wire.schemas import ExperimentQuery

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
    with engine.lease(model_id) as model:
        yield model


ModelDependency = Annotated[Model, Depends(get_model)]
ExperimentParameters = Annotated[ExperimentQuery, Query()]
