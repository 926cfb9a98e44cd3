from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from decoder.making import make_decoder
from decoder.tandem.decoder import TandemDecoder
from decoder.tandem.opinions import NoOpinionError, OpinionPool
from decoder.tandem.pairs import threshold_for, threshold_of
from decoder.tandem.tuning import Curve, choose, measure
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample


def curve(first: str, second: str, confidence=None) -> Curve:
    """A curve from strings of 1 (failed) and 0, the least confident shot first."""
    first_failed, second_failed = [np.array([char == "1" for char in text]) for text in (first, second)]
    confidence = np.arange(len(first)) / len(first) if confidence is None else np.array(confidence)
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.003)
    return Curve(experiment, confidence, first_failed, second_failed, 0.1)


def test_no_more_than_a_share_is_passed_on():
    c = curve("11010" + 95 * "0", "00010" + 5 * "0")
    assert c.at(0.02).passed_on == 2
    assert [c.at(share).failures for share in (0, 0.01, 0.02, 0.05)] == [3, 2, 1, 1]


def test_shots_of_equal_confidence_stay_together():
    c = curve("1100000000", "0000", [0.1, 0.2, 0.2, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9, 1])
    assert [c.at(share).passed_on for share in (0.1, 0.2, 0.3, 0.4)] == [1, 1, 1, 4]


def test_no_more_than_the_second_has_seen():
    assert curve("1100000000", "00").at(0.9).passed_on == 2


def test_a_failure_rate_is_reached_with_the_fewest_opinions():
    c = curve("11010" + 95 * "0", "00000" + 5 * "0")
    assert choose([c], failure_rate=0.01) == 0.02
    assert choose([c], failure_rate=0.0) == 0.05  # 3 % would not be enough
    assert choose([c]) == 0.05
    assert choose([curve("10000" + 95 * "0", "11111" + 5 * "0")]) == 0
    assert choose([c, curve(100 * "0", "111111" + 4 * "0")]) == 0  # what one gains, the other loses


@pytest.mark.parametrize(
    ("failure_rate", "message"), [(1.5, r"failure_rate=1\.5"), (1e-9, r"the best fails 0\.01")], ids=["range", "rare"]
)
def test_what_cannot_be_chosen(failure_rate, message):
    with pytest.raises(ValueError, match=message):
        choose([curve("1" + 99 * "0", "1" + 9 * "0")], failure_rate=failure_rate)


def test_a_share_of_other_shots_of_the_experiment_is_met():
    """The network's confidence on 4,096 shots tells how sure it is of a share of others."""
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.01)
    first: Any = make_decoder("neural", experiment)
    threshold = threshold_for(first, experiment.circuit, share=0.2)
    events = sample(experiment.circuit, shots=400, seed=9).detection_events
    passed = (first.decode_soft(events, bit_packed_shots=True).confidence < threshold).sum()
    assert 40 < passed < 130  # far beyond five standard deviations of 80
    with pytest.raises(ValueError, match=r"share=1\.5"):
        threshold_for(first, experiment.circuit, share=1.5)
    assert threshold_of(np.array([0.1, 0.5, 0.9]), share=0) == 0.1
    assert threshold_of(np.array([0.1, 0.5, 0.9]), share=1) == 1


def test_it_measures_what_the_pair_then_does():
    experiment = MemoryExperiment.create(code="bb72", basis="X", rounds=2, p=0.01)
    first: Any = make_decoder("neural", experiment)
    second = make_decoder("bposd-osd0", experiment)
    pool = OpinionPool("bposd-osd0", processes=1)
    try:
        c = measure(first, pool, experiment, shots=300, seed=5, most=0.2)
    finally:
        pool.close()
    point = c.at(0.2)
    assert point.passed_on == 60
    assert point.seconds_per_opinion > 0
    samples = sample(experiment.circuit, shots=300, seed=5)
    pair = TandemDecoder(first, second, threshold=point.threshold)
    predictions = pair.decode_batch(samples.detection_events, bit_packed_shots=True, bit_packed_predictions=True)
    assert point.failures == (predictions != samples.observable_flips).any(1).sum()
    assert point.failures != point.first_failures
    for arguments in ({"shots": 0, "seed": 1}, {"shots": 10, "seed": 1, "most": 0.0}):
        with pytest.raises(ValueError, match="must be"):
            measure(first, pool, experiment, **arguments)


def test_a_shot_without_an_opinion_keeps_the_firsts_answer(monkeypatch):
    experiment = MemoryExperiment.create(code="bb72", basis="X", rounds=2, p=0.01)
    first: Any = make_decoder("neural", experiment)
    pool = OpinionPool("bposd-osd0", processes=1)
    [worker] = pool.children
    call = worker.call
    decoded = []

    def often(*args):
        decoded.append(args)
        if len(decoded) % 2:
            raise TimeoutError("hung")
        return ~call(*args)  # certainly wrong where that is right

    try:
        pool.warm_up(experiment)
        monkeypatch.setattr(worker, "call", often)
        monkeypatch.setattr(pool, "warm_up", lambda _: None)
        c = measure(first, pool, experiment, shots=100, seed=5, most=0.2)
        monkeypatch.setattr(worker, "call", lambda *_: failing())
        with pytest.raises(NoOpinionError, match="crashed"):
            measure(first, pool, experiment, shots=100, seed=5, most=0.2)
    finally:
        pool.close()
    assert np.array_equal(c.second_failed[::2], c.first_failed[:20:2])
    assert c.second_failed[1::2].sum() > 5


def failing():
    raise RuntimeError("crashed")
