"""Circuits and detector error models that Tandem did not make: read, bounded, and ready to be decoded."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, get_args

import stim

from simulation.check_types import CheckTypes, find_check_types
from simulation.faults import FaultModel
from simulation.files import STANDARD, Kind, open_input

Source: TypeAlias = "stim.Circuit | stim.DetectorErrorModel"
"""What shots are drawn from."""

MOST_BYTES = 64 * 2**20
"""Of a file."""
MOST_UNROLLED_BYTES = 512 * 2**20
"""Of the text without loops, which takes some ten times that in memory."""
MOST_DETECTORS = 2_000_000

_WORDS: dict[Kind, str] = {"circuit": "stim circuit", "dem": "detector error model"}


@dataclass(frozen=True, repr=False)
class ForeignExperiment:
    """Any stim circuit or detector error model. `of` and `read` make one and refuse what cannot be decoded.

    Disjoint errors (PAULI_CHANNEL, heralded ones) are taken as independent ones, as sinter does.
    """

    text: str
    """The circuit or the model as stim writes it."""
    kind: Kind
    name: str = field(default="circuit", compare=False)
    """For people."""

    @classmethod
    def of(cls, source: Source, *, name: str | None = None) -> ForeignExperiment:
        """Takes a circuit or a model, under a name for people.

        Raises:
            ValueError: it has no detectors, or random ones, or is too large.
        """
        kind: Kind = "circuit" if isinstance(source, stim.Circuit) else "dem"
        name = name or kind
        if _unrolled_bytes(source) > MOST_UNROLLED_BYTES or source.num_detectors > MOST_DETECTORS:
            raise ValueError(
                f"{name} is too large: without its loops it may have {MOST_DETECTORS:,} detectors and "
                f"{MOST_UNROLLED_BYTES >> 20} MiB of text; take fewer rounds"
            )
        if source.num_detectors == 0:
            raise ValueError(f"{name} has no detectors, so there is nothing to decode; add DETECTOR instructions")
        experiment = cls.unchecked(source, name=name)
        _ = experiment.dem  # if it cannot be made, that is said now
        return experiment

    @classmethod
    def unchecked(cls, source: Source, *, name: str = "circuit") -> ForeignExperiment:
        """The same without any check."""
        experiment = cls(str(source), "circuit" if isinstance(source, stim.Circuit) else "dem", name)
        experiment.__dict__["source"] = source
        return experiment

    @classmethod
    def read(cls, path: Path, *, kind: Kind) -> ForeignExperiment:
        """Reads a file; the experiment has the name of the file without its ending.

        Raises:
            ValueError: the file is too large or not of this kind, or see `of`.
            OSError: it cannot be read.
        """
        with open_input(path) as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(
                f"{path} is longer than {MOST_BYTES >> 20} MiB; write repeated rounds as a REPEAT block, or take fewer"
            )
        [other] = set(get_args(Kind)) - {kind}
        source = parse(content, kind=kind, name=str(path), hint=f"a {_WORDS[other]} is given with --{other}")
        return cls.of(source, name="standard input" if path == STANDARD else path.stem)

    @cached_property
    def source(self) -> Source:
        """The circuit or the model."""
        return stim.Circuit(self.text) if self.kind == "circuit" else stim.DetectorErrorModel(self.text)

    @property
    def circuit(self) -> stim.Circuit | None:
        """The circuit, if one is known."""
        return self.source if isinstance(self.source, stim.Circuit) else None

    @cached_property
    def dem(self) -> stim.DetectorErrorModel:
        """The detector error model, not decomposed.

        Raises:
            ValueError: a detector or an observable is random without noise.
        """
        if isinstance(self.source, stim.DetectorErrorModel):
            return self.source
        try:
            return self.source.detector_error_model(approximate_disjoint_errors=True)
        except ValueError as error:
            raise ValueError(_random_ones(self.name, str(error))) from None

    @cached_property
    def fault_model(self) -> FaultModel:
        """The error mechanisms as matrices, those with the same symptom merged."""
        return FaultModel.from_dem(self.dem)

    @cached_property
    def check_types(self) -> CheckTypes:
        """Which detectors belong to which type of checks; see `simulation.check_types`."""
        return find_check_types(self.fault_model, circuit=self.circuit, dem=self.dem)

    @property
    def num_detectors(self) -> int:
        """Detectors of one shot."""
        return int(self.source.num_detectors)

    @property
    def num_observables(self) -> int:
        """Observables of one shot."""
        return int(self.source.num_observables)

    @property
    def sha256(self) -> str:
        """Of the text, as a file that ends with a newline."""
        return hashlib.sha256(f"{self.text}\n".encode()).hexdigest()

    @cached_property
    def rounds(self) -> int | None:
        """How often most qubits that are measured repeatedly are measured; None where no circuit tells."""
        counts = Counter[int]()
        for instruction, times in _instructions(self.circuit or stim.Circuit()):
            if stim.gate_data(instruction.name).produces_measurements and instruction.name != "MPP":
                for target in instruction.targets_copy():
                    if target.qubit_value is not None:
                        counts[target.qubit_value] += times
        repeated = Counter(count for count in counts.values() if count > 1)
        return repeated.most_common(1)[0][0] if repeated else max(counts.values(), default=None)

    @cached_property
    def noise_rates(self) -> dict[str, tuple[float, ...]]:
        """The probabilities in the circuit, ascending, by the channel's or the measurement's name; without a circuit
        the least and the most of the mechanisms'."""
        if self.circuit is None:
            priors = self.fault_model.priors
            return {"error": (float(priors.min()), float(priors.max()))} if len(priors) else {}
        found: dict[str, set[float]] = {}
        for instruction, _ in _instructions(self.circuit):
            if stim.gate_data(instruction.name).is_noisy_gate and any(instruction.gate_args_copy()):
                found.setdefault(instruction.name, set()).update(instruction.gate_args_copy())
        return {name: tuple(sorted(rates)) for name, rates in sorted(found.items())}

    @property
    def p(self) -> float | None:
        """The rate of two-qubit gates, if the circuit has one that is the same for all; None where there is none."""
        if self.circuit is None:
            return None
        rates = self.noise_rates.get("DEPOLARIZE2", ())
        return rates[0] if len(rates) == 1 else None

    @property
    def columns(self) -> dict[str, Any]:
        """What is known of it as plain values, by the names that `MemoryExperiment.columns` has."""
        return {"code": self.name, "rounds": self.rounds, "basis": "-", "p": self.p, "noise": f"{self.kind}'s own"}

    @property
    def parameters(self) -> dict[str, Any]:
        """All that tells it from others, as plain values."""
        return self.columns

    def __getstate__(self) -> dict[str, Any]:
        # Pickled without what it has computed, which takes less time to make again than to send.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return (
            f"<ForeignExperiment {self.name}: {_WORDS[self.kind]}, "
            f"{self.num_detectors} detectors, {self.num_observables} observables>"
        )

    def _repr_html_(self) -> str:
        """The experiment in a notebook."""
        from simulation.drawings import facts_html

        facts = {
            "rounds": self.rounds,
            "noise": ", ".join(f"{name} {_range(rates)}" for name, rates in self.noise_rates.items()),
            "detectors": self.num_detectors,
            "observables": self.num_observables,
            "error mechanisms": f"{self.fault_model.num_mechanisms:,}",
            "check types": self.check_types.found,
        }
        return facts_html(f"{self.name}: {_WORDS[self.kind]}", facts)


def _range(rates: tuple[float, ...]) -> str:
    """Rates, ascending, for people."""
    return f"{rates[0]:g}" if len(rates) == 1 else f"{rates[0]:g} to {rates[-1]:g}"


def parse(content: bytes, *, kind: Kind, name: str, hint: str) -> Source:
    """Reads the text of a circuit or of a model.

    Args:
        content: the text in UTF-8.
        kind: which of the two it is to be.
        name: of the text, for errors.
        hint: what to do if it is the other one.

    Raises:
        ValueError: it is not of this kind.
    """
    try:
        text = content.decode()
        return stim.Circuit(text) if kind == "circuit" else stim.DetectorErrorModel(text)
    except (ValueError, IndexError) as error:
        reason = "it is not text" if isinstance(error, UnicodeDecodeError) else _one_line(error)
        raise ValueError(f"{name} is not a {_WORDS[kind]}: {reason} ({hint})") from None


def _unrolled_bytes(source: Source) -> int:
    """About the length of the text without its loops."""
    size = 0
    for instruction in source:
        if isinstance(instruction, stim.CircuitRepeatBlock | stim.DemRepeatBlock):
            size += instruction.repeat_count * _unrolled_bytes(instruction.body_copy())
        else:
            size += len(str(instruction))
    return size


def _instructions(circuit: stim.Circuit, times: int = 1) -> Iterator[tuple[stim.CircuitInstruction, int]]:
    """Each instruction, and how often it happens."""
    for instruction in circuit:
        if isinstance(instruction, stim.CircuitRepeatBlock):
            yield from _instructions(instruction.body_copy(), times * instruction.repeat_count)
        else:
            yield instruction, times


def _random_ones(name: str, message: str) -> str:
    """One line of what stim says of a circuit that it makes no error model of."""
    if "non-deterministic" not in message:
        return f"{name} has no detector error model: {_one_line(message)}"
    # stim lists them, one a line, below this sentence.
    found = re.search(r"anti-commuted with these detectors/observables:\n((?:    [DL]\d+.*\n?)+)", message)
    which = re.findall(r"^    ([DL]\d+)", found[1], flags=re.MULTILINE) if found else []
    listed = f" ({', '.join(which[:3])}{', ...' * (len(which) > 3)})" if which else ""
    return (
        f"{name} has detectors or observables that are random even without noise{listed}, which no decoder can use; "
        "compare measurements whose parity is certain"
    )


def _one_line(error: object) -> str:
    return " ".join(str(error).split("\n\n")[0].split())
