"""What the settings of every classical decoder say, and the optional packages that some of them need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar, Self

from decoder.base import Decoder
from simulation.bases import Detectors
from simulation.detectors import DetectorGrid
from simulation.faults import FaultModel


@dataclass(frozen=True, kw_only=True)
class Extra:
    """An optional extra of the package `tandem-decoder`."""

    name: str
    """As in ``pip install 'tandem-decoder[name]'``."""
    package: str
    """A package that it installs, imported by the same name with underscores."""

    def require(self, user: str) -> None:
        """Imports the package.

        Args:
            user: what needs it, as a message begins.

        Raises:
            ValueError: it is not installed.
        """
        try:
            import_module(self.package.replace("-", "_"))
        except ImportError:
            raise ValueError(
                f"{user} needs the package {self.package}: pip install 'tandem-decoder[{self.name}]'"
            ) from None


class DecoderSettings(ABC):
    """A kind of classical decoder with all its settings: what makes a decoder of a fault model."""

    extra: ClassVar[Extra | None] = None
    """What has to be installed beside the packages that Tandem always needs."""
    any_model: ClassVar[bool] = True
    """Whether fault models other than those of memory experiments can be decoded."""

    def limited(self, seconds: float) -> Self:
        """These settings, with so many seconds of a core for each shot where the decoder can keep to that."""
        return self

    @abstractmethod
    def decoder(self, fault_model: FaultModel, *, grid: DetectorGrid | None, detectors: Detectors) -> Decoder:
        """Makes a decoder that takes the shots of a fault model.

        Args:
            fault_model: the mechanisms and their priors.
            grid: its detectors, where they are those of a memory experiment.
            detectors: XZ: use the memory basis's detectors alone where the grid has those of both bases; every
                detector where it has not. XYZ: always every detector.

        Raises:
            ValueError: the fault model is none that can be decoded so, or a package is not installed.
        """
