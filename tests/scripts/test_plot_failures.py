"""scripts/plot_failures.py: points of several results in one plot."""

import csv
import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from decoder.benchmark.counting.accuracy import run_accuracy
from decoder.benchmark.runs import AccuracyRun
from scripts import plot_failures as script
from simulation.circuits import MemoryExperiment


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "accuracy"
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.01)
    run_accuracy([experiment], ["bposd-osd0", "bplsd"], AccuracyRun(shots=64, seed=3, processes=1, out=folder))
    return folder


def test_points_of_several_results_with_their_names(measured: Path, tmp_path: Path) -> None:
    out = tmp_path / "plot.png"
    script.plot_failures(results=[str(measured), f"{measured}=before"], code="bb72", basis="Z", p=0.01, out=out)
    rows = list(csv.DictReader(out.with_suffix(".csv").read_text().splitlines()))
    assert [row["decoder"] for row in rows] == ["bposd-osd0", "bplsd", "bposd-osd0 before", "bplsd before"]
    points = json.loads((measured / "results.json").read_text())["points"]
    for row, point in zip(rows, points * 2, strict=True):
        assert (int(row["failures"]), int(row["shots"])) == (point["failures"], 64)
        assert float(row["cpu_ms"]) == pytest.approx(1e3 * point["seconds"] / 64)
    pictures = [matplotlib.image.imread(out)]
    script.plot_failures(results=[str(measured)], code="bb72", basis="Z", out=out, force=True)
    assert len(out.with_suffix(".csv").read_text().splitlines()) == 3
    pictures.append(matplotlib.image.imread(out))
    assert all(picture.std() > 0 for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[1])


def test_a_result_without_the_experiment_is_refused(measured: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no failures of code bb72, basis X, p 0\.01"):
        script.plot_failures(results=[str(measured)], code="bb72", basis="X", p=0.01, out=tmp_path / "plot.png")
