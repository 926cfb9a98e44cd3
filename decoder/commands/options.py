"""Options that several commands share, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

if TYPE_CHECKING:
    from simulation.circuits import MemoryExperiment

_CODE_HELP = "Code id such as bb72 ('tandem codes' lists them), or l,m,A,B such as 6,6,x^3+y+y^2,y^3+x+x^2."

Value = TypeVar("Value")
Basis = Literal["X", "Z"]
Detectors = Literal["XYZ", "XZ"]
Format = Literal["b8", "01", "dets"]

CodeArgument = Annotated[str, typer.Argument(metavar="CODE", help=_CODE_HELP)]
CodeOption = Annotated[str, typer.Option("--code", metavar="CODE", help=_CODE_HELP)]
RoundsOption = Annotated[int, typer.Option("--rounds", help="Noisy syndrome cycles, at least 1.")]
BasisOption = Annotated[
    Basis,
    typer.Option(
        "--basis",
        metavar="X|Z",
        case_sensitive=False,
        help="Which logical operators are prepared, kept and read.",
    ),
]
POption = Annotated[
    float | None,
    typer.Option("--p", help="Physical error rate, between 0 and 0.5. Not used with rates in --noise."),
]
NoiseOption = Annotated[
    str,
    typer.Option(
        "--noise",
        help="uniform, si1000, or rates such as cnot=0.002,measurement=0.01 "
        "(also reset, idle, readout_idle; what is not named is 0).",
    ),
]
DetectorsOption = Annotated[
    Detectors,
    typer.Option("--detectors", help="XYZ: detectors of both bases. XZ: of the memory basis only."),
]
PerfectEndOption = Annotated[
    bool,
    typer.Option("--noiseless-last-cycle", help="Close with a perfect cycle instead of a noisy readout."),
]
FormatOption = Annotated[
    Format, typer.Option("--format", help="Shot format: b8 (packed bytes), 01 (text), dets (sparse text).")
]
SOME_DECODERS = "Such as neural, bposd, relay-5 or tesseract-short; a name that there is not lists them all."
DecoderOption = Annotated[str, typer.Option("--decoder", metavar="NAME", help=SOME_DECODERS)]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="The network's weights (.safetensors).", show_default="those shipped"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]


def make_experiment(
    *,
    code: str,
    rounds: int,
    basis: Basis,
    p: float | None,
    noise: str,
    detectors: Detectors = "XYZ",
    noiseless_last_cycle: bool = False,
) -> MemoryExperiment:
    """The experiment that a command's options describe.

    Raises:
        ValueError: an option out of range, or `p` missing, or given beside rates.
    """
    from simulation.circuits import MemoryExperiment

    free_rates = "=" in noise
    if p is None and not free_rates:
        raise ValueError(f"the noise {noise!r} needs a physical error rate; add --p, for example --p 0.002")
    if p is not None and free_rates:
        raise ValueError("--p has no effect on the rates in --noise; leave one of the two out")
    return MemoryExperiment.create(
        code=code,
        basis=basis,
        rounds=rounds,
        p=0.0 if p is None else p,
        noise=noise,
        detectors=detectors,
        noiseless_last_cycle=noiseless_last_cycle,
    )


def check_outputs(*outputs: Path | None, force: bool, inputs: tuple[Path | None, ...] = ()) -> None:
    """Refuses output files that cannot or must not be written, before anything is computed.

    Raises:
        ValueError: a file is named twice, or is an input too.
        OSError: see `simulation.files.check_output_path`.
    """
    from simulation.files import check_output_path

    seen = {path.resolve() for path in inputs if path is not None}
    for path in outputs:
        if path is None:
            continue
        if path.resolve() in seen:
            raise ValueError(f"{path} is named twice; give each file a name of its own")
        seen.add(path.resolve())
        check_output_path(path, force=force)


def listed(option: str, text: str, convert: Callable[[str], Value]) -> list[Value]:
    """The values of an option that takes several, with commas between them.

    Raises:
        ValueError: one of them is not what the option takes.
    """
    values: list[Value] = []
    for part in text.split(","):
        try:
            values.append(convert(part.strip()))
        except ValueError:
            raise ValueError(f"{option} takes values with commas between them; {part!r} is none") from None
    return values
