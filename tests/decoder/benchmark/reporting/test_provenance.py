import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stim

from decoder.benchmark.reporting.provenance import circuit_sha256, collect_provenance, command_line, git_state
from simulation.circuits import MemoryExperiment
from tests.helpers import REPOSITORY


@pytest.fixture(scope="module")
def experiment() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.001)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_what_is_recorded_is_plain_and_complete(experiment: MemoryExperiment) -> None:
    provenance = collect_provenance([experiment], [{}])
    assert json.loads(json.dumps(provenance)) == provenance
    assert list(provenance) == ["time", "command", "circuits", "weights", "git", "versions", "machine"]
    assert provenance["versions"]["python"] == sys.version.split()[0]
    assert provenance["versions"]["stim"] == stim.__version__
    assert provenance["versions"]["numpy"] == np.__version__
    assert {"tandem", "torch", "ldpc", "sinter"} <= set(provenance["versions"])
    machine = provenance["machine"]
    assert machine["cpu"]
    assert machine["cores"] == os.cpu_count() >= machine["usable_cores"] >= 1
    assert "gpu" in machine
    assert 0 < machine["memory_gib"] < 1e6
    assert len(machine["load_average"]) == 3
    assert os.uname().release in machine["system"]


def test_circuit_hash_is_that_of_its_file(experiment: MemoryExperiment, tmp_path: Path) -> None:
    path = tmp_path / "circuit.stim"
    experiment.circuit.to_file(path)
    assert circuit_sha256(experiment) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_weights_are_named_once(experiment: MemoryExperiment) -> None:
    class Model:
        def __init__(self, sha256: str) -> None:
            self.model_info = {"id": "bb72", "sha256": sha256}

    decoders = [{"neural": Model("aa"), "bposd": object()}, {"neural": Model("aa")}, {"neural": Model("bb")}]
    weights = collect_provenance([experiment], decoders)["weights"]  # type: ignore[arg-type]
    assert weights == [{"decoder": "neural", "id": "bb72", "sha256": sha256} for sha256 in ("aa", "bb")]


def test_git_state_tells_commit_and_changes(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("one = 1\n")
    assert git_state(source) is None
    git(tmp_path, "init", "-q")
    assert git_state(source) is None
    git(tmp_path, "add", "module.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    assert git_state(source) == {"commit": commit, "clean": True}
    (tmp_path / "results.json").write_text("{}")
    assert git_state(source) == {"commit": commit, "clean": True}
    source.write_text("one = 2\n")
    assert git_state(source) == {"commit": commit, "clean": False}
    installed = tmp_path / "site-packages" / "module.py"
    installed.parent.mkdir()
    installed.write_text("one = 1\n")
    assert git_state(installed) is None


def test_command_line_has_the_names_alone_of_files_on_absolute_paths() -> None:
    command = command_line(["/home/someone/.venv/bin/tandem", "benchmark", "--noise", "cnot=0.1, idle=0"])
    assert command == "tandem benchmark --noise 'cnot=0.1, idle=0'"
    words = ["tandem", "benchmark", "--circuit", "/home/someone/a.stim", "--dem=/srv/b.dem", "--out", "docs/results/c"]
    assert command_line(words) == "tandem benchmark --circuit a.stim --dem=b.dem --out docs/results/c"


def test_no_result_names_a_path_of_one_machine() -> None:
    results = [*(REPOSITORY / "docs" / "results").rglob("*.json"), *(REPOSITORY / "docs" / "results").rglob("*.md")]
    commands = [line for path in results for line in path.read_text(encoding="utf-8").splitlines() if "command" in line]
    assert len(commands) > 50
    assert not [line for line in commands if re.search(r"[ =\"'](?:/\w+){2,}", line)]
