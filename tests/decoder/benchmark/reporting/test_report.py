import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.lines import Line2D

from decoder.benchmark.reporting.plots import draw_plots
from decoder.benchmark.reporting.provenance import collect_provenance
from decoder.benchmark.reporting.report import prepare_directory, write_report
from decoder.benchmark.reporting.results import AccuracyPoint, BenchmarkResult, CallTimes, LatencyPoint
from decoder.benchmark.reporting.tables import format_rate, format_tail, format_time, to_csv, to_markdown
from simulation.circuits import MemoryExperiment
from tests.decoder.benchmark.points import FAILURES

ACCURACY = AccuracyPoint(
    **vars(FAILURES),
    per_round=0.002297,
    per_round_low=0.001928,
    per_round_high=0.002715,
    per_qubit_round=0.0001922,
    per_qubit_round_low=0.0001613,
    per_qubit_round_high=0.0002273,
)
NOTHING: dict[str, Any] = dict.fromkeys(
    ("ler", "ler_low", "per_round", "per_round_low", "per_qubit_round", "per_qubit_round_low"), 0.0
)
PERFECT = replace(
    ACCURACY,
    decoder="neural",
    detectors="XYZ",
    p=0.001,
    failures=0,
    **NOTHING,
    ler_high=0.000369,
    per_round_high=6.15e-05,
    per_qubit_round_high=5.13e-06,
)
LATENCY = LatencyPoint(
    **vars(FAILURES),
    mode="batch",
    batch=1,
    mean_us=4300.0,
    p50_us=260.0,
    p90_us=900.0,
    p99_us=123_000.0,
    p999_us=390_000.0,
    p9999_us=None,
    max_us=1_397_000.0,
    cores_used=0.987,
)


def points_of(line: Line2D) -> np.ndarray:
    """What a line is drawn through, (points, 2)."""
    return np.asarray(line.get_xydata())


@pytest.fixture(scope="module")
def provenance() -> dict[str, Any]:
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=6, p=0.003)
    return collect_provenance([experiment], [{}])


@pytest.fixture
def accuracy(provenance: dict[str, Any]) -> BenchmarkResult[AccuracyPoint]:
    return BenchmarkResult(points=(ACCURACY, PERFECT), provenance=provenance)


@pytest.fixture
def latency(provenance: dict[str, Any]) -> BenchmarkResult[LatencyPoint]:
    rng = np.random.default_rng(0)
    times = tuple(CallTimes(rng.lognormal(6, 1, 500), (rng.random(500) < 0.01).astype(int)) for _ in range(2))
    points = (LATENCY, replace(LATENCY, decoder="neural", detectors="XYZ", p999_us=900.0, max_us=950.0))
    return BenchmarkResult(points=points, provenance=provenance, times=times)


def test_files_hold_the_result(accuracy: BenchmarkResult[AccuracyPoint], tmp_path: Path) -> None:
    write_report(accuracy, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == accuracy.to_json()
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{k: str(v) for k, v in point.items()} for point in accuracy.to_json()["points"]]
    assert (tmp_path / "results.md").read_text() == to_markdown(accuracy)
    assert matplotlib.image.imread(tmp_path / "ler.png").std() > 0
    assert not list(tmp_path.glob("*.partial"))


def test_accuracy_table(accuracy: BenchmarkResult[AccuracyPoint]) -> None:
    text = to_markdown(accuracy)
    header, rule, first, second = text.splitlines()[:4]
    assert header.startswith("| code | rounds | basis | p | noise | decoder | detectors | failures/shots |")
    assert len({line.count("|") for line in (header, rule, first, second)}) == 1
    assert first == (
        "| bb72 | 6 | Z | 0.3 % | uniform | bposd | XZ | 137/10,000 | 1.37 % (1.15 % to 1.62 %) "
        "| 0.23 % (0.193 % to 0.272 %) | 0.0192 % (0.0161 % to 0.0227 %) | 4.3 ms |"
    )
    assert "| 0/10,000 | < 0.0369 % | < 0.00615 % | < 0.000513 % |" in second
    assert accuracy.provenance["circuits"][0]["sha256"] in text


def test_latency_table(latency: BenchmarkResult[LatencyPoint]) -> None:
    row = to_markdown(latency).splitlines()[2]
    assert "| bposd | XZ | batch | 1 | 137/10,000 |" in row
    assert row.endswith("| 4.3 ms | 260 µs | 900 µs | 123 ms | 390 ms | - | 1.4 s | 5,373 | 0.99 |")


def test_the_machine_is_described(latency: BenchmarkResult[LatencyPoint]) -> None:
    text = to_markdown(latency)
    machine = latency.provenance["machine"]
    [line] = [line for line in text.splitlines() if line.startswith("- machine: ")]
    for part in (machine["cpu"], f"{machine['memory_gib']} GiB memory", machine["system"], "load average "):
        assert part in line
    unknown = {**latency.provenance, "machine": machine | {"memory_gib": None, "load_average": None}}
    line = to_markdown(replace(latency, provenance=unknown))
    assert "GiB" not in line
    assert "load average" not in line


def test_numbers_for_people() -> None:
    assert format_rate(PERFECT) == "< 0.0369 %"
    assert [format_time(t) for t in (0.512, 99.96, 1000, 2.5e6, None)] == ["0.512 µs", "100 µs", "1 ms", "2.5 s", "-"]
    assert [format_tail(replace(LATENCY, max_us=t)) for t in (260.0, 3210.0, 400_000.0)] == ["1", "12.3", "1,538"]


def test_failures_are_drawn_against_p_where_there_are_several(provenance: dict[str, Any]) -> None:
    lower = replace(ACCURACY, p=0.002, failures=29, ler=0.0029, ler_low=0.0019, ler_high=0.0042)
    several = (ACCURACY, lower, replace(PERFECT, decoder="bposd"))
    [curves] = draw_plots(BenchmarkResult(points=several, provenance=provenance))["ler.png"].axes
    assert curves.get_xscale() == curves.get_yscale() == "log"
    assert curves.get_xlabel() == "physical error rate p"
    np.testing.assert_allclose(points_of(curves.lines[0]), [[0.002, 0.0029], [0.003, 0.0137]])

    nothing_failed = (PERFECT, replace(PERFECT, p=0.002))
    [bounds] = draw_plots(BenchmarkResult(points=nothing_failed, provenance=provenance))["ler.png"].axes
    assert bounds.get_legend_handles_labels()[1] == ["neural (XYZ)"]

    [rows] = draw_plots(BenchmarkResult(points=(ACCURACY,), provenance=provenance))["ler.png"].axes
    assert [label.get_text() for label in rows.get_yticklabels()] == ["bposd (XZ), bb72 Z 6 rounds, p = 0.003"]


def test_several_rounds_are_compared_by_the_round(provenance: dict[str, Any]) -> None:
    points = [replace(ACCURACY, rounds=rounds, p=p) for rounds in (6, 12) for p in (0.002, 0.003)]
    plots = draw_plots(BenchmarkResult(points=tuple(points), provenance=provenance))
    assert list(plots) == ["ler.png", "per-round.png"]
    [axes] = plots["per-round.png"].axes
    np.testing.assert_allclose(points_of(axes.lines[0]), [[0.002, ACCURACY.per_round], [0.003, ACCURACY.per_round]])
    assert len(axes.get_legend_handles_labels()[1]) == 2


def test_slopes_stand_below_the_table(accuracy: BenchmarkResult[AccuracyPoint]) -> None:
    assert "c p^slope" not in to_markdown(accuracy)
    steep = replace(ACCURACY, p=0.006, failures=548, ler=0.0548)
    text = to_markdown(BenchmarkResult(points=(ACCURACY, steep), provenance=accuracy.provenance))
    assert "| bb72 | 6 | Z | bposd | XZ | 0.3 % to 0.6 % | 2.00 (" in text


def test_times_are_drawn_as_distributions(latency: BenchmarkResult[LatencyPoint]) -> None:
    plots = draw_plots(latency)
    assert list(plots) == ["ler.png", "ccdf.png", "deadline.png", "violin.png", "tradeoff.png"]
    [axes] = plots["ccdf.png"].axes
    curve = np.asarray(axes.lines[0].get_xydata())
    assert curve[0, 1] == 1
    assert curve[-1].tolist() == [latency.times[0].microseconds.max(), 1 / 500]
    [axes] = plots["deadline.png"].axes
    wrong = latency.times[0].failures.sum() / 500
    assert np.asarray(axes.lines[0].get_xydata())[-1, 1] == pytest.approx(wrong)


def test_what_too_few_calls_cannot_tell_is_empty_in_csv_and_null_in_json(
    latency: BenchmarkResult[LatencyPoint],
) -> None:
    [row, _] = csv.DictReader(to_csv(latency.points).splitlines())
    assert row["p9999_us"] == ""
    assert '"p9999_us": null' in json.dumps(latency.to_json())


def test_a_violin_for_each_decoder_marks_the_median_and_the_tail(latency: BenchmarkResult[LatencyPoint]) -> None:
    [axes] = draw_plots(latency)["violin.png"].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["bposd (XZ)", "neural (XYZ)"]
    bodies = [one for one in axes.collections if isinstance(one, PolyCollection)]
    marks = [np.asarray(one.get_offsets()) for one in axes.collections if isinstance(one, PathCollection)]
    for body, times in zip(bodies, latency.times, strict=True):
        heights = np.asarray(body.get_paths()[0].vertices)[:, 1]
        logs = np.log10(times.microseconds)
        np.testing.assert_allclose([heights.min(), heights.max()], [logs.min(), logs.max()])
    points = latency.points
    expected = [[q.p50_us for q in points], [q.p99_us for q in points], [q.max_us for q in points]]
    np.testing.assert_allclose(10 ** np.array([mark[:, 1] for mark in marks if len(mark)]), expected)
    decades = [label.get_text() for label in axes.get_yticklabels()]
    assert {"100 µs", "1 ms", "10 ms"} <= set(decades)


def test_each_batch_size_has_a_panel_and_streams_are_told_apart(latency: BenchmarkResult[LatencyPoint]) -> None:
    first, second = latency.points
    short = CallTimes(np.full(9, 700.0), np.zeros(9, int))
    result = replace(
        latency,
        points=(first, second, replace(second, mode="streamed"), replace(first, batch=8, p99_us=None), first),
        times=(*latency.times, latency.times[1], short, short),
    )
    result = replace(result, points=(*result.points[:4], replace(second, batch=8, p99_us=None, p999_us=None)))
    plots = draw_plots(result)
    for name in ("ccdf.png", "deadline.png"):
        single, eight = plots[name].axes
        assert ["of 8 shots" in axes.get_xlabel() for axes in (single, eight)] == [False, True]
        assert [len(axes.lines) for axes in (single, eight)] == [3, 2]
        styles = {(line.get_color(), line.get_linestyle()) for line in single.lines}
        assert len(styles) == 3
        labels = [text.get_text() for text in plots[name].legends[0].get_texts()]
        assert labels == ["bposd (XZ)", "neural (XYZ)", "neural (XYZ), streamed"]
    [violins] = plots["violin.png"].axes
    names = [label.get_text() for label in violins.get_xticklabels()]
    assert names == ["bposd (XZ)", "neural (XYZ)", "neural (XYZ)\nstreamed"]
    [rows] = plots["ler.png"].axes
    assert len(rows.get_yticklabels()) == 2


def test_failures_against_time_have_a_panel_for_each_experiment(latency: BenchmarkResult[LatencyPoint]) -> None:
    perfect: dict[str, Any] = {"failures": 0, "ler": 0.0, "ler_low": 0.0, "ler_high": 0.001}
    first, second = latency.points
    points = (
        first,
        second,
        replace(second, mode="streamed"),
        replace(first, batch=8),
        replace(first, p=0.001, p999_us=None, **perfect),
    )
    result = replace(latency, points=points, times=(latency.times[0],) * 5)
    figure = draw_plots(result)["tradeoff.png"]
    noisy, quiet = figure.axes
    means = [container[0].get_xydata().tolist() for container in noisy.containers]
    assert means == [[[q.mean_us, q.ler]] for q in (first, second)]
    tails = [line for line in noisy.lines if line.get_markerfacecolor() == "white"]
    assert [points_of(line).tolist() for line in tails] == [[[q.p999_us, q.ler]] for q in (first, second)]
    assert len({line.get_color() for line in tails}) == 2
    # No p99.9, and no failures: the bound, an arrow down from it and nothing else.
    [only] = quiet.containers
    assert only[0].get_xydata().tolist() == [[first.mean_us, 0.001]]
    assert not [line for line in quiet.lines if line.get_markerfacecolor() == "white"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["bposd (XZ)", "neural (XYZ)"]
    assert {axes.get_xscale() for axes in figure.axes} == {axes.get_yscale() for axes in figure.axes} == {"log"}


def test_equal_times_and_single_calls_can_be_drawn(latency: BenchmarkResult[LatencyPoint]) -> None:
    times = (CallTimes(np.full(5, 300.0), np.zeros(5, int)), CallTimes(np.array([1000.0]), np.ones(1, int)))
    points = tuple(replace(point, p99_us=None, p999_us=None) for point in latency.points)
    plots = draw_plots(replace(latency, points=points, times=times))
    for figure in plots.values():
        figure.canvas.draw()
    [axes] = plots["violin.png"].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["p50", "max"]


def test_latency_report_is_complete(latency: BenchmarkResult[LatencyPoint], tmp_path: Path) -> None:
    write_report(latency, tmp_path)
    names = {"results.json", "results.csv", "results.md", "times.npz"}
    plots = {"ler.png", "ccdf.png", "deadline.png", "violin.png", "tradeoff.png"}
    assert {path.name for path in tmp_path.iterdir()} == names | plots


def test_directories_are_checked(tmp_path: Path) -> None:
    prepare_directory(tmp_path / "a" / "b", force=False)
    assert not (tmp_path / "a").exists()  # a run that is refused leaves nothing
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="not empty; choose another name or pass --force"):
        prepare_directory(tmp_path / "a", force=False)
    prepare_directory(tmp_path / "a", force=True)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotADirectoryError, match="is a file; give the name of a directory"):
        prepare_directory(file, force=True)
    with pytest.raises(OSError, match="is a file"):
        prepare_directory(file / "below", force=True)
