from __future__ import annotations

import os
import signal
import time
from concurrent.futures import Future, wait
from typing import Any

import numpy as np
import pytest

from decoder.base import Decoder, Decoding, SoftDecoder, unpack_shots
from decoder.making import make_decoder
from decoder.tandem import opinions
from decoder.tandem.decoder import PooledDecoder, TandemDecoder
from decoder.tandem.opinions import NoOpinionError, OpinionPool
from decoder.tandem.rule import Opinion, merge
from simulation.bits import pack_bits
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample
from tests.helpers import PATIENCE_SECONDS, eventually


class Parity:
    """Predicts the first observables from the first detection events, the less surely the more events there are."""

    def __init__(self, *, flipped: bool = False, detectors: int = 72, observables: int = 12) -> None:
        self.num_detectors, self.num_observables = detectors, observables
        self.flipped = flipped
        self.asked: list[int] = []

    def decode_batch(self, shots, *, bit_packed_shots=False, bit_packed_predictions=False):
        predictions = self.decode_soft(shots, bit_packed_shots=bit_packed_shots).predictions
        return pack_bits(predictions) if bit_packed_predictions else predictions

    def decode_soft(self, shots, *, bit_packed_shots=False):
        events = unpack_shots(shots, num_detectors=self.num_detectors, bit_packed=bit_packed_shots)
        self.asked.append(len(events))
        predictions = events[:, : self.num_observables] ^ self.flipped
        confidence = 1 - events.sum(1) / self.num_detectors
        return Decoding(predictions, confidence, predictions.astype(np.float32))


@pytest.fixture(scope="module")
def experiment() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.01)


@pytest.fixture(scope="module")
def shots():
    return np.random.default_rng(1).random((200, 72)) < 0.1


@pytest.fixture(scope="module")
def pool():
    pool = OpinionPool("bposd-osd0", processes=1)
    yield pool
    pool.close()


def answer(asked: Future[Any]) -> Any:
    return asked.result(timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize("packed", [False, True])
def test_the_second_gets_the_unsure_shots_in_one_batch_and_no_others(shots, packed):
    first, second = Parity(), Parity(flipped=True)
    tandem = TandemDecoder(first, second, threshold=0.9)
    decoded = tandem.decode_soft(pack_bits(shots) if packed else shots, bit_packed_shots=packed)
    unsure = 1 - shots.sum(1) / 72 < 0.9
    assert 0 < unsure.sum() < len(shots)
    assert second.asked == [unsure.sum()]
    assert np.array_equal(decoded.predictions, shots[:, :12] ^ unsure[:, None])
    assert np.array_equal(decoded.opinions, np.where(unsure, Opinion.SECOND, Opinion.FIRST))
    assert np.array_equal(decoded.confidence, 1 - shots.sum(1) / 72)
    packed_predictions = tandem.decode_batch(shots, bit_packed_predictions=True)
    assert np.array_equal(packed_predictions, pack_bits(decoded.predictions))


def test_it_is_a_soft_decoder_and_leaves_the_firsts_answer_alone(shots):
    tandem = TandemDecoder(Parity(), Parity(flipped=True), threshold=0)
    assert isinstance(tandem, Decoder)
    assert isinstance(tandem, SoftDecoder)
    assert np.array_equal(tandem.decode_batch(shots), shots[:, :12])
    assert tandem.decode_batch(shots[:0]).shape == (0, 12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 1.1}, "threshold=1.1"),
        ({"threshold": float("nan")}, "threshold=nan"),
        ({"threshold": 0.9, "deadline_ms": 5}, "worker processes"),
        ({"threshold": 0.9, "deadline_ms": 0}, "deadline_ms=0"),
    ],
)
def test_settings_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        TandemDecoder(Parity(), Parity(), **arguments)


def test_decoders_of_different_experiments(experiment):
    other = make_decoder("bposd-osd0", MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.01))
    with pytest.raises(ValueError, match="one experiment"):
        TandemDecoder(Parity(), other, threshold=0.5)


def test_worker_processes_answer_as_the_decoder_itself(pool, experiment):
    events = sample(experiment.circuit, shots=20, seed=2).detection_events
    here = make_decoder("bposd-osd0", experiment)
    there = PooledDecoder(pool, experiment)
    options: dict[str, Any] = {"bit_packed_shots": True}
    assert np.array_equal(there.decode_batch(events, **options), here.decode_batch(events, **options))
    assert (there.num_detectors, there.num_observables) == (here.num_detectors, here.num_observables)


def test_a_late_opinion_is_not_waited_for(pool, experiment):
    pool.warm_up(experiment)
    [pid] = [child.pid for child in pool.children]
    first = Parity(detectors=experiment.num_detectors)
    tandem = TandemDecoder(first, PooledDecoder(pool, experiment), threshold=1.0, deadline_ms=200)
    shot = np.zeros((1, experiment.num_detectors), np.bool_)
    shot[0, 0] = True
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.perf_counter()
        decoded = tandem.decode_soft(shot)
        took = time.perf_counter() - began
    finally:
        os.kill(pid, signal.SIGCONT)
    assert decoded.opinions.tolist() == [Opinion.LATE]
    assert decoded.predictions[0, 0]  # the first's
    assert took > 0.19


class SlowParity(Parity):
    """Takes 20 ms."""

    def decode_soft(self, shots, *, bit_packed_shots=False):
        time.sleep(0.02)
        return super().decode_soft(shots, bit_packed_shots=bit_packed_shots)


def test_nobody_is_asked_when_the_first_has_used_up_the_time(pool, experiment, monkeypatch):
    futures = []
    ask = pool.ask
    monkeypatch.setattr(pool, "ask", lambda *args, **options: futures.extend(ask(*args, **options)) or futures)
    first = SlowParity(detectors=experiment.num_detectors)
    tandem = TandemDecoder(first, PooledDecoder(pool, experiment), threshold=1.0, deadline_ms=10)
    shots = np.eye(3, experiment.num_detectors, dtype=np.bool_)
    decoded = tandem.decode_soft(shots)
    assert decoded.opinions.tolist() == [Opinion.LATE] * 3
    assert np.array_equal(decoded.predictions, shots[:, :12])
    assert [future.cancelled() for future in futures] == [True] * 3


def test_nobody_waits_for_what_the_workers_were_too_slow_for_lately(experiment, monkeypatch):
    shot = pack_bits(np.zeros((1, experiment.num_detectors), np.bool_))
    pool = OpinionPool("bposd-osd0", processes=1)
    try:
        assert not answer(pool.ask(experiment, shot, seconds=1e-6)[0]).any()  # nothing is known yet
        pool.warm_up(experiment)
        decoded = []
        [worker] = pool.children
        call = worker.call
        monkeypatch.setattr(worker, "call", lambda *args: decoded.append(args) or call(*args))
        [hopeless] = pool.ask(experiment, shot, seconds=1e-6)
        assert hopeless.cancelled()
        assert wait([hopeless], timeout=0).done == {hopeless}
        assert not answer(pool.ask(experiment, shot, seconds=PATIENCE_SECONDS)[0]).any()
        assert len(decoded) == 1

        monkeypatch.setattr(opinions, "MEMORY_SECONDS", 0)
        assert not answer(pool.ask(experiment, shot, seconds=1e-6)[0]).any()  # they may be quicker by now
    finally:
        pool.close()


def test_a_worker_that_is_killed_costs_its_shot_and_no_more(pool, experiment):
    pool.warm_up(experiment)
    [pid] = [child.pid for child in pool.children]
    shot = np.zeros((1, experiment.num_detectors), np.bool_)
    os.kill(pid, signal.SIGSTOP)
    [asked] = pool.ask(experiment, pack_bits(shot))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(NoOpinionError, match="ended"):
        answer(asked)
    assert not PooledDecoder(pool, experiment).decode_batch(shot).any()


def test_a_worker_that_hangs_is_replaced(experiment):
    pool = OpinionPool("bposd-osd0", processes=1, patience_seconds=PATIENCE_SECONDS)
    try:
        pool.warm_up(experiment)
        [pid] = [child.pid for child in pool.children]
        pool.children[0].patience_seconds = 0.1
        os.kill(pid, signal.SIGSTOP)
        shot = pack_bits(np.zeros((1, experiment.num_detectors), np.bool_))
        [asked] = pool.ask(experiment, shot)
        with pytest.raises(NoOpinionError, match="did not answer within"):
            answer(asked)
        pool.children[0].patience_seconds = PATIENCE_SECONDS
        assert not answer(pool.ask(experiment, shot)[0]).any()
    finally:
        pool.close()


def test_a_second_decoder_that_is_missing_is_flagged(experiment, tmp_path, monkeypatch):
    (tmp_path / "relay_bp.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)  # also of the worker process
    pool = OpinionPool("relay-1", processes=1)
    try:
        with pytest.raises(NoOpinionError, match="needs the package relay-bp"):
            pool.warm_up(experiment)
        first = Parity(detectors=experiment.num_detectors, observables=experiment.num_observables)
        tandem = TandemDecoder(first, PooledDecoder(pool, experiment), threshold=1.0)
        decoded = tandem.decode_soft(np.ones((1, experiment.num_detectors), np.bool_))
        assert decoded.opinions.tolist() == [Opinion.FAILED]
        assert decoded.predictions.all()
    finally:
        pool.close()


def test_a_decoder_that_fails_again_and_again_is_left_alone_for_a_while(experiment, monkeypatch):
    monkeypatch.setattr(opinions, "MOST_REST_SECONDS", 1)
    pool = OpinionPool("bposd-osd0", processes=1)
    shot = pack_bits(np.zeros((1, experiment.num_detectors), np.bool_))
    tried = []

    def crash(*_):
        tried.append(1)
        raise RuntimeError("crashed")

    def outcome():
        try:
            return answer(pool.ask(experiment, shot)[0]).any()
        except NoOpinionError as error:
            return str(error)

    try:
        [worker] = pool.children
        call = worker.call
        monkeypatch.setattr(worker, "call", crash)
        crashed = "no second opinion of bposd-osd0: crashed"
        assert [outcome() for _ in range(3)] == [crashed] * 3
        for _ in range(2):
            refused = eventually(lambda: (found := outcome()) != crashed and found)
            assert f"{len(tried)} times in a row" in refused
            eventually(lambda: outcome() == crashed)
        monkeypatch.setattr(worker, "call", call)
        eventually(lambda: not isinstance(outcome(), str))
        assert [outcome() for _ in range(2)] == [False] * 2
    finally:
        pool.close()


def test_a_full_pool_gives_no_opinion(experiment):
    pool = OpinionPool("bposd-osd0", processes=1, max_waiting=1)
    try:
        asked = pool.ask(experiment, np.zeros((1000, 9), np.uint8))  # faster than anything decodes them
        refused = [future for future in asked if future.done() and future.exception() is not None]
        with pytest.raises(NoOpinionError, match="wait for bposd-osd0 already"):
            answer(refused[-1])
    finally:
        pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.ask(experiment, np.zeros((1, 5), np.uint8))


def test_merging():
    first = np.zeros((3, 2), np.bool_)
    futures: list[Future] = [Future() for _ in range(3)]
    done, pending, failed = futures
    done.set_result(np.array([True, False]))
    failed.set_exception(NoOpinionError("crashed"))
    predictions, answered_by = merge(first, [done, pending, failed])
    assert predictions.tolist() == [[True, False], [False, False], [False, False]]
    assert answered_by.tolist() == [Opinion.SECOND, Opinion.LATE, Opinion.FAILED]
    assert pending.cancelled()
