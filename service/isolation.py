"""Decoders in a child process, for those that hold the interpreter's lock while they compute.

`ldpc` does: measured at the size of bb72, one hard BP-OSD shot keeps all other threads waiting for 0.4 s,
so that in one process neither another model nor /healthz would be answered meanwhile. Handing a batch over
costs some 0.3 ms, little beside the milliseconds that BP-OSD takes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from decoder.base import Bits, Decoder, Decoding, PackedBits, SoftDecoder
from decoder.registry import make_decoder
from simulation.circuits import MemoryExperiment

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class DecoderKey:
    """What a child process makes a decoder from; small, as it goes along with every batch."""

    name: str
    experiment: MemoryExperiment
    weights: Path | None = None


@dataclass(frozen=True)
class _Facts:
    """What the parent needs to know of a decoder."""

    num_detectors: int
    num_observables: int
    soft: bool
    model_info: Mapping[str, Any]


class ChildProcess:
    """One process with the decoders of one model. Starts when first used, and again after a crash.

    Args:
        size: decoders that it keeps, the least recently used dropped first and made again when wanted.
    """

    def __init__(self, *, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def decoder(self, name: str, experiment: MemoryExperiment, *, weights: Path | None = None) -> ProcessDecoder:
        """Makes a decoder in the child as `decoder.registry.make_decoder` does here, with the same errors."""
        # Copies without the circuit and matrices that the originals have cached.
        experiment = replace(experiment, code=replace(experiment.code))
        key = DecoderKey(name, experiment, weights)
        facts = self.call(_facts, key)
        return (SoftProcessDecoder if facts.soft else ProcessDecoder)(self, key, facts)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function in the child and waits for it, leaving the interpreter to other threads.

        Raises:
            RuntimeError: the child ended, killed perhaps for its memory. The next call starts another.
        """
        with self._lock:
            pool = self._pool = self._pool or self._start()
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            with self._lock:
                if self._pool is pool:
                    self._pool = None
            raise RuntimeError("the decoder's process ended unexpectedly; the next batch starts a new one") from error

    def close(self) -> None:
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
        return ProcessPoolExecutor(1, mp_context=spawn, initializer=_start_child, initargs=(self._size,))


class ProcessDecoder:
    """A `Decoder` that lives in a child process."""

    def __init__(self, child: ChildProcess, key: DecoderKey, facts: _Facts) -> None:
        self._child = child
        self._key = key
        self.num_detectors = facts.num_detectors
        self.num_observables = facts.num_observables
        self.model_info = facts.model_info

    def decode_batch(
        self,
        shots: npt.NDArray[np.generic],
        *,
        bit_packed_shots: bool = False,
        bit_packed_predictions: bool = False,
    ) -> Bits | PackedBits:
        """Decodes as the decoder itself would."""
        return self._child.call(
            _decode_batch,
            self._key,
            shots,
            bit_packed_shots=bit_packed_shots,
            bit_packed_predictions=bit_packed_predictions,
        )


class SoftProcessDecoder(ProcessDecoder):
    """A `SoftDecoder` that lives in a child process."""

    def decode_soft(self, shots: npt.NDArray[np.generic], *, bit_packed_shots: bool = False) -> Decoding:
        """Decodes as the decoder itself would."""
        return self._child.call(_decode_soft, self._key, shots, bit_packed_shots=bit_packed_shots)


# What follows runs in the child.


def _make(key: DecoderKey) -> Decoder:
    return make_decoder(key.name, key.experiment, weights=key.weights)


_decoder: Callable[[DecoderKey], Decoder] = _make


def _start_child(size: int) -> None:
    global _decoder
    _decoder = lru_cache(size)(_make)
    # Ctrl-C and SIGTERM may reach the whole process group; the parent drains first and then ends the child.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _facts(key: DecoderKey) -> _Facts:
    decoder = _decoder(key)
    return _Facts(
        num_detectors=decoder.num_detectors,
        num_observables=decoder.num_observables,
        soft=isinstance(decoder, SoftDecoder),
        model_info=dict(getattr(decoder, "model_info", {})),
    )


def _decode_batch(key: DecoderKey, shots: npt.NDArray[np.generic], **packing: bool) -> Bits | PackedBits:
    return _decoder(key).decode_batch(shots, **packing)


def _decode_soft(key: DecoderKey, shots: npt.NDArray[np.generic], *, bit_packed_shots: bool) -> Decoding:
    decoder = _decoder(key)
    assert isinstance(decoder, SoftDecoder)
    return decoder.decode_soft(shots, bit_packed_shots=bit_packed_shots)
