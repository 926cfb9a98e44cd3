"""What the JSON of the /v2 routes looks like.

Source: Open Inference Protocol, REST (https://github.com/kserve/open-inference-protocol) and Triton's extension
binary_tensor_data (https://github.com/triton-inference-server/server/blob/main/docs/protocol).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from service.wire.schemas import AnyExperimentQuery, Meaning, Milliseconds, Sent

VERSION = "1"
"""The one version of every model: a model that is replaced is gone."""

InputDatatype = Literal["BOOL", "UINT8", "FP32", "FP64"]
OutputDatatype = Literal["BOOL", "UINT8", "FP32", "FP64"]
InputName = Literal["detection_events", "detection_events_b8", "reweights"]
OutputName = Literal[
    "predictions", "predictions_b8", "confidence", "flip_probabilities", "opinions", "errors_b8", "converged"
]


class InferenceError(BaseModel):
    """What went wrong, in this protocol's own form."""

    error: str = Field(description="What went wrong, and what to do.")


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    live: Literal[True]


class ServerReady(BaseModel):
    ready: Literal[True]


class ModelReady(BaseModel):
    name: str
    ready: Literal[True]


class TensorMetadata(BaseModel):
    name: str
    datatype: OutputDatatype
    shape: list[int] = Field(description="-1: as many as there are shots.")


class ModelMetadata(BaseModel):
    """A model, and the tensors of its default experiment."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata] = Field(description="What an answer holds unless the request lists outputs.")


# Strict, because in a request 1 and true, or 6 and "6", are not the same; what is unknown is refused, because an
# option that has no effect would go unnoticed.


class _Sent(Sent):
    model_config = ConfigDict(strict=True)


class InferParameters(_Sent, AnyExperimentQuery):
    """The experiment that the shots come from, and how to answer."""

    timeout_ms: int | None = Field(
        default=None, ge=1, description="Milliseconds after which the answer is of no use any more: then it is 504."
    )
    deadline_ms: Milliseconds | None = Field(
        default=None, description="Pairs alone: milliseconds after which a second opinion is late."
    )
    reweights_are: Meaning = Field(
        default="probabilities",
        description="Whether the input `reweights` are the errors' probabilities, or factors for those of the model.",
    )
    binary_data_output: bool | None = Field(default=None, description="Whether outputs are binary unless they say.")


class InputParameters(_Sent):
    binary_data_size: int | None = Field(default=None, ge=0, description="Bytes of this tensor after the JSON.")


class InferInput(_Sent):
    name: InputName = Field(
        description="`detection_events`: one value, 0 or 1, a detector. `detection_events_b8`: stim's b8, each shot "
        "starts on a byte, the first detector is the lowest bit. `reweights`: of classical decoders, beside one of "
        "these, probabilities of the errors."
    )
    datatype: InputDatatype = Field(description="BOOL or UINT8 for events, UINT8 for b8, FP32 or FP64 for reweights.")
    shape: list[int] = Field(
        min_length=1, max_length=2, description="[shots, detectors], [shots, bytes], [errors] or [shots, errors]."
    )
    parameters: InputParameters | None = None
    data: list[Any] | None = Field(
        default=None, description="The values row by row, in one list or one list a shot; unless they are binary."
    )


class OutputParameters(_Sent):
    binary_data: bool | None = Field(default=None, description="Whether to answer this output as binary data.")


class InferRequestedOutput(_Sent):
    name: OutputName
    parameters: OutputParameters | None = None


class InferRequest(_Sent):
    id: str | None = Field(default=None, description="Comes back in the answer.")
    model_name: str | None = Field(default=None, description="As in the URL; KServe's clients send it.")
    model_version: str | None = Field(default=None, description="As in the URL.")
    parameters: InferParameters | None = None
    inputs: Annotated[list[InferInput], FailFast()] = Field(min_length=1, max_length=2)
    outputs: Annotated[list[InferRequestedOutput], FailFast()] = Field(
        default_factory=list, description="Default: those of the metadata."
    )


class InferOutput(BaseModel):
    name: OutputName
    datatype: OutputDatatype
    shape: list[int]
    parameters: dict[str, int] | None = Field(
        default=None, description="`binary_data_size`: bytes of this tensor after the JSON."
    )
    data: list[bool] | list[int] | list[float] | None = Field(
        default=None, description="The values row by row, unless they are binary."
    )


class InferResponse(BaseModel):
    """The answer; binary outputs follow it in their order, little-endian."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferOutput]


# Triton's extensions model_configuration, statistics and model_repository, as far as they are about what there is.

ConfigType = Literal["TYPE_BOOL", "TYPE_UINT8", "TYPE_FP32", "TYPE_FP64"]


class ConfigTensor(BaseModel):
    name: str
    data_type: ConfigType
    dims: list[int] = Field(description="Of one shot: one number a value, [1].")


class ConfigParameter(BaseModel):
    string_value: str


class ModelConfig(BaseModel):
    """A model's settings, as Triton's tools read them."""

    name: str
    platform: str
    backend: Literal["tandem"] = "tandem"
    max_batch_size: int = Field(description="Most shots of one request.")
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    parameters: dict[str, ConfigParameter] = Field(description="The default experiment: code, basis, rounds, p, noise.")


class Duration(BaseModel):
    """How often something was done, and how long that took altogether."""

    count: int = 0
    ns: int = 0


class InferenceStatistics(BaseModel):
    """Durations of requests; those of `compute_infer` are of batches, which hold the shots of several requests."""

    success: Duration
    fail: Duration = Field(description="Requests and streams of all routes that were refused or failed; not timed.")
    queue: Duration
    compute_input: Duration = Field(default=Duration(), description="Not told apart from the rest of a request.")
    compute_infer: Duration
    compute_output: Duration = Field(default=Duration(), description="Not told apart from the rest of a request.")
    cache_hit: Duration = Field(default=Duration(), description="Answers are not kept.")
    cache_miss: Duration = Field(default=Duration(), description="Answers are not kept.")


class ModelStatistics(BaseModel):
    """What a model has done since the service was started, in all workers."""

    name: str
    version: str
    last_inference: int = Field(description="When a request was last answered, in milliseconds since 1970; 0: never.")
    inference_count: int = Field(description="Shots decoded, those of streams among them.")
    execution_count: int = Field(description="Batches decoded.")
    inference_stats: InferenceStatistics
    batch_stats: list[Any] = Field(default_factory=list, description="Not counted by size.")


class Statistics(BaseModel):
    model_stats: list[ModelStatistics]


class IndexRequest(_Sent):
    ready: bool = Field(default=False, description="Whether to list only models that are ready.")


class IndexedModel(BaseModel):
    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str = ""
