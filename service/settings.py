"""Settings of the service, from environment variables that start with TANDEM_."""

from __future__ import annotations

import os
import re
from collections import Counter
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from decoder.catalog import DECODERS, has_weights

DEFAULT_CODES = ("bb72", "bb144")
"""Codes that are served by default; models of all others can be added."""
PAIRED = ("bb72",)
"""Codes whose pair is served by default. Each costs a process, and some 200 MB."""

LEAST_MEMORY_BYTES = 2**28
"""A worker with one small model takes more."""

OTHER_VARIABLES = frozenset(
    {"HOST", "PORT", "UDS", "UDS_MODE", "NO_PORT", "WORKERS", "INSECURE"}
    | {"API_KEY", "DISCARD_BELOW", "VECTORS", "RAY_RUN"}
)
"""Names after TANDEM_ that are no settings: options of `tandem serve`, and what clients, sinter and tests read."""
SERVICE_LINK = re.compile(r"(.*_)?(SERVICE_(HOST|PORT(_.*)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_.*)?)?)")
"""What Kubernetes puts into the environment for a Service whose name starts with tandem."""

Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:[0-9]{1,3})?)$")]


class ModelSettings(BaseModel):
    """One model: a decoder for a code, and the experiment that a request means if it names no other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="The name in the URL.")
    code: str = Field(description="Code id, or `l,m,A,B` as the command line takes it.")
    decoder: str = Field(default="neural", description="A name of `decoder.catalog`.")
    basis: Literal["X", "Z"] = Field(default="Z", description="Basis of the default experiment.")
    rounds: int = Field(default=6, ge=1, description="Rounds of the default experiment.")
    p: float = Field(default=0.001, gt=0, lt=0.5, description="Physical error rate of the default experiment.")
    noise: str = Field(default="uniform", description="Noise model, as the command line takes it.")
    weights: Path | None = Field(default=None, description="Weights file; the shipped one if not given.")
    device: Device | None = Field(
        default=None, description="Where its network computes. Default: the service's device."
    )
    own_process: bool | None = Field(
        default=None,
        description="Decode in a child process. Default: all but the network, which frees the interpreter while "
        "it computes; BP-OSD does not, and would hold up all other requests for the time of a hard shot.",
    )
    max_batch_shots: int | None = Field(
        default=None,
        ge=1,
        description="Most shots its decoder is handed at once. Default: that of the service for `neural`; "
        "64 for the others, which gain nothing by larger batches and would make others wait.",
    )
    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Pairs alone: the confidence below which the second decoder is asked. Default: 0.9.",
    )
    deadline_ms: float | None = Field(
        default=None,
        gt=0,
        description="Pairs alone: milliseconds from a request to when a shot whose second opinion is not there keeps "
        "the network's answer, unless the request says otherwise. Default: it is waited for.",
    )
    second_processes: int | None = Field(
        default=None, ge=1, description="Pairs alone: processes of the second decoder. Default: one a core but one."
    )
    second_patience_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Pairs alone: a process of the second decoder that takes longer for one shot hangs, and is "
        "replaced. Its start, some seconds, counts as well. Default: 60.",
    )

    @field_validator("weights")
    @classmethod
    def _a_path(cls, weights: Path | None) -> Path | None:
        if weights is not None and "\0" in str(weights):
            raise ValueError("a path has no NUL")
        return weights

    @model_validator(mode="after")
    def _pairs_alone(self) -> Self:
        names = ("threshold", "deadline_ms", "second_processes", "second_patience_seconds")
        known = {name for name in names if getattr(self, name) is not None}
        if known and self.decoder in DECODERS and DECODERS[self.decoder].second is None:
            raise ValueError(f"{', '.join(sorted(known))} belongs to pairs such as tandem, and {self.decoder} is none")
        return self

    @property
    def network(self) -> bool:
        """Whether the network decodes the shots, all of them or first of all."""
        return self.decoder in DECODERS and has_weights(self.decoder)

    @property
    def isolated(self) -> bool:
        """Whether a child process decodes."""
        return not self.network if self.own_process is None else self.own_process


def default_models() -> tuple[ModelSettings, ...]:
    """For each of `DEFAULT_CODES` the network and BP-OSD, and for those in `PAIRED` the pair."""
    neural = tuple(ModelSettings(id=code, code=code) for code in DEFAULT_CODES)
    classical = tuple(ModelSettings(id=f"{code}-bposd", code=code, decoder="bposd") for code in DEFAULT_CODES)
    pairs = tuple(ModelSettings(id=f"{code}-tandem", code=code, decoder="tandem") for code in PAIRED)
    return neural + classical + pairs


class Settings(BaseSettings):
    """Each field is read from TANDEM_ and its name; `TANDEM_MODELS` is a JSON list of objects."""

    model_config = SettingsConfigDict(env_prefix="TANDEM_", frozen=True)

    models: tuple[ModelSettings, ...] = Field(
        default_factory=default_models,
        min_length=1,
        description="A JSON list of models. Default: `bb72` and `bb144`, BP-OSD for the same, and the pair "
        "`bb72-tandem`.",
    )
    max_body_bytes: int = Field(default=16 * 2**20, ge=1, description="Longer bodies are refused with 413.")
    max_bodies_bytes: int = Field(
        default=128 * 2**20, ge=1, description="Most bytes of all bodies that are held at once; more get 503."
    )
    max_shots_per_request: int = Field(default=10_000, ge=1, description="More are refused with 413.")
    max_reweighted_shots: int = Field(
        default=100, ge=1, description="Most shots of a request whose errors have probabilities for each shot."
    )
    max_batch_shots: int = Field(default=256, ge=1, description="Most shots that a network decodes at once.")
    device: Device = Field(
        default="cpu",
        description="Where networks compute: `cpu`, `cuda`, or `cuda:1` for the second GPU. All else uses the CPU.",
    )
    max_queued_shots: int = Field(default=50_000, ge=1, description="Most shots waiting for one model; more get 503.")
    max_requests_in_flight: int = Field(
        default=256, ge=1, description="Most decode requests at once, which bounds the memory of bodies."
    )
    max_rounds: int = Field(default=40, ge=1, description="Most rounds an experiment may have.")
    max_window_rounds: int = Field(
        default=10_000, ge=1, le=65_535, description="Most rounds of a stream that is decoded in windows."
    )
    max_stream_connections: int = Field(default=256, ge=1, description="Most WebSocket connections at once.")
    max_streams: int = Field(default=4096, ge=1, description="Most streams open at once, over all connections.")
    max_streams_per_connection: int = Field(default=1024, ge=1, description="Most streams open on one connection.")
    max_stream_message_bytes: int = Field(default=2**16, ge=64, description="A longer message ends its connection.")
    stream_idle_seconds: float = Field(
        default=60, gt=0, description="Streams, and connections without any, end when nothing comes for so long."
    )
    stream_send_seconds: float = Field(
        default=10, gt=0, description="A client of streams that reads nothing for so long is cut off."
    )
    max_experiments: int = Field(default=16, ge=1, description="Most circuits and error models kept for one API key.")
    max_experiment_bytes: int = Field(
        default=16 * 2**20, ge=1, description="Longer circuits and error models are refused with 413."
    )
    experiments_dir: Path | None = Field(
        default=None,
        description="Directory in which circuits and error models are kept. Default: one of its own, for as long as "
        "the service runs.",
    )
    decoder_cache_size: int = Field(default=8, ge=1, description="Decoders kept per model, beside the default one.")
    grpc_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port for the Open Inference Protocol over gRPC, on the address of HTTP; needs the extra `grpc`.",
    )
    grpc_uds: Path | None = Field(
        default=None,
        description="Unix domain socket for the Open Inference Protocol over gRPC, of one worker; needs extra `grpc`.",
    )
    grpc_uds_mode: str = Field(
        default="600", pattern="^[0-7]{3,4}$", description="Permissions of that socket, as chmod takes them."
    )
    max_connections: int = Field(default=1024, ge=1, description="Most connections of one worker; others get 503.")
    header_timeout_seconds: float = Field(
        default=10, gt=0, description="A connection that takes longer to send a request's headers is closed."
    )
    keep_alive_seconds: int = Field(default=30, ge=1, description="How long connections stay open between requests.")
    write_timeout_seconds: float = Field(
        default=30, gt=0, description="A client that reads nothing of its answer for longer is cut off."
    )
    body_timeout_seconds: float = Field(default=30, gt=0, description="A body that takes longer gets 408.")
    decode_timeout_seconds: float = Field(default=120, gt=0, description="A request that waits longer gets 503.")
    build_timeout_seconds: float = Field(
        default=60,
        gt=0,
        description="A request for an experiment that is not prepared by then gets 503; it is prepared nevertheless.",
    )
    max_shot_seconds: float = Field(
        default=5,
        gt=0,
        description="Seconds of a core for a shot, of BP-OSD, BP-LSD and BP: then they make fewer iterations, or leave "
        "their second stage out, and the answer says which shots were `hurried`. An exact search fails.",
    )
    child_patience_seconds: float = Field(
        default=60,
        gt=0,
        description="A process of a classical decoder that is at one shot for longer is replaced; the shot is 503.",
    )
    memory_limit_bytes: int | None = Field(
        default=None,
        ge=LEAST_MEMORY_BYTES,
        description="Memory that the service may take, all its processes together. What it keeps of experiments is "
        "dropped for it, and new ones are refused with 503 when there is no room. Default: that of the container, or "
        "of the machine.",
    )
    drain_seconds: float = Field(
        default=1,
        ge=0,
        description="How long after SIGTERM new requests are still taken, while /readyz answers 503 and connections "
        "are closed after their answers. A load balancer should have turned away by then.",
    )
    shutdown_timeout_seconds: int = Field(default=30, ge=0, description="How long requests may take to end after that.")
    api_keys: SecretStr | None = Field(
        default=None,
        description="Comma-separated API keys, each `name:key` or as in `api_keys_file`. Without keys anyone may ask.",
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File of API keys, read again when it changes. A line is `name:key` or `name:sha256:DIGEST`; "
        "`admin:` after the name lets the key replace models.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="A JSON list of names by which a service without keys may be asked on a loopback address, beside "
        "those of this machine: what a proxy before it sends as Host. Pages of these names may ask it, too.",
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        default=(),
        description="A JSON list of addresses, or networks such as `10.0.0.0/8`, of proxies whose X-Forwarded-For is "
        "believed: the log has the client that it names.",
    )
    model_dir: Path | None = Field(
        default=None,
        description="Directory of weights for models put in place over HTTP. Without it, they have the shipped ones.",
    )
    models_file: Path | None = Field(
        default=None,
        description="JSON list of models that takes the place of `models` once it exists. Models are loaded, replaced "
        "and removed as it changes, and `PUT` and `DELETE` of models are written to it.",
    )
    log_format: Literal["text", "json"] = Field(default="text", description="How the log on stderr is written.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged; at `debug` with the requests for health and metrics."
    )
    access_log: bool = Field(default=True, description="Log a line for each request, at level `info`.")

    @property
    def serves_grpc(self) -> bool:
        """Whether there is a port or a socket for gRPC."""
        return self.grpc_port is not None or self.grpc_uds is not None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        twice = [model for model, count in Counter(model.id for model in self.models).items() if count > 1]
        if twice:
            raise ValueError(f"two models are called {twice[0]!r}; give each its own id")
        if self.max_bodies_bytes < self.max_body_bytes:
            raise ValueError("max_bodies_bytes must be at least max_body_bytes, or such bodies never fit")
        if self.max_queued_shots < self.max_shots_per_request:
            raise ValueError("max_queued_shots must be at least max_shots_per_request, or such requests never fit")
        for model in self.models:
            if model.rounds > self.max_rounds:
                raise ValueError(f"model {model.id!r} has {model.rounds} rounds; raise max_rounds={self.max_rounds}")
        return self


def variable(name: str) -> str:
    """The environment variable of a setting.

    Raises:
        ValueError: there is no such setting.
    """
    if name not in Settings.model_fields:
        raise ValueError(f"there is no setting {name!r}; there are {', '.join(Settings.model_fields)}")
    return f"TANDEM_{name.upper()}"


def _check_names() -> None:
    # A variable that is misspelt would leave a default in place, without a key perhaps.
    given = {name[len("TANDEM_") :].upper() for name in os.environ if name.upper().startswith("TANDEM_")}
    known = {name.upper() for name in Settings.model_fields} | OTHER_VARIABLES
    for name in sorted(given - known):
        if SERVICE_LINK.fullmatch(name) is None:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean TANDEM_{close[0]}?" if close else "see docs/api.md for those that there are"
            raise ValueError(f"TANDEM_{name}: there is no such setting; {hint}")


def read_settings() -> Settings:
    """The settings from the environment.

    Raises:
        ValueError: a variable does not hold what it should, or names no setting; the message is one line.
    """
    _check_names()
    try:
        return Settings()
    except SettingsError as error:
        raise ValueError(f"{error}: {error.__cause__}") from error
    except ValidationError as error:
        first = error.errors()[0]
        name, *within = map(str, first["loc"] or ("settings",))
        where = f"TANDEM_{'.'.join([name.upper(), *within])}: "
        raise ValueError(f"{where}{first['msg'].removeprefix('Value error, ')}") from error
