import pytest
import stim

from simulation.circuits import MemoryExperiment
from simulation.detectors import DetectorGrid


def test_foreign_coordinates_are_refused() -> None:
    circuit = stim.Circuit.generated("surface_code:rotated_memory_z", distance=3, rounds=2)
    with pytest.raises(ValueError, match="coordinates"):
        DetectorGrid.of(circuit)


def test_no_detectors_at_all() -> None:
    with pytest.raises(ValueError, match="coordinates"):
        DetectorGrid.of(stim.DetectorErrorModel())


def test_layers_hold_each_detector_once_in_the_order_of_rounds() -> None:
    grid = MemoryExperiment.create(code="bb72", basis="X", rounds=3, p=0.001).grid
    assert [len(layer) for layer in grid.layers] == [36, 72, 72, 36]
    for t, layer in enumerate(grid.layers):
        assert (grid.coordinates[layer, 2] == t).all()
        assert (layer[1:] > layer[:-1]).all()


def test_round_0_names_the_memory_basis() -> None:
    grid = DetectorGrid.of(stim.DetectorErrorModel("detector(0, 0, 0, 0) D0\ndetector(0, 0, 0, 1) D1"))
    with pytest.raises(ValueError, match="round 0"):
        _ = grid.memory_basis
