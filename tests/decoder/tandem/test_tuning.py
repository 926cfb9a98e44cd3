from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from decoder.making import make_decoder
from decoder.tandem.decoder import TandemDecoder
from decoder.tandem.opinions import NoOpinionError, OpinionPool
from decoder.tandem.tuning import Curve, choose, measure
from simulation.circuits import MemoryExperiment
from simulation.sampling import sample


def curve(first: str, second: str, confidence=None) -> Curve:
    """A curve from strings of 1 (failed) and 0, the least confident shot first."""
    first_failed, second_failed = [np.array([char == "1" for char in text]) for text in (first, second)]
    confidence = np.arange(len(first)) / len(first) if confidence is None else np.array(confidence)
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.003)
    return Curve(experiment, confidence, first_failed, second_failed, 0.1)


def test_a_threshold_passes_on_at_most_its_share():
    c = curve("11010" + 95 * "0", "00010" + 5 * "0")
    assert c.at(c.threshold(0.02), share=0.02).passed_on == 2
    assert [c.at(c.threshold(share), share=share).failures for share in (0, 0.01, 0.02, 0.05)] == [3, 2, 1, 1]


def test_shots_of_equal_confidence_stay_together():
    c = curve("1100000000", "0000", [0.1, 0.2, 0.2, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9, 1])
    assert [c.at(c.threshold(share), share=share).passed_on for share in (0.1, 0.2, 0.3, 0.4)] == [1, 1, 1, 4]


def test_no_more_than_the_second_has_seen():
    c = curve("1100000000", "00")
    assert c.at(c.threshold(0.9), share=0.9).passed_on == 2


def test_a_share_holds_for_every_experiment():
    curves = [curve("10" + 98 * "0", 10 * "0"), curve("10" + 98 * "0", 10 * "0", np.linspace(0.5, 1, 100))]
    threshold = choose(curves, share=0.05)
    assert [c.at(threshold, share=0.05).passed_on for c in curves] == [5, 0]


def test_a_failure_rate_is_reached_with_the_fewest_opinions():
    c = curve("11010" + 95 * "0", "00000" + 5 * "0")
    assert c.at(choose([c], failure_rate=0.01), share=0).passed_on == 2
    assert c.at(choose([c], failure_rate=0.0), share=0).passed_on == 5  # 3 % would not be enough
    assert c.at(choose([c]), share=0).passed_on == 5
    worse = curve("10000" + 95 * "0", "11111" + 5 * "0")
    assert worse.at(choose([worse]), share=0).passed_on == 0


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"share": 0.1, "failure_rate": 0.1}, "give one"),
        ({"share": 1.5}, "share=1.5"),
        ({"failure_rate": 1e-9}, "the best fails 0.01"),
    ],
)
def test_what_cannot_be_chosen(wanted, message):
    with pytest.raises(ValueError, match=message):
        choose([curve("1" + 99 * "0", "1" + 9 * "0")], **wanted)


def test_it_measures_what_the_pair_then_does():
    experiment = MemoryExperiment.create(code="bb72", basis="X", rounds=2, p=0.01)
    first: Any = make_decoder("neural", experiment)
    second = make_decoder("bposd-osd0", experiment)
    pool = OpinionPool("bposd-osd0", processes=1)
    try:
        c = measure(first, pool, experiment, shots=300, seed=5, most=0.2)
    finally:
        pool.close()
    point = c.at(c.threshold(0.2), share=0.2)
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
