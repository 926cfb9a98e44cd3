"""The fault model of one window: what happens from its first layer on, as far as its layers show it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from simulation.check_types import CheckTypes
from simulation.faults import FaultModel

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class WindowModel:
    """M mechanisms whose first detector is in the window, and D detectors, layer by layer."""

    fault_model: FaultModel
    """What is decoded. Mechanisms that look the same are merged; `FaultModel.instructions` are places among the M.
    Those that are not to be fixed here flip no observables, as nobody asks."""
    check_types: CheckTypes
    """Of the D detectors."""
    effect: sp.csr_matrix
    """int32 (D, M): what each of the M flips."""
    observables: sp.csr_matrix
    """int32 (observables, M): the same, whether it is fixed here or not."""
    fixed: npt.NDArray[np.bool_]
    """(M,): which of them are fixed when this window is decoded."""
    carried: int
    """The first of the D detectors that the next window has as well."""


def window_model(
    model: FaultModel,
    types: CheckTypes,
    layer_of: Indices,
    *,
    start: int,
    window: int,
    commit: int,
) -> WindowModel:
    """Cuts a window out of a whole model.

    Args:
        model: of the whole experiment.
        types: its check types.
        layer_of: (detectors,), the layer of each detector.
        start: the first layer of the window.
        window: layers in it; if these are all that are left, everything in it is fixed.
        commit: mechanisms whose first detector is in so many of the first layers are fixed.

    Raises:
        ValueError: a mechanism that is to be fixed flips detectors beyond the window.
    """
    first, last = _first_and_last(model, layer_of)
    end = start + window
    is_last = end > int(layer_of.max(initial=-1))
    inside = np.flatnonzero((first >= start) & (first < end))
    fixed = np.ones(len(inside), np.bool_) if is_last else first[inside] < start + commit
    reach = int((last - first)[inside[fixed]].max(initial=0))
    if not is_last and commit + reach > window:
        raise ValueError(
            f"errors flip detectors of up to {reach + 1} layers, so a window of {window} is too short to fix {commit}; "
            f"let it be at least {commit + reach} layers long"
        )
    detectors = np.flatnonzero((layer_of >= start) & (layer_of < end))
    detectors = detectors[np.argsort(layer_of[detectors], kind="stable")]
    part = model.columns(inside)
    effect = sp.csr_matrix(part.check_matrix.tocsr()[detectors], dtype=np.int32)
    asked = sp.csc_matrix(part.observable_matrix @ sp.diags_array(fixed, dtype=np.uint8), dtype=np.uint8)
    asked.eliminate_zeros()
    named = replace(part, observable_matrix=asked, instructions=np.arange(len(inside)), num_instructions=len(inside))
    return WindowModel(
        fault_model=named.restrict(detectors),
        check_types=replace(types, memory=types.memory[detectors]),
        effect=effect,
        observables=sp.csr_matrix(part.observable_matrix, dtype=np.int32),
        fixed=fixed,
        carried=int(np.searchsorted(layer_of[detectors], start + commit)),
    )


def _first_and_last(model: FaultModel, layer_of: Indices) -> tuple[Indices, Indices]:
    """(mechanisms,): the first layer and the last one that each mechanism flips a detector of; -1 for none."""
    checks = model.check_matrix.tocsc()
    sizes = np.diff(checks.indptr)
    first = np.full(model.num_mechanisms, -1, dtype=np.int64)
    last = first.copy()
    layers = layer_of[checks.indices]
    seen = sizes > 0
    starts = checks.indptr[:-1][seen]
    if len(starts):
        first[seen] = np.minimum.reduceat(layers, starts)
        last[seen] = np.maximum.reduceat(layers, starts)
    return first, last
