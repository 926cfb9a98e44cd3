"""Tesseract: A* search for the likeliest error, by the package `tesseract-decoder` of its authors.

Beni, Higgott and Shutty, arXiv 2503.10988.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from decoder.classical.problem import Problem
from decoder.classical.settings import Extra
from decoder.classical.syndrome import Indices, Solver, SyndromeSettings
from decoder.limits import check_fields


@dataclass(frozen=True, kw_only=True)
class TesseractSettings(SyndromeSettings):
    """Settings of `tesseract_decoder.tesseract.TesseractConfig`. The defaults are the authors' short beam.

    Always with beam climbing and without revisiting detectors, the detectors ordered by their index. Where the
    search gives up, the error found is no explanation of the syndrome.

    Raises:
        ValueError: a value out of its range.
    """

    extra: ClassVar[Extra | None] = Extra(name="tesseract", package="tesseract-decoder")

    pqlimit: int = 200_000
    """The most states in the queue of a search."""
    det_beam: int = 15
    """How many detection events more than the best state a state may have left."""
    num_det_orders: int = 16
    """Searches for each shot, each with an order of the detectors; the likeliest error found is the answer."""
    sparsify_base_degree: int | None = None
    """Mechanisms of more detectors take part only where they are likely to matter; None lets all take part."""
    seed: int = 2384753
    """Draws the orders; this is the package's own in sinter."""

    def __post_init__(self) -> None:
        check_fields(self, pqlimit=1, det_beam=1, num_det_orders=1, sparsify_base_degree=1, seed=0)

    def solver(self, problem: Problem) -> Solver:
        """See `SyndromeSettings.solver`."""
        from tesseract_decoder import tesseract, utils

        dem = problem.faults.to_dem()
        orders = utils.build_det_orders(
            dem=dem, num_det_orders=self.num_det_orders, method=utils.DetOrder.DetIndex, seed=self.seed
        )
        sparsify = self.sparsify_base_degree
        decoder = tesseract.TesseractConfig(
            dem=dem,
            pqlimit=self.pqlimit,
            det_beam=self.det_beam,
            beam_climbing=True,
            no_revisit_dets=True,
            det_orders=orders,
            sparsify_errors=sparsify is not None,
            sparsify_base_degree=-1 if sparsify is None else sparsify,
        ).compile_decoder()

        def solve(syndrome: npt.NDArray[np.uint8]) -> Indices:
            return np.array(decoder.decode_to_errors(syndrome.astype(np.bool_)), dtype=np.int64)

        return solve


SHORT_BEAM = TesseractSettings()
"""The authors' short beam."""
LONG_BEAM = TesseractSettings(pqlimit=1_000_000, det_beam=20, num_det_orders=21)
"""The authors' long beam: fewer failures, slower."""
SHORT_BEAM_SPARSIFIED = replace(SHORT_BEAM, sparsify_base_degree=3)
"""The short beam with the authors' sparsification for colour codes, which they also use for these codes."""
LONG_BEAM_SPARSIFIED = replace(LONG_BEAM, sparsify_base_degree=3)
"""The long beam, sparsified alike."""
NARROW_BEAM_SPARSIFIED = replace(SHORT_BEAM_SPARSIFIED, det_beam=5)
"""For the shots that the network is unsure of: the short beam takes seconds for such a shot."""
