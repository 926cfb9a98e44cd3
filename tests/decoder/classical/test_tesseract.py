from dataclasses import replace

import numpy as np
import pytest
from tesseract_decoder import tesseract, utils

from decoder.classical.syndrome import SyndromeDecoder
from decoder.classical.tesseract import LONG_BEAM_SPARSIFIED, SHORT_BEAM, TesseractSettings
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample


@pytest.mark.parametrize("settings", [SHORT_BEAM, LONG_BEAM_SPARSIFIED])
def test_it_answers_as_the_package_does_for_the_circuits_own_dem(settings: TesseractSettings) -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.003)
    shots = sample(experiment.circuit, shots=25, seed=5).unpacked_detection_events()
    dem, sparsify = experiment.dem.flattened(), settings.sparsify_base_degree is not None
    orders = utils.build_det_orders(
        dem=dem, num_det_orders=settings.num_det_orders, method=utils.DetOrder.DetIndex, seed=settings.seed
    )
    config = tesseract.TesseractConfig(
        dem=dem,
        pqlimit=settings.pqlimit,
        det_beam=settings.det_beam,
        beam_climbing=True,
        no_revisit_dets=True,
        det_orders=orders,
        sparsify_errors=sparsify,
        sparsify_base_degree=3 if sparsify else -1,
    )
    expected = config.compile_decoder().decode_batch(shots)
    assert expected.any()
    np.testing.assert_array_equal(SyndromeDecoder(experiment.fault_model, settings).decode_batch(shots), expected)


def test_a_search_that_gives_up_still_answers() -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=3, p=0.02)
    shots = sample(experiment.circuit, shots=3, seed=5).unpacked_detection_events()
    hasty = replace(SHORT_BEAM, pqlimit=2, det_beam=1, num_det_orders=1)
    assert SyndromeDecoder(experiment.fault_model, hasty).decode_batch(shots).shape == (3, 12)
