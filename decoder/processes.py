"""Decoders in a child process, for those that hold the interpreter's lock while they compute.

`ldpc` does: at the size of bb72, one hard BP-OSD shot keeps all other threads waiting for 0.4 s, during which a
service could answer nothing else. Sending a batch to the child costs some 0.3 ms, little beside the milliseconds that
BP-OSD takes.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import resource
import signal
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from decoder.base import (
    BatchDecoder,
    Decoder,
    Decoding,
    ErrorDecoder,
    Errors,
    Piece,
    PiecewiseDecoder,
    Reweighting,
    SoftBatchDecoder,
    SoftDecoder,
    predict_packed,
    unpack_shots,
)
from decoder.scheduling import take_usual_slices
from decoder.windows.decoder import Fixed, WindowByWindow, WindowPlan
from simulation import interrupts
from simulation.bits import Bits, PackedBits, pack_bits, unpack_bits
from simulation.circuits import MemoryExperiment
from simulation.experiments import Experiment

P = ParamSpec("P")
T = TypeVar("T")


class ChildEndedError(RuntimeError):
    """A child process ended during a call."""


MakeDecoder = Callable[[Experiment], Decoder]
"""Makes the decoder of an experiment; can be pickled and compared, as can a function or a frozen dataclass."""


@dataclass(frozen=True)
class DecoderKey:
    """What a child process makes a decoder from; small, as it goes along with every batch. Made by `decoder_key`."""

    make: MakeDecoder
    experiment: Experiment


@lru_cache(64)  # a copy checks the code again, which takes longer than the rest of sending a shot
def decoder_key(make: MakeDecoder, experiment: Experiment) -> DecoderKey:
    """The key with an experiment that can be sent along with every batch."""
    return DecoderKey(make, bare(experiment))


def bare(experiment: Experiment) -> Experiment:
    """A copy of an experiment which has not cached a circuit and matrices that would be sent to a process."""
    if isinstance(experiment, MemoryExperiment):
        return replace(experiment, code=replace(experiment.code))
    return copy(experiment)


@dataclass(frozen=True)
class _Facts:
    """What the parent needs to know of a decoder."""

    num_detectors: int
    num_observables: int
    soft: bool
    num_errors: int | None
    """Of a decoder that tells errors."""
    reweights: bool
    """Whether it can decode with other probabilities."""
    plan: WindowPlan | None
    """Of a decoder that can be asked window by window."""
    model_info: Mapping[str, Any]


class Turns:
    """A lock that threads get in the order in which they ask for it: beside a busy one none waits for ever."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    def __enter__(self) -> None:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            self._changed.wait_for(lambda: self._queue[0] is ticket)

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._queue.popleft()
            self._changed.notify_all()


class ChildProcess:
    """One process with the decoders of one model. Starts when first used, and again after a crash.

    Args:
        size: decoders that it keeps, the least recently used dropped first and made again when wanted.
        patience_seconds: a call that takes longer ends the child; None waits for ever. A call that starts the child
            takes some seconds more than others.
        niceness: as `os.nice` takes it; the higher, the later the child's turn when there is more work than cores.
        attempts: how often a call is made before its error counts, when the child ends during it.
        max_bytes: of memory that the child may take for its data; what asks for more raises MemoryError, or ends
            the child. None for no limit.
    """

    def __init__(
        self,
        *,
        size: int,
        patience_seconds: float | None = None,
        niceness: int = 0,
        attempts: int = 1,
        max_bytes: int | None = None,
    ) -> None:
        self._size = size
        self.patience_seconds = patience_seconds
        self._niceness = niceness
        self._attempts = attempts
        self._max_bytes = max_bytes
        self._turns = Turns()
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._ended = False

    @property
    def pid(self) -> int | None:
        """The process id; None before the child has started."""
        return None if self._process is None else self._process.pid

    def decoder(self, make: MakeDecoder, experiment: Experiment) -> ProcessDecoder:
        """Makes a decoder in the child as it would be made here, with the same errors."""
        key = decoder_key(make, experiment)
        facts = self.call(_facts, key)
        if facts.plan is not None:
            return WindowProcessDecoder(self, key, facts, facts.plan)
        return (SoftProcessDecoder if facts.soft else ProcessDecoder)(self, key, facts)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function in the child and waits for it, leaving the interpreter to other threads.

        Raises:
            RuntimeError: the child ended, killed perhaps for its memory. The next call starts another.
            TimeoutError: it took longer than the child's patience. The next call starts another.
        """
        for _ in range(self._attempts - 1):
            with suppress(ChildEndedError):
                return self._call(function, *args, **kwargs)
        return self._call(function, *args, **kwargs)

    def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._turns:
            pipe = self._pipe or self._start()
            try:
                pipe.send((function, args, kwargs))
                if not pipe.poll(self.patience_seconds):
                    raise TimeoutError(f"the decoder's process did not answer within {self.patience_seconds:g} s")
                error, value = pipe.recv()
            except BlockingIOError:  # it stopped amid a long message
                self._pipe = None
                self.close()
                raise TimeoutError("the decoder's process reads nothing, or has stopped in its answer") from None
            except TimeoutError:
                self._pipe = None
                self.close()
                raise
            except (EOFError, OSError) as lost:
                self._pipe = None
                raise ChildEndedError("the decoder's process ended; the next batch starts a new one") from lost
        if error is not None:
            raise error
        result: T = value
        return result

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Has other patience with calls that are made in the `with` block, by whichever thread."""
        usual, self.patience_seconds = self.patience_seconds, seconds
        try:
            yield
        finally:
            self.patience_seconds = usual

    def close(self, *, for_good: bool = False) -> None:
        """Kills the child, also in the midst of a call, and with it the decoders that it keeps.

        Args:
            for_good: no other one is started, also not for a call that is made again.
        """
        self._ended = self._ended or for_good
        if (process := self._process) is not None:
            process.kill()
            process.join()
            if process is self._process:  # no other one is at work by now
                atexit.unregister(self.close)

    def _start(self) -> Connection:
        if self._ended:
            raise ChildEndedError("the decoder's process was closed")
        spawn = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
        self._pipe, far_end = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(far_end, self._size, self._niceness, self._max_bytes), daemon=True)
        with interrupts.held_back():
            process.start()
        self._process = process  # not before, as `close` may come at any time
        far_end.close()
        if self.patience_seconds is not None:
            _limit_waits(self._pipe, self.patience_seconds)
        # Python ends such a child with SIGTERM, which this one ignores, and would wait for it for ever.
        atexit.register(self.close)
        if self._ended:  # meanwhile
            self.close()
        return self._pipe


def _limit_waits(pipe: Connection, seconds: float) -> None:
    """Lets reads and writes of a pipe, which is a socket, raise BlockingIOError when nothing moves for so long."""
    with socket.socket(fileno=os.dup(pipe.fileno())) as end:
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            end.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6)))


class ProcessDecoder(BatchDecoder):
    """A `Decoder` in a child process."""

    def __init__(self, child: ChildProcess, key: DecoderKey, facts: _Facts) -> None:
        super().__init__(num_detectors=facts.num_detectors, num_observables=facts.num_observables)
        self._child = child
        self._key = key
        self.reweighting = ProcessReweighting(child, key) if facts.reweights else None
        self.num_errors = facts.num_errors
        """What `decode_to_errors` tells of; None if the decoder tells no errors."""

    def decode_to_errors(self, shots: npt.NDArray[np.generic], *, bit_packed_shots: bool = False) -> Errors:
        """As the decoder itself would, if it is a `decoder.base.ErrorDecoder`."""
        events = unpack_shots(shots, num_detectors=self.num_detectors, bit_packed=bit_packed_shots)
        return self._child.call(_decode_to_errors, self._key, pack_bits(events))

    def decode_piece(self, shots: PackedBits, *, seconds: float) -> Piece:
        """As the decoder itself would, or the whole batch if it is no `decoder.base.PiecewiseDecoder`."""
        return self._child.call(_decode_piece, self._key, shots, seconds)

    def predict(self, events: Bits) -> Bits:
        """As the decoder itself would."""
        return unpack_bits(self._child.call(decode_packed, self._key, pack_bits(events)), self.num_observables)


@dataclass(frozen=True)
class ProcessReweighting:
    """The `decoder.base.Reweighting` of a decoder in a child process."""

    child: ChildProcess
    key: DecoderKey

    @property
    def priors(self) -> npt.NDArray[np.float64]:
        """As the decoder's own; sent from there each time."""
        return self.child.call(_priors, self.key)

    def decoded(
        self, events: Bits, probabilities: npt.NDArray[np.float64], *, errors: bool = False
    ) -> Decoding | Errors | Piece:
        """As the decoder's own."""
        return self.child.call(_decoded_reweighted, self.key, pack_bits(events), probabilities, errors=errors)

    def decode(
        self, events: Bits, reweights: npt.NDArray[np.generic], *, meaning: Literal["probabilities", "factors"]
    ) -> Bits:
        """As the decoder's own."""
        return self.child.call(_decode_reweighted, self.key, pack_bits(events), reweights, meaning=meaning)


class SoftProcessDecoder(ProcessDecoder, SoftBatchDecoder):
    """A `SoftDecoder` in a child process."""

    def __init__(self, child: ChildProcess, key: DecoderKey, facts: _Facts) -> None:
        super().__init__(child, key, facts)
        self.model_info = facts.model_info

    def judge(self, events: Bits) -> Decoding:
        """As the decoder itself would."""
        return self._child.call(_decode_soft, self._key, pack_bits(events))


class WindowProcessDecoder(ProcessDecoder):
    """A `WindowByWindow` in a child process."""

    def __init__(self, child: ChildProcess, key: DecoderKey, facts: _Facts, plan: WindowPlan) -> None:
        super().__init__(child, key, facts)
        self.plan = plan

    def prepare(self) -> None:
        """As the decoder itself would."""
        self._child.call(_prepare, self._key)

    def fix(self, start: int, events: Bits) -> Fixed:
        """As the decoder itself would."""
        return self._child.call(_fix, self._key, start, events)


# What follows runs in the child.


def _make(key: DecoderKey) -> Decoder:
    return key.make(key.experiment)


_decoder: Callable[[DecoderKey], Decoder] = _make


def _serve(pipe: Connection, size: int, niceness: int, max_bytes: int | None) -> None:
    """Answers calls until the parent closes its end of the pipe or is no more."""
    os.nice(niceness)
    if max_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (max_bytes, max_bytes))
    take_usual_slices()
    global _decoder
    _decoder = lru_cache(size)(_make)
    # Ctrl-C and SIGTERM may reach all processes of the service; the parent drains first and then ends the child.
    interrupts.leave_to_the_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        while True:
            function, args, kwargs = pipe.recv()
            answer: tuple[Exception | None, Any]
            try:
                answer = None, function(*args, **kwargs)
            except Exception as error:
                answer = error, None
            pipe.send(answer)


def _facts(key: DecoderKey) -> _Facts:
    decoder = _decoder(key)
    return _Facts(
        num_detectors=decoder.num_detectors,
        num_observables=decoder.num_observables,
        soft=isinstance(decoder, SoftDecoder),
        num_errors=decoder.num_errors if isinstance(decoder, ErrorDecoder) else None,
        reweights=getattr(decoder, "reweighting", None) is not None,
        plan=decoder.plan if isinstance(decoder, WindowByWindow) else None,
        model_info=dict(getattr(decoder, "model_info", {})),
    )


def decode_packed(key: DecoderKey, shots: PackedBits) -> PackedBits:
    """For `ChildProcess.call`: makes the decoder, unless the child has it, and decodes a bit-packed batch."""
    return predict_packed(_decoder(key), shots)


def _decode_piece(key: DecoderKey, shots: PackedBits, seconds: float) -> Piece:
    decoder = _decoder(key)
    if isinstance(decoder, PiecewiseDecoder):
        return decoder.decode_piece(shots, seconds=seconds)
    predictions = unpack_bits(predict_packed(decoder, shots), decoder.num_observables)
    return Piece(predictions, np.zeros(len(shots), dtype=np.bool_))


def _decode_to_errors(key: DecoderKey, shots: PackedBits) -> Errors:
    decoder = _decoder(key)
    assert isinstance(decoder, ErrorDecoder)
    return decoder.decode_to_errors(shots, bit_packed_shots=True)


def _reweighting(key: DecoderKey) -> Reweighting:
    found: Reweighting | None = getattr(_decoder(key), "reweighting", None)
    assert found is not None
    return found


def _priors(key: DecoderKey) -> npt.NDArray[np.float64]:
    return _reweighting(key).priors


def _decoded_reweighted(
    key: DecoderKey, shots: PackedBits, probabilities: npt.NDArray[np.float64], *, errors: bool
) -> Decoding | Errors | Piece:
    events = unpack_bits(shots, _decoder(key).num_detectors)
    return _reweighting(key).decoded(events, probabilities, errors=errors)


def _decode_reweighted(
    key: DecoderKey,
    shots: PackedBits,
    reweights: npt.NDArray[np.generic],
    *,
    meaning: Literal["probabilities", "factors"],
) -> Bits:
    events = unpack_bits(shots, _decoder(key).num_detectors)
    return _reweighting(key).decode(events, reweights, meaning=meaning)


def _prepare(key: DecoderKey) -> None:
    decoder = _decoder(key)
    assert isinstance(decoder, WindowByWindow)
    decoder.prepare()


def _fix(key: DecoderKey, start: int, events: Bits) -> Fixed:
    decoder = _decoder(key)
    assert isinstance(decoder, WindowByWindow)
    return decoder.fix(start, events)


def _decode_soft(key: DecoderKey, shots: PackedBits) -> Decoding:
    decoder = _decoder(key)
    assert isinstance(decoder, SoftDecoder)
    return decoder.decode_soft(shots, bit_packed_shots=True)
