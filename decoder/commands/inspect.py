"""`tandem inspect`: what a circuit or a detector error model is, and what can decode it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decoder.commands.options import JsonOption
from decoder.commands.output import print_json, print_table

if TYPE_CHECKING:
    from decoder.catalog import DecoderSpec
    from simulation.foreign import ForeignExperiment


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A stim circuit, or a detector error model (.dem).")],
    json_output: JsonOption = False,
) -> None:
    """Says what a circuit or a detector error model is, and which decoders take it.

    The code, its rounds and the types of its checks are found in the circuit
    itself; names and coordinates are not needed.

    \b
    Examples:
      tandem inspect my.stim
      tandem inspect my.dem --json
    """
    from simulation.foreign import ForeignExperiment

    experiment = ForeignExperiment.read(file, kind="dem" if file.suffix == ".dem" else "circuit")
    facts, decoders = _facts(experiment), _decoders(experiment)
    if json_output:
        print_json({**facts, "decoders": decoders})
        return
    print_table(["", str(experiment)], [(name, _text(value)) for name, value in facts.items() if value is not None])
    rows = [(one["decoder"], "yes" if one["applies"] else "no", one["why"]) for one in decoders]
    print_table(["decoder", "applies", "how, or why not"], rows)


def _facts(experiment: ForeignExperiment) -> dict[str, Any]:
    """What it is, as plain values; None for what is not known."""
    types, model = experiment.check_types, experiment.fault_model
    memory = int(types.memory.sum())
    return {
        "kind": experiment.kind,
        "sha256": experiment.sha256,
        **_code(experiment),
        "rounds": experiment.rounds,
        "qubits": None if experiment.circuit is None else experiment.circuit.num_qubits,
        "noise": {name: list(rates) for name, rates in experiment.noise_rates.items()},
        "check_types": types.found,
        "detectors": experiment.num_detectors,
        "detectors_by_type": [memory, experiment.num_detectors - memory] if types.two else None,
        "observables": experiment.num_observables,
        "observables_by_type": [int(types.predicted.sum()), int((~types.predicted).sum())] if types.two else None,
        "mechanisms": model.num_mechanisms,
        "likelier_than_not": int((model.priors > 0.5).sum()),
    }


def _code(experiment: ForeignExperiment) -> dict[str, Any]:
    """The code that the circuit shows, if it shows one."""
    from simulation.recognition import code_of

    found = None if experiment.circuit is None else code_of(experiment.circuit, experiment.check_types.memory)
    if found is None:
        return {"code": None, "n": None, "k": None, "check_weights": None, "basis": None}
    return {
        "code": None if found.code is None else str(found.code),
        "n": found.n,
        "k": found.k,
        "check_weights": {str(weight): count for weight, count in found.weights.items()},
        "basis": found.pauli if len(found.pauli) == 1 else None,
    }


def _decoders(experiment: ForeignExperiment) -> list[dict[str, Any]]:
    """Each decoder, whether it takes the experiment, and how, or why not."""
    from decoder.catalog import DECODERS

    network = _network(experiment)
    rows = []
    for name, spec in DECODERS.items():
        applies, why = network if spec.settings is None else _classical(spec, experiment)
        rows.append({"decoder": name, "applies": applies, "why": why})
    return rows


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


def _network(experiment: ForeignExperiment) -> tuple[bool, str]:
    from decoder.neural.decoder import NeuralDecoder

    try:
        decoder = NeuralDecoder.load(experiment)
    except ValueError as error:
        return False, str(error)
    return True, f"the network for {decoder.model_info['code']}"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_text(part)}" for name, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value)
    return str(value)
