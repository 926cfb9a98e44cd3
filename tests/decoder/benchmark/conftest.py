"""Small results of real benchmarks."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decoder.benchmark.counting.accuracy import run_accuracy
from decoder.benchmark.runs import AccuracyRun, LatencyRun
from decoder.benchmark.timing.latency import run_latency
from simulation.circuits import MemoryExperiment


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with an accuracy and a latency, not to be written into."""
    top = tmp_path_factory.mktemp("results")
    experiments = [MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=p) for p in (0.01, 0.02)]
    run_accuracy(experiments, ["bposd-osd0"], AccuracyRun(shots=40, seed=11, processes=1, out=top / "accuracy"))
    run_latency(
        experiments[:1], ["bposd-osd0"], LatencyRun(shots=24, seed=12, batches=(1, 4), out=top / "deep" / "latency")
    )
    return top


@pytest.fixture
def tree(measured: Path, tmp_path: Path) -> Path:
    """A copy of the tree."""
    return Path(shutil.copytree(measured, tmp_path / "tree"))


@pytest.fixture
def edit(tree: Path) -> Callable[..., None]:
    """Changes the results.json of directories of the tree."""

    def run(change: Callable[[dict[str, Any]], object], *folders: str) -> None:
        for folder in folders:
            path = tree / folder / "results.json"
            content = json.loads(path.read_text())
            change(content)
            path.write_text(json.dumps(content))

    return run
