"""Decoders of bivariate bicycle codes: a recurrent transformer, classical baselines, training and benchmarks.

`decoder.base` says what a decoder is, `decoder.making` makes one for an experiment by name, and
`decoder.sinter` offers them to sinter.
"""

from __future__ import annotations

from typing import Any

_SINTER_NAMES = ("decoders", "general_decoders")


def __getattr__(name: str) -> Any:
    # sinter's conformance tests look up "decoder.sinter:general_decoders" in what __import__("decoder.sinter")
    # returns, which is this package. Looked up late, so that importing it does not import sinter.
    if name in _SINTER_NAMES:
        from decoder import sinter

        return getattr(sinter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
