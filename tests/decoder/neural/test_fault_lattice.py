from typing import Any

import numpy as np
import pytest

from decoder.neural.fault_lattice import KINDS, fault_lattice, fault_places
from decoder.neural.geometry import TorusGeometry
from decoder.serial.graph import joint_faults
from simulation.bases import Basis
from simulation.circuits import MemoryExperiment
from simulation.codes import parse_code


@pytest.mark.parametrize(
    "options",
    [{}, {"basis": "X"}, {"code": "bb90"}, {"rounds": 1}, {"noiseless_last_cycle": True}, {"detectors": "XZ"}],
    ids=lambda options: "-".join(map(str, options.values())) or "bb72",
)
def test_every_fault_has_a_place_of_its_own_where_its_pattern_is(options: dict[str, Any]) -> None:
    made = MemoryExperiment.create(**{"code": "bb72", "basis": "Z", "rounds": 3, "p": 0.003, **options})
    geometry = TorusGeometry(made.code)
    faults = joint_faults(made.fault_model, made.check_types.memory)
    places = fault_places(geometry, made.grid, faults)
    index, cells = geometry.event_index(made.grid, partial=True), made.code.cells
    assert places.size == (made.rounds + 1) * KINDS * cells
    assert len(places.of_fault) == len(faults.graph.flips) == len(np.unique(places.of_fault))
    patterns = fault_lattice(geometry, made.basis).patterns
    checks = faults.checks.tocsc()
    for fault, place in enumerate(places.of_fault.tolist()):
        layer, kind, cell = place // (KINDS * cells), place // cells % KINDS, place % cells
        x, y = divmod(cell, made.code.m)
        moved = [(layer + t, (c // made.code.m + x) % made.code.l, (c + y) % made.code.m) for t, c in patterns[kind]]
        # What a pattern has after the last layer is not seen.
        expected = {index[t, 0, i * made.code.m + j] for t, i, j in moved if t <= made.rounds}
        assert set(checks.indices[checks.indptr[fault] : checks.indptr[fault + 1]]) == expected


def test_a_torus_on_which_kinds_coincide_is_refused() -> None:
    made = MemoryExperiment.create(code="3,3,1+x+x^2,1+x+x^2", basis="Z", rounds=2, p=0.003)
    faults = joint_faults(made.fault_model, np.ones(made.num_detectors, np.bool_))
    with pytest.raises(ValueError, match=r"does not apply to 3,3.*kinds of faults coincide; decode with serial"):
        fault_places(TorusGeometry(made.code), made.grid, faults)


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
