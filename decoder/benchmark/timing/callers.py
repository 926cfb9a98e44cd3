"""How shots are handed to a decoder whose time is taken: all their events at once, or layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from decoder.base import Decoder, Stream, StreamingDecoder, unpack_shots
from decoder.benchmark.common import predict
from decoder.benchmark.reporting.results import Mode
from decoder.tandem.decoder import TandemDecoder
from decoder.tandem.rule import Opinion
from simulation.bits import Bits, PackedBits, pack_bits


class Call(Protocol):
    """What is timed."""

    def __call__(self) -> PackedBits:
        """Bit-packed predictions."""


class Caller(Protocol):
    """Calls one decoder in one mode."""

    mode: ClassVar[Mode]

    @property
    def decoder(self) -> str:
        """The decoder's name."""

    def prepare(self, events: PackedBits) -> Call:
        """Does what comes before the clock starts, for one call's shots (shots, bytes)."""


@dataclass(frozen=True)
class BatchCaller:
    """Hands over all detection events at once."""

    mode: ClassVar[Mode] = "batch"
    decoder: str
    made: Decoder

    def prepare(self, events: PackedBits) -> Call:
        return lambda: predict(self.made, events)


@dataclass(frozen=True)
class StreamCaller:
    """Hands over the last layer of detection events, the others having been folded in before."""

    mode: ClassVar[Mode] = "streamed"
    decoder: str
    made: StreamingDecoder

    def prepare(self, events: PackedBits) -> Call:
        shots = unpack_shots(events, num_detectors=self.made.num_detectors, bit_packed=True)
        *before, last = (np.ascontiguousarray(shots[:, detectors]) for detectors in self.made.layers)
        stream = self.made.stream(shots=len(shots))
        for layer in before:
            stream.fold(layer)
        return lambda: _finish(stream, last)


class DeadlineCaller:
    """Hands all detection events to a pair with a deadline."""

    mode: ClassVar[Mode] = "batch"

    def __init__(self, decoder: str, made: TandemDecoder) -> None:
        self.decoder = decoder
        self.made = made
        self.deadline_ms = made.deadline_ms
        self.late = 0
        """Shots of the last call without a second opinion in time."""

    def prepare(self, events: PackedBits) -> Call:
        return lambda: self._call(events)

    def _call(self, events: PackedBits) -> PackedBits:
        decoded = self.made.decode_soft(events, bit_packed_shots=True)
        self.late = int((decoded.opinions == Opinion.LATE).sum())
        return pack_bits(decoded.predictions)


def _finish(stream: Stream, last: Bits) -> PackedBits:
    stream.fold(last)
    return pack_bits(stream.finish().predictions)


def callers_of(decoders: Mapping[str, Decoder], *, batch: int) -> list[Caller]:
    """Every decoder, and, one shot at a time, those that can stream once more as a stream."""
    found: list[Caller] = []
    for name, made in decoders.items():
        if isinstance(made, TandemDecoder) and made.deadline_ms is not None:
            found.append(DeadlineCaller(name, made))
        else:
            found.append(BatchCaller(name, made))
        if batch == 1 and isinstance(made, StreamingDecoder):
            found.append(StreamCaller(name, made))
    return found
