"""What a circuit or a detector error model is, and what can decode it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulation.bases import Basis
from simulation.files import Kind

if TYPE_CHECKING:
    from decoder.catalog import DecoderSpec
    from simulation.circuits import MemoryExperiment
    from simulation.codes import BivariateBicycleCode
    from simulation.foreign.experiment import ForeignExperiment
    from simulation.foreign.recognition import CodeFacts
    from simulation.placement import Placement


@dataclass(frozen=True, kw_only=True)
class Applicability:
    """Whether a decoder takes an experiment."""

    decoder: str
    """Its name, as `decoder.catalog` has it."""
    applies: bool
    """Whether it does."""
    why: str
    """How it decodes the experiment, or why it cannot."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A memory experiment that Tandem makes under this name, detectors and observables in the same order."""

    code: str
    """As `simulation.codes.parse_code` reads it."""
    basis: Basis
    rounds: int

    @classmethod
    def of(cls, experiment: MemoryExperiment) -> Memory:
        """What is said of an experiment."""
        return cls(code=str(experiment.code), basis=experiment.basis, rounds=experiment.rounds)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """All that is found; None for what is not known."""

    kind: Kind
    """A circuit, or a detector error model."""
    sha256: str
    """Of the text as stim writes it."""
    code: str | None = None
    """The code's name, if it is a known one."""
    n: int | None = None
    """Data qubits."""
    k: int | None = None
    """Logical qubits."""
    check_weights: dict[str, int] | None = None
    """How many checks have each weight."""
    basis: str | None = None
    """The basis of the logical memory."""
    rounds: int | None = None
    """Syndrome rounds."""
    qubits: int | None = None
    """Qubits of the circuit."""
    noise: dict[str, list[float]]
    """The probabilities of each noise channel."""
    check_types: str
    """How the detectors' check types were found, or why all count as one type."""
    detectors: int
    """Bits in each shot."""
    detectors_by_type: list[int] | None = None
    """Of each check type, where there are two."""
    observables: int
    """Bits in each prediction."""
    observables_by_type: list[int] | None = None
    """That each check type predicts, where there are two."""
    mechanisms: int
    """Errors with different symptoms."""
    likelier_than_not: int
    """Of these, those with a probability above 1/2."""
    memory: Memory | None = None
    """The memory experiment of Tandem's own that it is, if it is one that a shipped network decodes."""
    decoders: list[Applicability]
    """Which decoders take it."""


def inspect(experiment: ForeignExperiment) -> Inspection:
    """Looks at an experiment, which takes seconds for a large one."""
    # Here and below, since clients of the service, who read an `Inspection`, load neither stim nor scipy.
    from decoder.catalog import DECODERS
    from simulation.foreign.recognition import code_of

    types, model = experiment.check_types, experiment.fault_model
    memory = int(types.memory.sum())
    found = None if experiment.circuit is None else code_of(experiment.circuit, types.memory)
    placed = _placement(experiment)
    code, basis, rounds = _memory(found, placed)
    network = _network(experiment)  # the same one in all decoders that have one
    return Inspection(
        kind=experiment.kind,
        sha256=experiment.sha256,
        code=None if code is None else str(code),
        n=found.n if found is not None else None if code is None else code.n,
        k=found.k if found is not None else None if code is None else code.k,
        check_weights=None if found is None else {str(weight): count for weight, count in found.weights.items()},
        basis=basis,
        rounds=experiment.rounds if rounds is None else rounds,
        qubits=None if experiment.circuit is None else experiment.circuit.num_qubits,
        noise={name: list(rates) for name, rates in experiment.noise_rates.items()},
        check_types=types.found,
        detectors=experiment.num_detectors,
        detectors_by_type=[memory, experiment.num_detectors - memory] if types.two else None,
        observables=experiment.num_observables,
        observables_by_type=[int(types.predicted.sum()), int((~types.predicted).sum())] if types.two else None,
        mechanisms=model.num_mechanisms,
        likelier_than_not=int((model.priors > 0.5).sum()),
        memory=None if placed is None or not placed.is_ours else Memory.of(placed.like),
        decoders=[
            Applicability(decoder=name, applies=applies, why=why)
            for name, spec in DECODERS.items()
            for applies, why in [network if spec.settings is None else _classical(spec, experiment)]
        ],
    )


def _classical(spec: DecoderSpec, experiment: ForeignExperiment) -> tuple[bool, str]:
    from decoder.classical.problem import Problem
    from decoder.classical.syndrome import SyndromeSettings

    types, settings = experiment.check_types, spec.settings
    assert settings is not None
    try:
        if settings.extra is not None:
            settings.extra.require(f"the decoder {spec.name!r}")
        if isinstance(settings, SyndromeSettings):
            settings.check(Problem.of(experiment.fault_model))
    except ValueError as error:
        return False, str(error)
    if isinstance(settings, SyndromeSettings):
        used = types.sufficient if spec.detectors == "XZ" else None
        return True, "all detectors" if used is None else f"the {len(used)} detectors of one type, which are enough"
    return True, "both check types" if types.two else "all detectors as one type"


def _placement(experiment: ForeignExperiment) -> Placement | None:
    from simulation.placement import NotPlacedError, placement_of

    try:
        return placement_of(experiment)
    except NotPlacedError:
        return None


def _memory(
    found: CodeFacts | None, placed: Placement | None
) -> tuple[BivariateBicycleCode | None, str | None, int | None]:
    """The code, the basis and the rounds of a memory experiment, as far as they are known."""
    if placed is not None:
        return placed.like.code, placed.like.basis, placed.like.rounds
    if found is None:
        return None, None, None
    return found.code, found.pauli if len(found.pauli) == 1 else None, None


def _network(experiment: ForeignExperiment) -> tuple[bool, str]:
    from decoder.neural.decoder import NeuralDecoder  # torch takes seconds to import
    from decoder.neural.weights import load_weights, shipped_weights

    try:
        code = NeuralDecoder.placement_for(experiment).like.code
        load_weights(shipped_weights(str(code)), code=str(code))
    except ValueError as error:
        return False, str(error)
    return True, f"the network for {code}"
