"""The two types of checks, and choices of their detectors; without an import, so that names cost no time."""

from __future__ import annotations

from typing import Literal

Basis = Literal["X", "Z"]
BASES: tuple[Basis, Basis] = ("X", "Z")
"""The check types in the order of the detectors' fourth coordinate: 0 is an X check, 1 a Z check."""

Detectors = Literal["XYZ", "XZ"]
"""XYZ: the detectors of both check types. XZ: those of the memory basis alone."""
