"""scripts/automorphisms.py: all symmetries of the Tanner graph are found, and what each keeps of the faults."""

import numpy as np
import pytest

from scripts.automorphisms import (
    Automorphism,
    automorphisms,
    images_of_mechanisms,
    kept_share,
    logicals_agree,
    observables_agree,
    starts_in_round,
)
from simulation.bases import BASES, Basis
from simulation.circuits import MemoryExperiment
from simulation.codes import CODES

CODE = CODES["bb72"]
ROUNDS = 5


@pytest.fixture(scope="module")
def memories() -> dict[Basis, MemoryExperiment]:
    return {basis: MemoryExperiment.create(code="bb72", basis=basis, rounds=ROUNDS, p=0.001) for basis in BASES}


@pytest.fixture(scope="module")
def duality() -> Automorphism:
    return next(a for a in automorphisms(CODE) if a.linear == ((5, 0), (0, 5)) and a.exchanges_types)


def is_identity(a: Automorphism) -> bool:
    return a.linear == ((1, 0), (0, 1)) and not (a.exchanges_types or a.exchanges_blocks)


# How many automorphisms the Tanner graph has, data qubits and checks told apart, divided by the number of
# translations: counted with igraph 1.0 (BLISS), which knows nothing of tori.
@pytest.mark.parametrize(("code", "number"), [("bb72", 24), ("bb90", 8), ("bb108", 4), ("bb144", 4)])
def test_all_automorphisms_of_the_tanner_graph_are_found(code: str, number: int) -> None:
    found = automorphisms(CODES[code])
    assert len(set(found)) == len(found) == number
    assert sum(is_identity(a) for a in found) == 1


@pytest.mark.parametrize("code", ["bb72", "bb90"])
def test_each_maps_checks_to_checks(code: str) -> None:
    for a in automorphisms(CODES[code]):
        for basis in BASES:
            checks, images = ((a.code.hx, a.code.hz)[BASES.index(b)].toarray() for b in (basis, a.basis(basis)))
            np.testing.assert_array_equal(images[a.checks(basis)][:, a.qubits()], checks)


def test_the_zx_duality_is_one_of_them(duality: Automorphism) -> None:
    assert duality.exchanges_blocks
    np.testing.assert_array_equal(duality.qubits(), CODE.dual_qubits)


def test_only_translations_keep_the_fault_model(memories: dict[Basis, MemoryExperiment]) -> None:
    source = memories["Z"]
    chosen = starts_in_round(source, 2)
    for a in automorphisms(CODE):
        target = memories[a.basis("Z")]
        images = images_of_mechanisms(a, source, target)
        kept, overlap = kept_share(source.fault_model, target.fault_model, images, chosen)
        assert overlap <= kept + 1e-12
        if is_identity(a):
            assert (kept, overlap) == (1, 1)
            np.testing.assert_array_equal(images, np.arange(source.fault_model.num_mechanisms))
        else:
            assert 0.5 < overlap < 0.8


def test_without_cnot_errors_all_keep_it_also_when_time_is_reversed() -> None:
    """Errors of ancillas and of waiting data qubits do not know the order of the CNOTs."""
    memories = {
        b: MemoryExperiment.create(code="bb72", basis=b, rounds=3, p=0.1, noise="measurement=0.01,reset=0.01,idle=0.01")
        for b in BASES
    }
    source = memories["Z"].fault_model
    for a in automorphisms(CODE):
        target = memories[a.basis("Z")]
        for reverse_time in (False, True):
            images = images_of_mechanisms(a, memories["Z"], target, reverse_time=reverse_time)
            chosen = starts_in_round(memories["Z"], 1)
            assert kept_share(source, target.fault_model, images, chosen) == pytest.approx((1, 1))


def test_the_duality_keeps_a_part_of_the_faults_and_all_of_their_logic(
    memories: dict[Basis, MemoryExperiment], duality: Automorphism
) -> None:
    source, target = memories["Z"], memories["X"]
    images = images_of_mechanisms(duality, source, target)
    # From its own image back: what has an image is the image of that image.
    back = images_of_mechanisms(duality, target, source)
    kept = np.flatnonzero(images >= 0)
    np.testing.assert_array_equal(back[images[kept]], kept)
    bulk = kept_share(source.fault_model, target.fault_model, images, starts_in_round(source, 2))
    np.testing.assert_allclose(bulk, (0.6078, 0.6078), atol=1e-3)
    assert observables_agree(source.fault_model, target.fault_model, images)
    wrong = images.copy()
    wrong[kept[0]], wrong[kept[-1]] = images[kept[-1]], images[kept[0]]
    assert not observables_agree(source.fault_model, target.fault_model, wrong)


def test_logical_operators_go_to_logical_operators(duality: Automorphism) -> None:
    assert all(map(logicals_agree, automorphisms(CODE)))
    askew = Automorphism(CODE, ((1, 0), (0, 5)), False, False, ((0, 0), (0, 0)), (0, 0))
    assert not logicals_agree(askew)
