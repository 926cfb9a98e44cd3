import json
import shutil
from pathlib import Path

import pytest

from decoder.benchmark.reporting.result_tree import read_tree
from tests.helpers import REPOSITORY


def test_a_tree_is_read_back_as_it_was_written(measured):
    accuracy, latency = read_tree(measured)
    assert [str(result.path) for result in (accuracy, latency)] == ["accuracy", "deep/latency"]
    assert [result.kind for result in (accuracy, latency)] == ["accuracy", "latency"]
    for result in (accuracy, latency):
        content = json.loads((measured / result.path / "results.json").read_text())
        assert list(result.points) == content["points"]
        assert result.provenance == content["provenance"]
        table = result.tables[0]
        assert table.headings[:3] == ("code", "rounds", "basis")
        assert len(table.rows) == len(result.points) == 2
        assert f"{result.points[0]['failures']}/{result.points[0]['shots']}" in table.rows[0]
        assert any(note.startswith("A block failure is a shot") for note in result.notes)
        files = sorted((measured / result.path).glob("*.png"))
        assert [(plot.name, plot.png) for plot in result.plots] == [(file.name, file.read_bytes()) for file in files]
        assert all(plot.width > 300 and plot.height > 150 for plot in result.plots)


def test_a_benchmarks_directory_is_a_tree(measured):
    [result] = read_tree(measured / "accuracy")
    assert (str(result.path), result.kind) == (".", "accuracy")


def test_the_projects_own_results_can_be_read():
    results = read_tree(REPOSITORY / "docs" / "results")
    assert {"accuracy", "calibration", "latency"} == {result.kind for result in results}
    calibration = next(result for result in results if result.kind == "calibration")
    assert "share of failures" in calibration.tables[1].headings


def test_directories_come_in_natural_order(tree):
    for name in ("p10", "p2", "p9/below"):
        shutil.copytree(tree / "accuracy", tree / name)
    assert [str(result.path) for result in read_tree(tree)] == ["accuracy", "deep/latency", "p2", "p9/below", "p10"]


def test_links_that_form_a_loop_are_not_followed(tree):
    (tree / "deep" / "loop").symlink_to(tree, target_is_directory=True)
    assert len(read_tree(tree)) == 2


def test_a_paragraph_with_a_colon_is_its_tables_title(tree):
    path = tree / "accuracy" / "results.md"
    path.write_text(
        "| a | b |\n| --- | --- |\n| x \\| y | 2 |\n\nFits of c:\n\n| c |\n| --- |\n| 3 |\n\nSome\nwords.\n\n- list\n"
    )
    accuracy = read_tree(tree)[0]
    assert [(table.title, table.headings, table.rows) for table in accuracy.tables] == [
        ("", ("a", "b"), (("x | y", "2"),)),
        ("Fits of c", ("c",), (("3",),)),
    ]
    assert accuracy.notes == ("Some words.",)


def drop(*keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def put(value, *keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("points"), r"was not written by 'tandem benchmark': it lacks points"),
        (put([], "points"), "holds no points; run the benchmark again"),
        (put([3], "points"), r"points\[0\] is no object"),
        (drop("points", 1, "failures"), r"points\[1\] lacks failures"),
        (put("9", "points", 0, "shots"), r"points\[0\] has values of the wrong type: shots"),
        (put(True, "points", 0, "seed"), r"points\[0\] has values of the wrong type: seed"),
        (put(1, "points", 0, "ece"), "mixes points of accuracy and calibration"),
        (put(float("nan"), "points", 0, "p"), "is no valid JSON .it holds NaN"),
        (put("\ud800", "points", 0, "code"), "is no valid JSON .*surrogates not allowed"),
        (drop("provenance", "machine"), "provenance lacks machine"),
        (drop("provenance", "machine", "cpu"), "provenance.machine lacks cpu"),
        (put({"commit": "a"}, "provenance", "git"), "provenance.git lacks clean"),
        (drop("provenance", "circuits", 0, "sha256"), r"provenance.circuits\[0\] lacks sha256"),
        (put(["w"], "provenance", "weights"), r"provenance.weights\[0\] is no object"),
    ],
)
def test_a_results_json_that_is_not_ours_is_refused(tree, edit, change, message):
    edit(change, "accuracy")
    with pytest.raises(ValueError, match=f"accuracy/results.json .*{message}|accuracy/results.json {message}"):
        read_tree(tree)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", b'{"points": [', "results.json is no valid JSON"),
        ("results.json", b"[" * 100_000, "results.json is no valid JSON"),
        ("results.json", b"\xff\xfe\xfd", "results.json is no valid JSON"),
        ("results.json", b"[]", "it is no object"),
        ("results.md", b"words", "results.md holds no table"),
        ("results.md", b"| a |\n| --- |\n| 1 | 2 |\n", "rows differ in length"),
        ("results.md", b"\xff", "results.md is no UTF-8 text"),
        ("ler.png", b"GIF89a", "ler.png is no PNG image"),
    ],
)
def test_a_corrupt_file_is_refused(tree, name, content, message):
    (tree / "accuracy" / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_tree(tree)


def test_what_is_missing_is_named(tree):
    (tree / "accuracy" / "results.md").unlink()
    with pytest.raises(FileNotFoundError, match=r"accuracy/results\.md, which holds the tables; run the benchmark"):
        read_tree(tree)
    with pytest.raises(FileNotFoundError, match="there is no directory absent"):
        read_tree(Path("absent"))
    with pytest.raises(NotADirectoryError, match="is a file; give the directory"):
        read_tree(tree / "accuracy" / "results.csv")
    (tree / "empty").mkdir()
    with pytest.raises(ValueError, match=r"there is no results\.json in .*empty or below"):
        read_tree(tree / "empty")
