"""What a circuit or a detector error model is, and what can decode it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulation.bases import Basis
from simulation.files import Kind

if TYPE_CHECKING:
    from decoder.catalog import DecoderSpec
    from simulation.foreign.experiment import ForeignExperiment


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
    own, network = _network(experiment)
    return Inspection(
        kind=experiment.kind,
        sha256=experiment.sha256,
        code=None if found is None or found.code is None else str(found.code),
        n=None if found is None else found.n,
        k=None if found is None else found.k,
        check_weights=None if found is None else {str(weight): count for weight, count in found.weights.items()},
        basis=found.pauli if found is not None and len(found.pauli) == 1 else None,
        rounds=experiment.rounds,
        qubits=None if experiment.circuit is None else experiment.circuit.num_qubits,
        noise={name: list(rates) for name, rates in experiment.noise_rates.items()},
        check_types=types.found,
        detectors=experiment.num_detectors,
        detectors_by_type=[memory, experiment.num_detectors - memory] if types.two else None,
        observables=experiment.num_observables,
        observables_by_type=[int(types.predicted.sum()), int((~types.predicted).sum())] if types.two else None,
        mechanisms=model.num_mechanisms,
        likelier_than_not=int((model.priors > 0.5).sum()),
        memory=own,
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


def _network(experiment: ForeignExperiment) -> tuple[Memory | None, tuple[bool, str]]:
    from simulation.detectors import DetectorGrid

    try:
        grid = DetectorGrid.of(experiment.dem)
        from decoder.neural.decoder import NeuralDecoder  # torch takes seconds to import

        code = str(NeuralDecoder.load(experiment).model_info["code"])
    except ValueError as error:
        return None, (False, str(error))
    return Memory(code=code, basis=grid.memory_basis, rounds=grid.rounds), (True, f"the network for {code}")
