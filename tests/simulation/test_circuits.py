from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import stim

from simulation.bases import Basis
from simulation.circuits import MemoryExperiment
from simulation.codes import CODES
from simulation.detectors import DetectorGrid
from simulation.faults import FaultModel
from simulation.noise import NoiseModel


def experiment(code: str, basis: Basis, rounds: int, p: float = 0.001, **options: object) -> MemoryExperiment:
    return MemoryExperiment.create(code=code, basis=basis, rounds=rounds, p=p, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "rounds", "basis"),
    [("bb72", 6, "Z"), ("bb72", 6, "X"), ("bb72", 3, "Z"), ("bb108", 4, "X"), ("bb144", 12, "Z"), ("bb288", 18, "Z")],
)
def test_counts_agree_with_independent_implementations(code: str, rounds: int, basis: Basis) -> None:
    # Formulas that hold for five other projects' circuits: (n/2)(r+1) detectors and (n/2)(10r+2) mechanisms of one
    # basis; n r detectors and (n/2)(82r - 43 or 42) mechanisms of both.
    n = CODES[code].n
    both = experiment(code, basis, rounds)
    assert both.num_detectors == n * rounds
    one = experiment(code, basis, rounds, detectors="XZ")
    assert one.fault_model.check_matrix.shape == (n // 2 * (rounds + 1), n // 2 * (10 * rounds + 2))
    assert one.circuit.num_measurements == n * rounds + n
    if code != "bb288":  # below, with fewer rounds
        assert both.fault_model.num_mechanisms == n // 2 * (82 * rounds - (43 if basis == "Z" else 42))


def test_mechanisms_of_both_bases_of_bb288() -> None:
    # Each round from the third on adds the same (n/2) 82 mechanisms, so three rounds show the formula.
    assert experiment("bb288", "X", 3).fault_model.num_mechanisms == 144 * (82 * 3 - 42)


def test_column_weights_of_bb72() -> None:
    def histogram(model: FaultModel) -> dict[int, int]:
        return dict(Counter(np.diff(model.check_matrix.indptr).tolist()))

    one = experiment("bb72", "Z", 6, detectors="XZ").fault_model
    assert histogram(one) == {2: 216, 3: 1368, 4: 216, 5: 216, 6: 216}
    both = experiment("bb72", "Z", 6).fault_model
    expected = {1: 72, 2: 504, 3: 2412, 4: 1224, 5: 2916, 6: 4212, 7: 1872, 8: 1620, 9: 1332}
    assert histogram(both) == expected


def test_restricting_both_bases_gives_the_model_of_one() -> None:
    both = experiment("bb72", "X", 4)
    restricted = both.fault_model.restrict(both.grid.indices_of("X"))
    one = experiment("bb72", "X", 4, detectors="XZ").fault_model
    assert restricted.symptoms() == one.symptoms()
    np.testing.assert_allclose(restricted.priors, one.priors, rtol=1e-9)


def test_same_dem_as_a_foreign_circuit(vectors: Path) -> None:
    foreign = FaultModel.from_dem(stim.DetectorErrorModel.from_file(vectors / "bb72_memory_x_r6_p0.001.dem"))
    ours = experiment("bb72", "X", 6, detectors="XZ").fault_model

    def by_detectors(model: FaultModel) -> dict[tuple[int, ...], float]:
        return {dets: p for (dets, _), p in zip(model.symptoms(), model.priors.tolist(), strict=True)}

    # That project numbers the cells as we do, so the relabelling is the identity; its logical basis is another.
    theirs, own = by_detectors(foreign), by_detectors(ours)
    assert len(theirs) == foreign.num_mechanisms == ours.num_mechanisms
    assert theirs.keys() == own.keys()
    np.testing.assert_allclose([theirs[k] for k in own], list(own.values()), rtol=1e-6)
    # A change of logical basis is an invertible matrix: both observable matrices span the same row space.
    order = {dets: i for i, (dets, _) in enumerate(foreign.symptoms())}
    columns = [order[dets] for dets, _ in ours.symptoms()]
    flips = np.concatenate([ours.observable_matrix.toarray(), foreign.observable_matrix.toarray()[:, columns]])
    assert _rank(np.concatenate([flips, ours.check_matrix.toarray()])) == _rank(
        np.concatenate([flips[:12], ours.check_matrix.toarray()])
    )


@pytest.mark.parametrize("basis", ["X", "Z"])
def test_foreign_circuits_with_both_bases_have_as_many_mechanisms(vectors: Path, basis: Basis) -> None:
    path = vectors / f"bb72_memory_{basis.lower()}_r6_p0.003_both_bases.stim"
    foreign = FaultModel.from_dem(stim.Circuit.from_file(path).detector_error_model())
    ours = experiment("bb72", basis, 6, p=0.003).fault_model
    assert foreign.check_matrix.shape == ours.check_matrix.shape


@pytest.mark.parametrize("basis", ["X", "Z"])
@pytest.mark.parametrize("noiseless_last_cycle", [False, True])
@pytest.mark.parametrize("noise", ["uniform", "si1000", "measurement=0.01"])
def test_the_circuit_alone_says_where_its_detectors_are(basis: Basis, noiseless_last_cycle: bool, noise: str) -> None:
    rounds = 3
    made = experiment("bb72", basis, rounds, noise=noise, noiseless_last_cycle=noiseless_last_cycle)
    for source in (stim.Circuit(str(made.circuit)), stim.DetectorErrorModel(str(made.dem))):
        grid = DetectorGrid.of(source)
        assert grid.memory_basis == basis
        assert grid.rounds == rounds
        assert grid.has_both_bases
        counts = Counter((int(t), int(kind)) for _, _, t, kind in grid.coordinates)
        own, other = ("XZ".index(basis), "ZX".index(basis))
        assert {t for t, kind in counts if kind == own} == set(range(rounds + 1))
        assert {t for t, kind in counts if kind == other} == set(range(1, rounds + noiseless_last_cycle))
        assert set(counts.values()) == {36}


def test_without_noise_nothing_happens() -> None:
    quiet = experiment("bb72", "Z", 3).circuit.without_noise()
    events, flips = quiet.compile_detector_sampler(seed=1).sample(16, separate_observables=True)
    assert not events.any()
    assert not flips.any()


def test_a_cycle_has_eight_layers_and_idles_of_bravyi() -> None:
    made = experiment("bb72", "Z", 2)
    assert str(made.circuit).count("TICK") == 1 + 2 * 8  # one cycle, and one in the REPEAT block
    (first, repeated) = str(made.circuit).split("REPEAT", 1)
    idle = sum(len(line.split()) - 1 for line in first.splitlines() if line.startswith("DEPOLARIZE1"))
    assert idle == 144  # a cycle's idle locations for n = 72
    assert "REPEAT" not in repeated


def test_translates_of_a_fault_look_alike() -> None:
    model = experiment("bb72", "Z", 3).fault_model
    signature = Counter((len(dets), round(p, 12)) for (dets, _), p in zip(model.symptoms(), model.priors, strict=True))
    assert all(count % 36 == 0 for count in signature.values())


def test_value_semantics() -> None:
    assert experiment("bb72", "Z", 6) == experiment("6,6,x^3+y+y^2,y^3+x+x^2", "Z", 6)
    assert len({experiment("bb72", "Z", 6), experiment("bb72", "Z", 6), experiment("bb72", "X", 6)}) == 2


@pytest.mark.parametrize("rounds", [0, -1, True, 2.0])
def test_rounds_must_be_a_positive_whole_number(rounds: int) -> None:
    with pytest.raises(ValueError, match="rounds"):
        MemoryExperiment(CODES["bb72"], "Z", rounds, NoiseModel.uniform(0.001))


def test_unknown_words() -> None:
    with pytest.raises(ValueError, match="basis"):
        experiment("bb72", "Y", 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="detectors"):
        experiment("bb72", "Z", 2, detectors="YZ")
    with pytest.raises(ValueError, match="bb72"):
        experiment("bb73", "Z", 2)


def _rank(matrix: np.ndarray) -> int:
    from ldpc import mod2

    return int(mod2.rank(matrix.astype(np.uint8)))
