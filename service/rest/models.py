"""The native API: models and their experiments."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse

from service.errors import (
    BusyError,
    DecodeTimeoutError,
    InvalidParametersError,
    UnknownExperimentError,
    UnknownModelError,
)
from service.http.dependencies import EngineDependency, ExperimentParameters, ModelDependency
from service.http.problems import problem_responses
from service.models.engine import Engine
from service.models.experiments import kept_of
from service.models.model import Model
from service.wire.schemas import AnyExperimentQuery, CodeInfo, ExperimentInfo, Limits, ModelInfo, ModelList
from simulation.circuits import MemoryExperiment
from simulation.foreign.kept import KeptExperiment

router = APIRouter(prefix="/v1")

PROBLEMS = problem_responses(UnknownModelError, InvalidParametersError, BusyError, DecodeTimeoutError)
"""The problems that routes about an experiment document.

They work on copies of experiments, as those that a model keeps would keep every circuit that was ever asked for.
"""


@router.get("/models", tags=["models"], responses=problem_responses())
async def list_models(engine: EngineDependency) -> ModelList:
    """All models, each with its default experiment."""
    return ModelList(models=[model_info(engine, model, model.default) for model in engine.models.values()])


@router.get(
    "/models/{model_id}",
    tags=["models"],
    responses=problem_responses(
        UnknownModelError, UnknownExperimentError, InvalidParametersError, BusyError, DecodeTimeoutError
    ),
)
async def get_model_info(
    engine: EngineDependency, model: ModelDependency, query: Annotated[AnyExperimentQuery, Query()]
) -> ModelInfo:
    """One model, and the size of the shots of the experiment asked for."""
    experiment = model.any_experiment(query)
    return await model.circuits.run(lambda: model_info(engine, model, copy(experiment)))


@router.get("/models/{model_id}/circuit", tags=["models"], response_class=PlainTextResponse, responses=PROBLEMS)
async def get_circuit(model: ModelDependency, query: ExperimentParameters) -> str:
    """The experiment's circuit as stim text: what makes the shots that the model decodes."""
    experiment = model.experiment(query)
    return await model.circuits.run(lambda: f"{replace(experiment).circuit}\n")


@router.get("/models/{model_id}/dem", tags=["models"], response_class=PlainTextResponse, responses=PROBLEMS)
async def get_dem(model: ModelDependency, query: ExperimentParameters) -> str:
    """The detector error model of the experiment's circuit as stim text."""
    experiment = model.experiment(query)
    return await model.circuits.run(lambda: f"{replace(experiment).dem}\n")


def model_info(engine: Engine, model: Model, experiment: MemoryExperiment | KeptExperiment) -> ModelInfo:
    """A model's description, with the size of the shots of one of its experiments."""
    settings, code = model.settings, model.code
    return ModelInfo(
        id=settings.id,
        code=CodeInfo(id=str(code), n=code.n, k=code.k, d=code.d),
        decoder=settings.decoder,
        detectors=model.detectors,
        ready=model.ready,
        gives_confidence=model.gives_confidence,
        gives_errors=model.gives_errors,
        experiment=_experiment_info(experiment),
        limits=Limits(**{name: getattr(engine.settings, name) for name in Limits.model_fields}),
        pair=None if model.second is None else model.second.info,
        details=dict(model.details),
    )


def _experiment_info(experiment: MemoryExperiment | KeptExperiment) -> ExperimentInfo:
    sizes: dict[str, Any] = {
        "num_detectors": experiment.num_detectors,
        "num_observables": experiment.num_observables,
    }
    if isinstance(experiment, MemoryExperiment):
        noise = experiment.noise
        return ExperimentInfo(basis=experiment.basis, rounds=experiment.rounds, p=noise.p, noise=str(noise), **sizes)
    facts = kept_of(experiment).record.inspection
    own = f"the {facts.kind}'s own"
    return ExperimentInfo(id=experiment.sha256, basis=facts.basis, rounds=facts.rounds, p=None, noise=own, **sizes)
