import numpy as np
import pytest

from decoder.neural.fault_lattice import FaultLattice
from decoder.neural.geometry import TorusGeometry
from simulation.circuits import MemoryExperiment
from simulation.codes import parse_code
from simulation.detectors import Basis
from simulation.noise import NoiseModel

SMALL = "3,3,x+1+y,x+1+xy^2"


@pytest.mark.parametrize("basis", ["Z", "X"])
@pytest.mark.parametrize(("code", "rounds"), [("bb72", 5), ("bb72", 3), ("bb90", 4)])
def test_the_lattice_is_the_fault_model(code: str, rounds: int, basis: Basis) -> None:
    geometry = TorusGeometry(parse_code(code))
    experiment = MemoryExperiment(geometry.code, basis, rounds, NoiseModel.uniform(0.002), detectors="XZ")
    x, y, layer, _ = experiment.grid.coordinates.T
    cell = geometry.framed_cells(basis)[x * geometry.code.m + y]
    model, expected = experiment.fault_model, {}
    for prior, (detectors, observables) in zip(model.priors, model.symptoms(), strict=True):
        flips = geometry.output_observables[:, list(observables)].sum(1)
        flips = (flips + geometry.output_checks[:, cell[list(detectors)]].sum(1)) % 2
        events = frozenset((int(layer[d]), int(cell[d])) for d in detectors)
        expected[events, flips.tobytes()] = prior

    lattice = FaultLattice(geometry, basis, 0.002)
    found = {}
    for t, row in enumerate(lattice.priors(rounds + 1)):
        for kind in np.flatnonzero(row):
            later, cells = np.array(lattice.patterns[kind]).T
            for c in range(geometry.code.cells):
                events = frozenset(zip((t + later).tolist(), lattice.shifted(cells, c).tolist(), strict=True))
                found[events, lattice.output_flips[kind, c].astype(np.int64).tobytes()] = row[kind]
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("basis", ["Z", "X"])
def test_larger_codes_have_the_same_kinds_in_the_same_order(basis: Basis) -> None:
    small = FaultLattice(TorusGeometry(parse_code("bb72")), basis, 0.003)
    large = FaultLattice(TorusGeometry(parse_code("bb144")), basis, 0.003)
    # The polynomials are the same, so the torus of bb144 (12 x 6) wraps onto that of bb72 (6 x 6).
    wrapped = [tuple(sorted((t, c // 6 % 6 * 6 + c % 6) for t, c in pattern)) for pattern in large.patterns]
    assert wrapped == small.patterns
    np.testing.assert_allclose(large.priors(7), small.priors(7))


def test_a_code_of_a_few_cells_has_a_lattice_too() -> None:
    lattice = FaultLattice(TorusGeometry(parse_code(SMALL)), "X", 0.001)
    assert lattice.priors(2)[0].max() > 0
