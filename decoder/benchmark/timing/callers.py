"""How shots are handed to a decoder whose time is taken: all their events at once, or layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from decoder.base import Decoder, StreamingDecoder, predict_packed, unpack_shots
from decoder.benchmark.reporting.results import Mode
from decoder.tandem.decoder import TandemDecoder
from decoder.tandem.rule import Opinion
from decoder.windows.decoder import WindowDecoder, WindowStream
from simulation.bits import PackedBits, pack_bits

Call = Callable[[], tuple[PackedBits, int]]
"""What is timed: gives bit-packed predictions, and how many shots had no second opinion in time."""


@dataclass(frozen=True)
class Caller:
    """A decoder, and one way to hand shots to it."""

    decoder: str
    """The decoder's name."""
    mode: Mode
    prepare: Callable[[PackedBits], Call]
    """Does what comes before the clock starts, for one call's bit-packed shots (shots, bytes)."""
    deadline_ms: float | None = None
    """Of a pair; None for decoders without one."""


def callers_of(decoders: Mapping[str, Decoder], *, batch: int) -> list[Caller]:
    """Every decoder, and, one shot at a time, those that can stream once more as a stream."""
    found: list[Caller] = []
    for name, made in decoders.items():
        if isinstance(made, TandemDecoder) and made.deadline_ms is not None:
            found.append(Caller(name, "batch", partial(_in_time, made), made.deadline_ms))
        else:
            found.append(Caller(name, "batch", partial(_at_once, made)))
        if batch == 1 and isinstance(made, StreamingDecoder | WindowDecoder):
            found.append(Caller(name, "streamed", partial(_streamed, made)))
    return found


def _at_once(decoder: Decoder, events: PackedBits) -> Call:
    return lambda: (predict_packed(decoder, events), 0)


def _in_time(pair: TandemDecoder, events: PackedBits) -> Call:
    def call() -> tuple[PackedBits, int]:
        decoded = pair.decode_soft(events, bit_packed_shots=True)
        return pack_bits(decoded.predictions), int(np.count_nonzero(decoded.opinions == Opinion.LATE))

    return call


def _streamed(decoder: StreamingDecoder | WindowDecoder, events: PackedBits) -> Call:
    """Leaves the last layer of detection events to the call; the others have been folded in before."""
    shots = unpack_shots(events, num_detectors=decoder.num_detectors, bit_packed=True)
    *before, last = (np.ascontiguousarray(shots[:, detectors]) for detectors in decoder.layers)
    stream = decoder.stream(shots=len(shots))
    for layer in before:
        stream.fold(layer)

    def call() -> tuple[PackedBits, int]:
        stream.fold(last)
        done = stream if isinstance(stream, WindowStream) else stream.finish()
        return pack_bits(done.predictions), 0

    return call
