"""Layers of several streams in one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest

from decoder.base import Decoding
from service.errors import BusyError, DecoderFailedError
from service.models.folding import FoldedExperiment, FoldWorker

pytestmark = pytest.mark.anyio


class AddingFolder:
    """Its state is the sum of the layers, modulo 2, and so is its answer. A layer without a quiet detector raises."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.passes: list[tuple[str, int]] = []

    def start(self):
        return np.zeros(4, dtype=np.bool_)

    def fold(self, states, layers, *, phase):
        assert self.gate.wait(30)
        self.passes.append((phase, len(states)))
        if layers.all(axis=1).any():
            raise RuntimeError("a layer that this folder cannot bear")
        return [state ^ layer for state, layer in zip(states, layers, strict=True)]

    def answer(self, states):
        predictions = np.stack(states)
        return Decoding(predictions, predictions.mean(axis=1), predictions.astype(np.float32))


@pytest.fixture
def folder() -> AddingFolder:
    return AddingFolder()


@pytest.fixture
async def worker(folder) -> AsyncIterator[FoldWorker]:
    worker = FoldWorker(
        name="m", make=lambda: folder, max_batch=3, max_waiting=8, on_batch=lambda *, shots, seconds: None
    )
    yield worker
    folder.gate.set()
    await worker.close()


def layer(*fired: int):
    return np.isin(np.arange(4), fired)


async def test_steps_of_a_stream_keep_their_order_and_streams_share_passes(folder, worker):
    folder.gate.clear()
    streams = [FoldedExperiment() for _ in range(4)]
    for stream in streams:
        worker.fold(stream, layer(0), phase="first")
    asked = [worker.answer(stream, layer(i)) for i, stream in enumerate(streams)]
    folder.gate.set()
    answers = [answer.predictions[0] for answer in await asyncio.gather(*asked)]
    assert np.array_equal(answers, [layer(), layer(0, 1), layer(0, 2), layer(0, 3)])
    assert folder.passes == [("first", 3), ("first", 1), ("last", 3), ("last", 1)]


async def test_an_answer_on_the_way_changes_nothing(worker):
    stream = FoldedExperiment()
    worker.fold(stream, layer(0), phase="first")
    on_the_way = worker.answer(stream, layer(1))
    worker.fold(stream, layer(2), phase="middle")
    assert np.array_equal((await worker.answer(stream, layer(3))).predictions, [layer(0, 2, 3)])
    assert np.array_equal((await on_the_way).predictions, [layer(0, 1)])


async def test_no_more_layers_wait_than_may(folder, worker):
    folder.gate.clear()
    streams = [FoldedExperiment() for _ in range(9)]
    for stream in streams[:8]:
        worker.fold(stream, layer(0), phase="first")
    with pytest.raises(BusyError, match="8 layers wait"):
        worker.fold(streams[8], layer(0), phase="first")
    worker.forget(streams[0])
    worker.forget(streams[1])
    worker.fold(streams[8], layer(0), phase="first")
    asked = worker.answer(streams[8], layer(1))
    with pytest.raises(BusyError, match="8 layers wait"):
        worker.fold(streams[0], layer(0), phase="first")
    folder.gate.set()
    assert np.array_equal((await asked).predictions, [layer(0, 1)])


async def test_a_layer_that_cannot_be_folded_fails_its_stream_for_good(worker):
    stream, other = FoldedExperiment(), FoldedExperiment()
    worker.fold(stream, layer(0, 1, 2, 3), phase="first")
    with pytest.raises(DecoderFailedError):
        await worker.answer(stream, layer(1))
    with pytest.raises(DecoderFailedError):
        worker.fold(stream, layer(1), phase="middle")
    worker.fold(other, layer(0), phase="first")
    assert np.array_equal((await worker.answer(other, layer(1))).predictions, [layer(0, 1)])


async def test_what_is_forgotten_is_not_folded(folder, worker):
    folder.gate.clear()
    stays, goes = FoldedExperiment(), FoldedExperiment()
    worker.fold(stays, layer(0), phase="first")
    await asyncio.sleep(0.05)  # its pass is at work
    asked = worker.answer(goes, layer(1))
    worker.forget(goes)
    assert asked.cancelled()
    folder.gate.set()
    await worker.answer(stays, layer(1))
    assert folder.passes == [("first", 1), ("last", 1)]
