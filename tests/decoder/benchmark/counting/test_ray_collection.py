import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decoder.benchmark.counting.accuracy import run_accuracy
from decoder.benchmark.runs import AccuracyRun
from simulation.circuits import MemoryExperiment

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two workers on this machine."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # else a busy machine leaves the workers hardly any time
        yield from two_workers()


def two_workers() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100_000_000}
    for attempts_left in reversed(range(5)):
        two = Cluster()
        try:
            two.add_node(**node, include_dashboard=False)
            two.add_node(**node)
        except Exception:  # Ray gives up when a machine is too busy to start a node in 30 s
            two.shutdown()
            if not attempts_left:
                raise
        else:
            break
    yield two.address
    two.shutdown()


def test_a_cluster_of_two_workers_counts_the_same(cluster: str, tmp_path: Path) -> None:
    experiments = [MemoryExperiment.create(code="bb72", basis="X", rounds=2, p=p) for p in (0.004, 0.007)]
    decoders = ["bposd-osd0", "bposd"]
    here = run_accuracy(experiments, decoders, AccuracyRun(shots=300, seed=4, processes=2, out=tmp_path / "here"))
    there = run_accuracy(experiments, decoders, AccuracyRun(shots=300, seed=4, ray=cluster, out=tmp_path / "there"))
    assert [point.failures for point in there.points] == [point.failures for point in here.points]
    assert there.points[-1].failures > 0
    assert there.provenance["ray"] == cluster

    # What one has counted, the other does not count again.
    lines = (tmp_path / "there" / "blocks.csv").read_text().splitlines()
    (tmp_path / "there" / "blocks.csv").write_text("\n".join(lines[:8]) + "\n")
    again = run_accuracy(
        experiments, decoders, AccuracyRun(shots=300, processes=2, out=tmp_path / "there", resume=True)
    )
    assert [point.failures for point in again.points] == [point.failures for point in here.points]
    after = (tmp_path / "there" / "blocks.csv").read_text().splitlines()
    assert after[:8] == lines[:8]
    assert len(after) == len(lines)


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    experiment = MemoryExperiment.create(code="bb72", basis="X", rounds=1, p=0.004)
    with pytest.raises(ValueError, match=r"pip install 'tandem-decoder\[ray\]'"):
        run_accuracy([experiment], ["bposd-osd0"], AccuracyRun(shots=10, ray="local"))
