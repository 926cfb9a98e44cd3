"""What the settings of every classical decoder say, and the optional packages that some of them need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar, Self

from decoder.base import BatchDecoder
from simulation.bases import Detectors
from simulation.check_types import CheckTypes
from simulation.experiments import Experiment
from simulation.faults import FaultModel
from simulation.placement import Placement


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
    """A kind of classical decoder with all its settings: what makes a decoder of an experiment."""

    extra: ClassVar[Extra | None] = None
    """What has to be installed beside the packages that Tandem always needs."""

    def limited(self, seconds: float) -> Self:
        """These settings, with so many seconds of a core for each shot where the decoder can keep to that."""
        return self

    def placement(self, experiment: Experiment) -> Placement | None:
        """Where an experiment's detectors stand, for decoders that make use of it."""
        return None

    @abstractmethod
    def of_faults(
        self, model: FaultModel, types: CheckTypes, *, detectors: Detectors, placement: Placement | None = None
    ) -> BatchDecoder:
        """Makes a decoder of a fault model, its check types and its placement; see `decoder`."""

    def decoder(self, experiment: Experiment, *, detectors: Detectors) -> BatchDecoder:
        """Makes a decoder that takes the shots of an experiment.

        Args:
            experiment: its fault model, and the types of its checks.
            detectors: XZ: use the detectors of one check type alone where they predict all observables, those of the
                memory basis (`simulation.check_types.CheckTypes.sufficient`); else every detector. XYZ: always every
                detector.

        Raises:
            ValueError: the fault model is none that can be decoded so, or a package is not installed.
        """
        model, types, placement = experiment.fault_model, experiment.check_types, self.placement(experiment)
        return self.of_faults(model, types, detectors=detectors, placement=placement)
