"""Circuit noise as a value: one named rate per kind of operation."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

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

    def __post_init__(self) -> None:
        for rate in RATES:
            value = getattr(self, rate)
            if not (math.isfinite(value) and 0 <= value < 0.5):
                raise ValueError(f"noise rate {rate}={value} is outside [0, 0.5)")

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

        Raises:
            ValueError: an unknown name or rate, or a value out of range.
        """
        if spec == "uniform":
            return cls.uniform(p)
        if spec == "si1000":
            return cls.si1000(p)
        rates = dict.fromkeys(RATES, 0.0)
        for part in spec.split(","):
            key, separator, value = part.strip().partition("=")
            if not separator or key not in rates:
                raise ValueError(
                    f"unknown noise {spec!r}: use uniform, si1000, or rates such as "
                    f"cnot=0.002,measurement=0.01 (known rates: {', '.join(RATES)})"
                )
            try:
                rates[key] = float(value)
            except ValueError:
                raise ValueError(f"noise rate {key}={value!r} is not a number") from None
        return cls(name="custom", p=max(rates.values()), **rates)

    def __str__(self) -> str:
        """The specification that `parse` reads back (p apart)."""
        if self.name != "custom":
            return self.name
        return ",".join(f"{f.name}={getattr(self, f.name):g}" for f in fields(self) if f.name in RATES)


def _checked_p(p: float) -> float:
    if not (math.isfinite(p) and 0 <= p < 0.5):
        raise ValueError(f"physical error rate p={p} is outside [0, 0.5)")
    return float(p)
