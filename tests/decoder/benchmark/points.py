"""A point of a measurement, from which tests make others."""

from decoder.benchmark.reporting.results import FailurePoint

FAILURES = FailurePoint(
    code="bb72",
    rounds=6,
    basis="Z",
    p=0.003,
    noise="uniform",
    decoder="bposd",
    detectors="XZ",
    shots=10_000,
    failures=137,
    ler=0.0137,
    ler_low=0.01151,
    ler_high=0.01618,
    seconds=43.0,
    seed=5,
)
