from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from decoder.base import Decoding, Piece, unpack_shots
from decoder.processes import ChildEndedError
from service.errors import BusyError, ClosingError, DecoderFailedError, DecodeTimeoutError, TooManyShotsError
from service.models.batching import MAX_BATCH_SECONDS, BatchWorker
from service.wire.shots import DecodeResult
from simulation.bits import Bits, PackedBits, pack_bits
from tests.helpers import PATIENCE_SECONDS, eventually, eventually_async

pytestmark = pytest.mark.anyio

NUM_DETECTORS = 20
Shots = npt.NDArray[np.bool_]
MakeWorker = Callable[..., BatchWorker]


@pytest.fixture
async def make_worker(anyio_backend) -> AsyncIterator[MakeWorker]:
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
        await asyncio.to_thread(worker.close)


@pytest.fixture
def shots(shots_of) -> Callable[..., Shots]:
    return lambda count, seed=0: shots_of(count, num_detectors=NUM_DETECTORS, seed=seed)


async def queue(worker: BatchWorker, decoder, *several: Shots) -> list[asyncio.Task[DecodeResult]]:
    """Hands jobs over, in this order; they wait for their turn or are at work when it returns."""
    jobs = [asyncio.create_task(worker.decode(decoder, pack_bits(shots))) for shots in several]
    await asyncio.sleep(0)
    return jobs


async def started(echo) -> None:
    """Waits until the decoder has been handed a batch."""
    assert await asyncio.to_thread(echo.started.acquire, timeout=PATIENCE_SECONDS)


async def hold(worker: BatchWorker, echo) -> None:
    """Makes the worker busy with one shot until `echo.gate` is set."""
    echo.gate.clear()
    await queue(worker, echo, np.zeros((1, NUM_DETECTORS), dtype=np.bool_))
    await started(echo)


async def test_a_lone_job_is_decoded_at_once(make_worker, echo, shots):
    began = time.perf_counter()
    result = await make_worker().decode(echo, pack_bits(shots(3)))
    assert np.array_equal(result.predictions, shots(3)[:, :12])
    assert result.confidence is None
    assert result.flip_probabilities is None
    assert 0 <= result.queue_seconds + result.compute_seconds <= time.perf_counter() - began


async def test_what_queued_while_a_batch_ran_is_the_next_batch_and_each_job_gets_its_own(make_worker, echo, shots):
    seen = []
    worker = make_worker(on_batch=lambda *, shots, seconds, hurried: seen.append((shots, seconds > 0)))
    await hold(worker, echo)
    jobs = await queue(worker, echo, *(shots(seed, seed) for seed in range(1, 8)))
    assert worker.queued_shots == 28
    echo.gate.set()
    for seed, job in enumerate(jobs, 1):
        assert np.array_equal((await job).predictions, shots(seed, seed)[:, :12])
    assert echo.batches == [1, 28]
    assert seen == [(1, True), (28, True)]
    assert worker.queued_shots == 0


async def test_all_that_a_batch_answers_is_delivered_at_once_and_closing_waits_for_it(make_worker, echo, shots):
    worker = make_worker()
    await hold(worker, echo)
    turns = 0
    ended: list[Any] = []

    def turn() -> None:
        nonlocal turns
        turns += 1
        if len(ended) < 3:
            asyncio.get_running_loop().call_soon(turn)

    async def ask(seed: int) -> None:
        await worker.decode(echo, pack_bits(shots(2, seed)))
        ended.append(turns)

    jobs = [asyncio.create_task(ask(seed)) for seed in range(3)]
    await asyncio.sleep(0)
    closing = threading.Thread(target=worker.close)
    closing.start()
    echo.gate.set()
    eventually(lambda: len(echo.batches) == 2)  # the event loop stands still meanwhile: nothing is delivered
    assert closing.is_alive()
    turn()
    await asyncio.gather(*jobs)
    assert len(set(ended)) == 1
    await asyncio.to_thread(closing.join, PATIENCE_SECONDS)
    assert not closing.is_alive()


async def test_queue_and_compute_time_are_told_apart(make_worker, echo, shots):
    worker = make_worker()
    await hold(worker, echo)
    [job] = await queue(worker, echo, shots(1))
    queued = time.perf_counter()
    await asyncio.sleep(0.2)
    begun = time.perf_counter()
    echo.gate.set()
    result = await job
    assert result.queue_seconds >= begun - queued
    assert result.compute_seconds <= time.perf_counter() - begun


async def test_batches_are_bounded_and_a_long_job_lets_others_pass(make_worker, echo, shots):
    worker = make_worker(max_batch_shots=10)
    await hold(worker, echo)
    order = []
    long, short = await queue(worker, echo, shots(25), shots(3, 1))
    long.add_done_callback(lambda _: order.append("long"))
    short.add_done_callback(lambda _: order.append("short"))
    echo.gate.set()
    assert np.array_equal((await long).predictions, shots(25)[:, :12])
    assert np.array_equal((await short).predictions, shots(3, 1)[:, :12])
    assert order == ["short", "long"]
    assert echo.batches == [1, 10, 10, 8]


async def test_jobs_for_different_decoders_are_not_mixed(make_worker, echo, shots):
    other = type(echo)(num_observables=5)
    worker = make_worker()
    await hold(worker, echo)
    jobs = [
        (await queue(worker, decoder, shots(2, seed)))[0] for seed, decoder in enumerate([echo, other, echo, other])
    ]
    echo.gate.set()
    for seed, job in enumerate(jobs):
        assert np.array_equal((await job).predictions, shots(2, seed)[:, : 5 if seed % 2 else 12])
    assert echo.batches == [1, 4]
    assert other.batches == [4]


async def test_a_full_queue_refuses_and_says_when_to_come_back(make_worker, echo, shots):
    worker = make_worker(max_queued_shots=10)
    await hold(worker, echo)
    [waiting] = await queue(worker, echo, shots(8))
    with pytest.raises(BusyError, match="8 shots wait") as caught:
        await worker.decode(echo, pack_bits(shots(3)))
    assert 1 <= caught.value.retry_after <= 60
    await queue(worker, echo, shots(2))
    echo.gate.set()
    assert len((await waiting).predictions) == 8


async def test_answers_have_a_bound_in_bytes(make_worker, echo, shots, monkeypatch):
    """An error is a bit for each of a hundred thousand: a few requests once took all memory."""
    monkeypatch.setattr("service.models.batching.MOST_ANSWER_BYTES", 12 * 5)
    monkeypatch.setattr("service.models.batching.MOST_ANSWERS_BYTES", 12 * 9)
    worker = make_worker()
    with pytest.raises(TooManyShotsError, match="6 shots with answers of 12 bits each in one request, at most 5"):
        await worker.decode(echo, pack_bits(shots(6)))
    await hold(worker, echo)
    jobs = await queue(worker, echo, shots(5), shots(3))
    with pytest.raises(BusyError):
        await worker.decode(echo, pack_bits(shots(1)))
    jobs[1].cancel()
    await asyncio.wait(jobs[1:])
    jobs += await queue(worker, echo, shots(3))
    echo.gate.set()
    assert len((await jobs[2]).predictions) == 3
    assert len((await worker.decode(echo, pack_bits(shots(5)))).predictions) == 5


async def test_a_cancelled_job_leaves_the_queue_and_its_batch_unharmed(make_worker, echo, shots):
    worker = make_worker()
    await hold(worker, echo)
    gone, stays = await queue(worker, echo, shots(5, 1), shots(5, 2))
    gone.cancel()
    await asyncio.wait([gone])
    assert worker.queued_shots == 5
    echo.gate.set()
    assert np.array_equal((await stays).predictions, shots(5, 2)[:, :12])
    assert echo.batches == [1, 5]


async def test_a_job_cancelled_while_it_is_decoded_does_not_stop_the_worker(make_worker, echo, shots):
    worker = make_worker(max_batch_shots=4)
    echo.gate.clear()
    [gone] = await queue(worker, echo, shots(6, 1))
    await started(echo)
    [stays] = await queue(worker, echo, shots(2, 2))
    gone.cancel()
    await asyncio.wait([gone])
    echo.gate.set()
    assert np.array_equal((await stays).predictions, shots(2, 2)[:, :12])
    assert echo.batches == [4, 2]


async def test_a_decoder_that_raises_fails_its_batch_only(make_worker, echo, shots, caplog):
    worker = make_worker(max_batch_shots=4)
    await hold(worker, echo)
    bad = shots(6)
    bad[0, -1] = True
    doomed, later = await queue(worker, echo, bad, shots(4, 2))
    echo.gate.set()
    with pytest.raises(DecoderFailedError, match="model m"):
        await doomed
    assert np.array_equal((await later).predictions, shots(4, 2)[:, :12])
    assert echo.batches == [1, 4, 4]
    assert "cannot bear" in caplog.text


async def test_an_answer_of_the_wrong_shape_is_a_failure(make_worker, echo, shots):
    echo.num_observables = 25  # more than it has bits to answer
    with pytest.raises(DecoderFailedError):
        await make_worker().decode(echo, pack_bits(shots(2)))


async def test_probabilities_are_dealt_out_like_predictions(make_worker, shots):
    class Soft:
        num_detectors, num_observables = NUM_DETECTORS, 12

        def decode_batch(self, shots, *, bit_packed_shots=False, bit_packed_predictions=False):
            raise AssertionError("decode_soft says more")

        def decode_soft(self, shots: PackedBits, *, bit_packed_shots: bool = False) -> Decoding:
            bits: Bits = unpack_shots(shots, num_detectors=NUM_DETECTORS, bit_packed=bit_packed_shots)
            means = bits.mean(axis=1).astype(np.float32)
            return Decoding(bits[:, :12], means, np.repeat(means[:, None], 12, axis=1))

    jobs = await queue(make_worker(max_batch_shots=3), Soft(), *(shots(5, seed) for seed in range(4)))
    for seed, job in enumerate(jobs):
        result = await job
        assert np.allclose(result.confidence, shots(5, seed).mean(axis=1))
        assert result.confidence.dtype == np.float32
        assert np.array_equal(result.flip_probabilities, np.repeat(result.confidence[:, None], 12, axis=1))


async def test_close_finishes_what_is_queued_and_refuses_the_rest(make_worker, echo, shots):
    worker = make_worker()
    await hold(worker, echo)
    [queued] = await queue(worker, echo, shots(5))
    closing = asyncio.create_task(asyncio.to_thread(worker.close))

    async def refused() -> BaseException | None:
        [late] = await queue(worker, echo, shots(1))
        await asyncio.sleep(0)
        return late.exception() if late.done() else None

    assert isinstance(await eventually_async(refused), ClosingError)
    assert not closing.done()
    echo.gate.set()
    await closing
    assert np.array_equal((await queued).predictions, shots(5)[:, :12])


async def test_close_does_not_wait_for_a_batch_that_nobody_waits_for(make_worker, echo, shots):
    worker = make_worker()
    echo.gate.clear()
    [gone] = await queue(worker, echo, shots(1))
    await started(echo)
    gone.cancel()
    await asyncio.wait([gone])
    await asyncio.to_thread(worker.close)
    assert echo.batches == [1]
    echo.gate.set()


async def test_many_clients_each_get_their_own_answers(make_worker, echo, shots):
    worker = make_worker(max_batch_shots=16)

    async def client(seed: int) -> None:
        for turn in range(20):
            mine = shots(1 + (seed + turn) % 7, 100 * seed + turn)
            result = await worker.decode(echo, pack_bits(mine))
            assert np.array_equal(result.predictions, mine[:, :12])

    await asyncio.gather(*(client(seed) for seed in range(8)))
    assert sum(echo.batches) == sum(1 + (seed + turn) % 7 for seed in range(8) for turn in range(20))


class OneByOne:
    """Takes one shot a piece. `slow` shots, whose first detector fired, take its process with them."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.num_detectors, self.num_observables = NUM_DETECTORS, 1
        self.error = error
        self.seen: list[list[bool]] = []
        self.gate = threading.Event()
        self.gate.set()

    def decode_piece(self, shots: PackedBits, *, seconds: float) -> Piece:
        assert self.gate.wait(PATIENCE_SECONDS)
        bits = unpack_shots(shots, num_detectors=self.num_detectors, bit_packed=True)
        if self.error is not None and bits[:, 0].any():
            raise self.error
        self.seen.append(bits[0].tolist())
        return Piece(bits[:1, 1:2], bits[:1, 2])


async def test_a_batch_that_is_not_finished_lets_others_have_their_turn(make_worker, shots):
    worker, decoder = make_worker(), OneByOne()
    decoder.gate.clear()
    first = await queue(worker, decoder, shots(3))
    await eventually_async(lambda: worker.queued_shots == 0)  # a batch at work
    second = await queue(worker, decoder, shots(1, seed=1))
    decoder.gate.set()
    results = [await job for job in first + second]
    for result, sent in zip(results, (shots(3), shots(1, seed=1)), strict=True):
        assert np.array_equal(result.predictions, sent[:, 1:2])
        assert result.hurried_shots == np.flatnonzero(sent[:, 2]).tolist()
    assert decoder.seen.index(shots(1, seed=1)[0].tolist()) < 3
    assert worker.queued_shots == 0


async def test_what_is_left_of_a_batch_ends_with_its_client(make_worker, shots):
    worker, decoder = make_worker(), OneByOne()
    decoder.gate.clear()
    (gone,) = await queue(worker, decoder, shots(50))
    await eventually_async(lambda: worker.queued_shots == 0)
    gone.cancel()
    await asyncio.wait([gone])
    decoder.gate.set()
    await worker.decode(decoder, pack_bits(shots(1, seed=1)))
    assert len(decoder.seen) <= 2
    assert worker.queued_shots == 0


@pytest.mark.parametrize(
    ("lost", "raised"),
    [(TimeoutError("hangs"), DecodeTimeoutError), (ChildEndedError("ended"), DecoderFailedError)],
)
async def test_a_shot_that_takes_the_process_with_it_costs_no_other_request(make_worker, shots, lost, raised):
    worker, decoder = make_worker(), OneByOne(error=lost)
    good, bad = shots(4), shots(4, seed=1)
    good[:, 0], bad[:, 0] = False, [False, True, False, False]
    decoder.gate.clear()
    held = await queue(worker, decoder, good[:1])
    await eventually_async(lambda: worker.queued_shots == 0)
    jobs = await queue(worker, decoder, good, bad)  # one batch
    decoder.gate.set()
    with pytest.raises(raised):
        await jobs[1]
    assert np.array_equal((await jobs[0]).predictions, good[:, 1:2])
    await held[0]
    assert worker.queued_shots == 0


async def test_batches_are_as_long_as_their_time_allows(make_worker, shots, echo):
    worker = make_worker()
    worker.expect(echo, seconds=MAX_BATCH_SECONDS / 4)
    await worker.decode(echo, pack_bits(shots(10)))
    assert echo.batches[0] == 4
    assert sum(echo.batches) == 10
    worker.expect(echo, seconds=100)
    echo.batches.clear()
    await worker.decode(echo, pack_bits(shots(2)))
    assert echo.batches[0] == 1
