"""Each decoder by name fails as often as measured on more shots, with another seed.

Were the rates the same, the failures would split between both samples like the shots do. That is tested exactly,
at a level at which a false alarm is rarer than one in a million.
"""

import pytest
import scipy.stats

from decoder.making import make_decoder
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample

BB72 = {"code": "bb72", "rounds": 6, "p": 0.003}
ONE_ROUND = {"code": "bb72", "rounds": 1, "p": 0.006}
TOY = {"code": "3,3,1+x+y,1+x+y", "rounds": 3, "p": 0.002}
"""A code of 18 qubits, for slow decoders."""


@pytest.mark.parametrize(
    ("name", "experiment", "shots", "failures", "of"),
    [
        ("bposd-osd0", BB72, 3000, 330, 10_000),
        ("bposd-xyz", ONE_ROUND, 1000, 61, 3000),
        ("bp", BB72, 600, 224, 10_000),
        ("bplsd", BB72, 600, 189, 10_000),
        ("relay-1", BB72, 2000, 752, 40_000),
        ("relay-5", BB72, 1000, 586, 40_000),
        ("relay-1-xyz", TOY, 2000, 1810, 10_000),
        ("relay-5-xyz", TOY, 1000, 1477, 10_000),
        ("tesseract-short-sparsify", TOY, 1000, 1369, 10_000),
        ("tesseract-short", TOY, 200, 406, 3000),
        ("tesseract-long", TOY, 100, 406, 3000),
        ("tesseract-long-sparsify", TOY, 800, 1369, 10_000),
        ("mle", TOY, 60, 37, 300),
    ],
)
def test_fails_as_often_as_measured(
    name: str, experiment: dict[str, object], shots: int, failures: int, of: int
) -> None:
    memory = MemoryExperiment.create(basis="Z", **experiment)  # type: ignore[arg-type]
    samples = sample(memory.circuit, shots=shots, seed=72)
    predictions = make_decoder(name, memory).decode_batch(samples.detection_events, bit_packed_shots=True)
    found = int((predictions != samples.unpacked_observable_flips()).any(axis=1).sum())
    split = scipy.stats.binomtest(found, found + failures, shots / (shots + of))
    assert split.pvalue > 1e-6, f"{found}/{shots} failures, but {failures}/{of} measured"
