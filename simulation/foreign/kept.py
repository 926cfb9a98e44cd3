"""An experiment in a file, as a value that is small to compare and to send, and is read where it is needed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import stim

from simulation.check_types import CheckTypes
from simulation.faults import FaultModel
from simulation.files import Kind
from simulation.foreign.experiment import ForeignExperiment, Source


@dataclass(frozen=True, kw_only=True)
class KeptExperiment:
    """A foreign experiment whose text is in a file that stays as it is. Where it is used, it is read.

    Raises:
        OSError: on use, the file cannot be read.
    """

    path: Path
    """Of the text, as stim writes it."""
    kind: Kind
    sha256: str
    """Of the text, see `ForeignExperiment.sha256`."""
    num_detectors: int
    """Detectors of one shot."""
    num_observables: int
    """Observables of one shot."""

    @cached_property
    def read(self) -> ForeignExperiment:
        """The experiment itself."""
        text = self.path.read_text(encoding="utf-8")
        source = stim.Circuit(text) if self.kind == "circuit" else stim.DetectorErrorModel(text)
        return ForeignExperiment.unchecked(source, name=self.sha256[:12])

    @property
    def source(self) -> Source:
        """See `simulation.experiments.Experiment`, as for what follows."""
        return self.read.source

    @property
    def circuit(self) -> stim.Circuit | None:
        return self.read.circuit

    @property
    def dem(self) -> stim.DetectorErrorModel:
        return self.read.dem

    @property
    def fault_model(self) -> FaultModel:
        return self.read.fault_model

    @property
    def check_types(self) -> CheckTypes:
        return self.read.check_types

    @property
    def columns(self) -> dict[str, Any]:
        return self.read.columns

    @property
    def parameters(self) -> dict[str, Any]:
        return self.read.parameters

    def __getstate__(self) -> dict[str, Any]:
        # Pickled, copied and sent without what has been read.
        return {field.name: getattr(self, field.name) for field in fields(self)}
