"""The benchmark of engines, at its smallest."""

import subprocess
import sys

from tests.helpers import REPOSITORY


def test_it_writes_a_table(tmp_path):
    script = REPOSITORY / "benchmarks" / "engines.py"
    sizes = ["--first", "2", "--shots", "16", "--singles", "3", "--batches", "1", "--batch", "16"]
    done = subprocess.run(
        [sys.executable, str(script), *sizes, "--out", "results.md"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    table = [line for line in (tmp_path / "results.md").read_text().splitlines() if line.startswith("| t")]
    assert [row.split(" | ")[0] for row in table] == ["| torch float32, eager", "| tandem's kernel (numba), float32"]
    eager, kernel = ([cell.strip() for cell in row.split("|")] for row in table)
    assert eager[8] == kernel[8]  # failures
    assert kernel[9].startswith("0, ")  # predictions that differ
