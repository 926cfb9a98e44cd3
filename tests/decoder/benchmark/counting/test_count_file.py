from pathlib import Path

import pytest
import sinter

from decoder.benchmark.counting.blocks import Trial, task_stats
from decoder.benchmark.counting.count_file import append_line, read_counts, read_seed
from simulation.circuits import MemoryExperiment


@pytest.fixture(scope="module")
def trial() -> Trial:
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.004)
    return Trial(experiment=experiment, decoder="bposd", seed=9)


@pytest.fixture
def file(trial: Trial, tmp_path: Path) -> Path:
    path = tmp_path / "blocks.csv"
    for block in trial.blocks(200):
        append_line(path, task_stats(block.task, sinter.AnonTaskStats(shots=block.shots, errors=3, seconds=1.5)))
    return path


def test_what_is_written_is_read(trial: Trial, file: Path) -> None:
    counts = read_counts(file, [trial])
    assert [(stats.shots, stats.errors) for stats in counts.values()] == [(64, 3), (64, 3), (72, 3)]
    assert list(counts) == [block.task.strong_id() for block in trial.blocks(200)]
    assert read_seed(file) == 9


def test_sinter_reads_and_continues_the_file(trial: Trial, file: Path) -> None:
    assert sum(stats.shots for stats in sinter.stats_from_csv_files(file)) == 200
    assert file.read_text().splitlines()[0] == sinter.CSV_HEADER


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("        64,         3", "line 5, is not a whole line"),
        ("sixty-four,3,0,1.0,bposd,abc,{},", "line 5, is not a whole line"),
        ("        64,        65,0,1.0,bposd,abc,{},", "line 5, is not a whole line"),
        ("        64,         3,0,1.0,bposd,abc,{},", "line 5, is not of this run"),
    ],
)
def test_a_corrupt_or_foreign_line_is_refused(trial: Trial, file: Path, line: str, message: str) -> None:
    with file.open("a") as out:
        out.write(line)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=message):
        read_counts(file, [trial])
    assert file.read_bytes() == before


def test_counts_of_another_run_are_refused(trial: Trial, file: Path) -> None:
    others = [
        Trial(experiment=trial.experiment, decoder="bposd-osd0", seed=9),
        Trial(experiment=trial.experiment, decoder="bposd", seed=8),
        Trial(experiment=trial.experiment, decoder="bposd", seed=9, weights_sha256="0123456789abcdef0"),
        Trial(experiment=MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.005), decoder="bposd", seed=9),
    ]
    for other in others:
        with pytest.raises(ValueError, match=r"line 2, is not of this run but of bposd with .*\"p\": 0.004"):
            read_counts(file, [other])
    assert len(read_counts(file, [trial, *others])) == 3


def test_counts_of_another_circuit_are_refused(trial: Trial, file: Path) -> None:
    strong_id = trial.blocks(200)[0].task.strong_id()
    file.write_text(file.read_text().replace(strong_id, "0" * 64))
    with pytest.raises(ValueError, match="another circuit"):
        read_counts(file, [trial])


def test_shots_counted_twice_are_refused(trial: Trial, file: Path) -> None:
    file.write_text(file.read_text() + file.read_text().splitlines()[1] + "\n")
    with pytest.raises(ValueError, match="line 5, counts shots that an earlier line has counted"):
        read_counts(file, [trial])


def test_another_file_is_refused(trial: Trial, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("p,ler\n")
    with pytest.raises(ValueError, match="not a CSV of sinter"):
        read_counts(file, [trial])
    file.write_text("")
    with pytest.raises(ValueError, match="not a CSV of sinter"):
        read_seed(file)
