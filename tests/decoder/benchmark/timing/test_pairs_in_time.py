"""Latency of a pair with a deadline, its second decoder in a process of its own."""

import multiprocessing

import numpy as np
import pytest

from decoder.benchmark.reporting.plots import draw_plots
from decoder.benchmark.reporting.tables import to_markdown
from decoder.benchmark.runs import LatencyRun
from decoder.benchmark.timing.latency import run_latency
from decoder.neural.decoder import NeuralDecoder
from decoder.tandem.pairs import THRESHOLD
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample

SHOTS = 30


@pytest.fixture(scope="module")
def noisy() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.008)


def test_late_shots_are_counted_and_the_deadline_named(noisy: MemoryExperiment) -> None:
    others = set(multiprocessing.active_children())
    # Nobody answers within a microsecond, so every unsure shot is late and keeps the network's answer.
    result = run_latency(
        [noisy], ["neural", "tandem"], LatencyRun(shots=SHOTS, seed=4, batches=(1,), deadline_ms=0.001)
    )
    assert set(multiprocessing.active_children()) <= others
    neural, streamed, pair = result.points
    samples = sample(noisy.circuit, shots=SHOTS, seed=4)
    decoded = NeuralDecoder.load(noisy).decode_soft(samples.detection_events, bit_packed_shots=True)
    unsure = int((decoded.confidence < THRESHOLD).sum())
    assert 0 < unsure < SHOTS
    assert (pair.deadline_ms, pair.late, pair.failures) == (0.001, unsure, neural.failures)  # type: ignore[attr-defined]
    assert neural.late is streamed.late is neural.deadline_ms is None  # type: ignore[attr-defined]
    rows = to_markdown(result).splitlines()
    assert rows[0].endswith("| cores used | late shots |")
    assert [row.split(" | ")[5] for row in rows[2:5]] == ["neural", "neural", "tandem (0.001 ms)"]
    assert [row.split(" | ")[-1] for row in rows[2:5]] == ["- |", "- |", f"{unsure} |"]
    legend = draw_plots(result)["tradeoff.png"].legends[0].get_texts()
    assert [text.get_text() for text in legend] == ["neural (XYZ)", "tandem (0.001 ms) (XYZ)"]
    assert np.isfinite([pair.mean_us, pair.max_us]).all()


def test_a_deadline_that_nobody_can_keep_is_refused(noisy: MemoryExperiment) -> None:
    others = set(multiprocessing.active_children())
    with pytest.raises(
        ValueError, match="a deadline needs a pair of decoders such as 'tandem', and neural, bposd holds"
    ):
        run_latency([noisy], ["neural", "bposd"], LatencyRun(shots=5, deadline_ms=5))
    with pytest.raises(ValueError, match="deadline_ms=0 must be above 0"):
        run_latency([noisy], ["tandem"], LatencyRun(shots=5, deadline_ms=0))
    assert set(multiprocessing.active_children()) <= others
