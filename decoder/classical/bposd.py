"""BP-OSD: belief propagation, with ordered-statistics decoding where it does not converge.

Panteleev and Kalachev, arXiv 1904.02703; Roffe et al., arXiv 2005.07016. The `ldpc` package does the
work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from ldpc import BpOsdDecoder as LdpcBpOsdDecoder
from ldpc import mod2

from decoder.base import Bits, PackedBits, pack_bits, unpack_shots
from simulation.faults import FaultModel

MAX_EXHAUSTIVE_ORDER = 15
"""OSD-E tries 2^order candidates a shot."""


@dataclass(frozen=True, kw_only=True)
class BpOsdSettings:
    """Settings of `ldpc.BpOsdDecoder`. The defaults are those of Bravyi et al. (Nature 627, 778).

    Raises:
        ValueError: a value out of its range.
    """

    bp_method: Literal["minimum_sum", "product_sum"] = "minimum_sum"
    """The check-node update."""
    ms_scaling_factor: float = 0.0
    """What min-sum messages are multiplied with; 0 means 1 - 2^-i in iteration i. Unused by product_sum."""
    max_iter: int = 10_000
    """BP iterations before OSD takes over."""
    schedule: Literal["parallel", "serial"] = "parallel"
    """Whether all messages of an iteration are updated at once or one mechanism after the other."""
    osd_method: Literal["OSD_0", "OSD_E", "OSD_CS"] = "OSD_CS"
    """OSD_0: one candidate. OSD_E: all 2^order. OSD_CS: the combination sweep, all of weight 1 and 2."""
    osd_order: int = 7
    """How many of the likeliest free mechanisms the candidates range over; 0 for OSD_0."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("bp_method", ("minimum_sum", "product_sum")),
            ("schedule", ("parallel", "serial")),
            ("osd_method", ("OSD_0", "OSD_E", "OSD_CS")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}: use one of {', '.join(allowed)}")
        if self.max_iter < 1:
            raise ValueError(f"max_iter={self.max_iter} must be at least 1")
        if not self.ms_scaling_factor >= 0:
            raise ValueError(f"ms_scaling_factor={self.ms_scaling_factor} must not be negative")
        if self.osd_order < 0 or (self.osd_method == "OSD_0" and self.osd_order != 0):
            raise ValueError(f"osd_order={self.osd_order} must be at least 0, and 0 for OSD_0")
        if self.osd_method == "OSD_E" and self.osd_order > MAX_EXHAUSTIVE_ORDER:
            raise ValueError(
                f"osd_order={self.osd_order} means 2^{self.osd_order} candidates a shot; keep OSD_E to "
                f"{MAX_EXHAUSTIVE_ORDER} or use OSD_CS"
            )


BRAVYI = BpOsdSettings()
"""Bravyi et al.: min-sum with variable scaling, 10,000 iterations, OSD-CS 7. Few failures, slow tail."""
OSD0 = BpOsdSettings(ms_scaling_factor=1.0, max_iter=30, osd_method="OSD_0", osd_order=0)
"""Short BP and a single OSD candidate: several times the failures, but no slow tail."""


class BpOsdDecoder:
    """Decodes the shots of one fault model with BP-OSD.

    Given `detectors`, it decodes these alone (mechanisms that then look the same are merged) and ignores the
    rest of each shot: the memory basis's detectors give the XZ convention.

    The `ldpc` decoder is made at the first shot, so that an instance can be pickled. Not thread-safe.
    """

    def __init__(
        self,
        fault_model: FaultModel,
        settings: BpOsdSettings = BRAVYI,
        *,
        detectors: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Prepares a decoder.

        Args:
            fault_model: the mechanisms and their priors.
            settings: how to decode.
            detectors: integer (d,), the detectors to use, each below fault_model.num_detectors; None for all.

        Raises:
            ValueError: a detector index is out of range or given twice.
        """
        self.settings = settings
        self.detectors = _checked_detectors(detectors, fault_model.num_detectors)
        self._num_detectors = fault_model.num_detectors
        self._problem = _Problem.of(fault_model if self.detectors is None else fault_model.restrict(self.detectors))

    @property
    def num_detectors(self) -> int:
        """Detectors in each shot, also those that are not used."""
        return self._num_detectors

    @property
    def num_observables(self) -> int:
        """Observables in each prediction."""
        return len(self._problem.observable_offset)

    @cached_property
    def _ldpc(self) -> LdpcBpOsdDecoder | None:
        return self._problem.compile(self.settings)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_ldpc"}

    def decode_batch(
        self,
        shots: npt.NDArray[np.generic],
        *,
        bit_packed_shots: bool = False,
        bit_packed_predictions: bool = False,
    ) -> Bits | PackedBits:
        """Predicts observable flips; see `decoder.base.Decoder.decode_batch`.

        Raises:
            ValueError: the shape, the dtype or a value of `shots` does not fit.
        """
        events = unpack_shots(shots, num_detectors=self.num_detectors, bit_packed=bit_packed_shots)
        if self.detectors is not None:
            events = events[:, self.detectors]
        predictions = self._decode(events)
        return pack_bits(predictions) if bit_packed_predictions else predictions

    def _decode(self, events: Bits) -> Bits:
        problem = self._problem
        predictions = np.tile(problem.observable_offset, (len(events), 1))
        if self._ldpc is None:
            return predictions
        syndromes = (events ^ problem.syndrome_offset).view(np.uint8)
        for prediction, syndrome in zip(predictions, syndromes, strict=True):
            if syndrome.any():
                mechanisms = np.flatnonzero(self._ldpc.decode(syndrome))
                prediction ^= np.bitwise_xor.reduce(problem.symptoms[mechanisms], axis=0)
        return predictions


@dataclass(frozen=True, eq=False)
class _Problem:
    """A fault model in the form that `ldpc` can take: every prior in (0, 0.5], every column with a detector.

    A mechanism likelier than not is replaced by its absence, with prior 1 - p and the symptoms of its
    presence added to every shot: the same distribution. One that no detector sees cannot be decoded; the best
    prediction is the constant one.
    """

    check_matrix: sp.csc_matrix
    priors: npt.NDArray[np.float64]
    symptoms: Bits
    """(mechanisms, observables)."""
    syndrome_offset: Bits
    """(detectors,)."""
    observable_offset: Bits
    """(observables,)."""

    @classmethod
    def of(cls, model: FaultModel) -> _Problem:
        likely = model.priors > 0.5
        priors = np.where(likely, 1 - model.priors, model.priors)
        kept = np.flatnonzero((priors > 0) & (np.diff(model.check_matrix.indptr) > 0))
        return cls(
            check_matrix=model.check_matrix[:, kept],
            priors=priors[kept],
            symptoms=model.observable_matrix[:, kept].toarray().T.astype(np.bool_),
            syndrome_offset=(model.check_matrix @ likely.astype(np.int64)) % 2 == 1,
            observable_offset=(model.observable_matrix @ likely.astype(np.int64)) % 2 == 1,
        )

    def compile(self, settings: BpOsdSettings) -> LdpcBpOsdDecoder | None:
        """Makes the ldpc decoder; None where there is nothing to decode, which ldpc does not survive."""
        if 0 in self.check_matrix.shape:
            return None
        settings = self._clipped(settings)
        return LdpcBpOsdDecoder(
            sp.csr_matrix(self.check_matrix),
            error_channel=self.priors.tolist(),
            max_iter=settings.max_iter,
            bp_method=settings.bp_method,
            ms_scaling_factor=settings.ms_scaling_factor,
            schedule=settings.schedule,
            omp_thread_count=1,
            osd_method=settings.osd_method,
            osd_order=settings.osd_order,
        )

    def _clipped(self, settings: BpOsdSettings) -> BpOsdSettings:
        """Lowers the OSD order to n - rank(H): no more mechanisms are free, so the search stays the same.

        ldpc 2.4.1 writes past the end of its candidate strings when the order is above that.
        """
        rows, columns = self.check_matrix.shape
        if settings.osd_order <= columns - rows:
            return settings
        order = min(settings.osd_order, columns - int(mod2.rank(sp.csr_matrix(self.check_matrix))))
        return replace(settings, osd_order=order, osd_method=settings.osd_method if order else "OSD_0")


def _checked_detectors(detectors: npt.NDArray[np.int64] | None, num_detectors: int) -> npt.NDArray[np.int64] | None:
    if detectors is None:
        return None
    indices = np.asarray(detectors, dtype=np.int64)
    if indices.ndim != 1 or len(np.unique(indices)) != len(indices):
        raise ValueError("detectors must be a list of distinct detector indices")
    if len(indices) and not (indices.min() >= 0 and indices.max() < num_detectors):
        raise ValueError(f"detectors must lie in 0..{num_detectors - 1}, not {indices.min()}..{indices.max()}")
    return indices
