"""Options that several commands share, one by one and in groups (see `decoder.console.groups`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

from decoder.benchmark.runs import ForceOption as ForceOption
from decoder.benchmark.runs import WeightsOption as WeightsOption
from simulation.bases import BASES, Basis, Detectors
from simulation.files import ShotFormat

if TYPE_CHECKING:
    from simulation.circuits import MemoryExperiment
    from simulation.experiments import Experiment

_CODE_HELP = "Code id such as bb72 ('tandem codes' lists them), or l,m,A,B such as 6,6,x^3+y+y^2,y^3+x+x^2."
_ROUNDS_HELP = "Noisy syndrome cycles, at least 1."
_BASIS_HELP = "Which logical operators are prepared, kept and read."
_CIRCUIT_HELP = "Any stim circuit (.stim), in place of --code, --rounds, --basis and --p."
_DEM_HELP = "Any detector error model (.dem), in their place."

Value = TypeVar("Value")

CODE = typer.Option("--code", metavar="CODE", help=_CODE_HELP)
_ROUNDS = typer.Option("--rounds", help=_ROUNDS_HELP)
_BASIS = typer.Option("--basis", metavar="X|Z", case_sensitive=False, help=_BASIS_HELP)

CodeOption = Annotated[str | None, CODE]
RoundsOption = Annotated[int | None, _ROUNDS]
BasisOption = Annotated[Basis | None, _BASIS]
BasesOption = Annotated[str, typer.Option("--basis", metavar="X|Z|X,Z", help=_BASIS_HELP)]
RatesOption = Annotated[
    str | None,
    typer.Option(
        "--p", metavar="P[,P...]", help="Physical error rates, between 0 and 0.5. Not used with rates in --noise."
    ),
]
NoiseOption = Annotated[
    str,
    typer.Option(
        "--noise",
        help="uniform, si1000, or rates such as cnot=0.002,measurement=0.01 "
        "(also reset, idle, readout_idle; what is not named is 0); with ,bias=10 Z errors are ten times likelier than "
        "all others together.",
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
RateOption = Annotated[
    float | None,
    typer.Option("--p", help="Physical error rate, between 0 and 0.5. Not used with rates in --noise."),
]
CircuitsOption = Annotated[list[Path] | None, typer.Option("--circuit", help=f"{_CIRCUIT_HELP} May be repeated.")]
DemsOption = Annotated[list[Path] | None, typer.Option("--dem", help=f"{_DEM_HELP} May be repeated.")]
FormatOption = Annotated[
    ShotFormat, typer.Option("--format", help="Shot format: b8 (packed bytes), 01 (text), dets (sparse text).")
]
SOME_DECODERS = "Such as neural, bposd, relay-5 or tesseract-short; a name that there is not lists them all."
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """One memory experiment."""

    code: str
    rounds: Annotated[int, _ROUNDS]
    basis: Annotated[Basis, _BASIS]
    p: RateOption = None
    noise: NoiseOption = "uniform"
    detectors: DetectorsOption = "XYZ"
    noiseless_last_cycle: PerfectEndOption = False

    def experiment(self) -> MemoryExperiment:
        """The experiment that the options describe.

        Raises:
            ValueError: an option is out of range, or `p` is missing, or given beside rates in `noise`.
        """
        from simulation.circuits import MemoryExperiment

        free_rates = "=" in self.noise
        if self.p is None and not free_rates:
            raise ValueError(f"the noise {self.noise!r} needs a physical error rate; add --p, for example --p 0.002")
        if self.p is not None and free_rates:
            raise ValueError("--p has no effect on the rates in --noise; leave one of the two out")
        return MemoryExperiment.create(**{**vars(self), "p": self.p or 0.0})


@dataclass(frozen=True, kw_only=True)
class MemoryArguments(MemoryOptions):
    """The same, with the code as an argument of the command."""

    code: Annotated[str, typer.Argument(metavar="CODE", help=_CODE_HELP)]


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """One memory experiment, or a circuit or a detector error model from a file."""

    code: CodeOption = None
    rounds: RoundsOption = None
    basis: BasisOption = None
    p: RateOption = None
    noise: NoiseOption = "uniform"
    detectors: DetectorsOption = "XYZ"
    noiseless_last_cycle: PerfectEndOption = False
    circuit: Annotated[Path | None, typer.Option("--circuit", help=_CIRCUIT_HELP)] = None
    dem: Annotated[Path | None, typer.Option("--dem", help=_DEM_HELP)] = None

    def experiment(self) -> Experiment:
        """The experiment that the options describe; see `MemoryOptions.experiment`.

        Raises:
            ValueError: something is missing or given twice, or see `ForeignExperiment.read`.
            OSError: a file cannot be read.
        """
        files = [([] if path is None else [path]) for path in (self.circuit, self.dem)]
        if foreign := read_foreign(self, circuits=files[0], dems=files[1]):
            [one] = foreign
            return one
        return memory_options(self).experiment()


@dataclass(frozen=True, kw_only=True)
class ExperimentArguments(ExperimentOptions):
    """The same, with the code as an argument of the command."""

    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help=_CODE_HELP)] = None


@dataclass(frozen=True, kw_only=True)
class RatesOptions:
    """A memory experiment at several physical error rates, or circuits and detector error models from files."""

    code: CodeOption = None
    rounds: RoundsOption = None
    basis: BasisOption = None
    p: RatesOption = None
    noise: NoiseOption = "uniform"
    detectors: DetectorsOption = "XYZ"
    noiseless_last_cycle: PerfectEndOption = False
    circuit: CircuitsOption = None
    dem: DemsOption = None

    def experiments(self) -> list[Experiment]:
        """One experiment for each error rate or file; see `ExperimentOptions.experiment`."""
        if foreign := read_foreign(self, circuits=self.circuit or (), dems=self.dem or ()):
            return foreign
        rates = [None] if self.p is None else listed("--p", self.p, float)
        return [memory_options(self, p=rate).experiment() for rate in rates]


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Memory experiments of several codes, numbers of rounds, bases and physical error rates, or files."""

    code: Annotated[
        str | None,
        typer.Option(
            "--code",
            metavar="CODE[,CODE...]",
            help="Code ids such as bb72 ('tandem codes' lists them), or one l,m,A,B.",
        ),
    ] = None
    rounds: Annotated[str | None, typer.Option("--rounds", metavar="N[,N...]", help=_ROUNDS_HELP)] = None
    basis: Annotated[str | None, typer.Option("--basis", metavar="X|Z|X,Z", help=_BASIS_HELP)] = None
    p: RatesOption = None
    noise: NoiseOption = "uniform"
    detectors: DetectorsOption = "XYZ"
    noiseless_last_cycle: PerfectEndOption = False
    circuit: CircuitsOption = None
    dem: DemsOption = None

    def experiments(self) -> list[Experiment]:
        """One experiment for each combination, p changing fastest, or each file; see `ExperimentOptions.experiment`."""
        if foreign := read_foreign(self, circuits=self.circuit or (), dems=self.dem or ()):
            return foreign
        if self.code is None or self.rounds is None or self.basis is None:
            raise _incomplete(self)
        # A code that is given by its polynomials has commas of its own.
        codes = [self.code] if "^" in self.code or "+" in self.code else listed("--code", self.code, str)
        return [
            experiment
            for code in codes
            for rounds in listed("--rounds", self.rounds, int)
            for basis in parse_bases(self.basis)
            for experiment in RatesOptions(
                **vars(self) | {"code": code, "rounds": rounds, "basis": basis}
            ).experiments()
        ]


def memory_options(described: ExperimentOptions | RatesOptions, **changed: Any) -> MemoryOptions:
    """The options of the memory experiment, once it is known that they are complete.

    Raises:
        ValueError: they are not.
    """
    values = {field.name: getattr(described, field.name) for field in fields(MemoryOptions)} | changed
    if None in (described.code, described.rounds, described.basis):
        raise _incomplete(described)
    return MemoryOptions(**values)


def read_foreign(described: Any, *, circuits: Sequence[Path], dems: Sequence[Path]) -> list[Experiment]:
    """What the files of --circuit and --dem hold; none where no file is given.

    Raises:
        ValueError: options of a memory experiment are given beside them, or see `ForeignExperiment.read`.
        OSError: a file cannot be read.
    """
    if not circuits and not dems:
        return []
    file = "--circuit" if circuits else "--dem"
    given = [field.name for field in fields(described) if getattr(described, field.name) != field.default]
    if circuits and dems and isinstance(described, ExperimentOptions):
        raise ValueError("--circuit and --dem are both given; leave one of them out")
    if beside := [name for name in given if name not in ("circuit", "dem")]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in beside)
        raise ValueError(f"{file} says all of the experiment that {options} would say; leave one of the two out")
    from simulation.foreign.experiment import ForeignExperiment

    read = [ForeignExperiment.read(path, kind="circuit") for path in circuits]
    return [*read, *(ForeignExperiment.read(path, kind="dem") for path in dems)]


def _incomplete(described: ExperimentOptions | RatesOptions | SweepOptions) -> ValueError:
    missing = [f"--{name}" for name in ("code", "rounds", "basis") if getattr(described, name) is None]
    if isinstance(described, ExperimentArguments):
        missing = ["CODE" if name == "--code" else name for name in missing]
    return ValueError(
        f"{' and '.join(missing)} missing: describe a memory experiment, or give a file with --circuit or --dem"
    )


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What becomes of a command's results."""

    force: ForceOption = False
    json_output: JsonOption = False


def check_outputs(*outputs: Path | None, force: bool, inputs: tuple[Path | None, ...] = ()) -> None:
    """Refuses output files that cannot or must not be written, before anything is computed.

    Raises:
        ValueError: a file is named twice, or is an input too; standard input or output (-) may be one of each.
        OSError: see `simulation.files.check_output_path`.
    """
    from simulation.files import STANDARD, check_output_path

    read: set[Path] = set()
    written: set[Path] = set()
    for path in inputs:
        if path == STANDARD and path in read:
            raise ValueError("standard input (-) is named twice; it can be read once")
        if path is not None:
            read.add(path)
    for path in outputs:
        if path is None:
            continue
        resolved = path if path == STANDARD else path.resolve()
        if resolved in written or (path != STANDARD and resolved in {other.resolve() for other in read}):
            raise ValueError(f"{path} is named twice; give each file a name of its own")
        written.add(resolved)
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


def parse_bases(text: str) -> list[Basis]:
    """The bases of an option that takes several.

    Raises:
        ValueError: there is another one.
    """
    bases = [part.strip().upper() for part in text.split(",")]
    if not set(bases) <= set(BASES):
        raise ValueError(f"--basis takes X, Z or X,Z, not {text!r}")
    return cast(list[Basis], bases)
