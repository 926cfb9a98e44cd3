"""What the JSON of the /v1 routes looks like."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from decoder.inspection import Inspection

JSON = "application/json"
B8 = "application/octet-stream"
Bit = Literal[0, 1]
# Fail fast: a body of millions of wrong values must not become millions of error messages.
Shot = Annotated[list[Bit], FailFast()]
Shots = Annotated[list[Shot], FailFast(), Field(min_length=1)]


class Sent(BaseModel):
    """A JSON object that a client sends.

    Only the first unknown name is reported: a body has room for a million, and pydantic would report each.
    """

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, data: Any) -> Any:
        if isinstance(data, dict):
            unknown = next((name for name in data if name not in cls.model_fields), None)
            if unknown is not None:
                raise ValueError(f"there is no {unknown[:40]!r}; known are {', '.join(cls.model_fields)}")
        return data


class ExperimentQuery(BaseModel):
    """Which experiment a request is about. What is left out is that of the model's default experiment."""

    model_config = ConfigDict(extra="forbid")

    basis: Literal["X", "Z"] | None = Field(default=None, description="Basis of the logical memory.")
    rounds: int | None = Field(default=None, ge=1, description="Syndrome rounds.")
    p: float | None = Field(
        default=None,
        gt=0,
        lt=0.5,
        description="Physical error rate. Sets the noise of the circuit and the priors that it is decoded with.",
    )


class AnyExperimentQuery(ExperimentQuery):
    """The same, or an experiment that the client has sent."""

    experiment: str | None = Field(
        default=None,
        max_length=64,
        description="Id of a circuit or error model sent to `/v1/experiments`, in the place of basis, rounds and p.",
    )


Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Meaning = Literal["probabilities", "factors"]
"""Of reweights."""
Form = Literal["all", "each"]
"""Whether one row of reweights is for all shots, or each has its own."""
AnsweredBy = Literal["first", "second", "late", "failed"]


class DecodeQuery(AnyExperimentQuery):
    """The experiment that the shots come from, and what to answer beside the predictions."""

    confidence: bool | None = Field(
        default=None, description="Whether to answer each prediction's probability. Default: in JSON yes, in b8 no."
    )
    flip_probabilities: bool = Field(
        default=False, description="Whether to answer the probability that each observable flipped."
    )
    timeout_ms: int | None = Field(
        default=None,
        ge=1,
        description="Milliseconds after which the answer is of no use any more. Then it is 504, and shots that "
        "still wait for their turn are not decoded.",
    )
    deadline_ms: Milliseconds | None = Field(
        default=None,
        description="Pairs alone: milliseconds after which a shot keeps the network's answer if its second opinion is "
        "not there. Default: the model's, or as long as it takes.",
    )
    errors: bool = Field(
        default=False,
        description="Whether to answer the error that the decoder found, in the order of the detector error model, and "
        "whether it explains the shot. Classical decoders alone.",
    )
    reweights: Form | None = Field(
        default=None,
        description="Classical decoders and b8 alone: behind the shots there are probabilities of the errors, float64, "
        "a row for all shots or one for each. In JSON `reweights` of the body says it.",
    )
    reweights_are: Meaning = Field(
        default="probabilities",
        description="Whether reweights are the errors' probabilities, or factors for those of the error model.",
    )
    opinions: bool = Field(
        default=False, description="Pairs alone: whether a b8 answer tells who answered each shot. JSON always does."
    )
    partial: bool = Field(
        default=False,
        description="Pairs and JSON alone: answer at once with what the network says, and with second opinions as they "
        "arrive, a JSON object a line (application/x-ndjson).",
    )


class DecodeRequest(Sent):
    """Shots to decode, either as lists of bits or packed."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["shots"], "not": {"required": ["num_shots"]}}, {"required": ["shots_b8"]}]
        }
    )

    # What was not sent gets these defaults, which are not in the schema; `model_fields_set` says what was sent.
    shots: Shots = Field(
        default_factory=list,
        description="One list of detection events a shot, as many as the experiment has detectors.",
    )
    shots_b8: str = Field(
        default_factory=str,
        description="Base64 of stim's b8: each shot starts on a byte, the first detector is the lowest bit.",
        json_schema_extra={"contentEncoding": "base64"},
    )
    num_shots: int = Field(
        default_factory=int, ge=1, description="How many shots `shots_b8` holds, to have it checked."
    )

    reweights: list[Any] = Field(
        default_factory=list,
        description="Probabilities of the errors of the detector error model, in its order without loops, or factors "
        "for them (`reweights_are`): a list of numbers for all shots, or one list a shot.",
    )

    @model_validator(mode="after")
    def _one_form(self) -> DecodeRequest:
        sent = self.model_fields_set
        if ("shots" in sent) == ("shots_b8" in sent):
            raise ValueError("give either shots or shots_b8")
        if "num_shots" in sent and "shots" in sent:
            raise ValueError("num_shots goes with shots_b8 only")
        return self


class SampledExperiment(BaseModel):
    basis: Literal["X", "Z"]
    rounds: int
    p: float
    noise: str


class ExperimentInfo(BaseModel):
    id: str | None = Field(default=None, description="Of an experiment that was sent to `/v1/experiments`.")
    basis: str | None = Field(description="Basis of the logical memory; null where it is not known, like the next two.")
    rounds: int | None
    p: float | None
    noise: str
    num_detectors: int = Field(description="Bits in each shot, in the order of the circuit's detectors.")
    num_observables: int = Field(description="Bits in each prediction.")


class ExperimentRecord(BaseModel):
    """An experiment that was sent to `/v1/experiments`."""

    id: str = Field(description="What requests call it by: the SHA-256 of its text as stim writes it.")
    bytes: int = Field(description="Length of the text.")
    layers: list[int] = Field(description="Detectors in each layer of a stream.")
    inspection: Inspection = Field(description="What `tandem inspect` says of it.")


class ExperimentList(BaseModel):
    experiments: list[ExperimentRecord]


class CodeInfo(BaseModel):
    id: str = Field(description="Code id, or `l,m,A,B`.")
    n: int = Field(description="Data qubits.")
    k: int = Field(description="Logical qubits.")
    d: int | None = Field(description="Distance, where it is published.")


class Limits(BaseModel):
    max_body_bytes: int
    max_shots_per_request: int
    max_reweighted_shots: int = Field(description="Shots of a request with probabilities of errors for each shot.")
    max_rounds: int
    max_window_rounds: int = Field(description="Of streams that are decoded in windows.")
    max_stream_connections: int = Field(description="Connections with streams, all clients together.")
    max_streams: int = Field(description="Open streams, over all connections.")
    max_streams_per_connection: int
    max_stream_message_bytes: int
    stream_idle_seconds: float = Field(description="Between two layers of a stream.")


class PairInfo(BaseModel):
    second: str = Field(description="The decoder that gives second opinions.")
    threshold: float = Field(description="It is asked where the network is less sure than that.")
    deadline_ms: float | None = Field(description="When an opinion is late, if a request does not say; null: never.")


class ModelInfo(BaseModel):
    id: str
    code: CodeInfo
    decoder: str
    detectors: Literal["XZ", "XYZ"] = Field(
        description="Which detectors the decoder looks at: XZ, those of the memory basis; XYZ, those of both "
        "bases. Shots always hold all of them."
    )
    ready: bool
    gives_confidence: bool | None = Field(description="Whether answers have probabilities; null until ready.")
    gives_errors: bool | None = Field(description="Whether it tells the errors that it finds; null until ready.")
    experiment: ExperimentInfo = Field(description="The experiment asked for, by default the model's own.")
    limits: Limits
    pair: PairInfo | None = Field(default=None, description="Of pairs, when they are ready.")
    details: dict[str, Any] = Field(description="What else the decoder says of itself, such as its weights.")


class ModelList(BaseModel):
    models: list[ModelInfo]


class DecodeResponse(BaseModel):
    model: str
    num_shots: int
    predictions: list[list[Bit]] = Field(description="For each shot, which observables flipped.")
    confidence: list[float] | None = Field(
        description="For each shot, the posterior probability that all its predictions are right; null if "
        "the decoder does not say or it was not asked for."
    )
    flip_probabilities: list[list[float]] | None = Field(
        description="For each shot, the probability that each observable flipped; null likewise."
    )
    answered_by: list[AnsweredBy] | None = Field(
        default=None,
        description="Pairs alone: who answered each shot. first: the network, which was sure; second: the second "
        "decoder; late, failed: the network, as the second decoder was not in time, or failed.",
    )
    errors: list[list[int]] | None = Field(
        default=None,
        description="For each shot, the numbers of the errors of the detector error model that happened; left out if "
        "not asked for.",
    )
    converged: list[Bit] | None = Field(
        default=None, description="For each shot, whether the errors explain it; left out likewise."
    )
    hurried: list[int] | None = Field(
        default=None,
        description="The numbers of the shots for which the decoder took a cheaper setting, as they would have taken "
        "longer than `max_shot_seconds`; left out where there is none.",
    )
    warning: str | None = Field(
        default=None,
        description="That the shots can hardly be those of the experiment, as the decoder is unsure of so many; left "
        "out where nothing looks wrong.",
    )
    queue_seconds: float = Field(description="How long the request waited for its turn.")
    compute_seconds: float = Field(description="How long the batches took that its shots were decoded in.")
    second_seconds: float | None = Field(
        default=None, description="Pairs alone: how long it waited for second opinions, beside these two."
    )


class Status(BaseModel):
    status: Literal["ok", "ready"]
