"""`tandem decode`, which besides decoding here can have a service do it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from decoder.commands.decode import ShotFiles, decode_files, make_here
from decoder.console.groups import with_groups
from decoder.console.options import SOME_DECODERS, ExperimentOptions, OutputOptions, WeightsOption
from decoder.console.windows import WindowOptions

if TYPE_CHECKING:
    from decoder.base import Decoder
    from service.client import Client
    from simulation.experiments import Experiment

LOCAL_DECODER = "neural"


@with_groups
def decode(
    *,
    decoder: Annotated[
        str | None, typer.Option("--decoder", metavar="NAME", help=SOME_DECODERS, show_default=LOCAL_DECODER)
    ] = None,
    described: ExperimentOptions,
    files: ShotFiles,
    windows: WindowOptions,
    weights: WeightsOption = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Decode by the service there (its API key is read from TANDEM_API_KEY)."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="ID",
            help="The service's model.",
            show_default="CODE, or CODE-DECODER if not neural; for a file the first with this decoder",
        ),
    ] = None,
    output: OutputOptions,
) -> None:
    """Decodes a file of shots; all files are in the same format.

    The options of the experiment must be those that the shots were made with.

    \b
    Examples:
      tandem decode --decoder bposd --code bb72 --rounds 6 --basis Z --p 0.002 \\
        --in shots.b8 --out predictions.b8 --obs-in flips.b8
      tandem decode --url http://127.0.0.1:8000 --code bb72 --rounds 6 --basis Z \\
        --p 0.002 --in shots.b8 --out predictions.b8 --obs-in flips.b8
      tandem decode --decoder bposd --circuit my.stim --in shots.b8 --out predictions.b8
      tandem decode --url http://127.0.0.1:8000 --model bb72-bposd --circuit my.stim \\
        --in shots.b8 --out predictions.b8
    """
    experiment = described.experiment()
    if url is None:
        if model is not None:
            raise ValueError("--model is a model of a service; add its --url, or choose a --decoder")
        [name] = windows.names([decoder or LOCAL_DECODER])
        make = partial(make_here, name, experiment, weights=weights)
        decode_files(files, experiment, make=make, output=output)
        return
    if windows.window is not None or windows.commit is not None:
        raise ValueError("a service decodes in windows if its model does; leave out --window and --commit, or --url")
    if weights is not None:
        raise ValueError("a service decodes with its own weights; leave out --weights, or --url")
    from service.client import Client

    with Client(url) as client:
        model = model or _model_for(client, described.code, decoder or LOCAL_DECODER)
        make = partial(_make_there, client, model, experiment, decoder=decoder)
        decode_files(files, experiment, make=make, output=output)


def _model_for(client: Client, code: str | None, decoder: str) -> str:
    """A service's model for a code, or for circuits the first that decodes with a decoder."""
    if code is not None:
        return code if decoder == LOCAL_DECODER else f"{code}-{decoder}"
    found = {model.id: model.decoder for model in client.models()}
    for model, name in found.items():
        if name == decoder:
            return model
    listed = ", ".join(f"{model} ({name})" for model, name in found.items())
    raise ValueError(f"no model of the service decodes with {decoder}; choose one with --model: {listed}")


def _make_there(
    client: Client, model: str, experiment: Experiment, *, decoder: str | None
) -> tuple[Decoder, Mapping[str, object]]:
    from service.client.remote import RemoteDecoder
    from simulation.circuits import MemoryExperiment
    from simulation.foreign.experiment import ForeignExperiment

    assert isinstance(experiment, MemoryExperiment | ForeignExperiment)
    remote = RemoteDecoder.of(client, model, experiment)
    found = remote.info.decoder
    if decoder not in (None, found):
        raise ValueError(f"model {model} decodes with {found}, not {decoder}; choose another with --model")
    return remote, {"decoder": found, "model": model, "url": str(client.url)}
