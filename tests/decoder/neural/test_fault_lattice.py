import numpy as np
import pytest

from decoder.neural.fault_lattice import NOMINAL_P, fault_graphs, fault_lattice
from decoder.neural.geometry import TorusGeometry
from simulation.bases import Basis
from simulation.circuits import MemoryExperiment
from simulation.codes import parse_code
from simulation.noise import NoiseModel

SMALL = "3,3,x+1+y,x+1+xy^2"
Symptoms = dict[tuple[frozenset[int], bytes], float]


def expected(geometry: TorusGeometry, basis: Basis, rounds: int) -> Symptoms:
    """The prior of each (checks, outputs) in the circuit's fault model for the memory basis alone."""
    noise = NoiseModel.uniform(NOMINAL_P)
    experiment = MemoryExperiment(geometry.code, basis, rounds, noise, detectors="XZ")
    x, y, layer, _ = experiment.grid.coordinates.T
    cell = geometry.framed_cells(basis)[x * geometry.code.m + y]
    model, priors = experiment.fault_model, {}
    for prior, (detectors, observables) in zip(model.priors, model.symptoms(), strict=True):
        flips = geometry.output_observables[:, list(observables)].sum(1)
        flips = (flips + geometry.output_checks[:, cell[list(detectors)]].sum(1)) % 2
        checks = frozenset((layer * geometry.code.cells + cell)[list(detectors)].tolist())
        priors[checks, flips.astype(np.float32).tobytes()] = float(prior)
    return priors


@pytest.mark.parametrize("basis", ["Z", "X"])
@pytest.mark.parametrize(("code", "rounds"), [("bb72", 5), ("bb72", 3), ("bb90", 4), (SMALL, 1)])
def test_the_memory_side_is_the_fault_model_of_the_memory_basis(code: str, rounds: int, basis: Basis) -> None:
    geometry = TorusGeometry(parse_code(code))
    graphs = fault_graphs(geometry, basis, rounds + 1)
    graph, kinds = graphs.memory, len(graphs.flips)
    checks: dict[int, set[int]] = {}
    for faults, width in zip(graph.slots, graph.width, strict=True):
        for check, fault in zip(graph.order[:width], faults[:width], strict=True):
            checks.setdefault(int(fault), set()).add(int(check))
    found = {
        (frozenset(where), graphs.flips[fault % kinds].tobytes()): 1 / (1 + np.exp(float(graph.prior[fault])))
        for fault, where in checks.items()
    }
    assert found == pytest.approx(expected(geometry, basis, rounds), rel=1e-5)
    assert np.all(graph.prior[[fault for fault in range(len(graph.prior)) if fault not in checks]] == 30)


@pytest.mark.parametrize("basis", ["Z", "X"])
def test_the_sides_share_the_mechanisms_that_both_see(basis: Basis) -> None:
    graphs = fault_graphs(TorusGeometry(parse_code("bb72")), basis, 5)
    for mine, theirs in ((graphs.memory, graphs.other), (graphs.other, graphs.memory)):
        # What a fault is alone and what its partners make of it are all that makes it.
        chance = 1 / (1 + np.exp(theirs.prior.astype(np.float64)))
        owner = np.repeat(np.arange(len(mine.prior)), np.diff(mine.first_partner))
        total = mine.alone + np.bincount(owner, mine.share * chance[mine.partner], minlength=len(mine.prior))
        real = mine.prior < 30
        np.testing.assert_allclose(total[real], 1 / (1 + np.exp(mine.prior[real].astype(np.float64))), rtol=0.02)
        assert np.bincount(mine.partner, mine.share).max() <= 1 + 1e-6
        assert len(np.unique(owner)) > 0.5 * real.sum()


@pytest.mark.parametrize("basis", ["Z", "X"])
def test_larger_codes_have_the_same_kinds_in_the_same_order(basis: Basis) -> None:
    small, large = (fault_lattice(TorusGeometry(parse_code(code)), basis) for code in ("bb72", "bb144"))
    # The polynomials are the same, so the torus of bb144 (12 x 6) wraps onto that of bb72 (6 x 6).
    wrapped = [tuple(sorted((t, c // 6 % 6 * 6 + c % 6) for t, c in pattern)) for pattern in large.patterns]
    assert wrapped == small.patterns


def test_a_fault_that_there_is_not_has_no_place() -> None:
    lattice = fault_lattice(TorusGeometry(parse_code("bb72")), "Z")
    with pytest.raises(KeyError):
        lattice.place([(0, 0), (5, 7)])
