from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest

from decoder.base import Decoding, unpack_shots
from service.errors import BusyError, ClosingError, DecoderFailedError
from service.models.batching import BatchWorker
from simulation.bits import Bits, PackedBits, pack_bits
from tests.helpers import PATIENCE_SECONDS, eventually

NUM_DETECTORS = 20
Shots = npt.NDArray[np.bool_]
MakeWorker = Callable[..., BatchWorker]


@pytest.fixture
def make_worker() -> Iterator[MakeWorker]:
    workers = []

    def make(*, max_batch_shots: int = 100, max_queued_shots: int = 1000, **options: object) -> BatchWorker:
        worker = BatchWorker(
            name="m",
            max_batch_shots=max_batch_shots,
            max_queued_shots=max_queued_shots,
            **options,  # type: ignore[arg-type]
        )
        worker.start()
        workers.append(worker)
        return worker

    yield make
    for worker in workers:
        worker.close()


@pytest.fixture
def shots(shots_of) -> Callable[..., Shots]:
    return lambda count, seed=0: shots_of(count, num_detectors=NUM_DETECTORS, seed=seed)


def hold(worker: BatchWorker, echo) -> None:
    """Makes the worker busy with one shot until `echo.gate` is set."""
    echo.gate.clear()
    worker.submit(echo, pack_bits(np.zeros((1, NUM_DETECTORS), dtype=np.bool_)))
    assert echo.started.acquire(timeout=PATIENCE_SECONDS)


def test_a_lone_job_is_decoded_at_once(make_worker, echo, shots):
    started = time.perf_counter()
    answer = make_worker().submit(echo, pack_bits(shots(3))).result(PATIENCE_SECONDS)
    assert np.array_equal(answer.predictions, shots(3)[:, :12])
    assert answer.confidence is None
    assert answer.flip_probabilities is None
    assert 0 <= answer.queue_seconds + answer.compute_seconds <= time.perf_counter() - started


def test_what_queued_while_a_batch_ran_is_the_next_batch_and_each_job_gets_its_own(make_worker, echo, shots):
    seen = []
    worker = make_worker(on_batch=lambda *, shots, seconds: seen.append((shots, seconds > 0)))
    hold(worker, echo)
    jobs = {seed: worker.submit(echo, pack_bits(shots(seed, seed))) for seed in range(1, 8)}
    assert worker.queued_shots == 28
    echo.gate.set()
    for seed, future in jobs.items():
        assert np.array_equal(future.result(PATIENCE_SECONDS).predictions, shots(seed, seed)[:, :12])
    assert echo.batches == [1, 28]
    assert seen == [(1, True), (28, True)]
    assert worker.queued_shots == 0


def test_all_that_a_batch_answers_is_delivered_at_once_and_closing_waits_for_it(make_worker, echo, shots):
    delivered: list[Callable[[], None]] = []
    worker = make_worker(deliver=delivered.append)
    hold(worker, echo)
    jobs = [worker.submit(echo, pack_bits(shots(2, seed))) for seed in range(3)]
    echo.gate.set()
    eventually(lambda: len(delivered) == 2)  # the one that held the worker, and the three
    assert not any(job.done() for job in jobs)
    closing = threading.Thread(target=worker.close)
    closing.start()
    delivered[1]()
    assert all(job.done() for job in jobs)
    assert closing.is_alive()
    delivered[0]()
    closing.join(PATIENCE_SECONDS)
    assert not closing.is_alive()


def test_queue_and_compute_time_are_told_apart(make_worker, echo, shots):
    worker = make_worker()
    hold(worker, echo)
    future = worker.submit(echo, pack_bits(shots(1)))
    submitted = time.perf_counter()
    time.sleep(0.2)
    begun = time.perf_counter()
    echo.gate.set()
    answer = future.result(PATIENCE_SECONDS)
    assert answer.queue_seconds >= begun - submitted
    assert answer.compute_seconds <= time.perf_counter() - begun


def test_batches_are_bounded_and_a_long_job_lets_others_pass(make_worker, echo, shots):
    worker = make_worker(max_batch_shots=10)
    hold(worker, echo)
    order = []
    long, short = worker.submit(echo, pack_bits(shots(25))), worker.submit(echo, pack_bits(shots(3, 1)))
    long.add_done_callback(lambda _: order.append("long"))
    short.add_done_callback(lambda _: order.append("short"))
    echo.gate.set()
    assert np.array_equal(long.result(PATIENCE_SECONDS).predictions, shots(25)[:, :12])
    assert np.array_equal(short.result(PATIENCE_SECONDS).predictions, shots(3, 1)[:, :12])
    assert order == ["short", "long"]
    assert echo.batches == [1, 10, 10, 8]


def test_jobs_for_different_decoders_are_not_mixed(make_worker, echo, shots):
    other = type(echo)(num_observables=5)
    worker = make_worker()
    hold(worker, echo)
    futures = [worker.submit(decoder, pack_bits(shots(2, seed))) for seed, decoder in enumerate([echo, other] * 2)]
    echo.gate.set()
    for seed, future in enumerate(futures):
        assert np.array_equal(future.result(PATIENCE_SECONDS).predictions, shots(2, seed)[:, : 5 if seed % 2 else 12])
    assert echo.batches == [1, 4]
    assert other.batches == [4]


def test_a_full_queue_refuses_and_says_when_to_come_back(make_worker, echo, shots):
    worker = make_worker(max_queued_shots=10)
    hold(worker, echo)
    waiting = worker.submit(echo, pack_bits(shots(8)))
    with pytest.raises(BusyError, match="8 shots wait") as caught:
        worker.submit(echo, pack_bits(shots(3)))
    assert 1 <= caught.value.retry_after <= 60
    worker.submit(echo, pack_bits(shots(2)))
    echo.gate.set()
    assert len(waiting.result(PATIENCE_SECONDS).predictions) == 8


def test_a_cancelled_job_leaves_the_queue_and_its_batch_unharmed(make_worker, echo, shots):
    worker = make_worker()
    hold(worker, echo)
    gone, stays = (worker.submit(echo, pack_bits(shots(5, seed))) for seed in (1, 2))
    assert gone.cancel()
    assert worker.queued_shots == 5
    echo.gate.set()
    assert np.array_equal(stays.result(PATIENCE_SECONDS).predictions, shots(5, 2)[:, :12])
    assert echo.batches == [1, 5]


def test_a_job_cancelled_while_it_is_decoded_does_not_stop_the_worker(make_worker, echo, shots):
    worker = make_worker(max_batch_shots=4)
    echo.gate.clear()
    gone = worker.submit(echo, pack_bits(shots(6, 1)))
    assert echo.started.acquire(timeout=PATIENCE_SECONDS)
    stays = worker.submit(echo, pack_bits(shots(2, 2)))
    assert gone.cancel()
    echo.gate.set()
    assert np.array_equal(stays.result(PATIENCE_SECONDS).predictions, shots(2, 2)[:, :12])
    assert echo.batches == [4, 2]


def test_a_decoder_that_raises_fails_its_batch_only(make_worker, echo, shots, caplog):
    worker = make_worker(max_batch_shots=4)
    hold(worker, echo)
    bad = shots(6)
    bad[0, -1] = True
    doomed, later = worker.submit(echo, pack_bits(bad)), worker.submit(echo, pack_bits(shots(4, 2)))
    echo.gate.set()
    with pytest.raises(DecoderFailedError, match="model m"):
        doomed.result(PATIENCE_SECONDS)
    assert np.array_equal(later.result(PATIENCE_SECONDS).predictions, shots(4, 2)[:, :12])
    assert echo.batches == [1, 4, 4]
    assert "cannot bear" in caplog.text


def test_an_answer_of_the_wrong_shape_is_a_failure(make_worker, echo, shots):
    echo.num_observables = 25  # more than it has bits to answer
    with pytest.raises(DecoderFailedError):
        make_worker().submit(echo, pack_bits(shots(2))).result(PATIENCE_SECONDS)


def test_probabilities_are_dealt_out_like_predictions(make_worker, shots):
    class Soft:
        num_detectors, num_observables = NUM_DETECTORS, 12

        def decode_batch(self, shots, *, bit_packed_shots=False, bit_packed_predictions=False):
            raise AssertionError("decode_soft says more")

        def decode_soft(self, shots: PackedBits, *, bit_packed_shots: bool = False) -> Decoding:
            bits: Bits = unpack_shots(shots, num_detectors=NUM_DETECTORS, bit_packed=bit_packed_shots)
            means = bits.mean(axis=1).astype(np.float32)
            return Decoding(bits[:, :12], means, np.repeat(means[:, None], 12, axis=1))

    decoder, worker = Soft(), make_worker(max_batch_shots=3)
    futures = [worker.submit(decoder, pack_bits(shots(5, seed))) for seed in range(4)]
    for seed, future in enumerate(futures):
        answer = future.result(PATIENCE_SECONDS)
        assert np.allclose(answer.confidence, shots(5, seed).mean(axis=1))
        assert answer.confidence.dtype == np.float32
        assert np.array_equal(answer.flip_probabilities, np.repeat(answer.confidence[:, None], 12, axis=1))


def test_close_finishes_what_is_queued_and_refuses_the_rest(make_worker, echo, shots):
    worker = make_worker()
    hold(worker, echo)
    queued = worker.submit(echo, pack_bits(shots(5)))
    closing = threading.Thread(target=worker.close)
    closing.start()

    def refused() -> bool:
        try:
            worker.submit(echo, pack_bits(shots(1)))
        except ClosingError:
            return True
        return False

    eventually(refused)
    echo.gate.set()
    closing.join(PATIENCE_SECONDS)
    assert not closing.is_alive()
    assert np.array_equal(queued.result(0).predictions, shots(5)[:, :12])


def test_close_does_not_wait_for_a_batch_that_nobody_waits_for(make_worker, echo, shots):
    worker = make_worker()
    echo.gate.clear()
    future = worker.submit(echo, pack_bits(shots(1)))
    assert echo.started.acquire(timeout=PATIENCE_SECONDS)
    assert future.cancel()
    worker.close()
    assert echo.batches == [1]
    echo.gate.set()


def test_many_threads_each_get_their_own_answers(make_worker, echo, shots):
    worker = make_worker(max_batch_shots=16)
    wrong = []

    def client(seed: int) -> None:
        for turn in range(20):
            mine = shots(1 + (seed + turn) % 7, 100 * seed + turn)
            answer = worker.submit(echo, pack_bits(mine)).result(PATIENCE_SECONDS)
            if not np.array_equal(answer.predictions, mine[:, :12]):
                wrong.append((seed, turn))

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sum(echo.batches) == sum(1 + (seed + turn) % 7 for seed in range(8) for turn in range(20))
