"""How shots are handed to a decoder whose time is taken: all their events at once, or layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from decoder.base import Bits, Decoder, PackedBits, Stream, StreamingDecoder, pack_bits, unpack_shots
from decoder.benchmark.common import predict
from decoder.benchmark.results import Mode


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


def _finish(stream: Stream, last: Bits) -> PackedBits:
    stream.fold(last)
    return pack_bits(stream.finish().predictions)


def callers_of(decoders: Mapping[str, Decoder], *, batch: int) -> list[Caller]:
    """Every decoder, and, one shot at a time, those that can stream once more as a stream."""
    found: list[Caller] = []
    for name, made in decoders.items():
        found.append(BatchCaller(name, made))
        if batch == 1 and isinstance(made, StreamingDecoder):
            found.append(StreamCaller(name, made))
    return found
