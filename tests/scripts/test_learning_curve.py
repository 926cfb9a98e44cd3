"""scripts/learning_curve.py: from logs of training to curves."""

import csv
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from benchmarks.harness import run_script
from decoder.benchmark.common import failure_columns
from decoder.statistics import binomial_interval
from decoder.training.log import Log, Progress
from scripts import learning_curve as script
from tests.helpers import REPOSITORY


def write_log(path: Path, *validations: tuple[int, dict[str, int]], last: int | None = None) -> Path:
    """A log as training writes it, with a validation after each of these numbers of shots."""
    log = Log(path, keep_until=0)
    reports = [*validations, *([] if last is None else [(last, None)])]
    for step, (shots, failures) in enumerate(reports, 1):
        log.write(Progress(step, shots, 1.0, 100.0, 0.5, 0.01, 0.1, {}))
        if failures is not None:
            log.write_validation(failures, step=step, shots=shots)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The script's exit code."""
    monkeypatch.setattr(sys, "argv", ["learning_curve.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run_script(script.app)
    return int(ended.value.code or 0)


def point(training_shots: int, failures: int, shots: int = 10**6) -> Any:
    return script.Point(basis="Z", p=0.002, training_shots=training_shots, **failure_columns(failures, shots))


def test_points_of_one_log(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv", (1000, {"Z 0.002": 40, "X 0.002": 39}), (3000, {"Z 0.002": 18, "X 0.002": 0}))
    curves = script.read_logs([log], validation_shots=[400])
    assert list(curves) == [("X", 0.002), ("Z", 0.002)]
    assert [(q.training_shots, q.failures) for q in curves["Z", 0.002]] == [(1000, 40), (3000, 18)]
    for one in curves["Z", 0.002]:
        assert (one.shots, one.ler) == (400, one.failures / 400)
        assert (one.ler_low, one.ler_high) == binomial_interval(one.failures, 400)


def test_logs_continue_each_other(tmp_path: Path) -> None:
    # The first run ends at 2,500 shots, after its last validation.
    first = write_log(tmp_path / "a.csv", (1000, {"Z 0.002": 40}), (2000, {"Z 0.002": 30}), last=2500)
    second = write_log(tmp_path / "b.csv", (500, {"Z 0.002": 50, "Z 0.003": 200}))
    curves = script.read_logs([first, second], validation_shots=[400, 2000], start_shots=10_000)
    found = [(q.training_shots, q.failures, q.shots) for q in curves["Z", 0.002]]
    assert found == [(11_000, 40, 400), (12_000, 30, 400), (13_000, 50, 2000)]
    assert [q.training_shots for q in curves["Z", 0.003]] == [13_000]
    swapped = script.read_logs([second, first], validation_shots=[2000])
    assert [(q.training_shots, q.failures) for q in swapped["Z", 0.002]] == [(500, 50), (1500, 40), (2500, 30)]


def test_the_log_of_the_shipped_weights() -> None:
    log = REPOSITORY / "docs" / "results" / "training" / "bb72-g.csv"
    curves = script.read_logs([log], validation_shots=[4000])
    last = {curve: (points[-1].training_shots, points[-1].failures) for curve, points in curves.items()}
    assert last["Z", 0.002] == (1_763_840, 7)
    assert last["X", 0.003] == (1_763_840, 74)


def test_plot_and_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    counts = {1000: (400, 90), 4000: (200, 40), 16_000: (100, 0)}
    log = write_log(tmp_path / "log.csv", *((n, {"Z 0.003": a, "X 0.001": b}) for n, (a, b) in counts.items()))
    out = tmp_path / "curve.png"
    line = (log, "--validation-shots", 4000, "--out", out)
    assert run(monkeypatch, *line) == 0
    assert matplotlib.image.imread(out).std() > 0
    with (tmp_path / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    curves = script.read_logs([log], validation_shots=[4000])
    expected = [asdict(q) for curve in (("X", 0.001), ("Z", 0.003)) for q in curves[curve]]
    assert rows == [{name: str(value) for name, value in row.items()} for row in expected]

    assert run(monkeypatch, *line) == 2
    assert "curve.png exists" in capsys.readouterr().err
    assert run(monkeypatch, *line, "--force") == 0


def test_curves_have_intervals_and_arrows_where_nothing_failed() -> None:
    curves = {("Z", 0.002): [point(1000, 50), point(2000, 20), point(4000, 0)]}
    [axes] = script.draw(curves).axes
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert axes.get_legend_handles_labels()[1] == ["Z memory, p = 0.002"]
    line, bound = (container[0].get_xydata() for container in axes.containers)
    np.testing.assert_allclose(line, [[1000, 5e-5], [2000, 2e-5]])
    np.testing.assert_allclose(bound, [[4000, curves["Z", 0.002][2].ler_high]])


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", "--validation-shots 400", "is no training log"),
        ("step,loss\n1,2\n", "--validation-shots 400", "is no training log"),
        ("shots,validation\nmany,Z 0.002: 1\n", "--validation-shots 400", "line 2: 'many' is no number of shots"),
        ("shots,validation\n10,Z 0.002 = 1\n", "--validation-shots 400", "'Z 0.002 = 1' is no validation"),
        ("shots,validation\n10,\n", "--validation-shots 400", "no validation is in there yet"),
        ("shots,validation\n10,Z 0.002: 5\n", "--validation-shots 4", "5 failures of 4 validation shots"),
        ("shots,validation\n10,Z 0.002: 5\n", "--validation-shots 0", "at least 1"),
        ("shots,validation\n10,Z 0.002: 5\n", "--validation-shots 9 --start-shots -1", "start shots at least 0"),
        ("shots,validation\n10,Z 0.002: 5\n", "--validation-shots 9,9", "1 logs need one number"),
        ("shots,validation\n10,Z 0.002: 5\n", "--validation-shots few", "'few' is none"),
        ("shots,validation\n10,Z 0.002: 5\n", "--validation-shots 9 --out curve.svg", "must end in .png"),
        ("shots,validation\n10,Z 0.002: 5\n", "--validation-shots 9 --out absent/curve.png", "no directory absent"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str,
    options: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text(content)
    assert run(monkeypatch, "log.csv", "--out", "curve.png", *options.split()) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("learning_curve.py: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_a_missing_log_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "absent.csv", "--validation-shots", 9, "--out", "curve.png") == 2
    assert "absent.csv: No such file" in capsys.readouterr().err
