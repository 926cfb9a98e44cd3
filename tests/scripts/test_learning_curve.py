"""scripts/learning_curve.py: from logs of training to curves, and what a power law through them promises."""

import csv
import math
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


def test_a_power_law_is_found_again() -> None:
    """Rates 0.1 (shots / 1,000)^-0.5, but for the first, which lies outside."""
    shots = [1000, 4000, 16_000, 64_000]
    points = [point(500, 900_000), *(point(n, round(1e5 * (n / 1000) ** -0.5)) for n in shots)]
    law = script.fit_power_law(points, last=4)
    assert law.exponent == pytest.approx(-0.5, abs=1e-3)
    assert law.rate(16_000) == pytest.approx(0.025, rel=1e-3)
    middle, low, high = law.shots_for(0.001)
    assert middle == pytest.approx(1e7, rel=0.01)
    assert low < middle < high
    assert law.rate(middle) == pytest.approx(0.001)
    assert script.fit_power_law(points, last=5).exponent < -0.6


def test_the_range_of_a_projection_covers_the_truth() -> None:
    """Drawn counts of a known law: 95 % of the ranges hold the shots that it needs."""
    rng, trials = np.random.default_rng(7), 400
    shots = np.array([1000, 2000, 4000, 8000, 16_000])
    rates = 0.02 * (shots / 1000) ** -0.7
    truth = 1000 * (0.0005 / 0.02) ** (-1 / 0.7)
    inside = 0
    for _ in range(trials):
        counts = rng.binomial(20_000, rates)
        points = [point(int(n), int(k), 20_000) for n, k in zip(shots, counts, strict=True)]
        _, low, high = script.fit_power_law(points, last=5).shots_for(0.0005)
        inside += low <= truth <= high
    # 380 are expected; 360 or fewer, or 397 or more, would have a probability below 0.1 %.
    assert 360 < inside < 397


def test_a_trend_that_is_not_there_has_no_end() -> None:
    rising = script.fit_power_law([point(1000, 100), point(2000, 110)], last=2)
    assert rising.shots_for(1e-5) is None
    level = script.fit_power_law([point(1000, 10_000), point(2000, 9999)], last=2)
    assert level.shots_for(1e-5) is None  # more than 10^18 shots
    unsure = script.fit_power_law([point(1000, 10), point(2000, 8)], last=2)
    middle, low, high = unsure.shots_for(1e-6)
    assert 2000 < low < middle < high == math.inf


def test_plot_table_and_projection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {1000: (400, 90), 4000: (200, 40), 16_000: (100, 0)}
    log = write_log(tmp_path / "log.csv", *((n, {"Z 0.003": a, "X 0.001": b}) for n, (a, b) in counts.items()))
    out = tmp_path / "curve.png"
    line = (log, "--validation-shots", 4000, "--out", out, "--target", "0.003=0.00625")
    assert run(monkeypatch, *line) == 0
    printed = capsys.readouterr().out
    assert "2.6e+05" in printed  # a quarter of the last rate, which takes 16 times 16,000 shots: each 4 times halve it
    assert "-0.50" in printed
    assert "Extrapolated" in printed
    assert "0.001" not in printed
    assert matplotlib.image.imread(out).std() > 0
    with (tmp_path / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    curves = script.read_logs([log], validation_shots=[4000])
    expected = [asdict(q) for curve in (("X", 0.001), ("Z", 0.003)) for q in curves[curve]]
    assert rows == [{name: str(value) for name, value in row.items()} for row in expected]

    assert run(monkeypatch, *line) == 2
    assert "curve.png exists" in capsys.readouterr().err
    assert run(monkeypatch, *line[:-2], "--force") == 0
    assert "Extrapolated" not in capsys.readouterr().out


def test_curves_have_intervals_and_arrows_where_nothing_failed() -> None:
    curves = {("Z", 0.002): [point(1000, 50), point(2000, 20), point(4000, 0)]}
    law = script.fit_power_law(curves["Z", 0.002], last=5)
    [axes] = script.draw(curves, {("Z", 0.002): (law, 1000, 8000)}).axes
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert axes.get_legend_handles_labels()[1] == ["Z memory, p = 0.002"]
    line, bound = (container[0].get_xydata() for container in axes.containers)
    np.testing.assert_allclose(line, [[1000, 5e-5], [2000, 2e-5]])
    np.testing.assert_allclose(bound, [[4000, curves["Z", 0.002][2].ler_high]])
    dotted = np.asarray(axes.lines[-1].get_xydata())
    np.testing.assert_allclose(dotted[[0, -1]], [[1000, 5e-5], [8000, law.rate(8000)]])


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
        ("shots,validation\n10,Z 0.002: 5\n", "--validation-shots 9 --target 0.002", "must be P=RATE"),
        ("shots,validation\n10,Z 0.002: 5\n", "--validation-shots 9 --target 0.002=0", "above 0 and below 1"),
        ("shots,validation\n10,Z 0.002: 5\n", "--validation-shots 9 --target 0.004=0.1", "have validations at 0.002"),
        ("shots,validation\n10,Z 0.002: 5\n", "--validation-shots 9 --target 0.002=0.1", "at least 2 points"),
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
