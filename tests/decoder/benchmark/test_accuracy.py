import time
from pathlib import Path

import pytest

from decoder.benchmark.accuracy import run_accuracy
from decoder.benchmark.common import BenchmarkProgress, binomial_interval
from decoder.benchmark.results import AccuracyPoint, BenchmarkResult
from decoder.registry import make_decoder
from simulation.circuits import MemoryExperiment
from simulation.sampling import sample

DECODERS = ["bposd-osd0", "bposd"]
COLUMNS = [
    *("code", "rounds", "basis", "p", "noise", "decoder", "detectors"),
    *("shots", "failures", "ler", "ler_low", "ler_high", "seconds", "seed"),
]


@pytest.fixture(scope="module")
def experiments() -> list[MemoryExperiment]:
    return [MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=p) for p in (0.002, 0.006)]


@pytest.fixture(scope="module")
def result(experiments: list[MemoryExperiment]) -> BenchmarkResult[AccuracyPoint]:
    return run_accuracy(experiments, DECODERS, shots=150, seed=31, chunk_shots=64)


def test_one_point_for_each_experiment_and_decoder(result: BenchmarkResult[AccuracyPoint]) -> None:
    points = result.to_json()["points"]
    assert [list(point) for point in points] == [COLUMNS] * 4
    assert [(point["p"], point["decoder"]) for point in points] == [
        (p, name) for p in (0.002, 0.006) for name in DECODERS
    ]
    for point in points:
        assert (point["code"], point["rounds"], point["basis"], point["noise"]) == ("bb72", 1, "Z", "uniform")
        assert (point["detectors"], point["shots"], point["seed"]) == ("XZ", 150, 31)
        assert point["ler"] == point["failures"] / 150
        assert (point["ler_low"], point["ler_high"]) == binomial_interval(point["failures"], 150)


def test_all_decoders_see_the_shots_of_the_seed(
    experiments: list[MemoryExperiment], result: BenchmarkResult[AccuracyPoint]
) -> None:
    samples = sample(experiments[1].circuit, shots=150, seed=31)
    for point in result.points[2:]:
        predictions = make_decoder(point.decoder, experiments[1]).decode_batch(samples.unpacked_detection_events())
        failures = (predictions != samples.unpacked_observable_flips()).any(axis=1).sum()
        assert point.failures == failures > 0


def test_provenance_names_each_circuit(
    experiments: list[MemoryExperiment], result: BenchmarkResult[AccuracyPoint]
) -> None:
    circuits = result.provenance["circuits"]
    assert [circuit["p"] for circuit in circuits] == [0.002, 0.006]
    assert len({circuit["sha256"] for circuit in circuits}) == 2


def test_progress_ends_with_every_shot_of_every_decoder(experiments: list[MemoryExperiment]) -> None:
    seen: list[BenchmarkProgress] = []
    began = time.perf_counter()
    result = run_accuracy(experiments, ["bposd-osd0"], shots=70, seed=1, chunk_shots=32, progress=seen.append)
    assert [step.done for step in seen] == [32, 64, 70, 102, 134, 140]
    assert {step.total for step in seen} == {140}
    assert [step.experiment for step in seen] == [experiments[0]] * 3 + [experiments[1]] * 3
    assert [seen[2].failures, seen[5].failures] == [{"bposd-osd0": q.failures} for q in result.points]
    assert 0 < sum(point.seconds for point in result.points) < time.perf_counter() - began


def test_without_a_seed_the_points_keep_the_one_drawn(experiments: list[MemoryExperiment]) -> None:
    first = run_accuracy(experiments, ["bposd-osd0"], shots=20).points
    assert first[0].seed == first[1].seed
    again = run_accuracy(experiments, ["bposd-osd0"], shots=20, seed=first[0].seed).points
    assert [point.failures for point in again] == [point.failures for point in first]


def test_detectors_are_xz_where_the_shots_have_no_others() -> None:
    narrow = MemoryExperiment.create(code="bb72", basis="X", rounds=1, p=0.001, detectors="XZ")
    assert run_accuracy([narrow], ["bposd-xyz"], shots=5, seed=1).points[0].detectors == "XZ"
    wide = MemoryExperiment.create(code="bb72", basis="X", rounds=1, p=0.001)
    assert run_accuracy([wide], ["bposd-xyz"], shots=5, seed=1).points[0].detectors == "XYZ"


def test_bad_requests_are_refused(experiments: list[MemoryExperiment], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="chunk_shots=0"):
        run_accuracy(experiments, DECODERS, shots=10, chunk_shots=0)
    with pytest.raises(ValueError, match="'neural' is not among"):
        run_accuracy(experiments, DECODERS, shots=10, weights=tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="seed=-1"):
        run_accuracy(experiments, DECODERS, shots=10, seed=-1)


def test_a_directory_with_files_is_refused_before_the_work(experiments: list[MemoryExperiment], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep me")
    steps: list[BenchmarkProgress] = []
    with pytest.raises(FileExistsError, match="not empty"):
        run_accuracy(experiments, DECODERS, shots=10, out=tmp_path, progress=steps.append)
    assert not steps
    run_accuracy(experiments[:1], ["bposd-osd0"], shots=10, out=tmp_path, force=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("notes.txt", "results.json", "results.csv", "results.md", "ler.png")
    }
