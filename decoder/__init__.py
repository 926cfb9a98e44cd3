"""Decoders of bivariate bicycle codes: a recurrent transformer, classical ones, training and benchmarks.

What most users need can be imported from here, and is in the module that `help` names::

    from decoder import make_decoder
    from simulation import MemoryExperiment

    decoder = make_decoder("neural", MemoryExperiment.create(code="bb72", basis="Z", rounds=6, p=0.003))

`decoder.sinter` offers all decoders to sinter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulation.lazy import offer

if TYPE_CHECKING:
    from decoder.base import Decoder, Decoding, SoftDecoder, Stream, StreamingDecoder
    from decoder.catalog import DECODERS
    from decoder.making import make_decoder
    from decoder.neural.decoder import NeuralDecoder
    from decoder.sinter import decoders, general_decoders
    from decoder.tandem.decoder import TandemDecoder

    __version__: str

__all__ = [
    "DECODERS",
    "Decoder",
    "Decoding",
    "NeuralDecoder",
    "SoftDecoder",
    "Stream",
    "StreamingDecoder",
    "TandemDecoder",
    "__version__",
    "decoders",
    "general_decoders",
    "make_decoder",
]

__getattr__, __dir__ = offer(
    __name__,
    {
        "decoder.base": ["Decoder", "Decoding", "SoftDecoder", "Stream", "StreamingDecoder"],
        "decoder.catalog": ["DECODERS"],
        "decoder.making": ["make_decoder"],
        "decoder.neural.decoder": ["NeuralDecoder"],
        # sinter's conformance tests look up "decoder.sinter:general_decoders" in what __import__("decoder.sinter")
        # returns, which is this package.
        "decoder.sinter": ["decoders", "general_decoders"],
        "decoder.tandem.decoder": ["TandemDecoder"],
    },
)
