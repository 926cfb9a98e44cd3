"""Circuit noise as a value: one named rate per kind of operation."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields, replace
from typing import Any

RATES = ("reset", "measurement", "cnot", "idle", "readout_idle")


@dataclass(frozen=True, kw_only=True)
class NoiseModel:
    """Independent Pauli noise after each operation of a syndrome circuit.

    All rates are probabilities in [0, 0.5). Without any above 0 there is a circuit, and nothing to decode.
    """

    name: str
    """What the rates are called in tables: ``uniform``, ``si1000`` or ``custom``."""
    p: float
    """The physical error rate that the rates were derived from (the largest rate of a custom model)."""
    reset: float
    """A reset prepares the orthogonal state."""
    measurement: float
    """A measurement outcome is flipped."""
    cnot: float
    """DEPOLARIZE2 after each CNOT: each of the 15 non-identity Paulis with probability cnot / 15."""
    idle: float
    """DEPOLARIZE1 on each data qubit that no gate touches in a layer."""
    readout_idle: float = 0.0
    """A further DEPOLARIZE1 on data qubits that wait while ancillas are measured or reset."""
    bias: float | None = None
    """How many times likelier Z errors are than all others together, above 0; None for depolarizing noise. Of idling
    qubits, p_Z / (p_X + p_Y), X and Y alike, as in Tuckett et al. (arXiv 1708.08474). Of a CNOT's 15 Paulis, IZ, ZI and
    ZZ share the part of Z, the other twelve the rest. Resets and measurements have no bias."""
    qubit_factors: tuple[float, ...] = ()
    """A factor for the rates of each qubit, as the circuit of a `MemoryExperiment` numbers them; a CNOT has the mean of
    its two. Empty for the same rates everywhere."""

    def __post_init__(self) -> None:
        for rate in RATES:
            value = getattr(self, rate)
            if not (math.isfinite(value) and 0 <= value < 0.5):
                raise ValueError(f"noise rate {rate}={value} is outside [0, 0.5)")
        if self.bias is not None and not (math.isfinite(self.bias) and self.bias > 0):
            raise ValueError(f"noise bias={self.bias} must be a number above 0; leave it out for depolarizing noise")
        largest = max((getattr(self, rate) for rate in RATES), default=0.0)
        for qubit, factor in enumerate(self.qubit_factors):
            if not (math.isfinite(factor) and factor >= 0 and factor * largest < 0.5):
                raise ValueError(
                    f"the factor {factor} of qubit {qubit} takes the rate {largest} out of [0, 0.5); give factors "
                    "of at least 0 that do not"
                )

    @property
    def is_silent(self) -> bool:
        """Whether nothing ever fails."""
        return not any(getattr(self, rate) for rate in RATES)

    @classmethod
    def uniform(cls, p: float) -> NoiseModel:
        """Uniform circuit noise (Bravyi et al., Nature 627, 778; arXiv 2308.07915): every location fails with p."""
        p = _checked_p(p)
        return cls(name="uniform", p=p, reset=p, measurement=p, cnot=p, idle=p)

    @classmethod
    def si1000(cls, p: float) -> NoiseModel:
        """SI1000 (Gidney et al., arXiv 2108.10457, Table 2) with CNOT as the two-qubit gate.

        Two-qubit gates p, resets 2p, measurements 5p, idling p/10, and 2p more on qubits that wait for a
        measurement or reset.
        """
        p = _checked_p(p)
        if 5 * p >= 0.5:
            raise ValueError(f"si1000 measures with error 5p = {5 * p}, so p must be below 0.1")
        return cls(name="si1000", p=p, reset=2 * p, measurement=5 * p, cnot=p, idle=p / 10, readout_idle=2 * p)

    @classmethod
    def parse(cls, spec: str, p: float) -> NoiseModel:
        """Reads ``uniform``, ``si1000`` or rates such as ``cnot=0.002,measurement=0.01`` (others 0; p unused).

        To each of them ``,bias=10`` may be added.

        Raises:
            ValueError: an unknown name or rate, or a value out of range.
        """
        name, *others = (part.strip() for part in spec.split(","))
        named = {"uniform": cls.uniform, "si1000": cls.si1000}.get(name)
        values = _values(others if named else [name, *others], spec, known=("bias",) if named else (*RATES, "bias"))
        bias = values.pop("bias", None)
        if named is not None:
            return replace(named(p), bias=bias)
        rates: dict[str, Any] = {**dict.fromkeys(RATES, 0.0), **values}
        return cls(name="custom", p=max(rates.values()), bias=bias, **rates)

    def __str__(self) -> str:
        """The specification that `parse` reads back (p and factors of qubits apart)."""
        rates = [f"{f.name}={getattr(self, f.name):g}" for f in fields(self) if f.name in RATES]
        parts = rates if self.name == "custom" else [self.name]
        parts += [] if self.bias is None else [f"bias={self.bias:g}"]
        factors = hashlib.sha256(repr(self.qubit_factors).encode()).hexdigest()[:8]
        return ",".join(parts + ([f"factors={factors}"] if self.qubit_factors else []))

    def factor(self, *qubits: int) -> float:
        """By what the rates of a qubit, or of a gate on several, are multiplied."""
        return sum(self.qubit_factors[qubit] for qubit in qubits) / len(qubits) if self.qubit_factors else 1.0

    def idle_channel(self, rate: float) -> tuple[str, list[float]]:
        """stim's name and arguments of the noise on a qubit that waits."""
        if self.bias is None:
            return "DEPOLARIZE1", [rate]
        other = rate / (1 + self.bias) / 2
        return "PAULI_CHANNEL_1", [other, other, rate * self.bias / (1 + self.bias)]

    def cnot_channel(self, rate: float) -> tuple[str, list[float]]:
        """The same of the noise after a CNOT."""
        if self.bias is None:
            return "DEPOLARIZE2", [rate]
        mostly = rate * self.bias / (1 + self.bias) / 3
        other = rate / (1 + self.bias) / 12
        return "PAULI_CHANNEL_2", [mostly if pauli in ("IZ", "ZI", "ZZ") else other for pauli in _TWO_QUBIT_PAULIS]


_TWO_QUBIT_PAULIS = [a + b for a in "IXYZ" for b in "IXYZ"][1:]
"""In the order of PAULI_CHANNEL_2."""


def _values(parts: list[str], spec: str, *, known: tuple[str, ...]) -> dict[str, float]:
    """The numbers that a specification gives by name."""
    values: dict[str, float] = {}
    for part in parts:
        key, separator, value = part.partition("=")
        if not separator or key not in known:
            raise ValueError(
                f"unknown noise {spec!r}: use uniform, si1000, or rates such as cnot=0.002,measurement=0.01 "
                f"(known rates: {', '.join(RATES)}), each with ,bias=10 if wanted"
            )
        try:
            values[key] = float(value)
        except ValueError:
            raise ValueError(f"noise rate {key}={value!r} is not a number") from None
    return values


def _checked_p(p: float) -> float:
    if not (math.isfinite(p) and 0 <= p < 0.5):
        raise ValueError(f"physical error rate p={p} is outside [0, 0.5)")
    return float(p)
