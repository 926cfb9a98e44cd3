"""The native API: models and their experiments, and what all its routes depend on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse

from service.errors import BusyError, InvalidParametersError, UnknownModelError
from service.http.bounds import Gate
from service.http.problems import problem_responses
from service.models.engine import Engine
from service.models.model import ExperimentChoice, Model
from service.wire.schemas import CodeInfo, ExperimentInfo, ExperimentQuery, Limits, ModelInfo, ModelList
from simulation.circuits import MemoryExperiment

JSON = "application/json"
B8 = "application/octet-stream"

router = APIRouter(prefix="/v1")


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


@router.get("/models", tags=["models"], responses=problem_responses())
async def list_models(engine: EngineDependency) -> ModelList:
    """All models, each with its default experiment."""
    return ModelList(models=[model_info(engine, model, model.default) for model in engine.models.values()])


@router.get(
    "/models/{model_id}",
    tags=["models"],
    responses=problem_responses(UnknownModelError, InvalidParametersError, BusyError),
)
async def get_model_info(engine: EngineDependency, model: ModelDependency, query: ExperimentParameters) -> ModelInfo:
    """One model, and the size of the shots of the experiment asked for."""
    experiment = engine.experiment(model, choice(query))
    return await engine.build(lambda: model_info(engine, model, experiment))


@router.get(
    "/models/{model_id}/circuit",
    tags=["models"],
    response_class=PlainTextResponse,
    responses=problem_responses(UnknownModelError, InvalidParametersError, BusyError),
)
async def get_circuit(engine: EngineDependency, model: ModelDependency, query: ExperimentParameters) -> str:
    """The experiment's circuit as stim text: what makes the shots that the model decodes."""
    experiment = engine.experiment(model, choice(query))
    return await engine.build(lambda: f"{experiment.circuit}\n")


@router.get(
    "/models/{model_id}/dem",
    tags=["models"],
    response_class=PlainTextResponse,
    responses=problem_responses(UnknownModelError, InvalidParametersError, BusyError),
)
async def get_dem(engine: EngineDependency, model: ModelDependency, query: ExperimentParameters) -> str:
    """The detector error model of the experiment's circuit as stim text."""
    experiment = engine.experiment(model, choice(query))
    return await engine.build(lambda: f"{experiment.dem}\n")


def choice(query: ExperimentQuery) -> ExperimentChoice:
    """The experiment that a query names."""
    return ExperimentChoice(basis=query.basis, rounds=query.rounds, p=query.p)


def model_info(engine: Engine, model: Model, experiment: MemoryExperiment) -> ModelInfo:
    """What the service says of a model."""
    settings, code = model.settings, model.code
    return ModelInfo(
        id=settings.id,
        code=CodeInfo(id=str(code), n=code.n, k=code.k, d=code.d),
        decoder=settings.decoder,
        detectors=model.detectors,
        ready=model.ready,
        gives_confidence=model.gives_confidence,
        experiment=ExperimentInfo(
            basis=experiment.basis,
            rounds=experiment.rounds,
            p=experiment.noise.p,
            noise=str(experiment.noise),
            num_detectors=experiment.num_detectors,
            num_observables=experiment.num_observables,
        ),
        limits=Limits(**{name: getattr(engine.settings, name) for name in Limits.model_fields}),
        pair=None if model.second is None else model.second.info,
        details=dict(model.details),
    )
