import math
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import sinter

from decoder.benchmark.common import BenchmarkProgress
from decoder.benchmark.counting.accuracy import run_accuracy
from decoder.benchmark.reporting.results import AccuracyPoint, BenchmarkResult
from decoder.benchmark.runs import AccuracyRun
from decoder.console.counts import CountsSoFar
from decoder.making import make_decoder
from decoder.statistics import binomial_interval
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample
from tests.helpers import eventually, running, spawned_by

DECODERS = ["bposd-osd0", "bposd"]
COLUMNS = [
    *("code", "rounds", "basis", "p", "noise", "decoder", "detectors"),
    *("shots", "failures", "ler", "ler_low", "ler_high", "seconds", "seed"),
    *("per_round", "per_round_low", "per_round_high"),
    *("per_qubit_round", "per_qubit_round_low", "per_qubit_round_high"),
]


@pytest.fixture(scope="module")
def experiments() -> list[MemoryExperiment]:
    return [MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=p) for p in (0.002, 0.006)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("accuracy")


@pytest.fixture(scope="module")
def steps() -> list[BenchmarkProgress]:
    return []


@pytest.fixture(scope="module")
def result(
    experiments: list[MemoryExperiment], folder: Path, steps: list[BenchmarkProgress]
) -> BenchmarkResult[AccuracyPoint]:
    return run_accuracy(
        experiments, DECODERS, AccuracyRun(shots=300, seed=31, processes=2, out=folder), progress=steps.append
    )


def test_one_point_for_each_experiment_and_decoder(result: BenchmarkResult[AccuracyPoint]) -> None:
    points = result.to_json()["points"]
    assert [list(point) for point in points] == [COLUMNS] * 4
    assert [(point["p"], point["decoder"]) for point in points] == [
        (p, name) for p in (0.002, 0.006) for name in DECODERS
    ]
    for point in points:
        assert (point["code"], point["rounds"], point["basis"], point["noise"]) == ("bb72", 2, "Z", "uniform")
        assert (point["detectors"], point["shots"], point["seed"]) == ("XZ", 300, 31)
        assert point["ler"] == point["failures"] / 300
        assert (point["ler_low"], point["ler_high"]) == binomial_interval(point["failures"], 300)
        assert point["seconds"] > 0


def test_what_is_counted_is_shown_as_it_comes(
    result: BenchmarkResult[AccuracyPoint], steps: list[BenchmarkProgress]
) -> None:
    so_far = CountsSoFar()
    shown = [so_far.add(step) for step in steps][-1].splitlines()
    for point in result.points:
        counted = f"{point.failures:,} of 300 ({point.failures / 300:.2g})"
        assert any(line.split()[0] == point.decoder and line.endswith(counted) for line in shown)
    assert len(shown) == 2 + len(result.points)


def test_rates_for_each_round_and_qubit(result: BenchmarkResult[AccuracyPoint]) -> None:
    for point in result.points:
        for end in ("", "_low", "_high"):
            ler = getattr(point, f"ler{end}")
            assert getattr(point, f"per_round{end}") == pytest.approx(1 - math.sqrt(1 - ler))
            # k of them, each flipped in any of the rounds an odd number of times, make the block's rate again.
            flipped = (1 - (1 - 2 * getattr(point, f"per_qubit_round{end}")) ** 2) / 2
            assert 1 - (1 - flipped) ** 12 == pytest.approx(ler)
    assert result.points[-1].per_round > 0


def test_all_decoders_see_the_shots_of_the_seed(
    experiments: list[MemoryExperiment], result: BenchmarkResult[AccuracyPoint]
) -> None:
    samples = sample(experiments[1].circuit, shots=300, seed=31)
    counts = set()
    for point in result.points[2:]:
        predictions = make_decoder(point.decoder, experiments[1]).decode_batch(samples.unpacked_detection_events())
        failures = (predictions != samples.unpacked_observable_flips()).any(axis=1).sum()
        assert point.failures == failures > 0
        counts.add(failures)
    assert len(counts) == 2


def test_two_decoders_are_compared_shot_by_shot(
    experiments: list[MemoryExperiment], result: BenchmarkResult[AccuracyPoint], folder: Path
) -> None:
    samples = sample(experiments[1].circuit, shots=300, seed=31)
    events, flips = samples.unpacked_detection_events(), samples.unpacked_observable_flips()
    wrong = [(make_decoder(name, experiments[1]).decode_batch(events) != flips).any(axis=1) for name in DECODERS]
    [_, pair] = result.paired
    assert (pair.p, pair.first, pair.second, pair.shots) == (0.006, *DECODERS, 300)
    alone = (wrong[0] & ~wrong[1]).sum(), (wrong[1] & ~wrong[0]).sum()
    assert (pair.both, pair.first_only, pair.second_only) == ((wrong[0] & wrong[1]).sum(), *alone)
    assert sum(alone) > 0
    fewer = sum(math.comb(sum(alone), k) for k in range(min(alone) + 1)) / 2 ** sum(alone)
    assert pair.p_value == pytest.approx(min(1, 2 * fewer))
    assert "McNemar" in (folder / "results.md").read_text()


def test_a_decoder_that_comes_later_is_counted_on_the_same_shots(
    experiments: list[MemoryExperiment], result: BenchmarkResult[AccuracyPoint], tmp_path: Path
) -> None:
    run = AccuracyRun(shots=300, seed=31, processes=1, out=tmp_path, resume=True)
    run_accuracy(experiments, DECODERS[:1], run)
    before = (tmp_path / "blocks.csv").read_text()
    later = run_accuracy(experiments, DECODERS, run)
    assert (tmp_path / "blocks.csv").read_text().startswith(before)
    assert later.paired == result.paired
    # Counts of a version that did not keep which shots failed are of use, but not for comparing shots.
    (tmp_path / "blocks.csv").write_text(re.sub('"[^,]*failed_shot.*', "", before))
    without = run_accuracy(experiments, DECODERS[:1], run)
    assert [point.failures for point in without.points] == [point.failures for point in later.points[::2]]
    assert without.paired == ()


def test_provenance_names_each_circuit(
    experiments: list[MemoryExperiment], result: BenchmarkResult[AccuracyPoint]
) -> None:
    circuits = result.provenance["circuits"]
    assert [circuit["p"] for circuit in circuits] == [0.002, 0.006]
    assert len({circuit["sha256"] for circuit in circuits}) == 2
    assert result.provenance["processes"] == 2


def test_progress_ends_with_every_shot_of_every_decoder(
    experiments: list[MemoryExperiment], result: BenchmarkResult[AccuracyPoint], steps: list[BenchmarkProgress]
) -> None:
    assert steps[-1].done == steps[-1].total == 1200
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    last = {step.experiment: step.failures for step in steps}
    for number, experiment in enumerate(experiments):
        expected = {point.decoder: point.failures for point in result.points[2 * number : 2 * number + 2]}
        assert last[experiment] == expected


def test_files_are_sinters(result: BenchmarkResult[AccuracyPoint], folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        *("results.json", "results.csv", "results.md", "ler.png", "blocks.csv", "stats.csv")
    }
    stats = sinter.stats_from_csv_files(folder / "stats.csv")
    found = {(one.json_metadata["p"], one.decoder): (one.shots, one.errors) for one in stats}
    assert found == {(point.p, point.decoder): (point.shots, point.failures) for point in result.points}
    blocks = sinter.stats_from_csv_files(folder / "blocks.csv")
    assert sum(block.shots for block in blocks) == 1200
    assert sum(block.errors for block in blocks) == sum(point.failures for point in result.points)


def test_sinter_combines_and_plots_the_result(result: BenchmarkResult[AccuracyPoint], folder: Path) -> None:
    program = Path(sys.executable).with_name("sinter")
    for name in ("stats.csv", "blocks.csv"):
        done = subprocess.run([program, "combine", folder / name], capture_output=True, text=True, check=True)
        rows = [line.split(",") for line in done.stdout.splitlines()[1:]]
        assert sum(int(row[0]) for row in rows) == 1200
    picture = folder.parent / "sinter.png"
    subprocess.run(
        [program, "plot", "--in", folder / "stats.csv", "--out", picture, "--x_func", "m.p", "--group_func", "decoder"],
        check=True,
        capture_output=True,
        env=os.environ | {"MPLBACKEND": "Agg"},
    )
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_more_shots_go_on_from_what_is_counted(
    experiments: list[MemoryExperiment], result: BenchmarkResult[AccuracyPoint], folder: Path
) -> None:
    before = (folder / "blocks.csv").read_text()
    more = run_accuracy(experiments, DECODERS, AccuracyRun(shots=512, processes=1, out=folder, resume=True))
    after = (folder / "blocks.csv").read_text()
    assert after.startswith(before)
    # Of the first run the blocks 0..63, 64..127 and 128..255 are whole; of 256..511 it had the first 44 shots.
    assert after.count("\n") == before.count("\n") + 4
    samples = sample(experiments[1].circuit, shots=512, seed=31)
    predictions = make_decoder("bposd", experiments[1]).decode_batch(samples.unpacked_detection_events())
    assert more.points[3].failures == (predictions != samples.unpacked_observable_flips()).any(axis=1).sum()
    assert {(point.shots, point.seed) for point in more.points} == {(512, 31)}


@pytest.mark.parametrize("limits", [{"max_errors": 3}, {"max_seconds": 0.02}])
def test_a_point_ends_early(experiments: list[MemoryExperiment], limits: dict[str, Any]) -> None:
    shots = 1000
    low, high = run_accuracy(
        experiments, ["bposd-osd0"], AccuracyRun(shots=shots, seed=5, processes=2, **limits)
    ).points
    if "max_errors" in limits:
        assert low.failures < 3 or low.shots < shots
        assert high.failures >= 3
        # Without its last block there were less.
        assert high.shots == 64 or high.shots & (high.shots - 1) == 0
        samples = sample(experiments[1].circuit, shots=high.shots, seed=5)
        predictions = make_decoder("bposd-osd0", experiments[1]).decode_batch(samples.unpacked_detection_events())
        failed = (predictions != samples.unpacked_observable_flips()).any(axis=1)
        assert failed.sum() == high.failures
        assert high.shots == 64 or failed[: high.shots // 2].sum() < 3
    else:
        assert high.shots < shots
        assert high.seconds <= 0.02 or high.shots == 64


def test_the_stop_rule() -> None:
    def counted(shots: int, errors: int, seconds: float) -> sinter.AnonTaskStats:
        return sinter.AnonTaskStats(shots=shots, errors=errors, seconds=seconds)

    rule = AccuracyRun(shots=1000, max_errors=10, max_seconds=2.0)
    assert not rule.done(counted(0, 0, 0.0), upcoming=64)
    assert not rule.done(counted(64, 9, 0.5), upcoming=64)
    assert rule.done(counted(64, 10, 0.5), upcoming=64)
    assert rule.done(counted(64, 0, 1.5), upcoming=64)
    patient = AccuracyRun(shots=1000, max_seconds=2.0, min_shots=200)
    assert not patient.done(counted(199, 0, 9.0), upcoming=64)
    assert patient.done(counted(200, 0, 9.0), upcoming=64)
    assert patient.wanted(counted(64, 0, 9.0)) == 136
    assert rule.wanted(counted(100, 4, 0.1)) == 100 * 6 / 5
    assert rule.wanted(counted(100, 0, 0.1)) == 800
    assert rule.wanted(counted(100, 0, 1.5)) == pytest.approx(100 / 3)


def test_detectors_are_xz_where_the_shots_have_no_others() -> None:
    narrow = MemoryExperiment.create(code="bb72", basis="X", rounds=1, p=0.001, detectors="XZ")
    wide = MemoryExperiment.create(code="bb72", basis="X", rounds=1, p=0.001)
    points = run_accuracy([narrow, wide], ["bposd-xyz"], AccuracyRun(shots=5, seed=1, processes=1)).points
    assert [point.detectors for point in points] == ["XZ", "XYZ"]


def test_bad_requests_are_refused(experiments: list[MemoryExperiment], tmp_path: Path) -> None:
    for bad in ({"max_errors": 0}, {"max_seconds": 0.0}, {"min_shots": 11}, {"processes": 0}):
        [(name, value)] = bad.items()
        with pytest.raises(ValueError, match=f"{name}={value}"):
            run_accuracy(experiments, DECODERS, AccuracyRun(shots=10, **bad))
    with pytest.raises(ValueError, match="'neural' is not among"):
        run_accuracy(experiments, DECODERS, AccuracyRun(shots=10, weights=tmp_path / "weights.safetensors"))
    with pytest.raises(ValueError, match="seed=-1"):
        run_accuracy(experiments, DECODERS, AccuracyRun(shots=10, seed=-1))
    with pytest.raises(ValueError, match="--out"):
        run_accuracy(experiments, DECODERS, AccuracyRun(shots=10, resume=True))


def test_a_directory_with_files_is_refused_before_the_work(experiments: list[MemoryExperiment], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep me")
    steps: list[BenchmarkProgress] = []
    with pytest.raises(FileExistsError, match="not empty"):
        run_accuracy(experiments, DECODERS, AccuracyRun(shots=10, out=tmp_path), progress=steps.append)
    assert not steps
    (tmp_path / "blocks.csv").write_text("counts of an earlier run")
    with pytest.raises(FileExistsError, match="--resume"):
        run_accuracy(experiments, DECODERS, AccuracyRun(shots=10, out=tmp_path))
    assert (tmp_path / "blocks.csv").read_text() == "counts of an earlier run"
    run_accuracy(experiments[:1], ["bposd-osd0"], AccuracyRun(shots=10, processes=1, out=tmp_path, force=True))
    assert (tmp_path / "blocks.csv").read_text().count("\n") == 2
    assert (tmp_path / "notes.txt").read_text() == "keep me"


@pytest.mark.parametrize("shell", ["exec", "trap '' INT; exec"], ids=["foreground", "background"])
def test_a_worker_that_is_killed_ends_the_run_with_an_error(tmp_path: Path, shell: str) -> None:
    """Also as a job in the background, where a shell lets it ignore interrupts."""
    arguments = ["benchmark", "accuracy", "--code", "bb72", "--rounds", "6", "--basis", "Z", "--p", "0.02"]
    arguments += ["--decoders", "bposd", "--shots", "640", "--processes", "1", "--out", str(tmp_path / "r")]
    line = f"{shell} {shlex.join([sys.executable, '-m', 'decoder.cli', *arguments])}"
    with running("sh", "-c", line, stderr=subprocess.PIPE) as run:
        [worker] = eventually(lambda: spawned_by(run.pid))
        eventually(lambda: "ldpc" in Path(f"/proc/{worker}/maps").read_text())  # it is about to decode
        os.kill(worker, signal.SIGKILL)
        message = run.communicate()[1].decode()
    assert run.returncode == 2
    assert message.startswith("tandem: a process that decoded was killed")
    assert message.count("\n") == 1


def test_killed_twice_and_resumed_the_counts_are_the_same(tmp_path: Path) -> None:
    """SIGKILL, which nothing can be done about, at two moments between the first block and the last."""
    arguments = [
        *("benchmark", "accuracy", "--code", "bb72", "--rounds", "2", "--basis", "Z", "--p", "0.003,0.004"),
        *("--decoders", "bposd-osd0,bposd", "--shots", "600", "--seed", "6", "--processes", "1", "--json"),
    ]

    def start(name: str, *more: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "decoder.cli", *arguments, "--out", str(tmp_path / name), *more]
        return running(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def lines() -> int:
        path = tmp_path / "killed" / "blocks.csv"
        return path.read_text().count("\n") if path.exists() else 0

    for kill in range(2):
        before = lines()
        with start("killed", *["--resume"] * kill) as process:
            eventually(lambda before=before, process=process: lines() >= before + 2 or process.poll() is not None)
            assert process.poll() is None, process.communicate()[1].decode()
            process.kill()
            process.communicate()
    killed_at = lines()
    with start("killed", "--resume") as resumed, start("whole") as whole:
        for process in (resumed, whole):
            assert process.communicate()[1] == b""
            assert process.returncode == 0
    assert killed_at < (tmp_path / "whole" / "blocks.csv").read_text().count("\n")

    def counts(name: str) -> list[tuple[Any, ...]]:
        stats = sinter.stats_from_csv_files(tmp_path / name / "stats.csv")
        return sorted((one.strong_id, one.shots, one.errors) for one in stats)

    assert counts("killed") == counts("whole")
    assert {shots for _, shots, _ in counts("whole")} == {600}
