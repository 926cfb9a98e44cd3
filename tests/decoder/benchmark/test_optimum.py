"""Failures beside the most likely error, on circuits of one round, where the exact search is quick."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from decoder.benchmark.certificates import Certifier, Verdict
from decoder.benchmark.optimum import PROOFS_FILE, run_optimum
from decoder.benchmark.reporting.optimum_point import OptimumPoint
from decoder.benchmark.reporting.results import BenchmarkResult
from decoder.benchmark.runs import AccuracyRun, CertificateRun
from decoder.making import make_decoder
from decoder.statistics import binomial_interval
from simulation.circuits import MemoryExperiment
from simulation.foreign.experiment import ForeignExperiment
from simulation.shots.sampling import sample

EXPERIMENT = MemoryExperiment.create(code="bb72", basis="X", rounds=1, p=0.01)
DECODERS = ["bposd-osd0", "bposd"]
SHOTS, SEED = 60, 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("optimum")


@pytest.fixture(scope="module")
def result(folder: Path) -> BenchmarkResult[OptimumPoint]:
    """With every shot certified."""
    run = AccuracyRun(shots=SHOTS, seed=SEED, processes=1, out=folder)
    return run_optimum([EXPERIMENT], DECODERS, run, CertificateRun(all_shots=True))


@pytest.fixture(scope="module")
def wrong() -> dict[str, np.ndarray]:
    """bool (shots,): the failures of each decoder, and of an exact search for the most likely error."""
    drawn = sample(EXPERIMENT.circuit, shots=SHOTS, seed=SEED)
    events, flips = drawn.unpacked_detection_events(), drawn.unpacked_observable_flips()
    return {
        name: (make_decoder(name, EXPERIMENT).decode_batch(events) != flips).any(axis=1) for name in (*DECODERS, "mle")
    }


def test_failures_are_split_as_an_exact_search_says(
    result: BenchmarkResult[OptimumPoint], wrong: dict[str, np.ndarray]
) -> None:
    for name, point in zip(DECODERS, result.points, strict=False):
        assert point.failures == wrong[name].sum() > 0
        assert (point.intrinsic, point.recoverable) == (
            (wrong[name] & wrong["mle"]).sum(),
            (wrong[name] & ~wrong["mle"]).sum(),
        )
        assert point.unknown == 0
    assert sum(point.intrinsic for point in result.points) > 0
    assert sum(point.recoverable for point in result.points) > 0


def test_the_optimum_has_a_row_where_every_shot_is_certified(
    result: BenchmarkResult[OptimumPoint], wrong: dict[str, np.ndarray], folder: Path
) -> None:
    optimum = result.points[-1]
    assert (optimum.decoder, optimum.shots, optimum.failures) == ("optimum", SHOTS, wrong["mle"].sum())
    assert (optimum.ler_low, optimum.ler_high) == binomial_interval(int(wrong["mle"].sum()), SHOTS)
    assert "| optimum | XYZ |" in (folder / "results.md").read_text()


def test_a_run_goes_on_with_what_is_proved(
    result: BenchmarkResult[OptimumPoint], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failures alone, the first shots alone: all of that is proved."""
    before = (folder / PROOFS_FILE).read_text()
    monkeypatch.setattr(Certifier, "prove", None)
    run = AccuracyRun(shots=SHOTS, seed=SEED, processes=1, out=folder, resume=True)
    again = run_optimum([EXPERIMENT], DECODERS, run, CertificateRun())
    for point, first in zip(again.points, result.points, strict=False):
        assert (point.intrinsic, point.recoverable) == (first.intrinsic, first.recoverable)
    assert [point.decoder for point in again.points] == DECODERS
    assert (folder / PROOFS_FILE).read_text() == before
    (folder / PROOFS_FILE).write_text(before[:-20])
    with pytest.raises(ValueError, match=rf"{PROOFS_FILE}, line {SHOTS + 1}, is not a whole proof"):
        run_optimum([EXPERIMENT], DECODERS, run, CertificateRun())


def test_a_shot_that_takes_too_long_is_late_and_the_next_one_is_certified() -> None:
    hard = MemoryExperiment.create(code="bb72", basis="X", rounds=2, p=0.03)
    drawn = sample(hard.circuit, shots=1, seed=1)
    with Certifier(hard, seconds=0.05) as certifier:
        late = certifier.prove(drawn.unpacked_detection_events()[0], drawn.unpacked_observable_flips()[0])
        nothing = certifier.prove(np.zeros(hard.num_detectors, np.bool_), np.zeros(hard.num_observables, np.bool_))
    assert (late.verdict, late.seconds) == (Verdict.LATE, 0.05)
    assert nothing.verdict is Verdict.RIGHT


def test_mechanisms_likelier_than_not_are_understood(tmp_path: Path) -> None:
    """That of prior 0.9 has happened where its detector is silent."""
    path = tmp_path / "model.dem"
    path.write_text("error(0.9) D0 L0\nerror(0.1) D1\nerror(0.2) D1 L0\n")
    experiment = ForeignExperiment.read(path, kind="dem")
    found: Counter[Verdict] = Counter()
    with Certifier(experiment, seconds=10) as certifier:
        for events, flips, expected in (
            ([1, 0], [1], Verdict.RIGHT),
            ([1, 0], [0], Verdict.WRONG),
            ([0, 1], [1], Verdict.RIGHT),
            ([1, 1], [0], Verdict.RIGHT),
        ):
            proof = certifier.prove(np.array(events, np.bool_), np.array(flips, np.bool_))
            found[proof.verdict] += proof.verdict is expected
    assert found == {Verdict.RIGHT: 3, Verdict.WRONG: 1}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("error(0.5) D0 L0\nerror(0.1) D0", "a prior of 1/2"),
        ("error(0.1) D0", "observable"),
        ("".join(f"error(0.1) D{i} L{i}\n" for i in range(63)), "62"),
    ],
    ids=["prior", "no-observable", "63-observables"],
)
def test_what_cannot_be_certified_is_refused_before_anything_is_decoded(
    tmp_path: Path, model: str, message: str
) -> None:
    path = tmp_path / "model.dem"
    path.write_text(model)
    with pytest.raises(ValueError, match=message):
        Certifier(ForeignExperiment.read(path, kind="dem"), seconds=1)


def test_shots_that_are_discarded_are_refused() -> None:
    with pytest.raises(ValueError, match="leave --discard-below out"):
        run_optimum([EXPERIMENT], ["bposd"], AccuracyRun(discard_below=0.9), CertificateRun())
