"""`tandem decode`, which besides decoding here can have a service do it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from decoder.commands.decode import InOption, ObsInOption, OutOption, ShotFiles, decode_files, make_here
from decoder.commands.options import (
    SOME_DECODERS,
    BasisOption,
    CodeOption,
    DetectorsOption,
    ForceOption,
    FormatOption,
    JsonOption,
    NoiseOption,
    PerfectEndOption,
    POption,
    RoundsOption,
    WeightsOption,
    make_experiment,
)

if TYPE_CHECKING:
    from decoder.base import Decoder
    from service.client import Client
    from simulation.circuits import MemoryExperiment

LOCAL_DECODER = "neural"


def decode(
    *,
    decoder: Annotated[
        str | None, typer.Option("--decoder", metavar="NAME", help=SOME_DECODERS, show_default=LOCAL_DECODER)
    ] = None,
    code: CodeOption,
    rounds: RoundsOption,
    basis: BasisOption,
    p: POption = None,
    noise: NoiseOption = "uniform",
    detectors: DetectorsOption = "XYZ",
    noiseless_last_cycle: PerfectEndOption = False,
    in_file: InOption,
    out: OutOption,
    format: FormatOption = "b8",
    obs_in: ObsInOption = None,
    weights: WeightsOption = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Decode by the service there (its API key is read from TANDEM_API_KEY)."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="ID", help="The service's model.", show_default="CODE, or CODE-DECODER if not neural"
        ),
    ] = None,
    force: ForceOption = False,
    json_output: JsonOption = False,
) -> None:
    """Decodes a file of shots; all files are in the same format.

    The options of the experiment must be those that the shots were made with.

    \b
    Examples:
      tandem decode --decoder bposd --code bb72 --rounds 6 --basis Z --p 0.002 \\
        --in shots.b8 --out predictions.b8 --obs-in flips.b8
      tandem decode --url http://127.0.0.1:8000 --code bb72 --rounds 6 --basis Z \\
        --p 0.002 --in shots.b8 --out predictions.b8 --obs-in flips.b8
    """
    experiment = make_experiment(
        code=code,
        rounds=rounds,
        basis=basis,
        p=p,
        noise=noise,
        detectors=detectors,
        noiseless_last_cycle=noiseless_last_cycle,
    )
    files = ShotFiles(detection_events=in_file, predictions=out, true_flips=obs_in, format=format, force=force)
    if url is None:
        if model is not None:
            raise ValueError("--model is a model of a service; add its --url, or choose a --decoder")
        make = partial(make_here, decoder or LOCAL_DECODER, experiment, weights=weights)
        decode_files(files, experiment, make=make, json_output=json_output)
        return
    if weights is not None:
        raise ValueError("a service decodes with its own weights; leave out --weights, or --url")
    from service.client import Client

    model = model or (code if decoder in (None, LOCAL_DECODER) else f"{code}-{decoder}")
    with Client(url) as client:
        make = partial(_make_there, client, model, experiment, decoder=decoder)
        decode_files(files, experiment, make=make, json_output=json_output)


def _make_there(
    client: Client, model: str, experiment: MemoryExperiment, *, decoder: str | None
) -> tuple[Decoder, Mapping[str, object]]:
    from service.client.remote import RemoteDecoder

    remote = RemoteDecoder(client, model, experiment)
    found = remote.info.decoder
    if decoder not in (None, found):
        raise ValueError(f"model {model} decodes with {found}, not {decoder}; choose another with --model")
    return remote, {"decoder": found, "model": model, "url": str(client.url)}
