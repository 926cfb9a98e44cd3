"""Bits of shots, one to a bool or eight to a byte."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.bool_]
"""One bool a bit: (shots, detectors) or (shots, observables)."""
PackedBits = npt.NDArray[np.uint8]
"""Eight bits a byte, least significant first (stim's b8): (shots, ceil(bits / 8))."""


def packed_size(num_bits: int) -> int:
    """Bytes that a shot of `num_bits` bits takes when packed."""
    return -(-num_bits // 8)


def pack_bits(bits: Bits) -> PackedBits:
    """Packs bool (shots, n) into uint8 (shots, ceil(n / 8)), least significant bit first."""
    return np.packbits(bits, axis=1, bitorder="little")


def unpack_bits(packed: PackedBits, num_bits: int) -> Bits:
    """Unpacks uint8 (shots, ceil(num_bits / 8)) into bool (shots, num_bits); bits behind these are left out."""
    return np.unpackbits(packed, axis=1, count=num_bits, bitorder="little").view(np.bool_)


def set_past(packed: PackedBits, num_bits: int) -> bool:
    """Whether any shot of uint8 (shots, ceil(num_bits / 8)) has bits set behind `num_bits`: it was packed wrongly."""
    used = num_bits % 8
    return bool(used and (packed[:, -1] >> used).any())
