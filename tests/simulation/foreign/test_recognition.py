from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import stim

from simulation.bases import Basis
from simulation.circuits import MemoryExperiment
from simulation.codes import CODES
from simulation.foreign.experiment import ForeignExperiment
from simulation.foreign.recognition import CodeFacts, code_of, recognise, same_graph

NOISE = {"after_clifford_depolarization": 0.003, "before_measure_flip_probability": 0.003}


def found_in(circuit: stim.Circuit) -> CodeFacts | None:
    return code_of(circuit, ForeignExperiment.of(circuit).check_types.memory)


@pytest.mark.parametrize(
    ("code", "basis", "rounds"), [("bb72", "X", 1), ("bb90", "Z", 2), ("bb72", "Z", 3), ("bb144", "X", 2)]
)
def test_our_circuits_show_their_code(code: str, basis: Basis, rounds: int) -> None:
    found = found_in(MemoryExperiment.create(code=code, basis=basis, rounds=rounds, p=0.001).circuit)
    assert found is not None
    assert str(found.code) == code
    assert found.n == CODES[code].n
    assert found.pauli == basis
    # In a single round there are no detectors of the other type.
    assert found.k == (None if rounds == 1 else CODES[code].k)
    assert found.weights == {6: found.n // 2 if rounds == 1 else found.n}


@pytest.mark.parametrize(
    ("name", "n", "k", "weights"),
    [
        ("surface_code:rotated_memory_x", 9, 1, {2: 4, 4: 4}),
        ("surface_code:unrotated_memory_z", 13, 1, {3: 8, 4: 4}),
        ("repetition_code:memory", 3, None, {2: 2}),
    ],
)
def test_other_codes_show_their_sizes(name: str, n: int, k: int | None, weights: dict[int, int]) -> None:
    found = found_in(stim.Circuit.generated(name, distance=3, rounds=3, **NOISE))
    assert found is not None
    assert (found.n, found.k, found.weights, found.code) == (n, k, weights, None)


def test_a_circuit_without_a_code() -> None:
    circuit = stim.Circuit("R 0 1\nX_ERROR(0.1) 0\nCX 0 1\nM 1 0\nDETECTOR rec[-1]\nOBSERVABLE_INCLUDE(0) rec[-2]")
    found = found_in(circuit)
    assert found is None or found.code is None


@pytest.mark.parametrize("name", ["bb72", "bb90", "bb144"])
def test_a_code_is_known_in_any_order(name: str) -> None:
    random = np.random.default_rng(3)
    for matrix in (CODES[name].hx, CODES[name].hz):
        shuffled = sp.csr_matrix(matrix)[random.permutation(matrix.shape[0])][:, random.permutation(matrix.shape[1])]
        found = recognise(shuffled)
        assert found is not None
        assert str(found) == name


def test_graphs_that_look_alike_are_told_apart() -> None:
    """A hexagon and two triangles: every vertex has two neighbours in both."""
    hexagon = sp.csr_matrix([[1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0],
                             [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1], [1, 0, 0, 0, 0, 1]], dtype=np.uint8)  # fmt: skip
    triangles = sp.csr_matrix(np.kron(np.eye(2), [[1, 1, 0], [0, 1, 1], [1, 0, 1]]).astype(np.uint8))
    assert not same_graph(hexagon, triangles)
    order = np.array([3, 0, 5, 1, 4, 2])
    assert same_graph(hexagon, hexagon[order][:, order[::-1]])
    # One qubit of a bb72 check moved to another.
    changed = CODES["bb72"].hx.tolil()
    column = int(np.flatnonzero(changed[0].toarray()[0])[0])
    changed[0, column], changed[0, (column + 1) % 72] = 0, 1
    assert recognise(changed.tocsr()) is None


@pytest.mark.parametrize(
    ("file", "code", "n", "k"),
    [
        ("relay_bb144_z_r12_p0.003", "bb144", 144, 12),
        ("tesseract_si1000_bb72_x_r6_p0.003", "bb72", 72, 12),
        ("tesseract_nlr5wb_bb72_z_r6_p0.003", "bb72", 72, 12),
        ("tesseract_superdense_colour_d3_z_p0.003", None, 7, 1),
    ],
)
def test_circuits_of_other_projects(vectors: Path, file: str, code: str | None, n: int, k: int) -> None:
    found = found_in(stim.Circuit.from_file(vectors / "foreign" / f"{file}.stim"))
    assert found is not None
    assert (None if found.code is None else str(found.code), found.n, found.k) == (code, n, k)
