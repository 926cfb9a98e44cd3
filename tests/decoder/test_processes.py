from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from decoder.making import NamedDecoder, make_decoder
from decoder.processes import ChildEndedError, ChildProcess, Turns, _limit_waits
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample
from tests.helpers import eventually

BPOSD = NamedDecoder("bposd")


@pytest.fixture(scope="module")
def experiment() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="X", rounds=1, p=0.01)


@pytest.fixture(scope="module")
def child():
    child = ChildProcess(size=2)
    yield child
    child.close()


def test_a_decoder_in_a_child_process_answers_as_one_here(child, experiment):
    events = sample(experiment.circuit, shots=10, seed=1).detection_events
    there, here = child.decoder(BPOSD, experiment), make_decoder("bposd", experiment)
    assert (there.num_detectors, there.num_observables) == (here.num_detectors, here.num_observables)
    for packed in (False, True):
        options: dict[str, Any] = {"bit_packed_shots": True, "bit_packed_predictions": packed}
        assert np.array_equal(there.decode_batch(events, **options), here.decode_batch(events, **options))
    assert child.call(os.getpid) != os.getpid()


def test_what_its_maker_and_its_decoder_raise_arrives_here(child, experiment, tmp_path):
    with pytest.raises(ValueError, match="no weights to load"):
        child.decoder(NamedDecoder("bposd", weights=tmp_path), experiment)
    with pytest.raises(ValueError, match="72 detectors"):
        child.decoder(BPOSD, experiment).decode_batch(np.zeros((1, 10), np.uint8), bit_packed_shots=True)


def test_a_child_that_dies_is_one_error_and_then_replaced(child, experiment):
    decoder = child.decoder(BPOSD, experiment)
    shot = np.zeros((1, experiment.num_detectors), np.bool_)
    os.kill(child.call(os.getpid), signal.SIGKILL)
    with pytest.raises(RuntimeError, match="starts a new one"):
        decoder.decode_batch(shot)
    assert not decoder.decode_batch(shot).any()


def test_a_child_that_is_killed_costs_nothing_where_calls_may_be_made_again():
    child = ChildProcess(size=1, attempts=2)
    first = child.call(os.getpid)
    os.kill(first, signal.SIGKILL)
    assert child.call(os.getpid) != first
    child.close()


def test_a_child_that_is_closed_for_good_is_not_started_again():
    """Not for the call that it was at either: the process waited for that one for ever, when it was to end."""
    child = ChildProcess(size=1, attempts=2)
    first = child.call(os.getpid)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(child.call, time.sleep, 3600)
        child.close(for_good=True)
        with pytest.raises(ChildEndedError):
            call.result()
    assert child.pid == first
    with pytest.raises(ChildEndedError, match="closed"):
        child.call(os.getpid)


@pytest.mark.parametrize("length", [1, 2**22], ids=["short", "longer than the pipe takes at once"])
def test_a_child_that_is_stopped_is_replaced(length):
    child = ChildProcess(size=1, patience_seconds=60)
    os.kill(first := child.call(os.getpid), signal.SIGSTOP)
    child.patience_seconds = 0.2
    _limit_waits(child._pipe, 0.2)
    with pytest.raises(TimeoutError):
        child.call(len, bytes(length))
    child.patience_seconds = 60
    assert child.call(os.getpid) != first
    child.close()


def test_what_takes_more_memory_than_a_child_may_have_is_an_error_of_its_own():
    child = ChildProcess(size=1, max_bytes=2**30)
    with pytest.raises(MemoryError):
        child.call(bytes, 2**30)
    assert child.call(len, bytes(10)) == 10
    child.close()


def test_a_lock_is_had_in_turn():
    """A thread that takes it again at once, as one that decodes batch after batch, does not keep it for itself."""
    turns, order, ready = Turns(), [], threading.Event()

    def busy() -> None:
        for _ in range(3):
            with turns:
                ready.set()
                order.append("busy")
                eventually(lambda: len(turns._queue) > 1 or "other" in order)

    def other() -> None:
        ready.wait()
        with turns:
            order.append("other")

    threads = [threading.Thread(target=work) for work in (busy, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == ["busy", "other", "busy", "busy"]


def test_a_batch_ends_between_two_shots_when_its_time_is_over(child, experiment):
    events = sample(experiment.circuit, shots=10, seed=1).detection_events
    decoder = child.decoder(BPOSD, experiment)
    whole = decoder.decode_piece(events, seconds=600)
    assert np.array_equal(whole.predictions, decoder.decode_batch(events, bit_packed_shots=True))
    assert not whole.hurried.any()
    piece = decoder.decode_piece(events, seconds=0)
    assert np.array_equal(piece.predictions, whole.predictions[:1])
