"""All shots of a file decoded, batch by batch, with what else the decoder tells of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from simulation.bits import PackedBits, pack_bits

if TYPE_CHECKING:
    from decoder.base import Decoder, Decoding, ErrorDecoder

BATCH_SHOTS = 1024
"""Shots that a decoder gets at once, and the step of the progress bar."""

Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """What became of the shots."""

    predictions: PackedBits
    """uint8 (shots, ceil(observables / 8))."""
    decoding: Decoding | None = None
    """How sure the decoder is, if it says."""
    errors: PackedBits | None = None
    """uint8 (shots, ceil(errors / 8)), if they were asked for."""
    facts: dict[str, object] = field(default_factory=dict)
    """What to print of it."""


def decode_all(decoder: Decoder, shots: PackedBits, *, progress: Progress) -> Decoded:
    """Decodes packed shots, at least one; a pair's processes are ended."""
    from decoder.base import SoftDecoder, predict_packed

    predictions: list[PackedBits] = []
    decodings: list[Decoding] = []
    try:
        for start in range(0, len(shots), BATCH_SHOTS):
            batch = shots[start : start + BATCH_SHOTS]
            if isinstance(decoder, SoftDecoder):
                decodings.append(decoder.decode_soft(batch, bit_packed_shots=True))
                predictions.append(pack_bits(decodings[-1].predictions))
            else:
                predictions.append(predict_packed(decoder, batch))
            progress(min(start + BATCH_SHOTS, len(shots)))
    finally:
        close = getattr(decoder, "close", None)
        if close is not None:
            close()
    together = np.concatenate(predictions)
    if not decodings:
        return Decoded(predictions=together)
    decoding = type(decodings[0]).concatenate(decodings)
    return Decoded(predictions=together, decoding=decoding, facts=_opinions(decoding) | decoding.summary)


def find_errors(decoder: ErrorDecoder, shots: PackedBits, *, progress: Progress) -> Decoded:
    """Decodes packed shots, at least one, to errors; `facts` says how many shots these explain."""
    predictions, errors, converged = [], [], 0
    for start in range(0, len(shots), BATCH_SHOTS):
        found = decoder.decode_to_errors(shots[start : start + BATCH_SHOTS], bit_packed_shots=True)
        predictions.append(pack_bits(found.predictions))
        errors.append(pack_bits(found.errors))
        converged += int(found.converged.sum())
        progress(min(start + BATCH_SHOTS, len(shots)))
    return Decoded(
        predictions=np.concatenate(predictions), errors=np.concatenate(errors), facts={"converged": converged}
    )


def _opinions(decoding: Decoding) -> dict[str, object]:
    """For a pair, how many shots the second decoder answered, or should have."""
    from decoder.tandem.decoder import TandemDecoding
    from decoder.tandem.rule import Opinion

    if not isinstance(decoding, TandemDecoding):
        return {}
    return {
        "second_opinions": int((decoding.opinions == Opinion.SECOND).sum()),
        "second_opinions_failed": int((decoding.opinions == Opinion.FAILED).sum()),
    }
